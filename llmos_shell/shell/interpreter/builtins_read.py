"""`read` and `mapfile`."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmos_shell.lang.fields import DEFAULT_IFS
from llmos_shell.shell.interpreter.arrays import Array
from llmos_shell.shell.interpreter.builtins import assign_to, usage
from llmos_shell.shell.interpreter.redirect import write_all
from llmos_shell.shell.interpreter.variables import VALID_NAME

if TYPE_CHECKING:
    from llmos_shell.shell.interpreter.shell import Shell

TIMED_OUT = 142
"""Exit status of a `read` whose time ran out: 128 + SIGALRM."""

_OPTION = re.compile(r"-[a-zA-Z]")


class _Wrong(Exception):
    pass


class _Options:
    """What `read` was asked for; `array` is the name to read fields into, `count` how many characters at most."""

    def __init__(self, *, raw: bool = False, delimiter: bytes = b"\n") -> None:
        self.raw = raw
        self.delimiter = delimiter
        self.silent = False
        self.exact = False
        self.prompt = ""
        self.array = ""
        self.count: int | None = None
        self.seconds: float | None = None
        self.fd = 0


def read(shell: Shell, words: list[str]) -> int:
    """Reads a line into variables, or with `-a` its fields into an array."""
    try:
        options, names = _parse(words[1:])
        fd = shell.files.get(options.fd)
    except _Wrong as error:
        return usage(shell, words, str(error))
    for name in [options.array] if options.array else [re.sub(r"\[.+\]\Z", "", name) for name in names]:
        if not VALID_NAME.match(name):
            return usage(shell, words, f"{name}: is no variable's name")
    if options.seconds == 0:
        return int(not _is_ready(fd, 0))
    if options.prompt and os.isatty(fd):
        write_all(shell.files.get(2), options.prompt.encode("utf-8", "surrogateescape"))
    try:
        with _terminal_mode(fd, options):
            line, complete = _read(fd, options)
    except TimeoutError:
        return TIMED_OUT
    if options.array:
        fields = _split(shell, line, None, options.raw)
        shell.variables.set_array(options.array, Array(items=dict(enumerate(fields))))
        return int(not complete)
    fields = [line] if options.exact else _split(shell, line, len(names), options.raw)
    for name, value in zip(names or ["REPLY"], [*fields, *[""] * len(names)], strict=False):
        assign_to(shell, words, name, value)
    return int(not complete)


def _parse(arguments: list[str]) -> tuple[_Options, list[str]]:
    """Options, letters of which may be joined (`-rp TEXT`), and names. Raises `_Wrong`."""
    options, arguments = _Options(), list(arguments)
    while arguments and _OPTION.match(arguments[0]):
        word = arguments.pop(0)
        at = 1
        while at < len(word):
            letter, rest = word[at], word[at + 1 :]
            at += 1
            if letter in "rse":
                options.raw, options.silent = options.raw or letter == "r", options.silent or letter == "s"
                continue
            if letter not in "pdantNu":
                raise _Wrong(f"-{letter}: unknown option; -r -s -a -d -n -N -p -t -u are known")
            if not rest and not arguments:
                raise _Wrong(f"-{letter}: an argument is missing")
            _set_option(options, letter, rest or arguments.pop(0))
            break
    if arguments[:1] == ["--"]:
        arguments.pop(0)
    return options, arguments


def _set_option(options: _Options, letter: str, value: str) -> None:
    if letter == "p":
        options.prompt = value
    elif letter == "d":
        options.delimiter = value[:1].encode() or b"\0"
    elif letter == "a":
        options.array = value
    elif letter == "t":
        try:
            options.seconds = max(float(value), 0.0)
        except ValueError:
            raise _Wrong(f"-t: {value}: is no number of seconds") from None
    elif not (value.isascii() and value.isdigit() and len(value) < 10):
        raise _Wrong(f"-{letter}: {value}: is no number")
    elif letter == "u":
        options.fd = int(value)
    else:
        options.count, options.exact = int(value), letter == "N"


def mapfile(shell: Shell, words: list[str]) -> int:
    """Reads lines into an array (`MAPFILE` unless named): `-t` without their ends."""
    arguments, strip, name = words[1:], False, "MAPFILE"
    numbers = {"n": 0, "O": -1, "s": 0, "u": 0}
    delimiter = b"\n"
    while arguments and _OPTION.match(arguments[0]):
        word = arguments.pop(0)
        if word[1:] == "t" * len(word[1:]):
            strip = True
            continue
        if word[1] == "t":
            strip, word = True, f"-{word[2:]}"
        value = word[2:] or (arguments.pop(0) if arguments else "")
        if word[1] == "d":
            delimiter = value[:1].encode() or b"\0"
        elif word[1] in numbers and value.isascii() and value.isdigit():
            numbers[word[1]] = int(value)
        else:
            return usage(shell, words, f"{word}: unknown option or no number; -t, -d, -n, -O, -s and -u are known")
    if arguments:
        name = arguments[0]
    if not VALID_NAME.match(name):
        return usage(shell, words, f"{name}: is no variable's name")
    lines = _lines(shell.files.get(numbers["u"]), delimiter, numbers["s"], numbers["n"])
    items = {} if numbers["O"] < 0 else shell.variables.as_array(name).items
    first = max(numbers["O"], 0)
    for index, line in enumerate(lines, first):
        text = line.removesuffix(delimiter) if strip else line
        items[index] = text.replace(b"\0", b"").decode("utf-8", "surrogateescape")
    shell.variables.set_array(name, Array(items=dict(sorted(items.items()))))
    return 0


def _lines(fd: int, delimiter: bytes, skipped: int, count: int) -> list[bytes]:
    """Lines with their ends; no more is read than `count` (0: all) asks for."""
    if not count:
        data = bytearray()
        while block := os.read(fd, 65536):
            data += block
        found = [line + delimiter for line in bytes(data).split(delimiter)]
        found[-1] = found[-1][: -len(delimiter)]
        return [line for line in found[skipped:] if line]
    reader = _Bytes(fd)
    found = []
    while len(found) < skipped + count and (line := reader.line(delimiter)):
        found.append(line)
    reader.close()
    return found[skipped:]


# -- reading ---------------------------------------------------------------------------------------------------------


def read_line(fd: int, delimiter: bytes, raw: bool) -> tuple[str, bool]:
    """A line without its end, continuation lines joined; and whether its end was there. Reads nothing beyond it."""
    return _read(fd, _Options(raw=raw, delimiter=delimiter))


def _read(fd: int, options: _Options) -> tuple[str, bool]:
    reader = _Bytes(fd, options.seconds)
    out = bytearray()
    complete = False
    try:
        while not (options.count is not None and _is_full(out, options.count)):
            char = reader.next()
            if not char:
                break
            if char == options.delimiter and not options.exact:
                complete = True
                break
            if char == b"\\" and not options.raw:
                following = reader.next()
                if following != b"\n":
                    out += char + following
                continue
            out += char
        else:
            complete = True
    finally:
        reader.close()
    return out.replace(b"\0", b"").decode("utf-8", "surrogateescape"), complete


def _is_full(data: bytearray, count: int) -> bool:
    """Whether these are so many whole characters."""
    if len(data) < count:
        return False
    text = data.decode("utf-8", "replace")
    return len(text) >= count and not (text.endswith("\ufffd") and data[-1] >= 0x80 and len(data) < 4 * count)


class _Bytes:
    """Bytes one by one: from a file in blocks, giving back what was too much, else singly."""

    def __init__(self, fd: int, seconds: float | None = None) -> None:
        self._fd = fd
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._block = b""
        self._at = 0
        try:
            os.lseek(fd, 0, os.SEEK_CUR)
            self._size = 1024
        except OSError:
            self._size = 1

    def next(self) -> bytes:
        """The next one; none at the end. Raises `TimeoutError`."""
        if self._at >= len(self._block):
            if self._deadline is not None and not _is_ready(self._fd, self._deadline - time.monotonic()):
                raise TimeoutError
            self._block, self._at = os.read(self._fd, self._size), 0
        self._at += 1
        return self._block[self._at - 1 : self._at]

    def line(self, delimiter: bytes) -> bytes:
        """All up to a delimiter, which is the last byte."""
        out = bytearray()
        while char := self.next():
            out += char
            if char == delimiter:
                break
        return bytes(out)

    def close(self) -> None:
        """Gives back what was not asked for."""
        left = len(self._block) - self._at
        if left > 0:
            os.lseek(self._fd, -left, os.SEEK_CUR)


def _is_ready(fd: int, seconds: float) -> bool:
    import select

    return bool(select.select([fd], [], [], max(seconds, 0.0))[0])


@contextlib.contextmanager
def _terminal_mode(fd: int, options: _Options) -> Iterator[None]:
    """A terminal that does not echo (`-s`), or gives characters before the line ends (`-n`)."""
    if not (options.silent or options.count is not None) or not os.isatty(fd):
        yield
        return
    import termios

    before = termios.tcgetattr(fd)
    mode = termios.tcgetattr(fd)
    if options.silent:
        mode[3] &= ~termios.ECHO
    if options.count is not None:
        mode[3] &= ~termios.ICANON
    termios.tcsetattr(fd, termios.TCSADRAIN, mode)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


# -- splitting -------------------------------------------------------------------------------------------------------


def _split(shell: Shell, line: str, count: int | None, raw: bool) -> list[str]:
    """The line's fields for `count` variables, of which the last gets all that is left; all fields for None."""
    chars = [(char, False) for char in line] if raw else _unquote(line)
    if count == 0:
        return ["".join(char for char, _ in chars)]
    ifs = shell.lookup("IFS")
    ifs = DEFAULT_IFS if ifs is None else ifs
    white = {char for char in ifs if char in DEFAULT_IFS}
    hard = set(ifs) - white

    def is_white(index: int) -> bool:
        return chars[index][0] in white and not chars[index][1]

    def is_hard(index: int) -> bool:
        return chars[index][0] in hard and not chars[index][1]

    fields: list[str] = []
    at, end = 0, len(chars)
    while at < end and is_white(at):
        at += 1
    while at < end and (count is None or len(fields) < count - 1):
        start = at
        while at < end and not is_white(at) and not is_hard(at):
            at += 1
        fields.append("".join(char for char, _ in chars[start:at]))
        while at < end and is_white(at):
            at += 1
        if at < end and is_hard(at):
            at += 1
            while at < end and is_white(at):
                at += 1
    if count is None:
        return fields
    while end > at and is_white(end - 1):
        end -= 1
    if end > at and is_hard(end - 1) and not any(is_hard(i) or is_white(i) for i in range(at, end - 1)):
        end -= 1
        while end > at and is_white(end - 1):
            end -= 1
    fields.append("".join(char for char, _ in chars[at:end]))
    return fields + [""] * (count - len(fields))


def _unquote(line: str) -> list[tuple[str, bool]]:
    chars: list[tuple[str, bool]] = []
    escaped = False
    for char in line:
        if escaped:
            chars.append((char, True))
            escaped = False
        elif char == "\\":
            escaped = True
        else:
            chars.append((char, False))
    return chars
