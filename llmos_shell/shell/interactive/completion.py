"""Completion of a command line from the declarations of commands and from the live system.

Produces `Candidate`s; the adapter for prompt_toolkit is in `repl`. Never starts a daemon and never waits for a model.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from llmos_shell.abi.types import ModelStatus, ProcessInfo, Signal
from llmos_shell.shell import commands
from llmos_shell.shell.command import Command, Option
from llmos_shell.shell.interactive.cursor import Place, find_place, quote_word

MAX_FILES = 1000
"""Files of one folder that are offered."""


@dataclass(frozen=True)
class Candidate:
    """What to insert in place of the last `typed` characters, how to show it, and a word about it."""

    text: str
    typed: int
    display: str
    about: str = ""


class World(Protocol):
    """What completion asks of the shell and of the daemon."""

    def command_names(self) -> Sequence[str]:
        """Words that can be run: functions, aliases, built-ins."""

    def programs(self) -> Sequence[str]:
        """The host's programs that can be run, if the shell runs any."""

    def variable_names(self) -> Sequence[str]:
        """Variables that are set."""

    def jobs(self) -> Sequence[tuple[str, str]]:
        """Jobs as `%1` and what they run."""

    def processes(self) -> Sequence[ProcessInfo]:
        """Live processes."""

    def models(self) -> Sequence[ModelStatus]:
        """All models."""


def complete(line: str, world: World) -> Iterator[Candidate]:
    """Candidates for the word at the end of `line`."""
    place = find_place(line)
    variable = _begun_variable(place)
    if variable is not None:
        yield from _variables(variable, world)
        return
    if place.redirection:
        yield from _files(place)
        return
    if not place.words:
        yield from _commands(place, world)
        return
    yield from _arguments(place, world)


def _begun_variable(place: Place) -> str | None:
    """The beginning of a `$NAME` at the end of the word, with its `$` or `${`."""
    at = place.word.rfind("$")
    if at < 0 or place.quote == "'":
        return None
    name = place.word[at + 1 :].removeprefix("{")
    return place.word[at:] if name == "" or name.isidentifier() else None


def _variables(begun: str, world: World) -> Iterator[Candidate]:
    braced = begun.startswith("${")
    prefix = begun.lstrip("${")
    for name in sorted(world.variable_names()):
        if name.startswith(prefix):
            text = f"${{{name}}}" if braced else f"${name}"
            yield Candidate(text, len(begun), name)


def _commands(place: Place, world: World) -> Iterator[Candidate]:
    if "/" in place.word:
        yield from _files(place)
        return
    seen = set()
    for name in sorted(world.command_names()):
        if name.startswith(place.word) and name not in seen:
            seen.add(name)
            command = _find(name)
            yield _candidate(place, name, command.summary if command else "")
    if place.word:
        for name in world.programs():
            if name.startswith(place.word) and name not in seen:
                yield _candidate(place, name, "program")


def _arguments(place: Place, world: World) -> Iterator[Candidate]:
    """Options, values of options and operands of the command the cursor is in."""
    command, words = _innermost(place.words)
    if command is None:
        yield from _files(place)
        return
    options = {flag: option for option in command.options for flag in option.flags}
    flag, equals, _ = place.word.partition("=")
    if equals and flag in options:
        yield from _values(options[flag].type, place, world, skip=len(flag) + 1)
        return
    if "--" not in words:
        pending = _pending(words, options)
        if pending is not None:
            yield from _values(pending.type, place, world)
            return
        if command.raw and not place.word.startswith("-"):
            yield from _commands(place, world)
            return
        if place.word.startswith("-"):
            yield from _options(command, place)
            return
    yield from _values(_operand_type(command, words, options), place, world)


def _innermost(words: Sequence[str]) -> tuple[Command | None, Sequence[str]]:
    """The command the words belong to, seeing through `nice`, `nohup`, `time` and the like."""
    command = _find(words[0])
    rest = words[1:]
    while command is not None and command.raw:
        options = {flag: option for option in command.options for flag in option.flags}
        at = 0
        while at < len(rest) and rest[at].startswith("-"):
            option = options.get(rest[at])
            at += 2 if option is not None and option.value else 1
        if at >= len(rest):
            return command, rest
        command, rest = _find(rest[at]), rest[at + 1 :]
    return command, rest


def _pending(words: Sequence[str], options: dict[str, Option]) -> Option | None:
    """The option whose value is to come."""
    option = options.get(words[-1]) if words else None
    return option if option is not None and option.value else None


def _operand_type(command: Command, words: Sequence[str], options: dict[str, Option]) -> str:
    """The type of the operand that comes after these words."""
    count, skip = 0, False
    for word in words:
        if skip:
            skip = False
        elif word.startswith("-") and word in options:
            skip = bool(options[word].value)
        elif not word.startswith("-"):
            count += 1
    for index, operand in enumerate(command.operands):
        if index == count or operand.many:
            return operand.type
    return "file"


def _options(command: Command, place: Place) -> Iterator[Candidate]:
    for option in command.options:
        for flag in option.flags:
            if flag.startswith(place.word) and (place.word != "-" or flag == option.flags[-1]):
                yield _candidate(place, flag, option.help)
    if "--help".startswith(place.word):
        yield _candidate(place, "--help", "explain the command")


def _values(kind: str, place: Place, world: World, skip: int = 0) -> Iterator[Candidate]:
    """Candidates of one type; `skip` characters of the word stay as they are."""
    if skip:
        place = Place(place.words, place.word[skip:], place.typed - skip, place.quote)
    if "|" in kind:
        for choice in kind.split("|"):
            if choice.startswith(place.word):
                yield _candidate(place, choice)
        return
    source = _SOURCES.get(kind)
    if source is not None:
        yield from source(place, world)
    if kind in ("str", "file", "model"):
        yield from _files(place, ".gguf" if kind == "model" else "")


def _models(place: Place, world: World) -> Iterator[Candidate]:
    for status in world.models():
        if status.entry.name.startswith(place.word):
            state = "loaded" if status.worker is not None else status.problem
            yield _candidate(place, status.entry.name, ", ".join(filter(None, (state, status.entry.description))))


def _pids(place: Place, world: World) -> Iterator[Candidate]:
    for job, what in world.jobs():
        if job.startswith(place.word):
            yield _candidate(place, job, what)
    for process in world.processes():
        if str(process.pid).startswith(place.word):
            yield _candidate(place, str(process.pid), f"{process.state} {process.model} {process.name}")


def _signals(place: Place, world: World) -> Iterator[Candidate]:
    for signal in Signal:
        if signal.startswith(place.word.upper().removeprefix("SIG")):
            yield _candidate(place, signal.value)


def _known_commands(place: Place, world: World) -> Iterator[Candidate]:
    for name in commands.names():
        if name.startswith(place.word):
            command = _find(name)
            yield _candidate(place, name, command.summary if command else "")


def _variable_words(place: Place, world: World) -> Iterator[Candidate]:
    for name in sorted(world.variable_names()):
        if name.startswith(place.word):
            yield _candidate(place, name)


_SOURCES: dict[str, Callable[[Place, World], Iterator[Candidate]]] = {
    "model": _models,
    "pid": _pids,
    "job": _pids,
    "signal": _signals,
    "command": _known_commands,
    "variable": _variable_words,
}


def _files(place: Place, ending: str = "") -> Iterator[Candidate]:
    """Files and folders; with `ending` only files that end so, and folders on the way to them."""
    head, slash, tail = place.word.rpartition("/")
    folder = os.path.expanduser(head + slash) or "."
    try:
        with os.scandir(folder) as entries:
            found = sorted(((entry.name, entry.is_dir()) for entry in entries), key=lambda entry: entry[0])
    except OSError:
        return
    shown = 0
    for name, is_folder in found:
        hidden = name.startswith(".") and not tail.startswith(".")
        if hidden or not name.startswith(tail) or not (is_folder or name.endswith(ending)):
            continue
        shown += 1
        if shown > MAX_FILES:
            return
        yield _candidate(place, head + slash + name + ("/" if is_folder else ""), display=name + "/" * is_folder)


def _candidate(place: Place, text: str, about: str = "", display: str = "") -> Candidate:
    return Candidate(quote_word(text, place.quote), place.typed, display or text, about)


def _find(name: str) -> Command | None:
    try:
        return commands.find(name)
    except ImportError:
        return None
