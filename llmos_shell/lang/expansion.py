"""Words to fields: parameter, command and arithmetic expansion, tilde, field splitting, pathname expansion.

Pure: all that an expansion needs from outside comes through an `Environment`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol

from llmos_shell.lang import patterns
from llmos_shell.lang.arithmetic import evaluate
from llmos_shell.lang.ast import (
    AnsiQuoted,
    Arithmetic,
    CommandSubstitution,
    DoubleQuoted,
    Literal,
    Parameter,
    Part,
    Sequence,
    Tilde,
    Word,
)
from llmos_shell.lang.errors import ExpansionError

DEFAULT_IFS = " \t\n"


class Environment(Protocol):
    """What expansions ask of the shell."""

    @property
    def nounset(self) -> bool:
        """`set -u`: unset variables are errors."""

    @property
    def noglob(self) -> bool:
        """`set -f`: no pathname expansion."""

    def lookup(self, name: str) -> str | None:
        """A variable or special parameter other than `@` and `*`; None when unset."""

    def assign(self, name: str, value: str) -> None:
        """Sets a variable. Raises `ExpansionError` if it is read-only."""

    def positional(self) -> list[str]:
        """The positional parameters from `$1` on."""

    def substitute(self, body: Sequence) -> str:
        """The output of commands, without trailing newlines."""

    def home(self, user: str) -> str | None:
        """A user's home folder (`""`: one's own); None when there is none."""

    def listdir(self, path: str) -> Iterable[str]:
        """The names in a folder; none if it cannot be read."""

    def exists(self, path: str) -> bool:
        """Whether the path leads to something, a broken link included."""


class Expander:
    """Expands words in one environment."""

    __slots__ = ("_environment",)

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def fields(self, words: list[Word]) -> list[str]:
        """The words of a command, fully expanded."""
        out: list[str] = []
        for word in words:
            cache = word.cache
            if cache is None:
                cache = word.cache = _static(word)
            if cache is not False:
                out.append(cache)
                continue
            fields = _Fields(self._ifs())
            self._add_parts(word.parts, fields, split=False)
            out += self._finish(fields.close())
        return out

    def string(self, word: Word) -> str:
        """A word where no splitting takes place: assignments, `case`, redirections, here-documents."""
        cache = word.cache
        if cache is None:
            cache = word.cache = _static(word)
        if cache is not False:
            return cache  # type: ignore[no-any-return]
        return "".join([self._text(part) for part in word.parts])

    def pattern(self, word: Word) -> str:
        """A word as a pattern: what was quoted matches itself."""
        return "".join([self._pattern_text(part) for part in word.parts])

    def arithmetic(self, part: Arithmetic) -> int:
        """The value of `$((…))`; double quotes in it mean nothing."""
        text = self.string(part.word)
        plain = text.replace('"', "") if '"' in text else text
        try:
            return evaluate(plain, self._environment)
        except ExpansionError as error:
            if error.offset is None:
                error.offset = part.offset
                if error.within is not None and part.word.literal() == plain:
                    error.offset = part.word.offset + error.within
            raise

    # -- fields ------------------------------------------------------------------------------------------------------

    def _ifs(self) -> str:
        ifs = self._environment.lookup("IFS")
        return DEFAULT_IFS if ifs is None else ifs

    def _finish(self, fields: list[list[tuple[str, bool]]]) -> list[str]:
        """Pathname expansion and quote removal."""
        out: list[str] = []
        environment = self._environment
        for field in fields:
            text = "".join([piece for piece, _ in field])
            if patterns.has_magic(text) and not environment.noglob:
                if all(quoted for _, quoted in field):
                    out.append(text)
                    continue
                pattern = "".join([patterns.quote(piece) if quoted else piece for piece, quoted in field])
                found = patterns.expand_pathnames(pattern, environment.listdir, environment.exists)
                if found:
                    out += found
                    continue
            out.append(text)
        return out

    def _add_parts(self, parts: list[Part], fields: _Fields, *, split: bool) -> None:
        """Adds unquoted parts; `split` says whether their literal text is split too (inside `${x:-…}`)."""
        for part in parts:
            kind = type(part)
            if kind is Literal:
                if split:
                    fields.split(part.text)  # type: ignore[union-attr]
                else:
                    fields.add(part.text, False)  # type: ignore[union-attr]
            elif kind is Parameter:
                self._add_parameter(part, fields)  # type: ignore[arg-type]
            elif kind is CommandSubstitution or kind is Arithmetic:
                fields.split(self._text(part))
            elif kind is DoubleQuoted:
                self._add_quoted(part.parts, fields)  # type: ignore[union-attr]
            else:
                fields.add(self._text(part), True)

    def _add_quoted(self, parts: list[Part], fields: _Fields) -> None:
        """Adds what stands in double quotes: one field, but for `$@`."""
        if not any(type(part) is Parameter and part.name == "@" and part.operator != "len" for part in parts):
            fields.add("".join([self._text(part) for part in parts]), True)
            return
        for part in parts:
            if isinstance(part, Parameter) and part.name == "@" and part.operator in ("", ":-", "-", ":+", "+"):
                for index, value in enumerate(self._each(part)):
                    if index:
                        fields.end(force=False)
                    fields.add(value, True)
            else:
                fields.add(self._text(part), True)

    def _each(self, part: Parameter) -> list[str]:
        """The values of a quoted `$@`, or of its replacement."""
        values = self._environment.positional()
        if not part.operator or part.word is None or bool(values) == ("-" in part.operator):
            return values if not part.operator or "-" in part.operator else []
        inner = _Fields("")
        self._add_quoted(part.word.parts, inner)
        return ["".join([piece for piece, _ in field]) for field in inner.close()]

    def _add_parameter(self, part: Parameter, fields: _Fields) -> None:
        name, operator = part.name, part.operator
        if not operator:
            if name in ("@", "*"):
                for index, value in enumerate(self._environment.positional()):
                    if index:
                        fields.end(force=False)
                    fields.split(value)
                return
            value_or_none = self._environment.lookup(name)
            if value_or_none is None:
                self._check_unset(part)
            else:
                fields.split(value_or_none)
            return
        if operator in ("-", ":-", "+", ":+") and part.word is not None:
            text = self._current(name)
            absent = text is None or (operator[0] == ":" and text == "")
            if absent == (operator[-1] == "-"):
                self._add_parts(part.word.parts, fields, split=True)
            elif not absent and operator[-1] == "-":
                self._add_parameter(Parameter(name, offset=part.offset), fields)
            return
        fields.split(self._parameter(part))

    # -- text --------------------------------------------------------------------------------------------------------

    def _text(self, part: Part) -> str:
        """One part as text, without splitting."""
        kind = type(part)
        if kind is Parameter:
            return self._parameter(part)  # type: ignore[arg-type]
        if kind is DoubleQuoted:
            return "".join([self._text(inner) for inner in part.parts])  # type: ignore[union-attr]
        if kind is Arithmetic:
            return str(self.arithmetic(part))  # type: ignore[arg-type]
        if kind is CommandSubstitution:
            return self._environment.substitute(part.body)  # type: ignore[union-attr]
        if kind is Tilde:
            home = self._environment.home(part.user)  # type: ignore[union-attr]
            return f"~{part.user}" if home is None else home  # type: ignore[union-attr]
        if kind is AnsiQuoted:
            return decode_ansi(part.text)  # type: ignore[union-attr]
        return part.text  # type: ignore[union-attr]

    def _pattern_text(self, part: Part) -> str:
        kind = type(part)
        if kind is Literal:
            return part.text  # type: ignore[union-attr]
        if kind is Parameter or kind is CommandSubstitution:
            if isinstance(part, Parameter) and part.word is not None and part.operator[-1] in "-+":
                return self._pattern_of_default(part)
            return self._text(part)
        return patterns.quote(self._text(part))

    def _pattern_of_default(self, part: Parameter) -> str:
        assert part.word is not None
        text = self._current(part.name)
        absent = text is None or (part.operator[0] == ":" and text == "")
        if absent == (part.operator[-1] == "-"):
            return self.pattern(part.word)
        return "" if absent or text is None or part.operator[-1] == "+" else text

    def _current(self, name: str) -> str | None:
        """A parameter's value as text, None when unset; `$@` and `$*` count as unset when there are none."""
        if name in ("@", "*"):
            values = self._environment.positional()
            return self._join(name, values) if values else None
        return self._environment.lookup(name)

    def _join(self, name: str, values: list[str]) -> str:
        return (" " if name == "@" else self._ifs()[:1]).join(values)

    def _parameter(self, part: Parameter) -> str:
        """A parameter's expansion as text."""
        name, operator = part.name, part.operator
        value = self._current(name)
        if not operator:
            return self._check_unset(part) if value is None else value
        if operator == "len":
            if name in ("@", "*"):
                return str(len(self._environment.positional()))
            return str(len(self._check_unset(part) if value is None else value))
        assert part.word is not None
        if operator[0] in "#%":
            if value is None:
                value = self._check_unset(part)
            return patterns.trim(operator, value, self.pattern(part.word)) if value else value
        return self._default(part, value, part.word)

    def _default(self, part: Parameter, value: str | None, word: Word) -> str:
        """`-`, `=`, `?` and `+`, which with a colon treat empty as unset."""
        name, action = part.name, part.operator[-1]
        absent = value is None or (part.operator[0] == ":" and value == "")
        if action == "+":
            return "" if absent else self.string(word)
        if not absent:
            assert value is not None
            return value
        text = self.string(word)
        if action == "?":
            what = text or ("not set" if value is None else "not set or empty")
            raise ExpansionError(f"{name}: {what}", part.offset)
        if action == "=":
            if not (name[0].isalpha() or name[0] == "_"):
                raise ExpansionError(f"${name} cannot be assigned to in this way", part.offset)
            self._environment.assign(name, text)
        return text

    def _check_unset(self, part: Parameter) -> str:
        if self._environment.nounset and part.name not in ("@", "*"):
            raise ExpansionError(f"{part.name}: variable is not set", part.offset)
        return ""


class _Fields:
    """Fields being built: each a list of (text, quoted) pieces."""

    __slots__ = ("_current", "_delimiter", "_done", "_ifs", "_white")

    def __init__(self, ifs: str) -> None:
        self._ifs = ifs
        self._done: list[list[tuple[str, bool]]] = []
        self._current: list[tuple[str, bool]] | None = None

    def add(self, text: str, quoted: bool) -> None:
        """Adds to the field being built, which begins with it if there is none."""
        if self._current is None:
            self._current = [(text, quoted)]
        else:
            self._current.append((text, quoted))

    def end(self, *, force: bool) -> None:
        """Ends the field being built; with `force` an empty one if there is none."""
        if self._current is not None:
            self._done.append(self._current)
            self._current = None
        elif force:
            self._done.append([("", True)])

    def split(self, text: str) -> None:
        """Adds the result of an expansion, splitting it at the characters of IFS."""
        at = 0
        for match in _delimiter(self._ifs).finditer(text):
            if match.start() > at:
                self.add(text[at : match.start()], False)
            self.end(force=match.lastgroup is not None)
            at = match.end()
        if at < len(text):
            self.add(text[at:], False)

    def close(self) -> list[list[tuple[str, bool]]]:
        """All fields."""
        self.end(force=False)
        return self._done


_delimiters: dict[str, re.Pattern[str]] = {}


def _delimiter(ifs: str) -> re.Pattern[str]:
    """Matches what separates fields; the group `hard` takes part when it is more than white space."""
    pattern = _delimiters.get(ifs)
    if pattern is None:
        white = "".join(char for char in ifs if char in DEFAULT_IFS)
        hard = re.escape("".join(char for char in ifs if char not in DEFAULT_IFS))
        choices = []
        if hard:
            choices.append(f"[{white}]*(?P<hard>[{hard}])[{white}]*" if white else f"(?P<hard>[{hard}])")
        if white:
            choices.append(f"[{white}]+")
        pattern = _delimiters[ifs] = re.compile("|".join(choices) or "(?!)")
    return pattern


def _static(word: Word) -> str | bool:
    """The one field a word always gives, or False if that depends."""
    pieces: list[str] = []
    for part in word.parts:
        if type(part) is Literal:
            if patterns.has_magic(part.text):
                return False
            pieces.append(part.text)
        elif isinstance(part, AnsiQuoted):
            pieces.append(decode_ansi(part.text))
        elif isinstance(part, Literal):
            pieces.append(part.text)
        elif isinstance(part, DoubleQuoted) and all(isinstance(inner, Literal) for inner in part.parts):
            pieces += [inner.text for inner in part.parts if isinstance(inner, Literal)]
        else:
            return False
    return "".join(pieces) if word.parts else False


_ANSI = re.compile(
    rb"\\(?:([abeEfnrtv\\'\"?])|([0-7]{1,3})|x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{1,4})|U([0-9a-fA-F]{1,8})|c(.))",
    re.DOTALL,
)
_ANSI_CHARS = dict(zip(b"abeEfnrtv\\'\"?", b"\a\b\x1b\x1b\f\n\r\t\v\\'\"?", strict=True))


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
            return bytes([control[0] & 31])
        return chr(min(int(short or long, 16), 0x10FFFF)).encode("utf-8", "surrogatepass")

    data = _ANSI.sub(replace, text.encode("utf-8", "surrogateescape"))
    return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
