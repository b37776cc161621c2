"""One reader of a process's output: takes what there is, at its own pace, until the end it asked for.

It is called when the process changed; while its client is congested it waits for that instead.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from llmos_shell.abi.syscalls import Follow, Output
from llmos_shell.abi.types import State
from llmos_shell.daemon.processes import lifecycle
from llmos_shell.daemon.processes.process import Phase, Process

if TYPE_CHECKING:
    from llmos_shell.daemon.syscalls import Context

CHUNK = 1 << 16


class Follower:
    """State of one `proc.follow`."""

    def __init__(self, context: Context, process: Process, args: Follow) -> None:
        output = process.output
        length = output.length
        self._context = context
        self._process = process
        self._foreground = args.foreground
        self._until_idle = args.until == "idle"
        self._offset = max(0, length + args.offset) if args.offset < 0 else min(args.offset, length)
        self._mark = output.next_mark(self._offset)
        self._logprob = output.logprob_index(self._offset) if args.logprobs else -1
        self._state: State | None = None
        self._prefill: tuple[int, int] | None = None
        self._waiting = False
        self._said_turn = False
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Follows to the end."""
        core, process = self._context.core, self._process
        process.watchers.add(self.pump)
        if self._foreground:
            lifecycle.watched(core, process, 1)
        try:
            self.pump()
            await self._done
        finally:
            process.watchers.discard(self.pump)
            if self._foreground:
                lifecycle.watched(core, process, -1)

    def pump(self) -> None:
        """Sends what is new, as far as the client reads it."""
        if self._done.done() or self._waiting:
            return
        while self._send_next():
            if self._context.congested:
                self._waiting = True
                self._context.on_drained(self._resume)
                return
        self._finish()

    def _resume(self) -> None:
        self._waiting = False
        self.pump()

    def _send_next(self) -> bool:
        """Sends one item; False when there is nothing to send."""
        process, output, offset = self._process, self._process.output, self._offset
        prefill = process.prefill
        if prefill != self._prefill:
            self._prefill = prefill
            if prefill is not None:
                self._context.emit(Output(offset, prefill=prefill))
                return True
        marked = self._mark < len(output.marks)
        end = output.mark_offsets[self._mark] if marked else output.length
        if offset < end:
            self._send_text(min(end, offset + CHUNK))
            return True
        if marked:
            self._context.emit(Output(offset, turn=output.marks[self._mark]))
            self._mark += 1
            self._said_turn = True
            return True
        state = process.state
        if state is not self._state and process.alive:
            self._state = state
            self._context.emit(Output(offset, state=state))
            return True
        return False

    def _send_text(self, end: int) -> None:
        output, offset = self._process.output, self._offset
        logprobs = ()
        if self._logprob >= 0:
            logprobs = tuple(output.logprobs_from(self._logprob))  # type: ignore[assignment]
            self._logprob += len(logprobs)
        self._offset = end
        self._context.emit(Output(offset, output.read(offset, end), logprobs=logprobs))

    def _finish(self) -> None:
        process = self._process
        if not process.alive:
            self._context.emit(Output(self._offset, state=process.state, exit=process.exit))
            self._done.set_result(None)
        elif self._until_idle and process.phase is Phase.IDLE:
            if not self._said_turn and process.output.marks:
                self._context.emit(Output(self._offset, turn=process.output.marks[-1]))
            self._done.set_result(None)
