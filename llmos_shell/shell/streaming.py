"""Following a process's output: across interruptions by the user, and across the loss of the daemon.

The offset reached is the only state. After a lost connection the shell's new client follows again from there, so
nothing is lost and nothing comes twice.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TextIO

from msgspec import Struct

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscall import Syscall
from llmos_shell.abi.syscalls import PROC_FOLLOW, PROC_KILL, Follow, Kill, Output
from llmos_shell.abi.types import ExitInfo, Reason, Signal
from llmos_shell.ipc.client import ConnectionLost
from llmos_shell.ipc.interrupts import Uninterrupted

if TYPE_CHECKING:
    from llmos_shell.shell.command import Context

RECONNECTS = 5
"""How often in a row a connection may be lost without any output in between, before we give up."""


class Followed(Struct, frozen=True):
    """Where following ended: at the process's exit, or with `until="idle"` possibly at the end of a turn."""

    offset: int  # characters of output seen
    exit: ExitInfo | None = None
    turn: Reason | None = None
    interrupted: bool = False  # by the user, with Ctrl-C


def follow_output(
    context: Context,
    pid: int,
    *,
    offset: int = 0,
    until: Literal["exit", "idle"] = "exit",
    logprobs: bool = False,
    on_item: Callable[[Output], None] | None = None,
    on_interrupt: Callable[[int], None] | None = None,
    foreground: bool = True,
) -> Followed:
    """Follows a process and writes its text to `context.out` (or hands every item to `on_item`, which must not wait).

    Ctrl-C calls `on_interrupt` with how often it was pressed (by default: sends INT, the third time KILL) and goes on
    following, because the process itself says how it ends. In the foreground a person waits for what it says, which
    the scheduler takes into account; a command in the background is none. Anything else that is raised passes through.
    """
    take = on_item if on_item is not None else _writer(context)
    follower = _Follower(context, pid, offset, take, foreground and not context.background)
    interrupts = 0
    handled = 0
    while True:
        try:
            if handled < interrupts:
                handled = interrupts
                (on_interrupt or (lambda count: _interrupt(context, pid, count)))(interrupts)
            exit, turn = follower.run(until, logprobs)
            return Followed(follower.offset, exit, turn, interrupts > 0)
        except KeyboardInterrupt:
            interrupts += 1
        except ConnectionLost:
            follower.lost()


def call_again(context: Context, syscall: Syscall, args: Struct) -> Any:
    """A call that is made again, over a new connection, when the daemon goes away; for calls that may happen twice."""
    for _ in range(RECONNECTS):
        try:
            return context.client.call(syscall, args)
        except ConnectionLost:
            continue
    return context.client.call(syscall, args)


class _Follower:
    """The offset reached, and how often the connection was lost since the last output."""

    def __init__(
        self, context: Context, pid: int, offset: int, take: Callable[[Output], None], foreground: bool
    ) -> None:
        self.context = context
        self.pid = pid
        self.offset = offset
        self._take = take
        self._foreground = foreground
        self._losses = 0

    def run(self, until: Literal["exit", "idle"], logprobs: bool) -> tuple[ExitInfo | None, Reason | None]:
        """Follows from the offset to the end that is asked for."""
        turn: Reason | None = None
        arguments = Follow(self.pid, self.offset, until, logprobs, self._foreground)
        for item in self.context.client.stream(PROC_FOLLOW, arguments):
            fresh = self._fresh(item)
            self._losses = 0
            with Uninterrupted():
                self._take(fresh)
                self.offset = max(self.offset, fresh.offset + len(fresh.text))
                self.context.reached(self.pid, self.offset)
            if fresh.text:
                self.context.out.flush()
            if item.turn is not None:
                turn = item.turn
            if item.exit is not None:
                return item.exit, turn
        return None, turn

    def lost(self) -> None:
        """Counts a lost connection; raises when it is hopeless."""
        self._losses += 1
        if self._losses > RECONNECTS:
            raise LlmosError(
                Code.EPIPE,
                f"the daemon went away {self._losses} times in a row while process {self.pid} was followed",
                hint="`llmos dmesg` may say why",
                pid=self.pid,
            )

    def _fresh(self, item: Output) -> Output:
        """The item without text that was seen before."""
        if self.offset < 0:
            self.offset = item.offset
        seen = self.offset - item.offset
        if seen <= 0 or not item.text:
            return item
        import msgspec

        return msgspec.structs.replace(item, text=item.text[seen:], offset=item.offset + min(seen, len(item.text)))


def _interrupt(context: Context, pid: int, count: int) -> None:
    """What Ctrl-C means to a process in the foreground."""
    try:
        context.client.call(PROC_KILL, Kill(pid, Signal.INT if count < 3 else Signal.KILL))
    except LlmosError as error:
        if error.code is not Code.ESRCH:
            raise


def _writer(context: Context) -> Callable[[Output], None]:
    def write(item: Output) -> None:
        if item.text:
            context.show(item.text)

    return write


def show_progress(context: Context, text: str, watch: Callable[[], str] | None = None) -> Progress:
    """The progress of a command: none of one in the background, where somebody types on that line."""
    return Progress(None if context.background else context.err, text, watch)


class Progress:
    """One changing line on a terminal's stderr while there is nothing else to see; elsewhere it does nothing.

    It appears only after a moment, so that quick answers do not flicker. `say` changes its text, `stop` removes it.
    What `watch` returns, if anything, is shown in the place of the text; it is called now and then, in a thread.
    """

    DELAY_SECONDS = 0.4
    PERIOD_SECONDS = 0.1
    FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"

    def __init__(self, err: TextIO | None, text: str, watch: Callable[[], str] | None = None) -> None:
        self._err = err
        self._text = text
        self._watch = watch
        self._begun = time.monotonic()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        if err is not None and err is sys.stderr and err.isatty():
            self._thread = threading.Thread(target=self._spin, name="progress", daemon=True)
            self._thread.start()

    def say(self, text: str) -> None:
        """Changes the text."""
        self._text = text

    def stop(self) -> None:
        """Removes the line; may be called more than once."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _spin(self) -> None:
        if self._stopped.wait(self.DELAY_SECONDS):
            return
        frame = 0
        while True:
            seconds = int(time.monotonic() - self._begun)
            text = (self._watch() if self._watch is not None else "") or self._text
            self._write(f"\r\x1b[K{self.FRAMES[frame]} {text} ({seconds} s)")
            frame = (frame + 1) % len(self.FRAMES)
            if self._stopped.wait(self.PERIOD_SECONDS):
                break
        self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        try:
            print(text, end="", file=self._err, flush=True)
        except (OSError, ValueError):
            self._stopped.set()


def describe_prefill(done: int, total: int) -> str:
    """The progress of a long prompt."""
    return f"reading the prompt: {done} of {total} tokens"


def describe_exit(exit: ExitInfo) -> str:
    """Why a process ended, for people; empty when it ended well."""
    if exit.code == 0:
        return ""
    return exit.message or {
        Reason.INTERRUPT: "interrupted",
        Reason.TERM: "terminated",
        Reason.KILL: "killed",
        Reason.HUP: "hung up",
        Reason.LIMIT: "a limit was reached",
        Reason.OOM: "out of memory",
    }.get(exit.reason, str(exit.reason))
