"""Completion of a command line: what is wanted where the cursor is, by the declarations of commands.

What there is of each kind is `offers`; the adapter for prompt_toolkit is in `editing`. Never starts a daemon and never
waits for a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmos_shell.lang.compound import RESERVED
from llmos_shell.shell.command import Command, Manual, Option
from llmos_shell.shell.interactive import offers
from llmos_shell.shell.interactive.cursor import Place, begun_variable, find_place
from llmos_shell.shell.interactive.offers import OFFERS, Candidate, World, candidate
from llmos_shell.shell.interactive.themes import theme_names
from llmos_shell.shell.interpreter.options import NAMES

_OPERANDS = {
    "cd": "folder",
    "pushd": "folder",
    "mkdir": "folder",
    "rmdir": "folder",
    "alias": "alias",
    "unalias": "alias",
    "read": "variable",
    "type": "runnable",
    "hash": "runnable",
    "which": "runnable",
    "trap": "signal",
}
"""Kinds of operands, where they are not what the declaration says, or there is none."""

_RUNS_ANOTHER = frozenset(
    ("command", "exec", "eval", "builtin", "sudo", "doas", "env", "xargs", "watch", "setsid", "stdbuf", "ionice")
)
"""Commands whose operands are a command line, besides those that are declared `raw`."""


def complete(line: str, world: World) -> Iterator[Candidate]:
    """Candidates for the word at the end of `line`."""
    place = find_place(line)
    if place.comment:
        return
    variable = begun_variable(place)
    if variable is not None:
        yield from offers.variable_uses(variable, world)
    elif line.rpartition("\n")[2].lstrip().startswith("?"):
        yield from offers.files(place, world)
    elif place.redirection:
        yield from _redirection_target(place, world)
    elif not place.words:
        yield from _first_word(place, world)
    elif place.words[0] in RESERVED:
        yield from _in_compound(place, world)
    else:
        yield from _arguments(place, world)


def _redirection_target(place: Place, world: World) -> Iterator[Candidate]:
    if place.redirection in ("<<", "<<-", "<<<"):
        return
    if place.redirection.endswith("&") and not place.redirection.startswith("&"):
        yield from offers.choices(place, ("1", "2"))
    yield from offers.files(place, world)


def _first_word(place: Place, world: World) -> Iterator[Candidate]:
    """A command, or the value of an assignment before one."""
    name, equals, _ = place.word.partition("=")
    if equals and name.removesuffix("+").isidentifier():
        yield from _assigned(name, place, world)
    elif "/" in place.word or place.word.startswith("~"):
        yield from offers.executables(place, world)
    else:
        yield from offers.command_words(place, world)
        if place.word:
            yield from (candidate(place, word, "keyword") for word in sorted(RESERVED) if word.startswith(place.word))


def _assigned(name: str, place: Place, world: World) -> Iterator[Candidate]:
    value = offers.after(place, "=")
    if value is None:
        return
    if name == "LLMOS_THEME":
        yield from offers.choices(value, theme_names())
    else:
        yield from offers.files(offers.after(value, ":") or value, world)


def _in_compound(place: Place, world: World) -> Iterator[Candidate]:
    """Behind `for`, `case` and the like, where no command stands."""
    opening, count = place.words[0], len(place.words)
    if opening in ("for", "select", "case") and count == 2:
        yield from offers.choices(place, ("in",))
    elif opening in ("for", "select") and count == 1:
        yield from offers.variable_names(place, world)
    elif opening == "function":
        yield from offers.functions(place, world)
    else:
        yield from offers.files(place, world)


def _arguments(place: Place, world: World) -> Iterator[Candidate]:
    """Options, values of options and operands of the command the cursor is in."""
    name, manual, words = _innermost(place.words)
    if name == "":
        yield from _first_word(place, world)
    elif manual is None:
        yield from _undeclared(name, place, world)
    else:
        yield from _declared(manual, words, place, world)


def _innermost(words: Sequence[str]) -> tuple[str, Manual | None, Sequence[str]]:
    """The command the words belong to, seen through `nice`, `sudo` and the like; the name is empty when it is to come.

    Options of those belong to them.
    """
    rest = list(words)
    while rest:
        name = rest.pop(0)
        manual = offers.find_manual(name)
        if not _runs_another(name, manual):
            return name, manual, rest
        options = {} if manual is None else _flags(manual)
        at = 0
        while at < len(rest) and (rest[at].startswith("-") or (name == "env" and "=" in rest[at])):
            option = options.get(rest[at])
            at += 2 if option is not None and option.value else 1
        if at > len(rest) or (at == len(rest) and manual is not None):
            return name, manual, rest
        rest = rest[at:]
    return "", None, ()


def _runs_another(name: str, manual: Manual | None) -> bool:
    return name in _RUNS_ANOTHER or (isinstance(manual, Command) and manual.raw)


def _declared(manual: Manual, words: Sequence[str], place: Place, world: World) -> Iterator[Candidate]:
    options = _flags(manual)
    flag, equals, _ = place.word.partition("=")
    if equals and flag in options:
        value = offers.after(place, "=")
        if value is not None:
            yield from _values(options[flag].type, value, world)
        return
    if manual.name == "set" and words and words[-1] in ("-o", "+o"):
        yield from offers.choices(place, sorted(NAMES))
        return
    if "--" not in words:
        pending = options.get(words[-1]) if words else None
        if pending is not None and pending.value:
            yield from _values(pending.type, place, world)
            return
        if place.word.startswith("-"):
            yield from _options(manual, words, place, world)
            return
    if _runs_another(manual.name, manual):
        yield from _first_word(place, world)
        return
    yield from _operand(manual, words, place, world)


def _operand(manual: Manual, words: Sequence[str], place: Place, world: World) -> Iterator[Candidate]:
    kind = _OPERANDS.get(manual.name) or _operand_type(manual, words, _flags(manual))
    if kind == "variable" and "=" in place.word:
        yield from _assigned(place.word.partition("=")[0], place, world)
    elif manual.name == "unset" and "-f" in words:
        yield from offers.functions(place, world)
    elif manual.name == "trap" and not words:
        yield from offers.command_words(place, world)
    else:
        yield from _values(kind, place, world)


def _undeclared(name: str, place: Place, world: World) -> Iterator[Candidate]:
    """Arguments of the host's programs and of functions."""
    kind = _OPERANDS.get(name, "file")
    yield from OFFERS[kind](place, world)
    value = offers.after(place, "=")
    if kind == "file" and value is not None:
        yield from offers.files(value, world)


def _flags(manual: Manual) -> dict[str, Option]:
    return {flag: option for option in manual.options for flag in option.flags}


def _operand_type(manual: Manual, words: Sequence[str], options: dict[str, Option]) -> str:
    """The type of the operand that comes after these words."""
    count, skip = 0, False
    for word in words:
        if skip:
            skip = False
        elif word.startswith("-") and word in options:
            skip = bool(options[word].value)
        elif not word.startswith("-"):
            count += 1
    for index, operand in enumerate(manual.operands):
        if index == count or operand.many:
            return operand.type
    return "none"


def _options(manual: Manual, words: Sequence[str], place: Place, world: World) -> Iterator[Candidate]:
    """Options not given yet, each by the flag that fits what was typed."""
    for option in manual.options:
        if not option.repeat and any(flag in words for flag in option.flags):
            continue
        for flag in option.flags:
            if flag.startswith(place.word) and (place.word != "-" or flag == option.flags[-1]):
                value = f" {option.value}" if option.value else ""
                yield candidate(place, flag, option.help, display=flag + value)
    if isinstance(manual, Command) and "--help".startswith(place.word):
        yield candidate(place, "--help", "explain the command")
    if manual.name == "kill" and not words:
        signal = place.tail(1)
        if signal is not None:
            yield from offers.signals(signal, world)


def _values(kind: str, place: Place, world: World) -> Iterator[Candidate]:
    """Candidates of one kind, or out of the choices `a|b|c`."""
    if "|" in kind:
        yield from offers.choices(place, kind.split("|"))
    elif kind in OFFERS:
        yield from OFFERS[kind](place, world)
