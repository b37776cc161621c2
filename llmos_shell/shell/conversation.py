"""A conversation with one `chat` process: the loop of `chat` and `attach`.

The process sleeps between turns and keeps its memory; this side only reads lines, sends them, and shows answers. Losing
the daemon in between is repaired without the user noticing more than a pause.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import (
    PROC_INPUT,
    PROC_KILL,
    PROC_TRANSCRIPT,
    PROC_WAIT,
    Input,
    InputTaken,
    Kill,
    Output,
    Pid,
    Transcript,
    Wait,
)
from llmos_shell.abi.types import ExitInfo, Reason, Signal
from llmos_shell.ipc.client import ConnectionLost
from llmos_shell.shell.streaming import (
    RECONNECTS,
    Progress,
    call_again,
    describe_exit,
    describe_prefill,
    follow_output,
)

if TYPE_CHECKING:
    from llmos_shell.shell.command import Context

_TURN_NOTES = {
    Reason.INTERRUPT: "interrupted",
    Reason.CONTEXT: "the context is full: /save it, or start anew",
    Reason.LENGTH: "the answer was cut at the token limit",
    Reason.LIMIT: "a limit was reached",
}


class Ended(Exception):
    """The process has exited; nothing more can be said to it."""

    def __init__(self, exit: ExitInfo) -> None:
        super().__init__(describe_exit(exit))
        self.exit = exit


class Conversation:
    """One chat process, and where we are in its output."""

    def __init__(self, context: Context, pid: int, offset: int = 0) -> None:
        self.context = context
        self.pid = pid
        self.offset = offset
        self.sampling: dict[str, Any] = {}  # to be changed with the next message

    def say(self, text: str) -> None:
        """Sends a message and shows the answer. Raises `Ended`, or the daemon's refusal."""
        taken = self._give(Input(self.pid, text=text, sampling=self.sampling))
        self.sampling = {}
        self.offset = taken.offset
        self.show()

    def show(self) -> None:
        """Shows the present turn to its end, and says why it ended unless the model did so by itself."""
        last = ""
        with Progress(self.context.err, "thinking") as progress:

            def take(item: Output) -> None:
                nonlocal last
                if item.text:
                    progress.stop()
                    self.context.show(item.text)
                    last = item.text[-1]
                elif item.prefill is not None:
                    progress.say(describe_prefill(*item.prefill))

            followed = follow_output(
                self.context,
                self.pid,
                offset=self.offset,
                until="idle",
                on_item=take,
                on_interrupt=lambda _count: self._interrupt(),
            )
        self.offset = followed.offset
        if last not in ("", "\n"):
            self.context.out.write("\n")
        self.context.out.flush()
        if followed.exit is not None:
            raise Ended(followed.exit)
        if followed.turn in _TURN_NOTES:
            self.note(_TURN_NOTES[followed.turn])

    def note(self, text: str) -> None:
        """Something that is not said by the model."""
        print(f"[{text}]", file=self.context.err, flush=True)

    def transcript(self) -> Transcript:
        """All that was said."""
        transcript: Transcript = call_again(self.context, PROC_TRANSCRIPT, Pid(self.pid))
        return transcript

    def catch_up(self) -> Transcript:
        """The transcript, and the offset moved to its end."""
        transcript = self.transcript()
        self.offset = transcript.length
        return transcript

    def end(self) -> int:
        """Closes the process's input, waits for its exit and returns its exit code."""
        try:
            call_again(self.context, PROC_INPUT, Input(self.pid, end=True))
            exit: ExitInfo | None = call_again(self.context, PROC_WAIT, Wait(self.pid))
        except LlmosError as error:
            if error.code in (Code.ESRCH, Code.ECHILD):
                return 0
            raise
        return 0 if exit is None else exit.code

    def _interrupt(self) -> None:
        """Ends the turn, not the process."""
        try:
            self.context.client.call(PROC_KILL, Kill(self.pid, Signal.INT))
        except LlmosError as error:
            if error.code is not Code.ESRCH:
                raise

    def _give(self, message: Input) -> InputTaken:
        """Hands over a message exactly once, even if the connection is lost on the way."""
        for attempt in range(RECONNECTS + 1):
            try:
                taken: InputTaken = self.context.client.call(PROC_INPUT, message)
                return taken
            except ConnectionLost:
                if attempt == RECONNECTS:
                    raise
            except LlmosError as error:
                if attempt and error.code is Code.EBUSY:
                    return InputTaken(self.offset)  # it had been taken before the connection broke
                raise
        raise AssertionError


class Ending(Struct, frozen=True):
    """How the loop was left."""

    how: str  # end, detach, exit or end-of-input
    status: int = 0


def converse(conversation: Conversation, lines: Iterator[str]) -> Ending:
    """Reads messages and `/commands` until the input ends, `/bye`, `/detach`, or the process's exit."""
    from llmos_shell.shell.slash import Leave, run_slash

    try:
        for line in lines:
            text = line.strip()
            if not text:
                continue
            try:
                if text.startswith("/") and not text.startswith("//"):
                    run_slash(conversation, text)
                else:
                    conversation.say(text.removeprefix("/") if text.startswith("//") else text)
            except Leave as leave:
                return Ending(leave.how)
            except LlmosError as error:
                conversation.context.error("chat", error)
                if error.code is Code.ESRCH:
                    return Ending("exit", 1)
    except Ended as ended:
        if str(ended):
            conversation.note(f"process {conversation.pid}: {ended}")
        return Ending("exit", ended.exit.code)
    return Ending("end-of-input")


def read_lines(context: Context) -> Iterator[str]:
    """Messages from a terminal with editing and a prompt, or the lines of standard input."""
    from llmos_shell.shell.prompts import decode, stdin_is_terminal

    if stdin_is_terminal(context) and context.is_terminal():
        yield from _edited_lines(context)
        return
    for number, line in enumerate(context.stdin, 1):
        yield decode(line, f"line {number} of standard input")


def _edited_lines(context: Context) -> Iterator[str]:
    """Lines typed on a terminal. Ctrl-C clears the line, Ctrl-D ends, Alt-Enter begins another line."""
    from llmos_shell.shell.interactive.lineedit import make_reader

    read = make_reader(context)
    while True:
        try:
            yield read()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
