"""Programs on standard input, which they share with their own commands: no more is read than the command that is about
to run.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llmos_shell.lang.errors import ShellSyntaxError, Source
from llmos_shell.lang.lexer import EOF
from llmos_shell.lang.parser import Parser
from llmos_shell.shell.interpreter.texts import NoText, decode_script

if TYPE_CHECKING:
    from llmos_shell.shell.interpreter.shell import Shell


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
    while shell.exited is None:
        first_line = lines.count + 1
        text = _next_command(lines)
        if not text:
            return
        shell.run_text(text, "stdin", first_line)


def _next_command(lines: _Lines) -> str:
    """The text of a command, and of empty lines and comments before it; nothing at the end of the input."""
    text = ""
    while line := lines.next():
        text += line
        begun = line.lstrip(" \t")
        if begun.startswith("?"):
            return text  # a question to the assistant
        if begun.strip() and not begun.startswith("#"):
            break
    while line:
        parser = _GrowingParser(Source(text), lines)
        try:
            parser.next_command()
        except ShellSyntaxError as error:
            line = lines.next() if error.incomplete else ""
            text = parser.text + line
        else:
            return parser.text
    return text


class _GrowingParser(Parser):
    """Takes another line where a token is not finished, or where more have to follow."""

    def __init__(self, source: Source, lines: _Lines) -> None:
        super().__init__(source, more=True)
        self._lines = lines

    def advance(self) -> None:
        """The next token; of the lines no more is read than it takes."""
        before = self.position, list(self.pending), self.depth
        while True:
            try:
                super().advance()
            except ShellSyntaxError as error:
                if not error.incomplete or not self._grow():
                    raise
            else:
                if self.kind != EOF or not self._grow():
                    return
            self.position, self.pending, self.depth = before[0], list(before[1]), before[2]

    def _grow(self) -> bool:
        if not self.more:
            return False
        line = self._lines.next()
        self.more = bool(line)  # at the end of the input a here-document, for one, needs no delimiter
        self.text += line
        self.source.replace(self.text)
        return True

    def read_here_documents(self) -> None:
        """Reads lines up to the delimiters first, instead of trying again with each."""
        at = self.position
        for redirect, delimiter, _ in self.pending:
            line = None
            while line != delimiter and (at < len(self.text) or self._grow()):
                end = self.text.find("\n", at)
                line, at = (self.text[at:end], end + 1) if end >= 0 else (self.text[at:], len(self.text))
                line = line.lstrip("\t") if redirect.operator == "<<-" else line
        super().read_here_documents()


class _Lines:
    """Lines of a descriptor. A file is read in blocks, and the descriptor put back to behind the line."""

    def __init__(self, fd: int) -> None:
        self.count = 0  # how many were read
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
        self.count += 1
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
