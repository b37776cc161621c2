"""The interpreter: a `Shell` executes the shell language with real files, pipes and processes.

This is the published surface; the front end (REPL, `-c`, scripts) uses nothing else:

    shell = Shell(interactive=False, name="llmos", args=[])
    status = shell.run_text("echo hi | cat", name="-c")
    if shell.exited is not None: leave with that status
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmos_shell.ipc.client import Client
    from llmos_shell.shell.command import Context


class Shell:
    """One shell: variables, functions, options, jobs, and the connection to the daemon."""

    interactive: bool
    last_status: int
    exited: int | None  # set once `exit` was executed (or errexit fired): leave with this status

    def __init__(self, *, interactive: bool = False, name: str = "llmos", args: Sequence[str] = ()) -> None:
        """`name` is `$0`, `args` the positional parameters. Interactive shells take the terminal (job control)."""

    def run_text(self, text: str, name: str = "") -> int:
        """Executes a program; syntax errors and expansion errors are reported on stderr. Never raises but for bugs.

        An interrupt (Ctrl-C) gives status 130. In an interactive shell a line beginning with `?` runs the command `?`
        with the rest of the line as its only argument.
        """
        raise NotImplementedError

    def run_file(self, path: str, args: Sequence[str] = ()) -> int:
        """Executes a script file with these positional parameters."""
        raise NotImplementedError

    def complete_input(self, text: str) -> str:
        """`complete`, `incomplete` (the REPL asks for another line), or the message of the syntax error."""
        raise NotImplementedError

    def before_prompt(self) -> None:
        """To be called before each prompt: reports jobs that ended or stopped, and takes the terminal back."""
        raise NotImplementedError

    def close(self) -> int:
        """Ends the shell: runs the EXIT trap, hangs up on jobs if interactive, closes the connection; its status."""
        raise NotImplementedError

    def client(self) -> Client:
        """The connection to the daemon, made on first use; made anew, with the jobs reclaimed, after it was lost."""
        raise NotImplementedError

    def get(self, name: str) -> str | None:
        """A variable's value, None when unset."""
        raise NotImplementedError

    def set(self, name: str, value: str) -> None:
        """Sets a variable."""
        raise NotImplementedError

    def run_words(self, words: Sequence[str], context: Context) -> int:
        """Runs a command given as words, in the given context (its files, `nice`, `detached`, tracking)."""
        raise NotImplementedError

    def jobs(self) -> Any:
        """The job table (`llmos_shell.shell.jobs.Jobs`)."""
        raise NotImplementedError

    def command_names(self) -> list[str]:
        """All words that can be run except the host's programs: functions, aliases, built-ins (for completion)."""
        raise NotImplementedError

    def variable_names(self) -> list[str]:
        """All variables that are set (for completion)."""
        raise NotImplementedError
