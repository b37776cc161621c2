"""A process: its data, and the row that `ps` shows.

Owns no behaviour: transitions are in `lifecycle`, KV in `pager`, running in `conductor`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from llmos_shell.abi.types import (
    ExitInfo,
    Kind,
    KvState,
    Limits,
    Message,
    Overflow,
    ProcessInfo,
    Sampling,
    State,
    Turn,
)
from llmos_shell.daemon.processes.output import Output
from llmos_shell.daemon.processes.summary import view

if TYPE_CHECKING:
    from asyncio import Task, TimerHandle

NO_LIMIT = 1 << 62
"""More tokens than any context."""

RATE_WINDOW = 1.0
NAME_MAX = 200


class Phase(Enum):
    """What a living process wants, whether or not it is stopped."""

    NEW = "new"  # waits for its model or its tokens
    READY = "ready"  # wants to run
    IDLE = "idle"  # waits for input
    ENDED = "ended"


def group_name(named: str, tty: str, session: int) -> str:
    """The group of a process: what it names, else that of its terminal, of its session, or of all that have neither."""
    if named:
        return named
    if tty:
        return tty
    return f"session/{session}" if session else "detached"


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
    overflow: Overflow = Overflow.STOP
    scope: str = ""  # only processes of the same scope may share KV
    host_pid: int = 0
    started: float = field(default_factory=time.time)
    sampling: Sampling = field(default_factory=Sampling)
    limits: Limits = field(default_factory=Limits)
    named_group: str = ""  # "": that of its terminal or session
    deadline: float | None = None  # wall-clock instant

    # state
    summoned: bool = False  # started in the foreground, and not followed yet
    viewers: int = 0  # clients that follow it in the foreground
    missed_deadline: bool = False
    phase: Phase = Phase.NEW
    stopped: bool = False
    running: bool = False  # in the run set
    reaped: bool = False
    exit: ExitInfo | None = None
    ended: float | None = None
    interrupting: bool = False  # its turn ends as soon as the worker has acknowledged

    # the conversation. The context is `tokens`; the text of the present answer begins at `turn_offset` of the output
    raw: bool = False  # text is completed as it stands, without a chat template
    turns: list[Turn] = field(default_factory=list)
    known: int = 0  # leading turns whose tokens are in `tokens`
    tokens: list[int] = field(default_factory=list)
    turn_start: int = 0  # index of the first token generated in the present turn
    turn_offset: int = 0
    output: Output = field(default_factory=Output)
    sinks: int = 0  # leading tokens that were kept when others were forgotten
    forgotten: int = 0  # tokens after these that left the context so that it could go on
    condensed: int = 0  # the same, for which a summary stands
    shifting: bool = False  # some are just being forgotten
    summary: str = ""  # what stands in the context for what was between the system prompt and turn `summarised`
    summarised: int = 0
    summariser: int = 0  # PID of the process that writes a summary, which this one waits for; 0: none
    summarises: int = 0  # PID of the process whose summary this one is
    held: str = ""  # text the worker holds back; a turn that ends without the worker ends with it

    # the KV. `seq` is a handle of the worker when resident
    kv: KvState = KvState.NONE
    seq: int | None = None
    weights: str = ""  # those its tokens were made for, as `weights_of`; "": not known
    origin: int | None = None  # sequence of the process it was forked from
    computed: int = 0  # leading tokens whose KV the worker has
    known_computed: int = 0  # the most there ever were: computing them again is a recomputation
    cap: int = NO_LIMIT  # its context may have so many tokens before a limit is reached
    topup_at: int = NO_LIMIT  # with so many tokens it should be granted more
    limit: int = 0  # of its grant
    pressed: tuple[int, int] = (0, 0)  # tokens and limit when the worker last said that it stands still
    image: str = ""
    image_bytes: int = 0  # in RAM; on disk it may take less
    leaving: bool = False  # being exported, to `leaving_to`
    leaving_to: str = ""
    prefill: tuple[int, int] | None = None
    crashes: int = 0  # in a row, while it ran, without a token of its own

    # figures
    prompt_tokens: int = 0
    reused_tokens: int = 0
    generated_tokens: int = 0
    recomputed_tokens: int = 0
    device_seconds: float = 0.0
    joules: float | None = None  # None: its device has not told
    waiting_seconds: float = 0.0
    waiting_since: float | None = None  # monotonic
    first_token_seconds: float | None = None
    preemptions: int = 0
    metered_tokens: int = 0  # of those generated, counted for its group
    blocked: str = ""  # why its group keeps it out of the run set
    rate: float = 0.0
    rate_since: float = 0.0  # monotonic
    rate_tokens: int = 0

    timer: TimerHandle | None = None
    task: Task[None] | None = None  # brings its next turn's tokens
    watchers: set[Callable[[], None]] = field(default_factory=set)
    readers: int = 0  # of these, those that read its output as it comes

    @property
    def state(self) -> State:
        """The letter that `ps` shows."""
        if self.phase is Phase.ENDED:
            return State.GONE if self.reaped else State.ZOMBIE
        if self.kind is Kind.SESSION:
            return State.SLEEPING
        if self.stopped:
            return State.STOPPED
        if self.summariser:
            return State.SYSCALL
        if self.phase is Phase.READY:
            return State.RUNNING if self.running else State.RUNNABLE
        if self.phase is Phase.NEW:
            return State.RUNNABLE if self.tokens else State.NEW
        return State.SLEEPING

    @property
    def group(self) -> str:
        """The group it shares the device in."""
        return group_name(self.named_group, self.tty, self.session)

    @property
    def foreground(self) -> bool:
        """Whether a person waits for its answer."""
        return self.summoned or self.viewers > 0 or (self.chat and self.session != 0)

    @property
    def resident(self) -> bool:
        """Whether the worker has its KV, and will keep it for now."""
        return self.seq is not None and not self.leaving

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.phase is not Phase.ENDED

    @property
    def wants_to_run(self) -> bool:
        """Whether the scheduler may choose it."""
        return self.phase is Phase.READY and not self.stopped and not self.interrupting and not self.summariser

    def notify(self) -> None:
        """Calls everyone who watches: something about this process changed."""
        for watcher in tuple(self.watchers):
            watcher()

    @property
    def prefilling(self) -> bool:
        """Whether nothing of the present answer has been generated yet."""
        return len(self.tokens) <= self.turn_start

    def messages(self) -> tuple[Message, ...]:
        """The conversation so far, for the chat template."""
        return view(self.turns, self.summary, self.summarised)

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

    def info(self, figures: Figures) -> ProcessInfo:
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
            resident_pages=figures.resident_pages, shared_pages=figures.shared_pages,
            parked_bytes=self.image_bytes if self.kv is not KvState.SWAPPED else 0,
            swapped_bytes=figures.swapped_bytes, page_bytes=figures.page_bytes,
            overflow=self.overflow, forgotten_tokens=self.forgotten + self.condensed,
            exit=self.exit, ended=self.ended, limits=self.limits,
            sampling=self.sampling if self.kind is Kind.MODEL else None,
            group=self.group if self.kind is Kind.MODEL else "", foreground=self.foreground, deadline=self.deadline,
            missed_deadline=self.missed_deadline, joules=self.joules,
        )  # fmt: skip


def printable(name: str) -> str:
    """A name that cannot disturb a terminal."""
    return "".join(character if character.isprintable() else " " for character in name[:NAME_MAX]).strip()


@dataclass(slots=True)
class Figures:
    """What other parts know of a process: the scheduler, the ledger, the tiers, the model."""

    context_tokens: int = 0
    context_limit: int = 0
    virtual_runtime: float = 0.0
    resident_pages: int = 0
    shared_pages: int = 0
    page_bytes: int = 0
    swapped_bytes: int = 0
