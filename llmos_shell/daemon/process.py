"""A process: its data, what the journal keeps of it, and the row that `ps` shows.

Owns no behaviour: transitions are in `lifecycle`, KV in `pager`, running in `conductor`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from msgspec import Struct, msgpack

from llmos_shell.abi.types import (
    ExitInfo,
    Kind,
    KvState,
    Limits,
    Message,
    ProcessInfo,
    Reason,
    Sampling,
    State,
    Turn,
)
from llmos_shell.daemon.output import Output

if TYPE_CHECKING:
    from asyncio import Task, TimerHandle

RECORD_VERSION = 1
RATE_WINDOW = 1.0


class Phase(Enum):
    """What a living process wants, whether or not it is stopped."""

    NEW = "new"  # waits for its model or its tokens
    READY = "ready"  # wants to run
    IDLE = "idle"  # waits for input
    ENDED = "ended"


class Record(Struct, omit_defaults=True):
    """What the journal keeps of a process besides its tokens and text. `version` rises when a field changes meaning."""

    version: int
    pid: int
    name: str
    model: str
    phase: str
    started: float
    sampling: Sampling
    limits: Limits
    nice: int = 0
    chat: bool = False
    scope: str = ""
    tty: str = ""
    stopped: bool = False
    turn_start: int = 0
    turn_offset: int = 0
    token_count: int = 0
    raw: bool = False
    turns: tuple[Turn, ...] = ()
    known: int = 0
    marks: tuple[tuple[int, Reason], ...] = ()
    prompt_tokens: int = 0
    reused_tokens: int = 0
    generated_tokens: int = 0
    recomputed_tokens: int = 0
    device_seconds: float = 0.0
    waiting_seconds: float = 0.0
    first_token_seconds: float | None = None
    preemptions: int = 0
    image: str = ""
    image_bytes: int = 0
    exit: ExitInfo | None = None
    ended: float | None = None


@dataclass(slots=True, eq=False)
class Process:
    """One process, of any kind. Fields that only a model process uses keep their defaults in others."""

    pid: int
    name: str
    kind: Kind
    ppid: int = 1
    session: int = 0  # PID of the session it belongs to; 0: detached
    model: str = ""
    nice: int = 0
    tty: str = ""
    chat: bool = False
    scope: str = ""  # only processes of the same scope may share KV
    host_pid: int = 0
    started: float = field(default_factory=time.time)
    sampling: Sampling = field(default_factory=Sampling)
    limits: Limits = field(default_factory=Limits)

    # state
    phase: Phase = Phase.NEW
    stopped: bool = False
    running: bool = False  # in the run set
    reaped: bool = False
    exit: ExitInfo | None = None
    ended: float | None = None
    journaled: bool = False
    interrupting: bool = False  # its turn ends as soon as the worker has acknowledged

    # the conversation. The context is `tokens`; the text of the present answer begins at `turn_offset` of the output
    raw: bool = False  # text is completed as it stands, without a chat template
    turns: list[Turn] = field(default_factory=list)
    known: int = 0  # leading turns whose tokens are in `tokens`
    tokens: list[int] = field(default_factory=list)
    turn_start: int = 0  # index of the first token generated in the present turn
    turn_offset: int = 0
    output: Output = field(default_factory=Output)

    # the KV. `seq` is a handle of the worker when resident
    kv: KvState = KvState.NONE
    seq: int | None = None
    origin: int | None = None  # sequence of the process it was forked from
    computed: int = 0  # leading tokens whose KV the worker has
    known_computed: int = 0  # the most there ever were: computing them again is a recomputation
    cap: int = 1 << 62  # its context may have so many tokens before a limit is reached
    topup_at: int = 1 << 62  # with so many tokens it should be granted more
    limit: int = 0  # of its grant
    image: str = ""
    image_bytes: int = 0
    leaving: bool = False  # being exported
    prefill: tuple[int, int] | None = None
    crashes: int = 0  # in a row, while it ran, without a token of its own

    # figures
    prompt_tokens: int = 0
    reused_tokens: int = 0
    generated_tokens: int = 0
    recomputed_tokens: int = 0
    device_seconds: float = 0.0
    waiting_seconds: float = 0.0
    waiting_since: float | None = None  # monotonic
    first_token_seconds: float | None = None
    preemptions: int = 0
    rate: float = 0.0
    rate_since: float = 0.0  # monotonic
    rate_tokens: int = 0

    timer: "TimerHandle | None" = None
    task: "Task[None] | None" = None  # brings its next turn's tokens
    watchers: set[Callable[[], None]] = field(default_factory=set)

    @property
    def state(self) -> State:
        """The letter that `ps` shows."""
        if self.phase is Phase.ENDED:
            return State.GONE if self.reaped else State.ZOMBIE
        if self.kind is Kind.SESSION:
            return State.SLEEPING
        if self.stopped:
            return State.STOPPED
        if self.phase is Phase.READY:
            return State.RUNNING if self.running else State.RUNNABLE
        if self.phase is Phase.NEW:
            return State.RUNNABLE if self.tokens else State.NEW
        return State.SLEEPING

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.phase is not Phase.ENDED

    @property
    def wants_to_run(self) -> bool:
        """Whether the scheduler may choose it."""
        return self.phase is Phase.READY and not self.stopped and not self.interrupting

    def notify(self) -> None:
        """Calls everyone who watches: something about this process changed."""
        for watcher in tuple(self.watchers):
            watcher()

    def messages(self) -> tuple[Message, ...]:
        """The conversation so far, for the chat template."""
        return tuple(Message(turn.role, turn.text) for turn in self.turns)

    @property
    def answer_role(self) -> str:
        """What an answer is called in the transcript."""
        return "completion" if self.raw else "assistant"

    @property
    def answering(self) -> bool:
        """Whether a turn is being generated, or waits to be."""
        return self.phase in (Phase.NEW, Phase.READY)

    def transcript(self) -> tuple[Turn, ...]:
        """The turns, the one being generated included."""
        if not self.answering:
            return tuple(self.turns)
        text = self.output.read(self.turn_offset)
        count = max(0, len(self.tokens) - self.turn_start) if self.phase is Phase.READY else 0
        return (*self.turns, Turn(self.answer_role, text, count))

    def tokens_per_second(self, now: float) -> float:
        """Generated tokens per second of the last second or two; `now` is monotonic."""
        age = now - self.rate_since
        if age > 2 * RATE_WINDOW or self.phase is not Phase.READY:
            return 0.0
        return self.rate or (self.rate_tokens / age if age > 0.1 else 0.0)

    def count_tokens(self, count: int, now: float) -> None:
        """Notes that `count` tokens were generated."""
        age = now - self.rate_since
        if age >= RATE_WINDOW:
            self.rate = self.rate_tokens / age if age < 3 * RATE_WINDOW else 0.0
            self.rate_since, self.rate_tokens = now, 0
        self.rate_tokens += count

    def record(self) -> bytes:
        """What the journal keeps."""
        return _encoder.encode(
            Record(
                RECORD_VERSION, self.pid, self.name, self.model, self.phase.value, self.started, self.sampling, self.limits,
                nice=self.nice, chat=self.chat, scope=self.scope, tty=self.tty, stopped=self.stopped,
                turn_start=self.turn_start, turn_offset=self.turn_offset, token_count=len(self.tokens),
                raw=self.raw, turns=tuple(self.turns), known=self.known,
                marks=tuple(zip(self.output.mark_offsets, self.output.marks, strict=True)),
                prompt_tokens=self.prompt_tokens, reused_tokens=self.reused_tokens,
                generated_tokens=self.generated_tokens, recomputed_tokens=self.recomputed_tokens,
                device_seconds=self.device_seconds, waiting_seconds=self.waiting_seconds,
                first_token_seconds=self.first_token_seconds, preemptions=self.preemptions,
                image=self.image, image_bytes=self.image_bytes, exit=self.exit, ended=self.ended,
            )
        )  # fmt: skip

    def info(self, figures: "Figures") -> ProcessInfo:
        """The row of `ps`."""
        now = time.monotonic()
        waiting = self.waiting_seconds + (now - self.waiting_since if self.waiting_since is not None else 0.0)
        return ProcessInfo(
            self.pid, self.ppid, self.kind, self.state, self.kv, self.name, self.model, self.nice, self.started,
            self.session, tty=self.tty, chat=self.chat, prompt_tokens=self.prompt_tokens,
            reused_tokens=self.reused_tokens, generated_tokens=self.generated_tokens,
            recomputed_tokens=self.recomputed_tokens, context_tokens=figures.context_tokens,
            context_limit=figures.context_limit, device_seconds=self.device_seconds, waiting_seconds=waiting,
            first_token_seconds=self.first_token_seconds, tokens_per_second=self.tokens_per_second(now),
            preemptions=self.preemptions, virtual_runtime=figures.virtual_runtime,
            resident_pages=figures.resident_pages, shared_pages=figures.shared_pages, parked_bytes=self.image_bytes,
            exit=self.exit, ended=self.ended, limits=self.limits,
            sampling=self.sampling if self.kind is Kind.MODEL else None,
        )  # fmt: skip


@dataclass(slots=True)
class Figures:
    """What other parts know of a process: the scheduler, the ledger, the model."""

    context_tokens: int = 0
    context_limit: int = 0
    virtual_runtime: float = 0.0
    resident_pages: int = 0
    shared_pages: int = 0


_encoder = msgpack.Encoder()
_decoder: msgpack.Decoder[Record] = msgpack.Decoder(Record)


def decode_record(data: bytes) -> Record:
    """A record as it was written. Raises `msgspec.DecodeError` for one that cannot be read."""
    return _decoder.decode(data)


def from_record(record: Record, tokens: list[int], text: str) -> Process:
    """The process of a record, without a parent, a session and KV."""
    output = Output(text)
    for offset, reason in record.marks:
        output.marks.append(reason)
        output.mark_offsets.append(offset)
    process = Process(
        record.pid, record.name, Kind.MODEL, model=record.model, nice=record.nice, tty=record.tty, chat=record.chat,
        scope=record.scope, started=record.started, sampling=record.sampling, limits=record.limits,
        phase=Phase(record.phase), stopped=record.stopped, exit=record.exit, ended=record.ended, journaled=True,
        raw=record.raw, turns=list(record.turns), known=record.known, tokens=tokens,
        turn_start=record.turn_start, turn_offset=record.turn_offset, output=output,
        prompt_tokens=record.prompt_tokens, reused_tokens=record.reused_tokens,
        generated_tokens=record.generated_tokens, recomputed_tokens=record.recomputed_tokens,
        device_seconds=record.device_seconds, waiting_seconds=record.waiting_seconds,
        first_token_seconds=record.first_token_seconds, preemptions=record.preemptions,
        image=record.image, image_bytes=record.image_bytes, reaped=record.exit is not None,
    )  # fmt: skip
    if process.alive and tokens:
        process.kv = KvState.DROPPED
        process.known_computed = len(tokens)
        if process.phase is Phase.READY:
            process.generated_tokens += max(0, len(tokens) - record.token_count)
    return process
