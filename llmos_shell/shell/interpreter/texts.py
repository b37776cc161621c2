"""The texts of scripts: what is one, and what is not."""

from __future__ import annotations

_BINARY_BEGINNINGS = (
    b"\x7fELF",
    b"\x89PNG",
    b"\x1f\x8b",
    b"PK\x03\x04",
    b"\xfe\xff",
    b"\xff\xfe",
    b"GGUF",
    b"\xff\xd8\xff",
)
_PROBE_BYTES = 128


class NoText(Exception):
    """What should be a program is none, or cannot be read; `status` is 126, 127 or 2."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def read_script(path: str) -> str:
    """The text of a script file. Raises `NoText`."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except ValueError:
        raise NoText("is no file name", 127) from None
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        raise NoText((error.strerror or str(error)).lower(), 127 if missing else 126) from None
    return decode_script(data)


def decode_script(data: bytes) -> str:
    """The text of a script. Raises `NoText` if it is a program of the host, a picture or the like."""
    beginning = data[:_PROBE_BYTES]
    if beginning.startswith((b"\xfe\xff", b"\xff\xfe")):
        raise NoText("cannot execute binary file: it is UTF-16: convert it with iconv", 126)
    if beginning.startswith(_BINARY_BEGINNINGS) or b"\0" in beginning:
        raise NoText("cannot execute binary file", 126)
    return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
