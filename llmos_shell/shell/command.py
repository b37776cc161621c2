"""How a built-in command is declared, and what it is given when it runs.

One declaration gives parsing, `--help`, `man`, `apropos`, completion and the pages under docs/, and tests run its
examples. Command modules live in `commands/`; each is imported only when one of its commands is used.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TextIO

from msgspec import Struct

from llmos_shell.abi.errors import LlmosError
from llmos_shell.shell.failures import Failures, Trouble

if TYPE_CHECKING:
    from llmos_shell.ipc.client import Client
    from llmos_shell.shell.handover import Handover


SHOWN_CONTROLS = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"},
    0x7F: 0x2421,
    **dict.fromkeys(range(128, 160), 65533),
}
"""Control pictures (␛ for ESC and so on) for the control characters that a terminal would act on."""


class UsageError(Exception):
    """A command was called wrongly: exit status 2. The text says what is wrong and how to mend it."""


class Option(Struct, frozen=True, omit_defaults=True):
    """One option of a command. Without `value` it is a flag."""

    flags: tuple[str, ...]  # e.g. ("-n", "--tokens")
    help: str
    value: str = ""  # name of the value in help, e.g. "N"
    type: str = "str"  # one of `arguments.CONVERTERS`, or a|b|c
    default: Any = None
    repeat: bool = False  # may be given several times; gathered in a tuple

    @property
    def name(self) -> str:
        """The key in the parsed arguments: the longest flag without its dashes, `-` as `_`."""
        return max(self.flags, key=len).lstrip("-").replace("-", "_")


class Operand(Struct, frozen=True, omit_defaults=True):
    """One positional argument; the last may be `many`. `type` as in `Option`."""

    name: str
    help: str = ""
    type: str = "str"
    required: bool = True
    many: bool = False  # takes all that is left


class Args(dict[str, Any]):
    """Parsed arguments, by option and operand name, also as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Example(Struct, frozen=True, omit_defaults=True):
    """A command line and what it does; tests run every one that has no `untested`.

    `before` is run first, in the same shell, and shown nowhere; the PID that it leaves in `pid` stands for 12 in the
    line. The folder of the test holds notes.txt, report.md, main.py and the like.
    """

    line: str
    does: str
    output: str = ""  # what it prints, where that is certain; shown on the page
    status: int = 0
    before: str = ""
    untested: str = ""  # why no test can run it


class _Named(Struct, frozen=True):
    name: str
    summary: str  # a phrase, without capital and full stop


class Manual(_Named, frozen=True, kw_only=True):
    """All that is known about a command, be it part of the language or not: the one source of its pages.

    Texts are Markdown of a modest kind: paragraphs, `code`, and blocks of lines that begin with two spaces, which stay
    as they are.
    """

    family: str = ""  # heading in `help`
    synopsis: tuple[str, ...] = ()  # the ways to call it; none: one, made from options and operands
    options: tuple[Option, ...] = ()
    operands: tuple[Operand, ...] = ()
    description: str = ""
    examples: tuple[Example, ...] = ()
    exit_statuses: tuple[tuple[str, str], ...] = ()  # none: those that every command has
    environment: tuple[tuple[str, str], ...] = ()  # variables that matter, with their meaning
    files: tuple[tuple[str, str], ...] = ()
    see_also: tuple[str, ...] = ()  # commands and topics


class Command(Manual, frozen=True):
    """A built-in command's declaration. `run` returns its exit status."""

    run: Callable[[Context, Args], int]
    raw: bool = False  # options end at the first operand, as for `nice CMD -x`
    rewrite: Callable[[Sequence[str]], list[str]] | None = None  # e.g. `kill -9` into `kill -s 9`


ERROR_STATUSES = (
    ("1", "something failed; one line on standard error says what"),
    ("2", "it was called wrongly"),
)
"""What every command's exit status means, besides 0 and what is its own."""


class ShellLike(Protocol):
    """What commands may ask of the shell they run in (the interpreter implements it)."""

    interactive: bool
    last_status: int
    failures: Failures

    def client(self) -> Client:
        """The shell's connection to the daemon, made on first use and made again when it was lost."""

    def get(self, name: str) -> str | None:
        """A variable's value."""

    def set(self, name: str, value: str) -> None:
        """Sets a variable."""

    def command_names(self) -> Sequence[str]:
        """All words that can be run, except programs of the host."""

    def run_words(self, words: Sequence[str], context: Context) -> int:
        """Runs a command given as words (for `time`, `nice`, `nohup`), in the given context."""

    def run_host(self, words: Sequence[str], context: Context) -> int:
        """Runs a program of the host in the foreground, to its end, and returns its exit status."""

    def jobs(self) -> Any:
        """The job table (`llmos_shell.shell.interpreter.jobs.Jobs`)."""


class Context:
    """What a running command has: its files, its shell, and whether it is in the foreground.

    `out` and `err` are text streams, `stdin` is binary; in a pipeline they are pipes. A command that starts a model
    process in the foreground announces it with `track`, so that Ctrl-C interrupts and Ctrl-Z stops that process.
    """

    def __init__(
        self,
        shell: ShellLike,
        *,
        stdin: BinaryIO,
        out: TextIO,
        err: TextIO,
        background: bool = False,
        nice: int = 0,
        detached: bool = False,
        on_track: Callable[[int], None] | None = None,
        on_reach: Callable[[int, int], None] | None = None,
        place: str = "",
        handover: Handover | None = None,
    ) -> None:
        self.shell = shell
        self.stdin = stdin
        self.out = out
        self.err = err
        self.background = background  # started with `&`, or a part of a background job
        self.nice = nice  # set by `nice -n`
        self.detached = detached  # set by `nohup`
        self.told_errno: int | None = None  # of an error of the host that ended the command with a message
        self._on_track = on_track
        self.on_reach = on_reach
        self.handover = handover  # of a background job, whose output may have to outlive the shell
        self.place = place  # where in a script the command is, as the beginning of a message

    def derive(
        self,
        *,
        nice: int | None = None,
        detached: bool | None = None,
        on_track: Callable[[int], None] | None = None,
    ) -> Context:
        """A context that differs in these points."""
        return Context(
            self.shell,
            stdin=self.stdin,
            out=self.out,
            err=self.err,
            background=self.background,
            nice=self.nice if nice is None else nice,
            detached=self.detached if detached is None else detached,
            on_track=self._on_track if on_track is None else on_track,
            on_reach=self.on_reach,
            place=self.place,
            handover=self.handover,
        )

    @property
    def client(self) -> Client:
        """The connection to the daemon."""
        return self.shell.client()

    def track(self, pid: int) -> None:
        """Says that this command now waits for (or, in the background, has started) that model process."""
        if self._on_track is not None:
            self._on_track(pid)

    def reached(self, pid: int, offset: int) -> None:
        """Says up to where (in characters) a tracked process's output was written, so that `fg` goes on from there."""
        if self.on_reach is not None:
            self.on_reach(pid, offset)

    def is_terminal(self) -> bool:
        """Whether output goes to a terminal, so that spinners and colours make sense."""
        try:
            return self.out.isatty()
        except ValueError:
            return False

    def clean(self, text: str) -> str:
        """Text that a model made, fit for `out`: a terminal is shown its control characters and must not obey them."""
        return text.translate(SHOWN_CONTROLS) if self.is_terminal() else text

    def show(self, text: str) -> None:
        """Writes text that a model made."""
        self.out.write(self.clean(text))

    def error(self, command: str, error: LlmosError | str) -> int:
        """Writes `llmos: COMMAND: what is wrong: how to mend it` and returns exit status 1."""
        print(f"llmos: {self.place}{command}: {error}", file=self.err, flush=True)
        code = error.code if isinstance(error, LlmosError) else ""
        self.shell.failures.note(Trouble("command", str(error), command, code))
        return 1


def debug() -> bool:
    """Whether tracebacks are wanted (LLMOS_DEBUG=1)."""
    import os

    return os.environ.get("LLMOS_DEBUG", "") not in ("", "0")


def report_bug(command: str, err: TextIO) -> int:
    """Says that a command failed unexpectedly, with the traceback if wanted; exit status 1."""
    error = sys.exc_info()[1]
    print(f"llmos: {command}: internal error: {type(error).__name__}: {error}", file=err, flush=True)
    if debug():
        import traceback

        traceback.print_exc(file=err)
    return 1
