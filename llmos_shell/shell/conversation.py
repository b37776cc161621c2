"""A conversation with one `chat` process: the loop of `chat` and `attach`.

The process sleeps between turns and keeps its memory; this side only reads messages, sends them, and shows answers,
also those to what somebody says to it from another terminal. Losing the daemon in between is repaired without the user
noticing more than a pause.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import (
    PROC_INFO,
    PROC_INPUT,
    PROC_KILL,
    PROC_REWRITE,
    PROC_TRANSCRIPT,
    PROC_WAIT,
    Awaited,
    Input,
    InputTaken,
    Kill,
    Output,
    Pid,
    Rewrite,
    Transcript,
    Wait,
)
from llmos_shell.abi.types import ExitInfo, ProcessInfo, Reason, Signal, Turn
from llmos_shell.ipc.client import ConnectionLost
from llmos_shell.shell.loading import load_watch
from llmos_shell.shell.messages import Message, as_message, from_pipe
from llmos_shell.shell.streaming import (
    RECONNECTS,
    call_again,
    describe_exit,
    describe_prefill,
    follow_output,
    show_progress,
)
from llmos_shell.shell.transcripts import GENERATED, render_transcript

if TYPE_CHECKING:
    from llmos_shell.shell.command import Context

_TURN_NOTES = {
    Reason.INTERRUPT: "interrupted",
    Reason.CONTEXT: "the context is full: /undo, /clear or /save NAME",
    Reason.LENGTH: "the answer was cut at the token limit",
    Reason.LIMIT: "a limit was reached",
}


class Ended(Exception):
    """The process has exited; nothing more can be said to it."""

    def __init__(self, exit: ExitInfo) -> None:
        super().__init__(describe_exit(exit))
        self.exit = exit


class Conversation:
    """One chat process, and where we are in its output.

    `joined` is one that others have begun and that goes on without us. `raw` shows answers as they are, not as
    Markdown. `files` go along with the next message.
    """

    def __init__(self, context: Context, pid: int, *, joined: bool = False, raw: bool = False, files: str = "") -> None:
        self.context = context
        self.pid = pid
        self.joined = joined
        self.raw = raw
        self.files = files
        self.offset = 0  # characters of output that were shown
        self.seen = 0  # turns that were shown
        self.sampling: dict[str, Any] = {}  # to be changed with the next message

    def say(self, text: str) -> None:
        """Sends a message and shows the answer. Raises `Ended`, or the daemon's refusal."""
        text = f"{self.files}\n{text}" if self.files else text
        taken = self._give(Input(self.pid, text=text, sampling=self.sampling))
        self.sampling, self.files = {}, ""
        self.offset = taken.offset
        self.show()

    def show(self) -> None:
        """Shows the present turn to its end, and says why it ended unless the model did so by itself."""
        with show_progress(self.context, "thinking", self._watch()) as progress, self._screen() as write:

            def take(item: Output) -> None:
                if item.text:
                    progress.stop()
                    write(item.text)
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
        if followed.exit is not None:
            raise Ended(followed.exit)
        if self.context.is_terminal():
            self.seen = len(self.transcript().turns)
        if followed.turn in _TURN_NOTES:
            self.note(_TURN_NOTES[followed.turn])

    def show_others(self) -> None:
        """Shows turns that were begun from elsewhere, the one in progress to its end."""
        transcript = self.transcript()
        if len(transcript.turns) < self.seen or transcript.length < self.offset:
            self.note("the conversation was changed from another terminal: `/show transcript` shows it")
            self.accept(transcript)
            return
        new = list(transcript.turns[self.seen :])
        going_on = new.pop() if new and new[-1].role in GENERATED and new[-1].reason is None else None
        self._show_turns(new)
        self.offset = transcript.length - (len(going_on.text) if going_on is not None else 0)
        self.seen = len(transcript.turns) - (going_on is not None)
        self.show() if going_on is not None else self._check_end()

    def break_off(self) -> None:
        """Ctrl-C came at a moment when nobody was ready for it: ends the turn, and shows what was said in it."""
        while True:
            try:
                self._interrupt()
                if len(self.transcript().turns) == self.seen:
                    self.note("interrupted before it was sent")
                else:
                    self.show_others()
            except KeyboardInterrupt:
                continue
            return

    def note(self, text: str) -> None:
        """Something that is not said by the model."""
        print(f"[{text}]", file=self.context.err, flush=True)

    def transcript(self) -> Transcript:
        """All that was said."""
        transcript: Transcript = call_again(self.context, PROC_TRANSCRIPT, Pid(self.pid))
        return transcript

    def accept(self, transcript: Transcript) -> None:
        """All of this is known now."""
        self.offset, self.seen = transcript.length, len(transcript.turns)

    def show_so_far(self) -> None:
        """Writes the transcript on a terminal, and moves to its end."""
        transcript = self.transcript()
        self.accept(transcript)
        if self.context.is_terminal():
            self._show_turns(transcript.turns)

    def rewrite(self, **changes: Any) -> None:
        """Changes its turns, as `proc.rewrite` does."""
        self.context.client.call(PROC_REWRITE, Rewrite(self.pid, **changes))
        self.accept(self.transcript())

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

    @contextmanager
    def _screen(self) -> Iterator[Callable[[str], None]]:
        """What shows an answer, piece by piece: rendered on a terminal that can do so, else as it is."""
        context = self.context
        if not self.raw and context.is_terminal() and os.environ.get("TERM", "dumb") != "dumb":
            from llmos_shell.shell.interactive.markdown import MarkdownStream

            stream = MarkdownStream(context.out)
            try:
                yield lambda text: stream.feed(context.clean(text))
            finally:
                stream.finish()
            return
        last = ""

        def write(text: str) -> None:
            nonlocal last
            context.show(text)
            last = text[-1]

        try:
            yield write
        finally:
            context.out.write("" if last in ("", "\n") else "\n")
            context.out.flush()

    def _show_turns(self, turns: Iterable[Turn]) -> None:
        from llmos_shell.shell.tables import style_of

        text = render_transcript(tuple(turns), style_of(self.context), self.context.clean)
        self.context.out.write(text if text.endswith("\n") or not text else text + "\n")
        self.context.out.flush()

    def _check_end(self) -> None:
        process: ProcessInfo = self.context.client.call(PROC_INFO, Pid(self.pid))
        if process.exit is not None:
            raise Ended(process.exit)

    def _interrupt(self) -> None:
        """Ends the turn, not the process."""
        try:
            self.context.client.call(PROC_KILL, Kill(self.pid, Signal.INT))
        except LlmosError as error:
            if error.code is not Code.ESRCH:
                raise

    def _watch(self) -> Callable[[], str]:
        """Shows the model being loaded, if it has to be."""
        return load_watch(self.context, Awaited(pid=self.pid))

    def _give(self, message: Input) -> InputTaken:
        """Hands over a message exactly once, even if the connection is lost on the way.

        While somebody else's message is being answered it waits, and shows that on a terminal.
        """
        losses = 0
        while True:
            try:
                with show_progress(self.context, "handing it over", self._watch()):
                    taken: InputTaken = self.context.client.call(PROC_INPUT, message)
                return taken
            except ConnectionLost:
                losses += 1
                if losses > RECONNECTS:
                    raise
            except LlmosError as error:
                if error.code is not Code.EBUSY:
                    raise
                if losses:
                    return InputTaken(self.offset)  # it had been taken before the connection broke
                if self.context.is_terminal():
                    self.show_others()
                else:
                    self.context.client.call(PROC_WAIT, Wait(self.pid, until="idle"))


class Ending(Struct, frozen=True):
    """How the loop was left. `status` is that of the process where it has exited, else 1 if anything was refused."""

    how: str  # end, detach, exit or end-of-input
    status: int = 0


def converse(conversation: Conversation, messages: Iterable[Message | LlmosError]) -> Ending:
    """Takes messages and `/commands` until the input ends, `/bye`, `/detach`, or the process's exit."""
    refused = 0
    try:
        for message in messages:
            try:
                _take(conversation, message)
            except LeaveRequested as leave:
                return Ending(leave.how, refused)
            except KeyboardInterrupt:
                if not conversation.context.is_terminal():
                    raise
                conversation.break_off()
            except LlmosError as error:
                conversation.context.error("chat", error)
                refused = int(not conversation.context.is_terminal())
                if error.code is Code.ESRCH:
                    return Ending("exit", 1)
    except Ended as ended:
        if str(ended):
            conversation.note(f"process {conversation.pid}: {ended}")
        return Ending("exit", ended.exit.code)
    return Ending("end-of-input", refused)


class LeaveRequested(Exception):
    """The loop is to end: with `end` the conversation too, with `detach` it stays."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


def _take(conversation: Conversation, message: Message | LlmosError) -> None:
    if isinstance(message, LlmosError):
        raise message
    text = message.text
    if not text.strip():
        return
    if message.literal or not text.startswith("/"):
        conversation.say(text)
    elif text.startswith("//"):
        conversation.say(text.removeprefix("/"))
    else:
        from llmos_shell.shell.slash import run_slash

        run_slash(conversation, text)


def is_typed(context: Context) -> bool:
    """Whether messages come from somebody at a terminal, who sees the answers there."""
    from llmos_shell.shell.prompts import stdin_is_terminal

    return stdin_is_terminal(context) and context.is_terminal()


def read_messages(conversation: Conversation, *, whole: bool = False) -> Iterator[Message | LlmosError]:
    """Messages from a terminal with editing and a prompt, or those of standard input; with `whole` all of it as one."""
    if not whole and is_typed(conversation.context):
        return _typed(conversation)
    return from_pipe(conversation.context, whole=whole)


def _typed(conversation: Conversation) -> Iterator[Message | LlmosError]:
    """Messages typed on a terminal. Ctrl-C clears what was typed, Ctrl-D ends; others' turns are shown as they come."""
    from llmos_shell.shell.interactive.lineedit import BrokenOff, make_reader
    from llmos_shell.shell.interactive.watching import Watcher

    reader = make_reader(conversation.context)
    watcher: Watcher | None = None
    typed = ""
    try:
        while True:
            if watcher is not None and watcher.stirred.is_set():  # first: one that heard of the end is no longer alive
                watcher.stirred.clear()
                try:
                    conversation.show_others()
                except KeyboardInterrupt:
                    conversation.break_off()
            if watcher is None or not watcher.alive or watcher.pid != conversation.pid:
                if watcher is not None:
                    watcher.close()
                watcher = Watcher(conversation.pid, lambda: conversation.offset, reader.wake)
            try:
                text = reader.read(typed, watcher.stirred.is_set)
            except BrokenOff as broken:
                typed = broken.typed
                continue
            except KeyboardInterrupt:
                typed = ""
                continue
            except EOFError:
                return
            typed = ""
            try:
                yield as_message(text)
            except LlmosError as error:
                yield error
    finally:
        if watcher is not None:
            watcher.close()
        reader.close()
