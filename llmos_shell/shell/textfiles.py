"""Text from outside: files, pipes and the command line hold UTF-8, or are refused with the place of what is wrong."""

from __future__ import annotations

from llmos_shell.abi.errors import Code, LlmosError


def read_text_file(path: str) -> str:
    """A file's text. Raises EINVAL unless it is UTF-8."""
    with open(path, "rb") as file:
        return decode(file.read(), path)


def decode(data: bytes, source: str) -> str:
    """The text of UTF-8 bytes. Raises EINVAL with the place of the first byte that is wrong."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        what = f"{source} is not UTF-8 (byte {error.start} is 0x{data[error.start]:02x})"
        raise LlmosError(Code.EINVAL, what, hint="convert it with iconv") from None


def check_text(text: str, source: str) -> None:
    """Raises EINVAL for bytes on the command line that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise LlmosError(Code.EINVAL, f"{source} is not UTF-8 (character {error.start})", hint="convert it") from None
