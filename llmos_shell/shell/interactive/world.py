"""What completion, colours and prompts ask of this shell, of the host and of the live system.

Everything here is quick, or remembered. What is typed is looked at by the main thread; completion runs in another.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from llmos_shell.abi.types import ModelStatus, ProcessInfo
from llmos_shell.shell.surroundings import programs_on

if TYPE_CHECKING:
    from llmos_shell.shell.interactive.live import Live
    from llmos_shell.shell.interpreter.shell import Shell

PATH_SECONDS = 0.02
"""How long colouring waits for the answer whether a file is there; a slower one comes with a later redraw."""


class ReplWorld:
    """Implements `offers.World` and `highlight.Names`."""

    def __init__(self, shell: Shell, live: Live) -> None:
        self._shell = shell
        self._live = live
        self._programs: tuple[str, tuple[str, ...]] = ("\0", ())
        self._kinds: dict[str, str] = {}
        self._builtins: dict[str, str] = {}
        self.paths = PathProbe()

    # -- for completion ----------------------------------------------------------------------------------------------

    def builtins(self) -> Mapping[str, str]:
        """Built-in commands, with what they do."""
        if not self._builtins:
            self._builtins = _summaries()
        return self._builtins

    def functions(self) -> Sequence[str]:
        """The shell's functions."""
        return list(self._shell.functions)

    def aliases(self) -> Mapping[str, str]:
        """Aliases, with what they stand for."""
        return dict(self._shell.aliases)

    def programs(self) -> Sequence[str]:
        """The host's programs on the present PATH."""
        path = self._path()
        if self._programs[0] != path:
            self._programs = (path, tuple(sorted(programs_on(path))))
        return self._programs[1]

    def variables(self) -> Mapping[str, str]:
        """Variables that are set."""
        names = self._shell.variable_names()
        return {name: value for name in names if (value := self._shell.get(name)) is not None}

    def home(self, user: str) -> str | None:
        """A user's home folder."""
        return self._shell.home(user)

    def jobs(self) -> Sequence[tuple[str, str]]:
        """Jobs as `%1`, with their state and what they run."""
        return [(f"%{job.number}", f"{job.state().lower()} · {job.text}") for job in self._shell.jobs()]

    def processes(self) -> Sequence[ProcessInfo]:
        """Live processes."""
        return self._live.processes()

    def models(self) -> Sequence[ModelStatus]:
        """All models."""
        return self._live.models()

    def policies(self) -> Sequence[str]:
        """Scheduling policies."""
        return self._live.policies()

    # -- for colours -------------------------------------------------------------------------------------------------

    def new_prompt(self) -> None:
        """Forgets what a command may have changed."""
        self._kinds.clear()
        self.paths.forget()

    def kind(self, word: str) -> str:
        """What a word is as a command; empty when it is none."""
        known = self._kinds.get(word)
        if known is None:
            known = self._kinds[word] = self._find_kind(word)
        return known

    def _find_kind(self, word: str) -> str:
        if word in self._shell.aliases:
            return "alias"
        if word in self._shell.functions:
            return "function"
        if "/" in word:
            return "program" if _is_program(os.path.expanduser(word)) else ""
        if self._shell.is_in_process(word):
            return "builtin"
        folders = self._path().split(os.pathsep)
        return "program" if any(_is_program(os.path.join(folder or ".", word)) for folder in folders) else ""

    def is_model(self, word: str) -> bool:
        """Whether a model of that name has been heard of."""
        return word in self._live.model_names()

    def is_path(self, word: str) -> bool:
        """Whether a file or folder is known to be there."""
        return self.paths.exists(word)

    def _path(self) -> str:
        return self._shell.get("PATH") or os.environ.get("PATH", "")


class PathProbe:
    """Whether files are there, asked of the host by a thread, because a folder on a network can take for ever."""

    def __init__(self) -> None:
        self.on_news: Callable[[], None] = lambda: None
        self.generation = 0  # grows whenever an answer came too late for the redraw that asked
        self._known: dict[str, bool] = {}
        self._wanted: list[str] = []
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None

    def forget(self) -> None:
        """Asks anew from now on."""
        with self._condition:
            self._known.clear()

    def exists(self, path: str) -> bool:
        """Whether it is there, as far as known within a moment."""
        with self._condition:
            if path not in self._known and path not in self._wanted:
                self._wanted.append(path)
                self._start()
                self._condition.notify_all()
                self._condition.wait_for(lambda: path in self._known, PATH_SECONDS if len(self._wanted) == 1 else 0)
            return self._known.get(path, False)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="paths", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._wanted)
                path = self._wanted[0]
            there = _lexists(os.path.expanduser(path))
            with self._condition:
                self._wanted.pop(0)
                self._known[path] = there
                self._condition.notify_all()
                self.generation += there
            if there:
                self.on_news()


def _lexists(path: str) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:
        return False


def _is_program(path: str) -> bool:
    try:
        return os.access(path, os.X_OK) and not os.path.isdir(path)
    except ValueError:
        return False


def _summaries() -> dict[str, str]:
    from llmos_shell.shell.interactive.offers import find_manual
    from llmos_shell.shell.interpreter.builtins import all_names

    manuals = {name: find_manual(name) for name in all_names()}
    return {name: manual.summary if manual is not None else "" for name, manual in manuals.items()}
