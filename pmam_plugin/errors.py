"""What whoever calls is told: that the input is wrong, not the program, and how far work is."""

from collections.abc import Callable

Progress = Callable[[str, float, float], None]
"""A hook: called with what is being done, how much of it is done, and of how much (files, clips or seconds)."""


class InputError(ValueError):
    """A file, table, checkpoint or setting that cannot be used as it is.

    The message is one sentence that names the file (and row or key) and the cure; the command line prints it as is
    and exits with status 1, and nothing in this package raises it for any other reason.
    """


def reason(error: BaseException) -> str:
    """What a library says of its error, on one line of 200 letters at most: for the brackets of a sentence of ours."""
    return " ".join(str(error).split())[:200].rstrip(". ") or type(error).__name__


def told(error: BaseException) -> str | None:
    """The line for the user: of an InputError, in whatever was wrapped around it (HyperPyYAML does), or of a file that
    the system refuses; None where the program is at fault."""
    if isinstance(error, OSError) and error.filename is not None:
        cure = "; check its permissions" if isinstance(error, PermissionError) else ""
        return f"{error.filename}: {error.strerror}{cure}"
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, InputError):
        inner = inner.__cause__ or inner.__context__
    return None if inner is None else " ".join(str(inner).split())
