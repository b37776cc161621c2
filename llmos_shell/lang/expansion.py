"""Words to fields: parameter, command and arithmetic expansion, tilde, field splitting, pathname expansion.

Pure: all that an expansion needs from outside comes through an `Environment`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from llmos_shell.lang import brace, parameters, patterns
from llmos_shell.lang.arithmetic import evaluate
from llmos_shell.lang.ast import (
    AnsiQuoted,
    Arithmetic,
    ArrayValue,
    CommandSubstitution,
    DoubleQuoted,
    Literal,
    Parameter,
    Part,
    ProcessSubstitution,
    Tilde,
    Word,
)
from llmos_shell.lang.environment import Environment
from llmos_shell.lang.errors import ExpansionError
from llmos_shell.lang.fields import DEFAULT_IFS, Fields
from llmos_shell.lang.quoting import decode_ansi

_DEFAULTS = frozenset(("-", ":-", "=", ":=", "?", ":?", "+", ":+"))
_TARGET = re.compile(r"(?:([A-Za-z_][A-Za-z0-9_]*)(?:\[(.+)\])?|([0-9]+|[@*#?$!-]))\Z", re.DOTALL)


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
                cache = word.cache = _prepared(word)
            if type(cache) is str:
                out.append(cache)
            elif cache is False:
                fields = Fields(self._ifs())
                self._add_parts(word.parts, fields, split=False)
                out += self._finish(fields.close())
            else:
                out += self.fields(cache)
        return out

    def string(self, word: Word) -> str:
        """A word where no splitting takes place: assignments, `case`, redirections, here-documents."""
        cache = word.cache
        if cache is None:
            cache = word.cache = _prepared(word)
        if type(cache) is str:
            return cache
        return "".join([self._text(part) for part in word.parts])

    def pattern(self, word: Word) -> str:
        """A word as a pattern: what was quoted matches itself."""
        return "".join([self._pattern_text(part) for part in word.parts])

    def pieces(self, word: Word) -> list[tuple[str, bool]]:
        """The texts a word is made of, and whether each was quoted."""
        bare = (Literal, Parameter, CommandSubstitution)
        return [(self._text(part), type(part) not in bare) for part in word.parts]

    def elements(self, value: ArrayValue) -> list[tuple[str | None, str, bool]]:
        """An array's elements: their index, if they have one, their value, and whether it is to be appended."""
        out: list[tuple[str | None, str, bool]] = []
        for element in value.elements:
            if element.index is None:
                out += [(None, text, False) for text in self.fields([element.value])]
            else:
                out.append((self.string(element.index), self.string(element.value), element.append))
        return out

    def arithmetic(self, part: Arithmetic) -> int:
        """The value of `$((…))`."""
        return self.calculate(part, self.string(part.word))

    def calculate(self, part: Arithmetic, text: str) -> int:
        """The value of an expression whose expanded text is this; double quotes in it mean nothing."""
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

    def _add_parts(self, parts: list[Part], fields: Fields, *, split: bool) -> None:
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

    def _add_quoted(self, parts: list[Part], fields: Fields) -> None:
        """Adds what stands in double quotes: one field, but for `$@` and its like."""
        if not any(type(part) is Parameter and (part.name == "@" or _may_spread(part)) for part in parts):
            fields.add("".join([self._text(part) for part in parts]), True)
            return
        for part in parts:
            if type(part) is Parameter and part.indirect:
                part = self._target(part)
            if type(part) is Parameter and _many(part) == "@":
                for index, value in enumerate(self._each(part)):
                    if index:
                        fields.end(force=False)
                    fields.add(value, True)
            else:
                fields.add(self._text(part), True)

    def _each(self, part: Parameter) -> list[str]:
        """The values of a quoted `$@` or its like, or of its replacement."""
        operator = part.operator
        if operator not in _DEFAULTS:
            return self._list(part)
        if operator[-1] in "=?":
            return [self._parameter(part)]
        absent = self._is_absent(part, self._value(part))
        if absent != (operator[-1] == "-"):
            return self._values(part) if operator[-1] == "-" else []
        assert part.word is not None
        inner = Fields("")
        for each in part.word.parts:
            self._add_quoted(each.parts if isinstance(each, DoubleQuoted) else [each], inner)
        return ["".join([piece for piece, _ in field]) for field in inner.close()]

    def _add_parameter(self, part: Parameter, fields: Fields) -> None:
        name, operator = part.name, part.operator
        if not operator and part.index is None and not part.indirect and name != "@" and name != "*":
            value = self._environment.lookup(name)
            if value is None:
                self._check_unset(part)
            else:
                fields.split(value)
            return
        if part.indirect:
            part = self._target(part)
        if operator in ("-", ":-", "+", ":+") and part.word is not None:
            absent = self._is_absent(part, self._value(part))
            if absent == (operator[-1] == "-"):
                self._add_parts(part.word.parts, fields, split=True)
            elif not absent and operator[-1] == "-":
                self._add_parameter(Parameter(part.name, offset=part.offset, index=part.index), fields)
            return
        if operator in _DEFAULTS or not _many(part):
            fields.split(self._parameter(part))
            return
        for index, each in enumerate(self._list(part)):
            if index:
                fields.end(force=False)
            fields.split(each)

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
        if kind is ProcessSubstitution:
            return self._environment.process(part)  # type: ignore[arg-type]
        if kind is ArrayValue:
            return f"({' '.join(value for _, value, _ in self.elements(part))})"  # type: ignore[arg-type]
        return part.text  # type: ignore[union-attr]

    def _pattern_text(self, part: Part) -> str:
        kind = type(part)
        if kind is Literal:
            return part.text  # type: ignore[union-attr]
        if kind is Parameter or kind is CommandSubstitution:
            if isinstance(part, Parameter) and part.operator in ("-", ":-", "+", ":+"):
                return self._pattern_of_default(part)
            return self._text(part)
        return patterns.quote(self._text(part))

    def _pattern_of_default(self, part: Parameter) -> str:
        if part.indirect:
            part = self._target(part)
        assert part.word is not None
        value = self._value(part)
        absent = self._is_absent(part, value)
        if absent == (part.operator[-1] == "-"):
            return self.pattern(part.word)
        return "" if absent or value is None or part.operator[-1] == "+" else value

    # -- parameters --------------------------------------------------------------------------------------------------

    def _parameter(self, part: Parameter) -> str:
        """A parameter's expansion as text."""
        operator = part.operator
        if not operator and part.index is None and not part.indirect:
            value = self._value(part)
            return self._check_unset(part) if value is None else value
        if part.indirect:
            part = self._target(part)
        many = _many(part)
        if operator == "len":
            return self._length(part)
        if many and operator not in _DEFAULTS:
            return self._join(many, self._list(part))
        value = self._value(part)
        if operator in _DEFAULTS:
            assert part.word is not None
            return self._default(part, value, part.word)
        if value is None:
            value = self._check_unset(part)
            if operator in parameters.TRANSFORMATIONS:
                return ""
        return self._operation(part)(value) if operator else value

    def _value(self, part: Parameter) -> str | None:
        """A parameter's value as text, None when unset; of several values, when there is none."""
        many = _many(part)
        if many:
            values = self._values(part)
            return self._join(many, values) if values else None
        if part.index is not None:
            return self._environment.element(part.name, self.string(part.index))
        return self._environment.lookup(part.name)

    def _values(self, part: Parameter) -> list[str]:
        """The values of `$@`, of an array, or what its keys or the names of variables are."""
        environment = self._environment
        if part.operator[:5] == "names":
            return environment.names(part.name)
        if part.index is None:
            return environment.positional()
        array = environment.array(part.name)
        if array is not None:
            return [str(key) for key in array] if part.operator == "keys" else list(array.values())
        value = environment.lookup(part.name)
        if value is None:
            return []
        return ["0"] if part.operator == "keys" else [value]

    def _list(self, part: Parameter) -> list[str]:
        """The values with the operator applied to each, or those that `:` chooses."""
        operator = part.operator
        if operator == ":":
            return self._slice(part)
        values = self._values(part)
        if not operator or operator == "keys" or operator[:5] == "names":
            return values
        operation = self._operation(part)
        return [operation(value) for value in values]

    def _slice(self, part: Parameter) -> list[str]:
        start, length = self._range(part)
        values = self._values(part)
        try:
            if part.index is None:
                values = [self._environment.lookup("0") or "", *values]
                return parameters.sublist(values, start + len(values) if start < 0 else start, length)
            array = self._environment.array(part.name)
            items = {key: value for key, value in (array or {}).items() if isinstance(key, int)}
            return parameters.subarray(items or dict(enumerate(values)), start, length)
        except ExpansionError as error:
            error.offset = part.offset
            raise

    def _range(self, part: Parameter) -> tuple[int, int | None]:
        """Offset and length of `${x:offset:length}`."""
        assert part.word is not None
        start = evaluate(self.string(part.word), self._environment)
        return start, None if part.extra is None else evaluate(self.string(part.extra), self._environment)

    def _operation(self, part: Parameter) -> Callable[[str], str]:
        """What the operator does to one value."""
        operator = part.operator
        if operator == "@a":
            return lambda _: self._environment.attributes(part.name)
        if operator in parameters.TRANSFORMATIONS:
            return parameters.TRANSFORMATIONS[operator]
        if operator == ":":
            start, length = self._range(part)
            return lambda value: parameters.substring(value, start, length)
        assert part.word is not None
        pattern = self.pattern(part.word)
        if operator[0] == "/":
            replacement = self.string(part.extra) if part.extra is not None else ""
            return lambda value: patterns.replace(operator, value, pattern, replacement)
        if operator[0] in "^,":
            return lambda value: parameters.change_case(operator, value, pattern)
        return lambda value: patterns.trim(operator, value, pattern) if value else value

    def _target(self, part: Parameter) -> Parameter:
        """The parameter that the value of an indirect one names."""
        pointer = Parameter(part.name, offset=part.offset, index=part.index)
        value = self._value(pointer)
        if value is None and part.operator in _DEFAULTS:
            return Parameter(part.name, part.operator, part.word, part.offset, index=part.index)
        match = _TARGET.match(value or "")
        if match is None:
            what = "is not set, so it names nothing" if value is None else f"`{value[:40]}` is no parameter's name"
            raise ExpansionError(f"{part.name}: {what}", part.offset)
        index = Word([Literal(match.group(2))]) if match.group(2) else None
        name = match.group(1) or match.group(3)
        return Parameter(name, part.operator, part.word, part.offset, index=index, extra=part.extra)

    def _join(self, many: str, values: list[str]) -> str:
        return (" " if many == "@" else self._ifs()[:1]).join(values)

    def _length(self, part: Parameter) -> str:
        if _star(part):
            return str(len(self._values(part)))
        value = self._value(part)
        return str(len(self._check_unset(part) if value is None else value))

    def _is_absent(self, part: Parameter, value: str | None) -> bool:
        return value is None or (part.operator[0] == ":" and value == "")

    def _default(self, part: Parameter, value: str | None, word: Word) -> str:
        """`-`, `=`, `?` and `+`, which with a colon treat empty as unset."""
        name, action = part.name, part.operator[-1]
        absent = self._is_absent(part, value)
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
            if _many(part) or not (name[0].isalpha() or name[0] == "_"):
                raise ExpansionError(f"${name} cannot be assigned to in this way", part.offset)
            if part.index is None:
                self._environment.assign(name, text)
            else:
                self._environment.assign_element(name, self.string(part.index), text)
        return text

    def _check_unset(self, part: Parameter) -> str:
        if self._environment.nounset and not _many(part):
            index = f"[{self.string(part.index)}]" if part.index is not None else ""
            raise ExpansionError(f"{part.name}{index}: variable is not set", part.offset)
        return ""


def _many(part: Parameter) -> str:
    """`@` or `*` if it stands for any number of values, and how they are joined where they must be one."""
    return "" if part.operator == "len" else _star(part)


def _star(part: Parameter) -> str:
    """The `@` or `*` that says that all values are meant."""
    if part.index is not None:
        index = part.index.literal()
        return index if index == "@" or index == "*" else ""
    if part.operator[:5] == "names":
        return part.operator[5:]
    return part.name if part.name == "@" or part.name == "*" else ""


def _may_spread(part: Parameter) -> bool:
    """Whether it may be more than one field in double quotes."""
    return part.indirect or ((part.index is not None or part.operator == "names@") and _many(part) == "@")


def _prepared(word: Word) -> str | bool | list[Word]:
    """The one field a word always gives, the words that its braces make, or False if that depends."""
    if any(type(part) is Literal and "{" in part.text for part in word.parts):
        words = brace.expand(word)
        if words is not None:
            return words
    return _static(word)


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
