"""`echo`, `printf` and `read`."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from llmos_shell.lang.expansion import DEFAULT_IFS
from llmos_shell.shell.interpreter.builtins import usage, write
from llmos_shell.shell.interpreter.redirect import write_all
from llmos_shell.shell.interpreter.variables import VALID_NAME

if TYPE_CHECKING:
    from llmos_shell.shell.interpreter.shell import Shell

_ESCAPE = re.compile(rb"\\(?:([abefnrtv\\])|0([0-7]{0,3})|([1-7][0-7]{0,2})|x([0-9a-fA-F]{1,2})|(c))")
_ESCAPED = {97: 7, 98: 8, 101: 27, 102: 12, 110: 10, 114: 13, 116: 9, 118: 11, 92: 92}


def echo(shell: Shell, words: list[str]) -> int:
    """Writes its arguments: `-n` without a newline, `-e` with escapes."""
    arguments, newline, escapes = words[1:], True, False
    while arguments and re.match(r"-[neE]+\Z", arguments[0]):
        for letter in arguments.pop(0)[1:]:
            newline = newline and letter != "n"
            escapes = (escapes or letter == "e") and letter != "E"
    text = " ".join(arguments)
    if not escapes:
        return write(shell, f"{text}\n" if newline else text)
    data, ended = unescape(text)
    write_all(shell.files.get(1), data if ended or not newline else data + b"\n")
    return 0


def unescape(text: str, *, zero: bool = True) -> tuple[bytes, bool]:
    r"""The text with backslash escapes replaced, and whether `\c` ended it. With `zero`, octal is `\0nnn` too."""
    ended = False

    def replace(match: re.Match[bytes]) -> bytes:
        char, octal, digits, byte, _ = match.groups()
        if char:
            return bytes([_ESCAPED[char[0]]])
        if octal is not None:
            return bytes([int(octal or b"0", 8) & 255])
        if digits:
            return bytes([int(digits, 8) & 255])
        return bytes([int(byte, 16)])

    data = text.encode("utf-8", "surrogateescape")
    for match in _ESCAPE.finditer(data):
        if match.group(5):
            data, ended = data[: match.start()], True
            break
    return _ESCAPE.sub(replace, data), ended


_DIRECTIVE = re.compile(rb"%(?:(%)|([-+ #0]*)(\*|[0-9]+)?(?:\.(\*|[0-9]*))?([diouxXeEfFgGcsbq]))")


def printf(shell: Shell, words: list[str]) -> int:
    """Writes arguments by a format, which is used again until none is left."""
    arguments = words[1:]
    if arguments[:1] == ["--"]:
        arguments.pop(0)
    name = ""
    if arguments[:1] == ["-v"] and len(arguments) > 2:
        name, arguments = arguments[1], arguments[2:]
    if not arguments:
        return usage(shell, words, "wants a format")
    formatter = _Formatter(shell, arguments[1:])
    data = formatter.run(_format_bytes(arguments[0]))
    if name:
        shell.assign(name, data.decode("utf-8", "surrogateescape"))
    else:
        write_all(shell.files.get(1), data)
    return formatter.status


def _format_bytes(text: str) -> bytes:
    """The format with its escapes replaced; `%` made by an escape stays text."""
    data = text.encode("utf-8", "surrogateescape")

    def replace(match: re.Match[bytes]) -> bytes:
        char, octal, digits, byte, _ = match.groups()
        if char:
            out = bytes([_ESCAPED[char[0]]])
        elif octal is not None:
            out = bytes([int(b"0" + octal[:2], 8) & 255]) + octal[2:]
        elif digits:
            out = bytes([int(digits, 8) & 255])
        elif byte:
            out = bytes([int(byte, 16)])
        else:
            return match.group()
        return out.replace(b"%", b"%%")

    return _ESCAPE.sub(replace, data)


class _Formatter:
    def __init__(self, shell: Shell, arguments: list[str]) -> None:
        self._shell = shell
        self._arguments = arguments
        self._at = 0
        self._ended = False
        self.status = 0

    def run(self, template: bytes) -> bytes:
        """The output for all arguments."""
        out: list[bytes] = []
        while not self._ended:
            before = self._at
            out.append(self._once(template))
            if self._at == before or self._at >= len(self._arguments):
                break
        return b"".join(out)

    def _once(self, template: bytes) -> bytes:
        out: list[bytes] = []
        at = 0
        for match in _DIRECTIVE.finditer(template):
            out.append(template[at : match.start()])
            at = match.end()
            out.append(b"%" if match.group(1) else self._directive(match))
            if self._ended:
                return b"".join(out)
        return b"".join(out) + template[at:]

    def _next(self) -> str | None:
        if self._at >= len(self._arguments):
            return None
        self._at += 1
        return self._arguments[self._at - 1]

    def _directive(self, match: re.Match[bytes]) -> bytes:
        flags = match.group(2).decode()
        width = self._size(match.group(3))
        precision = self._size(match.group(4)) if match.group(4) is not None else None
        if width is not None and width < 0:
            flags, width = f"{flags}-", -width
        kind = match.group(5).decode()
        argument = self._next()
        if kind in "csbq":
            return self._text(kind, flags, width, precision, argument or "")
        spec = f"%{''.join(dict.fromkeys(flags))}{width or ''}{'' if precision is None else f'.{precision}'}"
        if kind in "diouxX":
            number = self._integer(argument)
            if kind in "ouxX":
                number &= 0xFFFFFFFFFFFFFFFF
            return (spec + ("d" if kind in "iu" else kind)).__mod__(number).encode()
        return (spec + kind).__mod__(self._float(argument)).encode()

    def _size(self, text: bytes | None) -> int | None:
        if text is None:
            return None
        return self._integer(self._next()) if text == b"*" else min(int(text or b"0"), 1 << 20)

    def _text(self, kind: str, flags: str, width: int | None, precision: int | None, argument: str) -> bytes:
        if kind == "b":
            data, self._ended = unescape(argument)
        elif kind == "q":
            from shlex import quote

            data = quote(argument).encode("utf-8", "surrogateescape")
        else:
            data = (argument[:1] if kind == "c" else argument).encode("utf-8", "surrogateescape")
        if precision is not None:
            data = data[:precision]
        return data.ljust(width or 0) if "-" in flags else data.rjust(width or 0)

    def _integer(self, argument: str | None) -> int:
        text = (argument or "").strip()
        if not text:
            return 0
        if text[0] in "'\"":
            return ord(text[1]) if len(text) > 1 else 0
        match = re.match(r"([-+]?)(0[xX][0-9a-fA-F]+|[0-9]+)", text)
        if match is None or match.end() != len(text):
            self.status = self._shell.complain(f"printf: {text}: is no number", 1)
        if match is None or len(match.group(2)) > 30:
            return 0
        digits = match.group(2)
        octal = digits[0] == "0" and digits.isdigit() and not set(digits) & set("89")
        value = int(digits, 16) if digits[:2] in ("0x", "0X") else int(digits, 8 if octal else 10)
        return -value if match.group(1) == "-" else value

    def _float(self, argument: str | None) -> float:
        try:
            return float(argument) if argument else 0.0
        except ValueError:
            self.status = self._shell.complain(f"printf: {argument}: is no number", 1)
            return 0.0


# -- read ------------------------------------------------------------------------------------------------------------


def read(shell: Shell, words: list[str]) -> int:
    """Reads a line into variables: `-r` leaves backslashes alone, `-p TEXT` prompts, `-d CHAR` ends it elsewhere."""
    arguments, raw, prompt, delimiter = words[1:], False, "", b"\n"
    while arguments and arguments[0].startswith("-") and len(arguments[0]) > 1:
        option = arguments.pop(0)
        if option == "--":
            break
        if option in ("-p", "-d") and arguments:
            value = arguments.pop(0)
            prompt, delimiter = (value, delimiter) if option == "-p" else (prompt, value[:1].encode() or b"\0")
        elif set(option[1:]) <= {"r"}:
            raw = True
        else:
            return usage(shell, words, f"{option}: unknown option; -r, -p TEXT and -d CHAR are known")
    names = arguments or ["REPLY"]
    for name in names:
        if not VALID_NAME.match(name):
            return usage(shell, words, f"{name}: is no variable's name")
    fd = shell.files.get(0)
    if prompt and os.isatty(fd):
        write_all(shell.files.get(2), prompt.encode())
    line, complete = _read_line(fd, delimiter, raw)
    for name, value in zip(names, _split(shell, line, len(names), raw, bool(arguments)), strict=True):
        shell.assign(name, value)
    return 0 if complete else 1


def _read_line(fd: int, delimiter: bytes, raw: bool) -> tuple[str, bool]:
    """A line without its end, continuation lines joined; and whether its end was there. Reads nothing beyond it."""
    reader = _Bytes(fd)
    out = bytearray()
    complete = False
    while char := reader.next():
        if char == delimiter:
            complete = True
            break
        if char == b"\\" and not raw:
            following = reader.next()
            if following != b"\n":
                out += char + following
            continue
        out += char
    reader.close()
    return out.replace(b"\0", b"").decode("utf-8", "surrogateescape"), complete


class _Bytes:
    """Bytes one by one: from a file in blocks, giving back what was too much, else singly."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._block = b""
        self._at = 0
        try:
            os.lseek(fd, 0, os.SEEK_CUR)
            self._size = 1024
        except OSError:
            self._size = 1

    def next(self) -> bytes:
        if self._at >= len(self._block):
            self._block, self._at = os.read(self._fd, self._size), 0
        self._at += 1
        return self._block[self._at - 1 : self._at]

    def close(self) -> None:
        left = len(self._block) - self._at
        if left > 0:
            os.lseek(self._fd, -left, os.SEEK_CUR)


def _split(shell: Shell, line: str, count: int, raw: bool, named: bool) -> list[str]:
    """The line's fields for `count` variables; the last one gets all that is left."""
    chars = [(char, False) for char in line] if raw else _unquote(line)
    if not named:
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
    while at < end and len(fields) < count - 1:
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
