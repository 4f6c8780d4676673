"""The one exception type that means: the input is wrong, not the program."""


class InputError(ValueError):
    """A file, table, checkpoint or setting that cannot be used as it is.

    The message is one sentence that names the file (and row or key) and the cure; the command line prints it as is
    and exits with status 1, and nothing in this package raises it for any other reason.
    """
