"""Files of commands: which descriptor of this process stands for each descriptor a command sees, and redirections.

Nothing is ever duplicated onto 0, 1 or 2 of this process, so that commands in several threads do not get in each
other's way; a program gets its descriptors when it is started.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Mapping

from llmos_shell.lang.ast import Redirect, Word

PIPE_BYTES = 65536
"""What a pipe surely takes without a reader (Linux's default capacity)."""


class RedirectError(Exception):
    """A file cannot be opened, or a descriptor is not open; the text is for people."""


class Files:
    """A table of descriptors. What it does not mention is inherited; None is closed. Never changed once made."""

    __slots__ = ("table",)

    def __init__(self, table: Mapping[int, int | None] | None = None) -> None:
        self.table: dict[int, int | None] = dict(table) if table else {}

    def get(self, fd: int) -> int:
        """The descriptor of this process behind `fd`. Raises `OSError` if it is closed."""
        real = self.table.get(fd, -1)
        if real == -1:
            if fd > 2 and not _is_inherited(fd):
                raise OSError(errno.EBADF, "descriptor is not open")
            return fd
        if real is None:
            raise OSError(errno.EBADF, "descriptor is closed")
        return real

    def replace(self, changes: Mapping[int, int | None]) -> Files:
        """A table with these changes."""
        files = Files.__new__(Files)
        files.table = {**self.table, **changes}
        return files


def _is_inherited(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


class Redirection:
    """Redirections carried out: the new table, and the descriptors to close when the command is done."""

    __slots__ = ("files", "opened")

    def __init__(self, files: Files) -> None:
        self.files = files
        self.opened: list[int] = []

    def close(self) -> None:
        """Closes what was opened."""
        for fd in self.opened:
            with contextlib.suppress(OSError):
                os.close(fd)
        self.opened = []

    def add(self, redirect: Redirect, expand: Callable[[Word], str], noclobber: bool) -> None:
        """Carries out one redirection. Raises `RedirectError`."""
        operator, target = redirect.operator, expand(redirect.target)
        fd = redirect.fd if isinstance(redirect.fd, int) else (0 if operator[0] == "<" else 1)
        if operator in ("<<", "<<<"):
            try:
                self._set(fd, _here_document(target if operator == "<<" else f"{target}\n"))
            except OSError as error:
                raise RedirectError(f"here-document: {(error.strerror or str(error)).lower()}") from None
        elif operator == "<&" or (operator == ">&" and (redirect.fd is not None or _is_descriptor(target))):
            self._duplicate(fd, target)
        else:
            opened = _open(target, operator, noclobber)
            self._set(fd, opened)
            if operator[0] == "&" or operator == ">&":
                self.files = self.files.replace({2: opened})

    def _set(self, fd: int, real: int) -> None:
        self.opened.append(real)
        self.files = self.files.replace({fd: real})

    def _duplicate(self, fd: int, target: str) -> None:
        if target == "-":
            self.files = self.files.replace({fd: None})
            return
        if not _is_descriptor(target):
            raise RedirectError(f"{target}: is no file descriptor")
        try:
            self.files = self.files.replace({fd: self.files.get(int(target))})
        except OSError:
            raise RedirectError(f"{target}: file descriptor is not open") from None


def _is_descriptor(text: str) -> bool:
    return text == "-" or (text.isascii() and text.isdigit() and len(text) < 5)


_FLAGS = {
    "<": os.O_RDONLY,
    "<>": os.O_RDWR | os.O_CREAT,
    ">": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    ">>": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
}


def _open(path: str, operator: str, noclobber: bool) -> int:
    kind = operator.lstrip("&").rstrip("|&")
    flags = _FLAGS[kind] | os.O_CLOEXEC
    try:
        if noclobber and operator in (">", "&>") and os.path.isfile(path):
            raise RedirectError(f"{path}: exists, and `set -C` keeps it: use >|")
        return os.open(path, flags, 0o666)
    except ValueError:
        raise RedirectError(f"{path!r}: is no file name") from None
    except OSError as error:
        raise RedirectError(f"{path}: {(error.strerror or str(error)).lower()}") from None


def _here_document(text: str) -> int:
    """A descriptor to read the text from: a pipe where it fits, else a file without a name."""
    data = text.encode("utf-8", "surrogateescape")
    if len(data) <= PIPE_BYTES:
        reader, writer = os.pipe()
        try:
            os.write(writer, data)
        finally:
            os.close(writer)
        return reader
    import tempfile

    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        fd = os.dup(file.fileno())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def write_all(fd: int, data: bytes) -> None:
    """Writes everything. Raises `OSError`, `BrokenPipeError` among them."""
    while data:
        written = os.write(fd, data)
        data = data[written:]
