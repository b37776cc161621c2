"""The interpreter: a `Shell` executes the shell language with real files, pipes and processes.

What the front end (REPL, `-c`, scripts) uses:

    shell = Shell(interactive=False, name="llmos", args=[])
    status = shell.run_text("echo hi | cat", name="-c")
    if shell.exited is not None: leave with that status
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING

from llmos_shell.lang import ast
from llmos_shell.lang.errors import ExpansionError, ShellSyntaxError, Source
from llmos_shell.lang.parser import Parser, parse
from llmos_shell.shell.failures import Failures
from llmos_shell.shell.interpreter.control import ExitShell, LeaveLoop, ReturnFromFunction, StopRequested
from llmos_shell.shell.interpreter.execution import RECURSION_LIMIT, Executor
from llmos_shell.shell.interpreter.folders import Restore
from llmos_shell.shell.interpreter.jobs import Job, Jobs
from llmos_shell.shell.interpreter.terminal import IGNORED, Terminal, flush_streams, inherited_defaults

if TYPE_CHECKING:
    from llmos_shell.ipc.client import Client
    from llmos_shell.ipc.session import Session
    from llmos_shell.shell.command import Context

_INNER = frozenset({"eval", "trap"})
"""Programs that are part of another one."""


class Shell(Executor):
    """One shell: variables, functions, options, jobs, and the connection to the daemon."""

    def __init__(
        self,
        *,
        interactive: bool = False,
        name: str = "llmos",
        args: Sequence[str] = (),
        options: Mapping[str, bool] | None = None,
    ) -> None:
        """`name` is `$0`, `args` the positional parameters, `options` those of `set`. Interactive shells take the
        terminal (job control).
        """
        super().__init__()
        for option, on in (options or {}).items():
            setattr(self.options, option, on)
        self.shell = self
        self.interactive = interactive
        self.name = name
        self.parameters = list(args)
        self.exited: int | None = None  # set once `exit` was executed: leave with this status
        self.kept: list[int] = []  # descriptors that `exec` opened
        self.terminal = Terminal.of_stdin() if interactive else None
        self.job_control = self.terminal is not None
        self.default_signals = inherited_defaults(self.job_control)
        self.warned_of_jobs = False
        self.failures = Failures()
        self.interrupts = 0  # how often Ctrl-C was pressed since this was last set to 0
        self.pending_traps: list[str] = []
        self.in_trap = False  # the commands of ERR or DEBUG are running
        self.waiting = False  # in `wait`, which a trapped signal ends
        self.inherited_traps: dict[str, str] = {}  # of the shell that this is a subshell of, for `trap` to show
        self.timers: tuple[list[int], ...] = ()  # model processes started since each `time` around the present command
        self.getopts_index = 1  # where `getopts` is in the parameters,
        self.getopts_at = 1  # and in the word there
        self._holding = 0
        self._held = False
        self._jobs = Jobs()
        self._root = self
        self._session: Session | None = None
        self._session_lock = threading.Lock()
        self.context: Context | None = None  # of the command that runs another one (`nice`, `nohup`, `time`)
        self._catch_interrupts()
        if sys.getrecursionlimit() < RECURSION_LIMIT:
            sys.setrecursionlimit(RECURSION_LIMIT)
        if "PWD" not in self.variables.values or not _names_here(self.variables.values["PWD"]):
            self._set_pwd()

    def _catch_interrupts(self) -> None:
        """Counts Ctrl-C, so that a command that was interrupted can be told from one that only says so."""
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            return

        signal.signal(signal.SIGINT, self._on_interrupt)
        if self.terminal is not None:
            signal.signal(signal.SIGHUP, self._on_hang_up)

    def _on_hang_up(self, _number: int, _frame: FrameType | None) -> None:
        self._jobs.hang_up_hosts()
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGHUP)

    def _on_interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self.interrupts += 1
        if self._holding:
            self._held = True
        else:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def uninterrupted(self) -> Iterator[None]:
        """Ctrl-C is held back until this ends: a pipeline is started, or a module imported, as a whole."""
        root = self._root
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        root._holding += 1
        try:
            yield
        finally:
            root._holding -= 1
        if root._held and not root._holding:
            root._held = False
            raise KeyboardInterrupt

    def restore_signal(self, number: int) -> None:
        """Undoes a `trap`."""
        if number == signal.SIGINT:
            signal.signal(number, self._on_interrupt)
        elif self.terminal is not None and number in IGNORED:
            signal.signal(number, signal.SIG_IGN)
        else:
            signal.signal(number, signal.SIG_DFL)

    def _set_pwd(self) -> None:
        try:
            self.variables.set("PWD", os.getcwd())
        except OSError:
            self.variables.values.pop("PWD", None)

    def subshell(self, *, background: bool = False) -> Shell:
        """A copy whose changes stay in it. It shares the connection; in the background its job table is its own."""
        other = Shell.__new__(Shell)
        other.__dict__.update(self.__dict__)
        other.shell = other
        other.variables = self.variables.copy()
        other.functions = self.functions.copy()
        other.aliases = self.aliases.copy()
        other.options = self.options.copy()
        other.parameters = self.parameters
        other.traps = {name: action for name, action in self.traps.items() if action == ""}
        other.inherited_traps = self.inherited_traps | self.traps
        other.waiting = False
        other.depth = self.depth + 1
        other.kept = []
        other.folder = Restore(active=True)
        other._jobs = Jobs() if background else self._jobs.copy()
        other.pipeline = None
        other.seed ^= time.monotonic_ns() & 0x7FFFFFFF
        other._processes = []
        other._renew_expander()
        return other

    def outermost(self) -> Shell:
        """The shell that this is a subshell of."""
        return self._root

    # -- programs ----------------------------------------------------------------------------------------------------

    def run_text(self, text: str, name: str = "", first_line: int = 1) -> int:
        """Executes a program; syntax errors and expansion errors are reported on stderr. Never raises but for bugs.

        `name` and `first_line` say where it comes from, for messages.
        An interrupt (Ctrl-C) gives status 130. A line beginning with `?` runs the command `?` with the rest of the line
        as its only argument.
        """
        if self.exited is not None:
            return self.exited
        typed, warned = self.interactive and not name, self.warned_of_jobs
        if typed:
            self.failures.begin()
        try:
            self.run_program(text, name, ask=True, first_line=first_line)
        except ExitShell as leave:
            self.last_status = self.exited = leave.status
        except (ReturnFromFunction, LeaveLoop):
            pass
        except StopRequested:
            self.last_status = 148
        except KeyboardInterrupt:
            self.last_status = 130
            if self.interactive:
                self.say("")
            else:
                self.exited = 130
        except Exception as error:
            self.last_status = self._report(error)
        finally:
            self.loops = 0
            self._tested = 0
        if typed:
            self.failures.end(text, self.last_status)
            if warned and text.split()[:1] != ["jobs"]:  # another command came in between
                self.warned_of_jobs = False
        return self.last_status

    def run_program(self, text: str, name: str, *, ask: bool = False, first_line: int = 1) -> int:
        """Executes a program inside another (`eval`, `.`, traps); control flow and interrupts pass through.

        Syntax and expansion errors end it with status 2, and a non-interactive shell with it.
        """
        source = Source(text, name, (self.source, self._offset()) if name in _INNER else None, first_line)
        saved = self.source, self.current
        self.source, self.current = source, None
        try:
            return self._run_lines(source, ask)
        except (ShellSyntaxError, ExpansionError) as error:
            self._complain_of(error)
        except RecursionError:
            self.complain("commands are nested too deeply", 2)
        finally:
            self.source, self.current = saved
        self.last_status = 2
        if not self.interactive or self.depth:
            raise ExitShell(2)
        return 2

    def _run_lines(self, source: Source, ask: bool) -> int:
        parser = Parser(source, ask=ask, aliases=self.aliases)
        status = shown = 0
        while (command := parser.next_command()) is not None:
            if self.options.verbose and shown < parser.start:
                self.say(source.text[shown : parser.start].removesuffix("\n"))
            shown = parser.start + 1
            if not self.options.noexec or self.interactive:
                status = self.execute(command)
        if self.interrupted is not None:
            self.interrupted()
        return status

    def run_file(self, path: str, args: Sequence[str] = ()) -> int:
        """Executes a script file with these positional parameters."""
        from llmos_shell.shell.interpreter.texts import NoText, read_script

        try:
            text = read_script(path)
        except NoText as error:
            self.last_status = self.complain(f"{path}: {error}", error.status)
            return self.last_status
        self.parameters = list(args)
        return self.run_text(text, path)

    def complete_input(self, text: str) -> str:
        """`complete`, `incomplete` (the REPL asks for another line), or the message of the syntax error."""
        try:
            parse(text, ask=True, more=True)
        except ShellSyntaxError as error:
            return "incomplete" if error.incomplete else str(error)
        return "complete"

    def expand_text(self, text: str) -> str:
        """A text that is no program with its variables, `$(…)` and `$((…))` expanded, as in a here-document.

        The text as it is, after a message, where it cannot be.
        """
        saved, self.source = self.source, Source(text, "prompt")
        try:
            parts = Parser(self.source).read_here_body()
            return self._expander.string(ast.Word([ast.DoubleQuoted(parts)]))
        except (ShellSyntaxError, ExpansionError) as error:
            self._complain_of(error)
            return text
        finally:
            self.source = saved

    def before_prompt(self) -> None:
        """To be called before each prompt: reports jobs that ended or stopped, and takes the terminal back."""
        flush_streams()
        if self.terminal is not None:
            self.terminal.take_back(restore_modes=False)
        for line in self._jobs.news():
            self.say(line)

    def close(self) -> int:
        """Ends the shell: runs the EXIT trap, hangs up on jobs if interactive, closes the connection; its status.

        A non-interactive shell first waits for those background jobs that run in this process.
        """
        status = self.last_status if self.exited is None else self.exited
        try:
            status = self._run_exit_trap(status)
            if self.interactive:
                self._jobs.hang_up()
            else:
                for job in self._jobs:
                    job.wait_threads()
        except KeyboardInterrupt:
            status = 130
        flush_streams()
        self.close_files()
        if self.terminal is not None:
            self.terminal.close()
        if self._session is not None:
            self._session.close()
        return status

    def close_files(self) -> None:
        """Closes what `exec` opened."""
        for fd in self.kept:
            with contextlib.suppress(OSError):
                os.close(fd)
        self.kept = []

    # -- what commands ask of the shell ------------------------------------------------------------------------------

    def client(self) -> Client:
        """The connection to the daemon, made on first use; made anew, with the jobs reclaimed, after it was lost."""
        return self.session().client()

    def session(self) -> Session:
        """Keeps the connection."""
        root = self._root
        with root._session_lock:
            if root._session is None:
                from llmos_shell.ipc.session import Session

                title = "llmos" if root.interactive else f"llmos {root.name}"
                root._session = Session(title, interactive=root.interactive)
            return root._session

    def get(self, name: str) -> str | None:
        """A variable's value, None when unset."""
        return self.lookup(name) if name else None

    def set(self, name: str, value: str) -> None:
        """Sets a variable."""
        self.assign(name, value)

    def jobs(self) -> Jobs:
        """The job table."""
        return self._jobs

    def run_words(self, words: Sequence[str], context: Context) -> int:
        """Runs a command given as words, in the given context (its files, `nice`, `detached`, tracking)."""
        saved = self.context, self.files
        self.context = context
        try:
            return self.run_command(list(words))
        finally:
            self.context, self.files = saved

    def run_host(self, words: Sequence[str], context: Context) -> int:
        """Runs a program of the host, whatever else has its name, in the given context."""
        saved = self.context, self.files
        self.context = context
        try:
            return self._run_host(list(words), None)
        finally:
            self.context, self.files = saved

    def command_names(self) -> list[str]:
        """All words that can be run except the host's programs: functions, aliases, built-ins (for completion)."""
        from llmos_shell.shell.interpreter.builtins import all_names

        return sorted({*self.functions, *self.aliases, *all_names()})

    def variable_names(self) -> list[str]:
        """All variables that are set (for completion)."""
        return self.variables.names()

    # -- built-in commands that are not part of the language ---------------------------------------------------------

    def run_llmos(self, words: list[str]) -> int:
        """Runs a command of `commands/` with this shell's files."""
        with self.uninterrupted():
            from llmos_shell.shell import commands
            from llmos_shell.shell.interpreter.bridge import run_llmos

            commands.find(words[0])
        return run_llmos(self, words)

    def signal_model(self, pid: int, name: str) -> None:
        """Sends a signal to a model process; one that has ended is no error."""
        from llmos_shell.shell.interpreter.bridge import signal_model

        signal_model(self, pid, name)

    def new_job(self, node: ast.Command, *, own_group: bool) -> Job:
        """A job that is not in the table yet."""
        return Job(node, group=0 if own_group else None, signal_model=self.signal_model)

    def _renew_expander(self) -> None:
        from llmos_shell.lang.expansion import Expander

        self._expander = Expander(self)


def _names_here(path: str) -> bool:
    """Whether an inherited PWD is right."""
    try:
        return path.startswith("/") and os.path.samestat(os.stat(path), os.stat("."))
    except (OSError, ValueError):
        return False
