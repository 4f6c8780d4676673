"""What a file is by its first bytes, for the sentence that refuses it where something else is wanted."""

RECORDINGS = {b"RIFF": "wav", b"fLaC": "flac", b"OggS": "ogg", b"ID3": "mp3"}
"""How recordings begin that are read as they are, and how their names end."""

ZIP = b"PK\x03\x04"

# First bytes, what they mean, and the cure, where it is the same whatever was wanted.
_KINDS: tuple[tuple[tuple[bytes, ...], str, str], ...] = (
    ((b"version https://git-lfs",), "a pointer of Git LFS", "fetch the file itself with git lfs pull"),
    ((b"/annex/objects/",), "a pointer of git-annex", "fetch the file itself with git annex get"),
    ((b"\x00\x05\x16\x07",), "a Mac's side file (AppleDouble)", "read the file without ._"),
    ((ZIP,), "a zip archive or a spreadsheet", "unpack it, or save the sheet as CSV or TSV in UTF-8"),
    ((b"\xd0\xcf\x11\xe0",), "a spreadsheet", "save it as CSV or TSV in UTF-8"),
    ((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!"), "an archive", "unpack it"),
    ((b"SQLite format 3",), "a database, such as a project of Audacity", "export what it holds from there"),
    ((b"ooBinaryFile",), "a binary file of Praat", "save it from Praat as a text file"),
    ((b"\x89PNG", b"\xff\xd8\xff"), "an image", ""),
    ((b"%PDF",), "a PDF document", ""),
    ((b"\x93NUMPY",), "an array of NumPy", ""),
    (tuple(RECORDINGS), "a recording", ""),
)


def other_kind(head: bytes, wanted: str, cure: str) -> str | None:
    """``a recording, not a table; name the file of its labels``, say; None where the first bytes tell nothing.

    Args:
        head: of the file, 32 bytes or more.
        wanted: what it should be.
        cure: where the kind has none of its own.
    """
    found = next(((what, own) for starts, what, own in _KINDS if head.startswith(starts)), None)
    return None if found is None else f"{found[0]}, not {wanted}; {found[1] or cure}"
