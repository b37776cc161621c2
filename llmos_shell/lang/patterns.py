"""Shell patterns (`*`, `?`, `[…]`, backslash quoting): matching, trimming, and pathname expansion through a listing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

_SPECIAL = re.compile(r"([*?\[\]\\()|!^-])")
_BRACKET = re.compile(r"\[([!^]?)(\]?(?:\[:[a-z]+:\]|\[\.(?:[a-z-]+|.)\.\]|\[=.=\]|\\.|[^\]\\])*)\]", re.DOTALL)
_PLAIN_BRACKET = re.compile(r"\[(\^?)(\]?(?:\[:[a-z]+:\]|\[\.(?:[a-z-]+|.)\.\]|\[=.=\]|[^\]])*)\]", re.DOTALL)
_CLASS = re.compile(r"\[(?::([a-z]+):|=(.)=)\]", re.DOTALL)
_SYMBOL = re.compile(r"\[\.([a-z-]+|.)\.\]", re.DOTALL)
_SYMBOLS = {"hyphen": "-", "period": ".", "slash": "/", "space": " ", "comma": ",", "colon": ":", "underscore": "_"}
_MAGIC = re.compile(r"[*?]|\[.+\]", re.DOTALL)
_CLASSES = {
    "alnum": r"A-Za-z0-9",
    "alpha": r"A-Za-z",
    "blank": r" \t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": r"0-9",
    "graph": r"\x21-\x7e",
    "lower": r"a-z",
    "print": r"\x20-\x7e",
    "punct": r"!-/:-@\[-`{-~",
    "space": r" \t\n\r\f\v",
    "upper": r"A-Z",
    "xdigit": r"0-9A-Fa-f",
}
_regexes: dict[tuple[str, bool], str] = {}
_CACHE_LIMIT = 512


def quote(text: str) -> str:
    """The pattern that matches just this text."""
    return _SPECIAL.sub(r"\\\1", text)


def has_magic(text: str) -> bool:
    """Whether unquoted text could be more than itself as a pattern."""
    return _MAGIC.search(text) is not None


def matches(pattern: str, text: str, *, extended: bool = False) -> bool:
    """Whether the whole text matches; `extended` patterns know `@(a|b)`, `?(…)`, `*(…)`, `+(…)` and `!(…)`."""
    if extended and "(" in pattern:
        return re.match(_translate(pattern, ".*", extended=True) + r"\Z", text, re.DOTALL) is not None
    return re.match(_regex(pattern, True) + r"\Z", text, re.DOTALL) is not None


def trim(operator: str, value: str, pattern: str) -> str:
    """The value without the shortest (`#`, `%`) or longest (`##`, `%%`) matching prefix or suffix."""
    if operator[0] == "#":
        match = re.match(_regex(pattern, len(operator) == 2), value, re.DOTALL)
        return value if match is None else value[match.end() :]
    before = ".*?" if len(operator) == 2 else ".*"
    match = re.match(f"({before}){_regex(pattern, True)}\\Z", value, re.DOTALL)
    return value if match is None else match.group(1)


def replace(operator: str, value: str, pattern: str, replacement: str) -> str:
    """The value with the first match (`/`), all (`//`), or the one at its beginning or end (`/#`, `/%`) replaced."""
    if not pattern:
        return replacement + value if operator == "/#" else value + replacement if operator == "/%" else value
    regex = _regex(pattern, True)
    if operator == "//" and value:
        return re.sub(regex, lambda match: replacement if match.group() else "", value, flags=re.DOTALL)
    search = re.match if operator == "/#" else re.search
    match = search(f"(?:{regex})\\Z" if operator == "/%" else regex, value, re.DOTALL)
    return value if match is None else value[: match.start()] + replacement + value[match.end() :]


def expand_pathnames(pattern: str, listdir: Callable[[str], Iterable[str]], exists: Callable[[str], bool]) -> list[str]:
    """The existing paths that match, sorted. `listdir` gives no names for what is no folder."""
    found = ["/"] if pattern.startswith("/") else [""]
    segments = pattern.split("/")
    for index, segment in enumerate(segments):
        last = index == len(segments) - 1
        if segment == "" and not last:
            if index > 0:
                found = [f"{path}/" for path in found if not path.endswith("//")]
            continue
        end = "" if last else "/"
        if has_magic(segment):
            found = [f"{path}{name}{end}" for path in found for name in _names(segment, path, listdir)]
            if not last:
                found = [path for path in found if exists(path)]
        else:
            plain = re.sub(r"\\(.)", r"\1", segment, flags=re.DOTALL)
            found = [f"{path}{plain}{end}" for path in found]
    return sorted(path for path in found if exists(path))


def _names(segment: str, path: str, listdir: Callable[[str], Iterable[str]]) -> list[str]:
    regex = re.compile(_regex(segment, True) + r"\Z", re.DOTALL)
    hidden = segment.startswith((".", "\\."))
    return [name for name in listdir(path or ".") if (hidden or name[0] != ".") and regex.match(name)]


def _regex(pattern: str, greedy: bool) -> str:
    regex = _regexes.get((pattern, greedy))
    if regex is None:
        if len(_regexes) >= _CACHE_LIMIT:
            _regexes.clear()
        regex = _regexes[pattern, greedy] = _translate(pattern, ".*" if greedy else ".*?")
    return regex


def _translate(pattern: str, star: str, *, extended: bool = False) -> str:
    pieces: list[str] = []
    at, end = 0, len(pattern)
    while at < end:
        char = pattern[at]
        at += 1
        close = _group_end(pattern, at) if extended and char in "@?*+!" else 0
        if close:
            choices = "|".join(_translate(each, star, extended=True) for each in _choices(pattern[at + 1 : close]))
            at = close + 1
            if char == "!":
                rest = _translate(pattern[at:], star, extended=True)
                return f"{''.join(pieces)}(?!(?:{choices}){rest}\\Z){star}{rest}"
            pieces.append(f"(?:{choices}){'' if char == '@' else char}")
        elif char == "*":
            if not pieces or pieces[-1] != star:
                pieces.append(star)
        elif char == "?":
            pieces.append(".")
        elif char == "\\" and at < end:
            pieces.append(re.escape(pattern[at]))
            at += 1
        elif char == "[" and (match := _BRACKET.match(pattern, at - 1)) and match.group(2):
            pieces.append(_bracket(match.group(1), match.group(2)))
            at = match.end()
        else:
            pieces.append(re.escape(char))
    return "".join(pieces)


def _group_end(pattern: str, at: int) -> int:
    """Where the parenthesis that begins at `at` is closed; 0 if none begins, or it is not closed."""
    if not pattern.startswith("(", at):
        return 0
    depth = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "\\":
            at += 1
        elif char in "()":
            depth += 1 if char == "(" else -1
            if not depth:
                return at
        at += 1
    return 0


def _choices(text: str) -> list[str]:
    """The alternatives inside parentheses."""
    found, depth, start, at = [], 0, 0, 0  # type: tuple[list[str], int, int, int]
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 1
        elif char == "|" and not depth:
            found.append(text[start:at])
            start = at + 1
        elif char in "()":
            depth += 1 if char == "(" else -1
        at += 1
    return [*found, text[start:]]


def bracket_at(text: str, at: int) -> tuple[str, int] | None:
    """The bracket expression of a regular expression, where a backslash is plain, and where the text goes on."""
    match = _PLAIN_BRACKET.match(text, at)
    if match is None:
        return None
    return _bracket("!" if match.group(1) else "", match.group(2).replace("\\", "\\\\")), match.end()


def _bracket(negation: str, content: str) -> str:
    """A bracket expression as a regular expression that cannot fail to compile."""
    members: list[str] = []
    at = 0
    while at < len(content):
        match = _CLASS.match(content, at)
        if match is not None:
            members.append(re.escape(match.group(2)) if match.group(2) else _CLASSES.get(match.group(1), ""))
            at = match.end()
            continue
        low, at = _member(content, at)
        if content.startswith("-", at) and at + 1 < len(content):
            high, at = _member(content, at + 1)
            if low <= high:
                members.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            members.append(re.escape(low))
    inside = "".join(members)
    if not inside:
        return "." if negation else "(?!)"
    return f"[{'^' if negation else ''}{inside}]"


def _member(content: str, at: int) -> tuple[str, int]:
    """One character of a bracket expression, and where the next one begins; `\\x` and `[.x.]` stand for `x`."""
    match = _SYMBOL.match(content, at)
    if match is not None:
        return _SYMBOLS.get(match.group(1), match.group(1)[:1]), match.end()
    if content[at] == "\\" and at + 1 < len(content):
        at += 1
    return content[at], at + 1
