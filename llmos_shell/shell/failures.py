"""The last program that failed in a shell, with its messages, so that `?` can explain it."""

from __future__ import annotations

from typing import NamedTuple

MAX_TROUBLES = 20
"""Messages of one program that are kept: the newest."""


class Trouble(NamedTuple):
    """One message of ours. `kind` is `syntax`, `expansion`, `shell` (the interpreter) or `command` (a built-in)."""

    kind: str
    message: str
    command: str = ""  # the built-in that said it
    code: str = ""  # of a daemon's error, as in `abi.errors.Code`
    offset: int = -1  # where in the text it is, in characters; -1: nowhere in particular


class Failure(NamedTuple):
    """A program, as it was typed, that ended with a status other than 0."""

    text: str
    status: int
    troubles: tuple[Trouble, ...] = ()


class Failures:
    """What one shell remembers."""

    def __init__(self) -> None:
        self.last: Failure | None = None
        self.fresh = False  # nothing has gone well since
        self._troubles: list[Trouble] = []

    def begin(self) -> None:
        """Another program begins."""
        self._troubles = []

    def note(self, trouble: Trouble) -> None:
        """One of ours complains. Threads of a pipeline may call it too."""
        self._troubles.append(trouble)
        del self._troubles[:-MAX_TROUBLES]

    def end(self, text: str, status: int) -> None:
        """The program has ended. One that went well, or only asked the assistant, changes nothing."""
        if text.lstrip().startswith("?"):
            return
        self.fresh = bool(status)
        if status:
            self.last = Failure(text.strip("\n"), status, tuple(self._troubles))
