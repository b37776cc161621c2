"""Where programs come from: script files, and standard input, which a program shares with its own commands: of it no
more is read than the command that is about to run.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmos_shell.shell.interpreter.shell import Shell

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
_MAY_END = re.compile(r"\b(?:fi|done|esac)\b|[])}'\"`]|\A\s*\S+\Z")
_SMALL_LINES = 50


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


def read_all(fd: int) -> str:
    """Everything from a descriptor. Raises `NoText`."""
    with open(fd, "rb", closefd=False) as file:
        return _decode(file.read(), 0)


def _decode(data: bytes, before: int) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise NoText(f"is not UTF-8 (byte {before + error.start}): convert it with iconv", 2) from None


def run_stream(shell: Shell, fd: int) -> None:
    """Runs the program that is read from a descriptor, command by command. Raises `NoText`."""
    lines = _Lines(fd)
    text, count, number = "", 0, 0
    while shell.exited is None:
        line = lines.next()
        text += line
        number += 1
        count += 1
        if line and count > _SMALL_LINES and not _MAY_END.search(line):
            continue  # such a line ends nothing: do not read all of it again
        if line and (not text.strip() or shell.complete_input(text.removesuffix("\n")) == "incomplete"):
            continue
        if text:
            shell.run_text(text, "stdin", number - count + 1)
            text, count = "", 0
        if not line:
            return


class _Lines:
    """Lines of a descriptor. A file is read in blocks, and the descriptor put back to behind the line."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before = 0
        try:
            os.lseek(fd, 0, os.SEEK_CUR)
            self._next = self._from_file
        except OSError:
            self._next = self._from_pipe

    def next(self) -> str:
        """A line with its end; nothing at the end of the input. Raises `NoText`."""
        data = self._next()
        if b"\0" in data and not self._before:
            decode_script(data)
        text = _decode(data, self._before)
        self._before += len(data)
        return text

    def _from_file(self) -> bytes:
        pieces: list[bytes] = []
        while block := os.read(self._fd, 4096):
            line, newline, rest = block.partition(b"\n")
            pieces.append(line + newline)
            if newline:
                os.lseek(self._fd, -len(rest), os.SEEK_CUR)
                break
        return b"".join(pieces)

    def _from_pipe(self) -> bytes:
        pieces: list[bytes] = []
        while char := os.read(self._fd, 1):
            pieces.append(char)
            if char == b"\n":
                break
        return b"".join(pieces)
