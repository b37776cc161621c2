"""What completion can offer of each kind: models, PIDs, jobs, signals, variables, commands, files …

`OFFERS` maps a kind of value, as options and operands declare it, to the function that gives its candidates.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from llmos_shell.abi.types import ModelStatus, ProcessInfo, Signal
from llmos_shell.shell import commands
from llmos_shell.shell.command import Manual
from llmos_shell.shell.interactive.cursor import Place, expand_head, quote_word
from llmos_shell.shell.interpreter.language_help import LANGUAGE

MAX_FILES = 1000
"""Files of one folder that are offered."""

MAX_ABOUT = 60


@dataclass(frozen=True)
class Candidate:
    """What to insert in place of the last `typed` characters, how to show it, and a word about it.

    A `final` one ends the word, so that a space may follow.
    """

    text: str
    typed: int
    display: str
    about: str = ""
    final: bool = True


class World(Protocol):
    """What completion asks of the shell and of the daemon."""

    def builtins(self) -> Mapping[str, str]:
        """Built-in commands, with what they do."""

    def functions(self) -> Sequence[str]:
        """The shell's functions."""

    def aliases(self) -> Mapping[str, str]:
        """Aliases, with what they stand for."""

    def programs(self) -> Sequence[str]:
        """The host's programs that can be run."""

    def variables(self) -> Mapping[str, str]:
        """Variables that are set."""

    def home(self, user: str) -> str | None:
        """A user's home folder."""

    def jobs(self) -> Sequence[tuple[str, str]]:
        """Jobs as `%1`, with their state and what they run."""

    def processes(self) -> Sequence[ProcessInfo]:
        """Live processes."""

    def models(self) -> Sequence[ModelStatus]:
        """All models."""

    def policies(self) -> Sequence[str]:
        """Scheduling policies."""


Offer = Callable[[Place, World], Iterator[Candidate]]


def candidate(place: Place, text: str, about: str = "", display: str = "", *, final: bool = True) -> Candidate:
    """The begun word, replaced by this text, quoted as it has to be there."""
    inner = quote_word(text, place.quote, first=not place.inside)
    opening = "" if place.inside else place.quote
    return Candidate(
        f"{opening}{inner}{place.quote if final else ''}",
        place.typed,
        display or text,
        about if len(about) <= MAX_ABOUT else about[: MAX_ABOUT - 1] + "…",
        final,
    )


def fitting(names: Sequence[str], begun: str) -> list[str]:
    """Those that begin so; if none does, those that do in other letters' case."""
    found = [name for name in names if name.startswith(begun)]
    if found:
        return found
    folded = begun.casefold()
    return [name for name in names if name.casefold().startswith(folded)]


def choices(place: Place, names: Sequence[str]) -> Iterator[Candidate]:
    """Candidates out of a few words."""
    for name in fitting(names, place.word):
        yield candidate(place, name)


# -- commands and variables ------------------------------------------------------------------------------------------


def command_words(place: Place, world: World) -> Iterator[Candidate]:
    """Whatever can be run by its name."""
    known: dict[str, str] = dict.fromkeys(world.functions(), "function")
    known |= {name: f"alias for {text}" for name, text in world.aliases().items()}
    for name, about in world.builtins().items():
        known.setdefault(name, about)
    if place.word:
        for name in world.programs():
            known.setdefault(name, "program")
    for name in sorted(fitting(list(known), place.word), key=lambda name: (known[name] == "program", name)):
        yield candidate(place, name, known[name])


def own_commands(place: Place, world: World) -> Iterator[Candidate]:
    """The built-in commands: what `help` explains."""
    builtins = world.builtins()
    for name in fitting(sorted(builtins), place.word):
        yield candidate(place, name, builtins[name])


def pages(place: Place, world: World) -> Iterator[Candidate]:
    """What there is a manual of: commands and topics."""
    from llmos_shell.shell.topics import NAMES

    known = {**dict.fromkeys(NAMES, "topic"), **world.builtins()}
    for name in fitting(sorted(known), place.word):
        yield candidate(place, name, known[name])


def functions(place: Place, world: World) -> Iterator[Candidate]:
    """Functions."""
    yield from choices(place, sorted(world.functions()))


def aliases(place: Place, world: World) -> Iterator[Candidate]:
    """Aliases."""
    known = world.aliases()
    for name in fitting(sorted(known), place.word):
        yield candidate(place, name, known[name])


def variable_names(place: Place, world: World) -> Iterator[Candidate]:
    """Variables, as `export` and `unset` take them."""
    known = world.variables()
    for name in fitting(sorted(known), place.word):
        yield candidate(place, name, _one_line(known[name]))


def variable_uses(begun: str, world: World) -> Iterator[Candidate]:
    """Variables after a `$`."""
    opening = "${" if begun.startswith("${") else "$"
    prefix = begun.lstrip("${#!")
    known = world.variables()
    for name in fitting(sorted(known), prefix):
        text = begun[: len(begun) - len(prefix)] + name + ("}" if opening == "${" else "")
        yield Candidate(text, len(begun), name, _one_line(known[name]), final=False)


def _one_line(text: str) -> str:
    shown = text.replace("\n", "⏎")
    return shown if len(shown) <= MAX_ABOUT else shown[: MAX_ABOUT - 1] + "…"


# -- models and processes --------------------------------------------------------------------------------------------


def models(place: Place, world: World) -> Iterator[Candidate]:
    """Models by name, then files of weights."""
    known = {status.entry.name: status for status in world.models()}
    for name in fitting(list(known), place.word):
        status = known[name]
        state = "loaded" if status.worker is not None else status.problem
        yield candidate(place, name, ", ".join(filter(None, (state, status.entry.description))))
    yield from files(place, world, ending=".gguf")


def pids(place: Place, world: World) -> Iterator[Candidate]:
    """Jobs, then live processes."""
    yield from jobs(place, world)
    for process in world.processes():
        if str(process.pid).startswith(place.word):
            about = " · ".join((process.state.name.lower(), process.model, process.name))
            yield candidate(place, str(process.pid), about)


def jobs(place: Place, world: World) -> Iterator[Candidate]:
    """Jobs."""
    for job, about in world.jobs():
        if job.startswith(place.word):
            yield candidate(place, job, about)


def signals(place: Place, world: World) -> Iterator[Candidate]:
    """Signals by name."""
    begun = place.word.upper().removeprefix("SIG")
    for signal in Signal:
        if signal.startswith(begun):
            yield candidate(place, signal.value)


def policies(place: Place, world: World) -> Iterator[Candidate]:
    """Scheduling policies."""
    yield from choices(place, world.policies())


def syscalls(place: Place, world: World) -> Iterator[Candidate]:
    """The daemon's syscalls."""
    from llmos_shell.abi.syscalls import BUILTIN

    for name in fitting(sorted(BUILTIN), place.word):
        yield candidate(place, name, BUILTIN[name].summary)


# -- files -----------------------------------------------------------------------------------------------------------


def folders(place: Place, world: World) -> Iterator[Candidate]:
    """Folders only."""
    yield from files(place, world, fits=lambda entry, is_folder: is_folder)


def executables(place: Place, world: World) -> Iterator[Candidate]:
    """What can be run by its path, and folders on the way to it."""
    yield from files(place, world, fits=lambda entry, is_folder: is_folder or os.access(entry.path, os.X_OK))


def files(
    place: Place,
    world: World,
    ending: str = "",
    fits: Callable[[os.DirEntry[str], bool], bool] = lambda entry, is_folder: True,
) -> Iterator[Candidate]:
    """Files and folders, folders first; with `ending` only files that end so, and folders on the way to them.

    What was typed before the last slash stays as it is, quotes, `~` and variables included.
    """
    start = place.raw.rfind("/") + 1
    folder = expand_head(place.raw[:start], world.variables().get, world.home)
    tail = place.tail(start) if start else place
    if tail is None:  # a quote is open before the slash and closed after it: quote all of it anew
        tail, prefix = place, place.word.rpartition("/")[0] + "/"
        begun = place.word.rpartition("/")[2]
    else:
        prefix, begun = "", tail.word
    for name, is_folder in _list_folder(folder or ".", begun, ending, fits):
        shown = name + "/" * is_folder
        yield candidate(tail, prefix + shown, display=shown, final=not is_folder)


def _list_folder(
    folder: str, begun: str, ending: str, fits: Callable[[os.DirEntry[str], bool], bool]
) -> list[tuple[str, bool]]:
    found: list[tuple[str, bool]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") and not begun.startswith("."):
                    continue
                if not entry.name.casefold().startswith(begun.casefold()):
                    continue
                is_folder = _is_folder(entry)
                if (is_folder or entry.name.endswith(ending)) and fits(entry, is_folder):
                    found.append((entry.name, is_folder))
    except (OSError, ValueError):
        return []
    wanted = set(fitting([name for name, _ in found], begun))
    found = [(name, is_folder) for name, is_folder in found if name in wanted]
    found.sort(key=lambda item: (not item[1], item[0].casefold(), item[0]))
    return found[:MAX_FILES]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def after(place: Place, mark: str) -> Place | None:
    """The place behind the last such mark in the begun word, as a word of its own; None where there is none."""
    at = place.raw.rfind(mark)
    return place.tail(at + len(mark)) if at >= 0 else None


def find_manual(name: str) -> Manual | None:
    """The declaration of a command of ours, be it part of the language or not."""
    try:
        return commands.find(name) or LANGUAGE.get(name)
    except ImportError:
        return None


OFFERS: dict[str, Offer] = {
    "model": models,
    "pid": pids,
    "job": jobs,
    "target": pids,
    "signal": signals,
    "policy": policies,
    "syscall": syscalls,
    "command": own_commands,
    "page": pages,
    "runnable": command_words,
    "function": functions,
    "alias": aliases,
    "variable": variable_names,
    "folder": folders,
    "file": files,
    "str": files,
}
