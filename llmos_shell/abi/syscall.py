"""How a syscall is declared. The declaration is the single source for decoding, checking, docs and tool schemas."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Syscall(Struct, frozen=True):
    """One entry of the syscall table.

    `args` is a Struct type; `result` the type of the reply's value, or of each item when `streams`. `capability` is
    what the caller must hold. The handler is not part of the declaration: the daemon (or a plugin) binds one.
    """

    name: str  # family.verb
    summary: str
    args: type[Struct]
    result: Any
    capability: str
    streams: bool = False


class Nothing(Struct, frozen=True):
    """No arguments, or no result."""


class Pid(Struct, frozen=True):
    """A call about one process."""

    pid: int
