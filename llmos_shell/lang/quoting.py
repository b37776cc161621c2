r"""Text in quotes: what `$'…'` stands for, and values as words that can be read again."""

from __future__ import annotations

import re

_ANSI = re.compile(
    rb"\\(?:([abeEfnrtv\\'\"?])|([0-7]{1,3})|x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{1,4})|U([0-9a-fA-F]{1,8})|c(.))",
    re.DOTALL,
)
_ANSI_CHARS = dict(zip(b"abeEfnrtv\\'\"?", b"\a\b\x1b\x1b\f\n\r\t\v\\'\"?", strict=True))
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]+\Z")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\udc80-\udcff]")
_NAMED = {"\a": "\\a", "\b": "\\b", "\x1b": "\\E", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}


def decode_ansi(text: str) -> str:
    """The text inside `$'…'` with its escapes replaced. Bytes that are no UTF-8 become surrogate escapes."""

    def replace(match: re.Match[bytes]) -> bytes:
        char, octal, byte, short, long, control = match.groups()
        if char:
            return bytes([_ANSI_CHARS[char[0]]])
        if octal:
            return bytes([int(octal, 8) & 255])
        if byte:
            return bytes([int(byte, 16)])
        if control:
            return b"\x7f" if control == b"?" else bytes([control[0] & 31])
        return chr(min(int(short or long, 16), 0x10FFFF)).encode("utf-8", "surrogatepass")

    data = _ANSI.sub(replace, text.encode("utf-8", "surrogateescape"))
    return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def quote_value(text: str) -> str:
    """The text in quotes, whatever it holds (`${x@Q}`)."""
    if not _UNPRINTABLE.search(text):
        return "'" + text.replace("'", "'\\''") + "'"
    body = text.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + _UNPRINTABLE.sub(_escape, body) + "'"


def quote_word(text: str) -> str:
    """The text as a word, in quotes only if it needs them."""
    return text if _PLAIN.match(text) else quote_value(text)


def _escape(match: re.Match[str]) -> str:
    char = match.group()
    return _NAMED.get(char) or f"\\{char.encode('utf-8', 'surrogateescape')[0]:03o}"
