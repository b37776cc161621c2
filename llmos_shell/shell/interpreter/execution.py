"""Executes the syntax tree: lists, functions and simple commands. Conditions and loops are `compound.py`'s, pipelines
and jobs `pipelines.py`'s.

`Executor` is the part of a shell that walks the tree; `interpreter.Shell` adds the outside: connection, terminal,
texts and files to run.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from llmos_shell.lang import ast
from llmos_shell.lang.errors import ExpansionError, ShellSyntaxError, Source
from llmos_shell.lang.parser import DECLARATIONS, mark_assignment_tildes
from llmos_shell.shell.failures import Trouble
from llmos_shell.shell.interpreter import folders
from llmos_shell.shell.interpreter.arrays import ArrayArgument
from llmos_shell.shell.interpreter.compound import CompoundCommands
from llmos_shell.shell.interpreter.control import ExitShell, LeaveLoop, ReturnFromFunction, StopRequested
from llmos_shell.shell.interpreter.environment import Frame
from llmos_shell.shell.interpreter.hostproc import StartError, find_program, start, start_stoppable
from llmos_shell.shell.interpreter.options import Options
from llmos_shell.shell.interpreter.redirect import Files, RedirectError, Redirection, write_all

if TYPE_CHECKING:
    from llmos_shell.shell.interpreter.builtins import Builtin
    from llmos_shell.shell.interpreter.jobs import Job, ThreadMember
    from llmos_shell.shell.interpreter.shell import Shell

MAX_CALLS = 500
"""How deep functions, `eval` and `.` may nest."""

RECURSION_LIMIT = 25_000
"""Python frames that take; each of them is small and none is on the C stack."""

LOST_READER = 141
"""Exit status of what wrote to a pipe that nobody reads: 128 + SIGPIPE."""

DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
FIRST_NAMED = 10
"""The lowest descriptor that `{name}>file` takes."""

_TAKE_ANYTHING = frozenset({"echo", "test", "[", ":", "true", "false", "kill", "let"})
"""Built-ins for which `--help` is a word like any other, or which leave it to another command."""

_DECLARATIONS = frozenset({*DECLARATIONS, "alias"})


class Executor(CompoundCommands):
    """State that commands can change, and the execution of commands. A subshell has a copy."""

    shell: Shell

    def __init__(self) -> None:
        super().__init__()
        self.functions: dict[str, tuple[ast.Function, Source]] = {}
        self.aliases: dict[str, str] = {}
        self.options = Options()
        self.files = Files()
        self.traps: dict[str, str] = {}
        self.job: Job | None = None  # the job whose thread executes this
        self.member: ThreadMember | None = None
        self.pipeline: Job | None = None  # the one whose first element this is, run by the main thread
        self.background = False
        self.depth = 0  # of subshells
        self.folder = folders.Restore()
        self._calls = 0
        self._traced: Files | None = None  # what the trace of a command with redirections is written to
        self.ordinary = 0  # inside `command`: special built-ins are like others
        self._substituted: int | None = None  # status of the last command substitution
        self.interrupted: Callable[[], None] | None = None

    # -- the environment of expansions -------------------------------------------------------------------------------

    def substitute(self, body: ast.Sequence) -> str:
        """A command substitution."""
        from llmos_shell.shell.interpreter.pipelines import capture

        output, self._substituted = capture(self.shell, body)
        return output

    def process(self, part: ast.ProcessSubstitution) -> str:
        """A process substitution, whose file is there until the present command ends."""
        from llmos_shell.shell.interpreter.pipelines import start_process

        found = start_process(self.shell, part)
        self._processes.append(found)
        self.files = self.files.replace({found.fd: found.fd})
        return f"/dev/fd/{found.fd}"

    def end_processes(self, kept: int = 0, *, wait: bool = True) -> None:
        """Closes the files of process substitutions but the first ones, and waits for those that were written to."""
        ended, self._processes = self._processes[kept:], self._processes[:kept]
        closed = {found.fd for found in ended}
        self.files = Files({fd: real for fd, real in self.files.table.items() if fd not in closed})
        for found in ended:
            found.end(wait=wait)

    # -- lists and conditions ----------------------------------------------------------------------------------------

    def execute(self, node: ast.Command | ast.Sequence) -> int:
        """Executes a command; its status is also `$?` from then on."""
        if self.interrupted is not None:
            self.interrupted()
        status: int = _HANDLERS[type(node)](self, node)
        self.last_status = status
        return status

    def _and_or(self, node: ast.AndOr) -> int:
        last = len(node.operators)
        status = self._condition(node.commands[0])
        for index, operator in enumerate(node.operators, 1):
            if (status == 0) == (operator == "&&"):
                command = node.commands[index]
                status = self.execute(command) if index == last else self._condition(command)
        return status

    def _checked(self, status: int) -> int:
        """Runs the ERR trap and leaves the shell if `set -e` says so."""
        if status and not self._tested:
            if "ERR" in self.traps:
                self._run_pseudo_trap("ERR", status)
            if self.options.errexit:
                raise ExitShell(status)
        return status

    def _run_pseudo_trap(self, name: str, status: int) -> None:
        from llmos_shell.shell.interpreter.traps import run_pseudo_trap

        self.last_status = status
        run_pseudo_trap(self.shell, name)

    def misused(self, status: int) -> int:
        """A special built-in was used wrongly: a script or a subshell ends with it, unless it was run by `command`."""
        if self.ordinary or (self.shell.interactive and not self.depth):
            return status
        raise ExitShell(status)

    def _pipeline(self, node: ast.Pipeline) -> int:
        from llmos_shell.shell.interpreter.pipelines import run_pipeline

        if node.negated:
            command = node.commands[0] if len(node.commands) == 1 else ast.Pipeline(node.commands)
            return int(not self._condition(command))
        return self._checked(run_pipeline(self.shell, node))

    def _timed(self, node: ast.Timed) -> int:
        from llmos_shell.shell.interpreter.timing import run_timed

        return run_timed(self.shell, node)

    def _background(self, node: ast.Background) -> int:
        from llmos_shell.shell.interpreter.pipelines import run_background

        return run_background(self.shell, node.body)

    # -- compound commands -------------------------------------------------------------------------------------------

    def _group(self, node: ast.Group) -> int:
        return self._sequence(node.body)

    def _subshell(self, node: ast.Subshell) -> int:
        return self._checked(self.shell.subshell().run_contained(node.body))

    def _redirected(self, node: ast.Redirected) -> int:
        self.current = node
        redirection = Redirection(self.files)
        before, processes = self.files, len(self._processes)
        try:
            self._redirect(redirection, node.redirects)
            self.files = redirection.files
            return self.execute(node.body)
        except RedirectError as error:
            return self._checked(self.complain(str(error), 1))
        finally:
            self.files = before
            redirection.close()
            if len(self._processes) > processes:
                self.end_processes(processes)

    def _redirect(self, redirection: Redirection, redirects: list[ast.Redirect]) -> None:
        for redirect in redirects:
            if isinstance(redirect.fd, str):
                redirect = self._with_descriptor(redirection, redirect, redirect.fd)
            redirection.add(redirect, self._expander.string, self.options.noclobber)

    def _with_descriptor(self, redirection: Redirection, redirect: ast.Redirect, name: str) -> ast.Redirect:
        """The redirection with a free descriptor, which is kept in the variable, or to close with that one."""
        if redirect.target.literal() == "-":
            known = self.lookup(name) or ""
            if not known.isdecimal():
                raise RedirectError(f"{name}: holds no file descriptor to close")
            number = int(known)
        else:
            number = next(each for each in range(FIRST_NAMED, 1 << 16) if each not in redirection.files.table)
            self.assign(name, str(number))
        return ast.Redirect(number, redirect.operator, redirect.target, redirect.offset)

    def _function(self, node: ast.Function) -> int:
        self.functions[node.name] = (node, self.source)
        return 0

    def _ask(self, node: ast.Ask) -> int:
        return self.run_command(["?", node.text] if node.text else ["?"])

    # -- simple commands ---------------------------------------------------------------------------------------------

    def _expand(self, words: list[ast.Word]) -> list[str]:
        first = words[0].literal() if words else None
        if first in _DECLARATIONS:
            return self._expand_declaration(words)
        return self._expander.fields(words)

    def _expand_declaration(self, words: list[ast.Word]) -> list[str]:
        """Arguments such as `name=value` are not split, as in an assignment."""
        out: list[str] = []
        for word in words:
            first, last = (word.parts[0], word.parts[-1]) if word.parts else (None, None)
            if isinstance(first, ast.Literal) and isinstance(last, ast.ArrayValue):
                out.append(ArrayArgument.of(first.text, self._expander.elements(last)))
            elif isinstance(first, ast.Literal) and "=" in first.text:
                out.append(self._expander.string(mark_assignment_tildes(word)))
            else:
                out += self._expander.fields([word])
        return out

    def _simple(self, node: ast.Simple) -> int:
        self.current = node
        self._substituted = None
        if "DEBUG" in self.traps:
            self._run_pseudo_trap("DEBUG", self.last_status)
        processes = len(self._processes)
        words: list[str] = []
        try:
            if node.words:
                words = self._expand(node.words)
            status = self.run_expanded(node, words)
        finally:
            if len(self._processes) > processes:
                self.end_processes(processes, wait=words[:1] != ["exec"])
        self.pipe_statuses = None
        self.last_argument = words[-1] if words else ""
        return status

    def run_expanded(self, node: ast.Simple, words: list[str]) -> int:
        """Executes a simple command whose words have been expanded."""
        self.current = node
        if not node.redirects:
            return self._checked(self._run_simple(node, words))
        redirection = Redirection(self.files)
        before = self.files
        try:
            self._redirect(redirection, node.redirects)
            if self.options.xtrace:
                self._traced = before
            self.files = redirection.files
            if words and words[0] == "exec" and "exec" not in self.functions and len(words) == 1:
                before = self.keep_files(redirection)
            return self._checked(self._run_simple(node, words))
        except RedirectError as error:
            return self._checked(self._not_redirected(error, words))
        finally:
            self.files = before
            redirection.close()

    def _not_redirected(self, error: RedirectError, words: list[str]) -> int:
        from llmos_shell.shell.interpreter.builtins import SPECIAL

        status = self.complain(str(error), 1)
        return self.misused(2) if words and words[0] in SPECIAL else status

    def keep_files(self, redirection: Redirection) -> Files:
        """Makes redirections permanent (`exec` without a command)."""
        opened = {fd: os.dup(fd) for fd in redirection.opened}
        self.shell.kept += opened.values()
        table = redirection.files.table
        return Files({fd: None if real is None else opened.get(real, real) for fd, real in table.items()})

    def _run_simple(self, node: ast.Simple, words: list[str]) -> int:
        if not node.assignments:
            if self.options.xtrace:
                self._trace(words, [])
            return self.run_command(words) if words else self._substituted or 0
        if not words:
            traced = [self._assign(assignment) for assignment in node.assignments]
            if self.options.xtrace:
                from llmos_shell.shell.interpreter.trace import trace

                trace(self.shell, " ".join(traced))
            return self._substituted or 0
        assignments: dict[str, str] = {}
        for assignment in node.assignments:
            name = assignment.name
            old = (assignments.get(name) or self.lookup(name) or "") if assignment.append else ""
            assignments[name] = old + self.value_for_command(assignment)
        if self.options.xtrace:
            self._trace(words, list(assignments.items()))
        return self.run_command(words, assignments)

    def _assign(self, assignment: ast.Assignment) -> str:
        """Carries out an assignment that stands alone; how the trace shows it, if there is one."""
        name, word, append = assignment.name, assignment.value, assignment.append
        if assignment.holds_array():
            elements = self._expander.elements(word.parts[0])  # type: ignore[arg-type]
            self.assign_array(name, elements, append=append)
            if self.options.xtrace:
                from llmos_shell.shell.interpreter.trace import shown_elements

                return f"{name}{'+' if append else ''}={shown_elements(elements)}"
            return ""
        if assignment.index is None:
            value = self._expander.string(word)
            (self.append if append else self.assign)(name, value)
        else:
            index, value = self._expander.string(assignment.index), self._expander.string(word)
            self.assign_element(name, index, value, append=append)
            name = f"{name}[{index}]"
        if not self.options.xtrace:
            return ""
        from shlex import quote

        return f"{name}{'+' if append else ''}={quote(value)}"

    def value_for_command(self, assignment: ast.Assignment) -> str:
        """The value of an assignment before a command. Raises `ExpansionError`."""
        if assignment.index is not None or assignment.holds_array():
            message = f"{assignment.name}: an array cannot be set for one command only"
            raise ExpansionError(message, assignment.offset)
        return self._expander.string(assignment.value)

    def _trace(self, words: list[str], assignments: list[tuple[str, str]]) -> None:
        from shlex import quote

        from llmos_shell.shell.interpreter.trace import trace

        pieces = [f"{name}={quote(value)}" for name, value in assignments] + [quote(word) for word in words]
        files = self.files
        self.files, self._traced = self._traced or files, None
        trace(self.shell, " ".join(pieces))
        self.files = files

    def run_command(self, words: list[str], assignments: dict[str, str] | None = None) -> int:
        """Runs a command given as words, wherever it is found."""
        from llmos_shell.shell.interpreter.builtins import BUILTINS, SPECIAL

        name = words[0]
        builtin = BUILTINS.get(name)
        if builtin is not None and name in SPECIAL:
            for each, value in (assignments or {}).items():
                self.assign(each, value)
            return self._run_builtin(builtin, words)
        function = self.functions.get(name)
        if function is None and builtin is None and not self._is_command(name):
            return self._run_host(words, assignments)
        undo = self.variables.temporarily(assignments) if assignments else None
        try:
            if function is not None:
                return self.call(function, words[1:])
            if builtin is not None:
                return self._run_builtin(builtin, words)
            return self.shell.run_llmos(words)
        finally:
            if undo is not None:
                undo()

    def _is_command(self, name: str) -> bool:
        """Whether it is a command of ours that is not a part of the language."""
        if "/" in name:
            return False
        with self.shell.uninterrupted():
            from llmos_shell.shell.interpreter.builtins import is_command

            return is_command(name)

    def is_in_process(self, name: str) -> bool:
        """Whether a command runs in this process."""
        from llmos_shell.shell.interpreter.builtins import BUILTINS

        return name in self.functions or name in BUILTINS or self._is_command(name)

    def _run_builtin(self, builtin: Builtin, words: list[str]) -> int:
        try:
            if len(words) == 2 and words[1] == "--help" and words[0] not in _TAKE_ANYTHING:
                from llmos_shell.shell.interpreter.language_help import write_help

                return write_help(self.shell, words[0])
            return builtin(self.shell, words)
        except BrokenPipeError:
            return self.lost_reader()
        except OSError as error:
            return self.complain(f"{words[0]}: {(error.strerror or str(error)).lower()}", 1)

    def lost_reader(self) -> int:
        """What SIGPIPE does elsewhere: nobody reads the output any more, so the subshell or script ends."""
        if self.shell.interactive and not self.depth:
            return LOST_READER
        raise ExitShell(LOST_READER)

    def call(self, function: tuple[ast.Function, Source], arguments: list[str]) -> int:
        """Calls a function."""
        self.enter_call()
        node, source = function
        saved = self.parameters, self.loops, self.source, self.current, self.frames
        self.frames = Frame(node.name, self.source.name, self._line(), self.frames)
        self.parameters, self.loops, self.source = arguments, 0, source
        self.variables.push()
        try:
            return self.execute(node.body)
        except ReturnFromFunction as returned:
            return returned.status
        except ExpansionError as error:
            raise error.located(source, self._offset()) from None
        finally:
            self.parameters, self.loops, self.source, self.current, self.frames = saved
            self.variables.pop()
            self._calls -= 1

    def enter_call(self) -> None:
        """Counts calls, so that endless recursion is an error; `leave_call` ends one."""
        if self._calls >= MAX_CALLS:
            raise ExpansionError(f"functions, `eval` and `.` are nested more than {MAX_CALLS} deep")
        self._calls += 1

    def leave_call(self) -> None:
        """Ends a call."""
        self._calls -= 1

    def _run_host(self, words: list[str], assignments: dict[str, str] | None) -> int:
        from llmos_shell.shell.interpreter.pipelines import run_host

        context = self.shell.context
        if context is not None:
            words = [*(["nohup"] if context.detached else ()), *_niced(context.nice), *words]
        try:
            return run_host(self.shell, words, assignments)
        except StartError as error:
            return self.complain(str(error), error.status)

    def start_host(
        self, words: Sequence[str], assignments: dict[str, str] | None, files: Files, group: int | None
    ) -> int:
        """Starts a program of the host and returns its PID. Raises `StartError`."""
        path = (assignments or {}).get("PATH", self.variables.values.get("PATH", DEFAULT_PATH))
        program = find_program(words[0], path)
        environment = self.variables.environment(assignments)
        shell = self.shell
        if shell.terminal is None:
            return start(program, words, environment, files, shell.default_signals)
        signals = dict.fromkeys(shell.default_signals, signal.SIG_DFL)
        if not shell.job_control and shell.job is None:
            signals[signal.SIGTSTP] = signal.SIG_IGN  # in a `$(…)`, where nobody could continue it
        return start_stoppable(
            program, words, environment, files, signals, group, lambda error: self.complain(str(error), error.status)
        )

    # -- messages ----------------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Writes a line to stderr."""
        with contextlib.suppress(OSError):
            write_all(self.files.get(2), f"{text}\n".encode("utf-8", "surrogateescape"))

    def complain(self, text: str, status: int) -> int:
        """Says what is wrong, in a script also where; gives the status back."""
        self.say(f"llmos: {self.place()}{text}")
        self.shell.failures.note(Trouble("shell", text))
        return status

    def place(self) -> str:
        """Where the present command is, as the beginning of a message; nothing for a line that was typed."""
        return self.source.place(self._offset())

    def _complain_of(self, error: ExpansionError | ShellSyntaxError) -> int:
        """Shows an error in the text of a program; status 2."""
        if isinstance(error, ShellSyntaxError):
            text = self.source.point_out(error.message, error.position.offset)
            here = -1 if self.source.name else error.position.offset
            trouble = Trouble("syntax", error.message, offset=here)
        else:
            text = error.located(self.source, self._offset()).describe()
            trouble = Trouble("expansion", str(error))
        self.say(f"llmos: {text}")
        self.shell.failures.note(trouble)
        return 2

    # -- running to the end ------------------------------------------------------------------------------------------

    def run_contained(self, node: ast.Command | ast.Sequence, run: Callable[[], int] | None = None) -> int:
        """Executes in a subshell: whatever happens, a status comes out, and the folder is as before."""
        try:
            status = self._run_to_status(run or (lambda: self.execute(node)))
            return self._run_exit_trap(status)
        except StopRequested:
            if self.job is None:
                raise
            return 148
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise
            if isinstance(error, KeyboardInterrupt):
                return 130
            if not isinstance(error, Exception):
                raise
            return self._report(error)
        finally:
            self.folder.undo()

    def _run_to_status(self, run: Callable[[], int]) -> int:
        try:
            return run()
        except ExitShell as leave:
            return leave.status
        except (ReturnFromFunction, LeaveLoop) as leave:
            return getattr(leave, "status", 0)
        except (ExpansionError, ShellSyntaxError) as error:
            return self._complain_of(error)

    def _run_exit_trap(self, status: int) -> int:
        action = self.traps.pop("EXIT", "")
        if not action:
            return status
        self.last_status = status
        try:
            self.shell.run_program(action, "trap")
        except ExitShell as leave:
            return leave.status
        except (ReturnFromFunction, LeaveLoop):
            pass
        return status

    def _report(self, error: Exception) -> int:
        """A bug of ours: one line, and the traceback with LLMOS_DEBUG=1."""
        status = self.complain(f"internal error: {type(error).__name__}: {error}", 1)
        if os.environ.get("LLMOS_DEBUG", "0") not in ("", "0"):
            import traceback

            traceback.print_exception(error, file=sys.stderr)
        return status


def _niced(nice: int) -> list[str]:
    """What gives a program of the host the priority that `nice` asked for."""
    return ["nice", "-n", str(nice)] if nice else []


_HANDLERS: dict[type, Callable[[Any, Any], int]] = {
    ast.Simple: Executor._simple,
    ast.Sequence: Executor._sequence,
    ast.AndOr: Executor._and_or,
    ast.Pipeline: Executor._pipeline,
    ast.Timed: Executor._timed,
    ast.Background: Executor._background,
    ast.Group: Executor._group,
    ast.Subshell: Executor._subshell,
    ast.Redirected: Executor._redirected,
    ast.If: Executor._if,
    ast.While: Executor._while,
    ast.For: Executor._for,
    ast.ForArithmetic: Executor._for_arithmetic,
    ast.Select: Executor._select,
    ast.ArithmeticCommand: Executor._arithmetic_command,
    ast.Conditional: Executor._conditional,
    ast.Case: Executor._case,
    ast.Function: Executor._function,
    ast.Ask: Executor._ask,
}
