"""What there is around a shell: programs of the host, files, models. Looked at, never changed."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from functools import cached_property
from typing import TYPE_CHECKING

from llmos_shell.abi.errors import LlmosError

if TYPE_CHECKING:
    from llmos_shell.shell.command import ShellLike


def programs_on(path: str) -> set[str]:
    """Names of the programs in the folders of a PATH."""
    found: set[str] = set()
    for folder in path.split(os.pathsep):
        try:
            with os.scandir(folder or ".") as entries:
                found.update(entry.name for entry in entries if os.access(entry.path, os.X_OK) and not entry.is_dir())
        except OSError:
            continue
    return found


class ShellSurroundings:
    """Implements `explanations.Surroundings` for a shell."""

    def __init__(self, shell: ShellLike) -> None:
        self._shell = shell

    def commands(self) -> Collection[str]:
        """Built-in commands, functions and aliases."""
        return self._shell.command_names()

    def programs(self) -> Collection[str]:
        """The host's programs."""
        return programs_on(self._shell.get("PATH") or os.environ.get("PATH", ""))

    def models(self) -> Collection[str]:
        """Names of models; none when no daemon runs."""
        return self._models

    @cached_property
    def _models(self) -> tuple[str, ...]:
        from llmos_shell.abi.syscalls import MODEL_LIST, Nothing
        from llmos_shell.ipc.client import connect

        try:
            with connect("llmos ?", start=False) as client:
                return tuple(status.entry.name for status in client.call(MODEL_LIST, Nothing()))
        except LlmosError:
            return ()

    def kind(self, path: str) -> str:
        """`file`, `program`, `folder`, `missing`, or `closed` for what may not be read."""
        try:
            mode = os.stat(os.path.expanduser(path)).st_mode
        except PermissionError:
            return "closed"
        except (OSError, ValueError):
            return "missing"
        if stat.S_ISDIR(mode):
            return "folder"
        return "program" if os.access(os.path.expanduser(path), os.X_OK) else "file"

    def names(self, folder: str) -> Collection[str]:
        """What is in a folder."""
        try:
            return os.listdir(os.path.expanduser(folder))
        except (OSError, ValueError):
            return ()
