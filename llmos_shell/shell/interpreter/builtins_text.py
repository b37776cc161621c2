"""`echo` and `printf`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llmos_shell.shell.interpreter.builtins import assign_to, usage, write
from llmos_shell.shell.interpreter.redirect import write_all

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


_DIRECTIVE = re.compile(rb"%(?:(%)|([-+ #0]*)(\*|[0-9]+)?(?:\.(\*|[0-9]*))?(.|\Z))", re.DOTALL)


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
        return assign_to(shell, words, name, data.decode("utf-8", "surrogateescape")) or formatter.status
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

    def _refuse(self, directive: bytes) -> bytes:
        self._ended = True
        self.status = self._shell.complain(f"printf: {directive.decode(errors='replace')}: unknown directive", 1)
        return b""

    def _next(self) -> str | None:
        if self._at >= len(self._arguments):
            return None
        self._at += 1
        return self._arguments[self._at - 1]

    def _directive(self, match: re.Match[bytes]) -> bytes:
        kind = match.group(5).decode("latin-1")
        if not kind or kind not in "diouxXeEfFgGcsbq":
            return self._refuse(match.group())
        flags = match.group(2).decode()
        width = self._size(match.group(3))
        precision = self._size(match.group(4)) if match.group(4) is not None else None
        if width is not None and width < 0:
            flags, width = f"{flags}-", -width
        argument = self._next()
        if kind in "csbq":
            return self._text(kind, flags, width, precision, argument or "")
        spec = f"%{''.join(dict.fromkeys(flags))}{width or ''}{'' if precision is None else f'.{precision}'}"
        if kind in "diouxX":
            number = self._integer(argument)
            if kind in "ouxX":
                number &= 0xFFFFFFFFFFFFFFFF
            if kind == "o" and "#" in flags:
                digits = f"0{f'{number:o}'.rjust(precision or 0, '0').lstrip('0')}"
                return (digits.ljust(width or 0) if "-" in flags else digits.rjust(width or 0)).encode()
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
            data = (argument[:1] or "\0" if kind == "c" else argument).encode("utf-8", "surrogateescape")
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
