"""`test` and `[`."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

from llmos_shell.shell.interpreter.builtins import usage
from llmos_shell.shell.interpreter.options import NAMES

if TYPE_CHECKING:
    from llmos_shell.shell.interpreter.shell import Shell


class _Wrong(Exception):
    pass


def test(shell: Shell, words: list[str]) -> int:
    """Status 0 if the expression holds, 1 if not, 2 if it is none."""
    arguments = words[1:]
    if words[0] == "[":
        if not arguments or arguments[-1] != "]":
            return usage(shell, words, "`]` is missing")
        arguments.pop()
    try:
        if len(arguments) == 3 and arguments[1] in BINARY:  # by far the most frequent
            return int(not BINARY[arguments[1]](arguments[0], arguments[2]))
        return int(not _Expression(shell, arguments).value())
    except _Wrong as error:
        return usage(shell, words, str(error))


_ELEMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\[(.+)\])?\Z", re.DOTALL)
_INTEGER = re.compile(r"[ \t\n]*[-+]?[0-9]+[ \t\n]*\Z")


def _integer(text: str) -> int:
    if not _INTEGER.match(text) or len(text) > 4000:
        raise _Wrong(f"{text}: is no integer")
    return int(text)


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):
        return None


def _newer(left: str, right: str) -> bool:
    one, other = _stat(left), _stat(right)
    return one is not None and (other is None or one.st_mtime_ns > other.st_mtime_ns)


def _same(left: str, right: str) -> bool:
    one, other = _stat(left), _stat(right)
    return one is not None and other is not None and os.path.samestat(one, other)


BINARY: dict[str, Callable[[str, str], bool]] = {
    "=": lambda a, b: a == b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "-eq": lambda a, b: _integer(a) == _integer(b),
    "-ne": lambda a, b: _integer(a) != _integer(b),
    "-lt": lambda a, b: _integer(a) < _integer(b),
    "-le": lambda a, b: _integer(a) <= _integer(b),
    "-gt": lambda a, b: _integer(a) > _integer(b),
    "-ge": lambda a, b: _integer(a) >= _integer(b),
    "-nt": _newer,
    "-ot": lambda a, b: _newer(b, a),
    "-ef": _same,
}


def _mode(check: Callable[[int], object]) -> Callable[[str], bool]:
    def holds(path: str) -> bool:
        status = _stat(path)
        return status is not None and bool(check(status.st_mode))

    return holds


def _access(mode: int) -> Callable[[str], bool]:
    def holds(path: str) -> bool:
        try:
            return os.access(path, mode)
        except ValueError:
            return False

    return holds


def _is_link(path: str) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def _has_content(path: str) -> bool:
    status = _stat(path)
    return status is not None and status.st_size > 0


def _of_group(path: str) -> bool:
    status = _stat(path)
    return status is not None and status.st_gid == os.getegid()


def _unread(path: str) -> bool:
    status = _stat(path)
    return status is not None and status.st_mtime_ns > status.st_atime_ns


def _owned(path: str) -> bool:
    status = _stat(path)
    return status is not None and status.st_uid == os.geteuid()


UNARY: dict[str, Callable[[str], bool]] = {
    "-n": bool,
    "-z": lambda text: not text,
    "-e": lambda path: _stat(path) is not None,
    "-f": _mode(stat.S_ISREG),
    "-d": _mode(stat.S_ISDIR),
    "-b": _mode(stat.S_ISBLK),
    "-c": _mode(stat.S_ISCHR),
    "-p": _mode(stat.S_ISFIFO),
    "-S": _mode(stat.S_ISSOCK),
    "-u": _mode(lambda mode: mode & stat.S_ISUID),
    "-g": _mode(lambda mode: mode & stat.S_ISGID),
    "-k": _mode(lambda mode: mode & stat.S_ISVTX),
    "-r": _access(os.R_OK),
    "-w": _access(os.W_OK),
    "-x": _access(os.X_OK),
    "-s": _has_content,
    "-h": _is_link,
    "-L": _is_link,
    "-O": _owned,
    "-G": _of_group,
    "-N": _unread,
}


def is_set(shell: Shell, text: str) -> bool:
    """Whether a variable (`name`), an element (`name[index]`) or any (`name[@]`) is set."""
    match = _ELEMENT.match(text)
    if match is None:
        return text.isdigit() and shell.lookup(text) is not None
    name, index = match.groups()
    if index in ("@", "*"):
        return bool(shell.array(name)) or shell.lookup(name) is not None
    return (shell.lookup(name) if index is None else shell.element(name, index)) is not None


def option_is_on(shell: Shell, name: str) -> bool:
    """Whether an option of `set` is on."""
    return name in NAMES and bool(getattr(shell.options, name))


def is_terminal(shell: Shell, fd: str) -> bool:
    """Whether a descriptor of the shell is a terminal."""
    try:
        return os.isatty(shell.files.get(int(fd)))
    except (OSError, ValueError):
        return False


_OF_SHELL: dict[str, Callable[[Shell, str], bool]] = {"-t": is_terminal, "-v": is_set, "-o": option_is_on}


class _Expression:
    """By the number of arguments up to four, as POSIX says; beyond that by precedence."""

    def __init__(self, shell: Shell, arguments: list[str]) -> None:
        self._shell = shell
        self._words = arguments
        self._at = 0

    def value(self) -> bool:
        words = self._words
        if not words:
            return False
        if len(words) == 1:
            return bool(words[0])
        if len(words) == 2 and words[0] == "!":
            return not words[1]
        if len(words) == 3 and words[0] == "!" and words[1] not in BINARY:
            return not _Expression(self._shell, words[1:]).value()
        if len(words) == 4 and words[0] == "!":
            return not _Expression(self._shell, words[1:]).value()
        value = self._or()
        if self._at < len(words):
            raise _Wrong(f"unexpected `{words[self._at]}`")
        return value

    def _peek(self) -> str | None:
        return self._words[self._at] if self._at < len(self._words) else None

    def _or(self) -> bool:
        value = self._and()
        while self._peek() == "-o":
            self._at += 1
            value = self._and() or value
        return value

    def _and(self) -> bool:
        value = self._not()
        while self._peek() == "-a":
            self._at += 1
            value = self._not() and value
        return value

    def _not(self) -> bool:
        negated = False
        while self._peek() == "!" and self._at + 1 < len(self._words):
            self._at += 1
            negated = not negated
        return self._primary() is not negated

    def _primary(self) -> bool:
        words, at = self._words, self._at
        if at >= len(words):
            raise _Wrong("an argument is missing")
        if at + 2 < len(words) and words[at + 1] in BINARY:
            self._at += 3
            return BINARY[words[at + 1]](words[at], words[at + 2])
        word = words[at]
        if word == "(" and at + 1 < len(words):
            self._at += 1
            value = self._or()
            if self._peek() != ")":
                raise _Wrong("`)` is missing")
            self._at += 1
            return value
        if at + 1 < len(words):
            if word in _OF_SHELL:
                self._at += 2
                return _OF_SHELL[word](self._shell, words[at + 1])
            if word in UNARY:
                self._at += 2
                return UNARY[word](words[at + 1])
            if word.startswith("-") and len(word) == 2 and words[at + 1] not in ("-a", "-o", ")"):
                raise _Wrong(f"{word}: unknown operator")
        self._at += 1
        return bool(word)
