"""The main of every worker process: handshake, then steps and messages until the socket closes.

A kernel's worker module is `serve(load, "name")`. The last argument of the command line is the number of the file
descriptor of a connected stream socket (one end of a socketpair), on which the worker speaks first:

    worker: Hello      daemon: Load      worker: Ready | Failed(None)      then messages of `abi.worker` both ways

One thread steps: between two steps it takes all messages that have arrived, and with nothing to run it waits for one.
A second reads the socket (`channel`), a third answers `Tokenize`, so that a text is read while a step is under way and
a long one stalls nobody, a fourth writes images, and a fifth verifies those that are to be restored. What steps report
goes out at once when somebody may act on it (a prompt's progress, a first token, an end, pressure), else with the next.
End of file or `Close` ends the worker with status 0, end of file also while it loads; a failed load or a failed engine
ends it with status 1 after `Failed(None)`.
SIGINT is ignored: a terminal's Ctrl-C is not for workers.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from queue import Queue, SimpleQueue
from typing import Any

from msgspec import structs

from llmos_shell.abi import PROTOCOL
from llmos_shell.abi import worker as abi
from llmos_shell.abi.engine import Engine, LoadEngine
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.engine.channel import Channel
from llmos_shell.engine.drafting import load_draft
from llmos_shell.engine.loop import Loop
from llmos_shell.engine.templates import PLAIN_STOP, answer
from llmos_shell.engine.threads import Governor

_STATS_SECONDS = 1.0
_PROGRESS_SECONDS = 0.1
_PENDING_FILES = 4
_SWITCH_SECONDS = 0.0005  # how long a step that is over waits for a thread that computes in Python


def serve(load: LoadEngine, kernel_name: str) -> None:
    """Runs a worker on the descriptor named by the last argument; exits the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.setswitchinterval(_SWITCH_SECONDS)
    channel = Channel(socket.socket(fileno=int(sys.argv[-1])))
    status = run(load, kernel_name, channel)
    sys.stderr.flush()
    os._exit(status)  # nothing is left to clean up, and libraries' exit handlers may hang


def run(load: LoadEngine, kernel_name: str, channel: Channel) -> int:
    """The life of a worker; returns its exit status."""
    channel.divert(abi.Interrupt, lambda _: None)  # until there is a step to interrupt
    try:
        channel.send(abi.Hello(PROTOCOL, os.getpid(), kernel_name))
        return _load_and_step(load, channel)
    except EOFError:
        return 0
    except Exception as error:
        code = error.code if isinstance(error, LlmosError) else Code.EIO
        if not isinstance(error, LlmosError):
            traceback.print_exc()
        with contextlib.suppress(EOFError):
            channel.send(abi.Failed(None, code, str(error) or type(error).__name__))
        return 1


def _load_and_step(load: LoadEngine, channel: Channel) -> int:
    messages = channel.receive(wait=True)
    spec = messages.pop(0)
    if isinstance(spec, abi.Close):
        return 0
    if not isinstance(spec, abi.Load) or spec.protocol != PROTOCOL:
        raise LlmosError(Code.EPROTO, f"the first message must be `load` of protocol {PROTOCOL}")
    begun = time.perf_counter()
    try:
        engine = load(spec, _Progress(channel))
    except LlmosError as error:
        if error.code == Code.EINTR:
            return 0
        raise
    drafter = load_draft(load, spec, engine)
    info = engine.info if engine.info.has_chat_template else structs.replace(engine.info, chat_stop=PLAIN_STOP)
    _answer_questions(engine, channel)
    channel.send(abi.Ready(info, time.perf_counter() - begun))
    governor = Governor(engine.info.threads) if engine.info.threads > 1 else None
    files = _Files(channel)
    loop = Loop(engine, governor, files.do, drafter)
    channel.divert(abi.Interrupt, lambda _: loop.interrupt())
    channel.overhear(abi.Open, loop.overhear)
    try:
        _steps(engine, loop, channel, messages)
        files.close()
    finally:
        loop.close()
        engine.close()
    return 0


class _Files:
    """A thread that writes files, so that no step waits for one. A few may be pending; who brings more waits."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._jobs: Queue[Callable[[], abi.ToDaemon] | None] = Queue(_PENDING_FILES)
        self._thread = threading.Thread(target=self._work, name="files", daemon=True)
        self._thread.start()

    def do(self, job: Callable[[], abi.ToDaemon]) -> None:
        """Has it done; its answer is sent."""
        self._jobs.put(job)

    def close(self) -> None:
        """Returns when all is done."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            answer = job()
            with contextlib.suppress(EOFError):  # the file is of use to the daemon's successor, or removed by it
                self._channel.send(answer)


class _Progress:
    """Tells the daemon how far a load is, ten times a second; ends it when the daemon has gone."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._told_at = 0.0

    def __call__(self, read_bytes: int, total_bytes: int) -> bool:
        if self._channel.ended:
            return False
        now = time.monotonic()
        if now - self._told_at >= _PROGRESS_SECONDS or read_bytes >= total_bytes:
            self._told_at = now
            with contextlib.suppress(EOFError):
                self._channel.send(abi.LoadProgress(read_bytes, total_bytes))
        return True


def _answer_questions(engine: Engine, channel: Channel) -> None:
    """Starts the thread that tokenizes."""
    questions: SimpleQueue[Any] = SimpleQueue()
    channel.divert(abi.Tokenize, questions.put)

    def answer_all() -> None:
        with contextlib.suppress(EOFError):
            while True:
                channel.send(answer(engine, questions.get()))

    threading.Thread(target=answer_all, name="tokenizer", daemon=True).start()


def _steps(engine: Engine, loop: Loop, channel: Channel, messages: list[abi.ToWorker]) -> None:
    """Steps until `Close`; end of file raises EOFError."""
    stats = _Stats(engine, loop, channel)
    while True:
        for message in messages:
            if isinstance(message, abi.Close):
                return
            if isinstance(message, abi.Load):
                raise LlmosError(Code.EPROTO, "a model is loaded already")
            for report in loop.handle(message):
                if _can_wait(message, report):
                    channel.hold(report, math.inf)
                else:
                    channel.send(report)
        for report in loop.step() if loop.ready else ():
            channel.hold(report, 0.0 if loop.urgent or _urgent(report) else loop.hold_seconds)
        stats.tell(idle=not loop.ready)
        if not loop.ready:
            channel.flush()
        messages = channel.receive(wait=not loop.ready)


def _can_wait(message: abi.ToWorker, report: abi.ToDaemon) -> bool:
    """Whether a report may come with that of the next step, which would only wait for the daemon to have read it."""
    if not (isinstance(message, abi.Open) and isinstance(report, abi.Opened)):
        return False
    return not message.idle and report.reused == len(message.tokens) - 1


def _urgent(report: abi.ToDaemon) -> bool:
    """Whether the daemon, or a reader, may do something upon it that it could not do a moment ago."""
    return not isinstance(report, abi.Step) or bool(report.prefilled or report.finished or report.pressure)


class _Stats:
    """Sends `Stats` once a second while stepping, and once when falling idle."""

    def __init__(self, engine: Engine, loop: Loop, channel: Channel) -> None:
        self._engine, self._loop, self._channel = engine, loop, channel
        self._told_at = 0.0
        self._told_steps = 0

    def tell(self, idle: bool) -> None:
        loop = self._loop
        if loop.steps == self._told_steps:
            return
        now = time.monotonic()
        if not idle and now - self._told_at < _STATS_SECONDS:
            return
        self._told_at, self._told_steps = now, loop.steps
        self._channel.send(
            abi.Stats(
                loop.steps,
                loop.decoded_tokens,
                loop.prefilled_tokens,
                loop.step_seconds,
                loop.engine_seconds,
                _resident_bytes(),
                loop.threads,
                loop.guessing.guessed,
                loop.guessing.right,
            )
        )


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
