"""The shell that stands behind `llmos COMMAND …`: one command, no language, as few imports as possible."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.shell import commands
from llmos_shell.shell.failures import Failures

if TYPE_CHECKING:
    from llmos_shell.ipc.client import Client
    from llmos_shell.ipc.session import Session
    from llmos_shell.shell.command import Context


class DirectShell:
    """Runs built-in commands given as words; variables are those of the environment."""

    interactive = False
    last_status = 0

    def __init__(self, name: str) -> None:
        self._name = name
        self.failures = Failures()
        self._session: Session | None = None
        self._variables: dict[str, str] = {}
        self._tracked: list[int] = []

    def client(self) -> Client:
        """The connection to the daemon, made on first use and made again when it was lost."""
        if self._session is None:
            from llmos_shell.ipc.session import Session

            self._session = Session(self._name)
        return self._session.client()

    def track(self, pid: int) -> None:
        """A command waits for this process: it is taken back after a reconnect, and stopped by Ctrl-Z."""
        if self._session is not None:
            self._session.own(pid)
        self._tracked.append(pid)
        if len(self._tracked) == 1 and os.isatty(0):
            from llmos_shell.shell.suspend import stop_together

            stop_together(lambda: self._tracked)

    def get(self, name: str) -> str | None:
        """A variable's value."""
        return self._variables.get(name, os.environ.get(name))

    def set(self, name: str, value: str) -> None:
        """Sets a variable, for this command only."""
        self._variables[name] = value

    def command_names(self) -> Sequence[str]:
        """The built-in commands."""
        return commands.names()

    def run_words(self, words: Sequence[str], context: Context) -> int:
        """Runs a built-in command in the given context."""
        command = commands.find(words[0])
        if command is None:
            return context.error(words[0], unknown_command(words[0])) + 126
        return commands.invoke(command, words[1:], context)

    def run_host(self, words: Sequence[str], context: Context) -> int:
        """Runs a program of the host in the foreground. While it runs, Ctrl-C is its business alone."""
        import signal
        import subprocess

        try:
            program = subprocess.Popen(words)
        except FileNotFoundError:
            return context.error(words[0], "no such program") + 126
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            status = program.wait()
        finally:
            signal.signal(signal.SIGINT, before)
        return status if status >= 0 else 128 - status

    def jobs(self) -> NoJobs:
        """An empty table: jobs belong to a shell with a language."""
        return NoJobs()

    def close(self) -> None:
        """Ends the session, if it ever began."""
        if self._session is not None:
            self._session.close()


class NoJobs:
    """The table of a shell that has no jobs."""

    def find(self, spec: str) -> Any:
        """There is none."""
        raise LlmosError(Code.ESRCH, f"{spec}: no such job", hint="jobs belong to a running `llmos` shell; use PIDs")

    def of_pid(self, pid: int) -> Any:
        """No process is part of a job."""
        return None


def unknown_command(word: str) -> LlmosError:
    """Says that there is no such command, with the likeliest that was meant."""
    from difflib import get_close_matches

    close = get_close_matches(word, commands.names(), 1)
    hint = f"did you mean `{close[0]}`?" if close else "`llmos help` lists the commands"
    return LlmosError(Code.ENOENT, "no such command or file", hint=hint)
