"""Data that several parts speak of: process states, sampling, limits, descriptions of processes and models.

Times are seconds (wall-clock instants as seconds since the epoch), sizes are bytes, lengths are tokens.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from msgspec import Struct, field


class State(StrEnum):
    """Life of a process; the letters are what `ps` shows."""

    NEW = "N"
    RUNNABLE = "R"
    RUNNING = "r"  # in a worker's run set
    SLEEPING = "S"  # waits for input
    SYSCALL = "D"
    STOPPED = "T"
    ZOMBIE = "Z"  # exited, not yet waited for
    GONE = "X"  # exited and waited for; only the journal still knows it


class KvState(StrEnum):
    """Where a process's KV is; independent of its `State`."""

    NONE = "-"
    RESIDENT = "resident"
    PARKED = "parked"
    SWAPPED = "swapped"
    DROPPED = "dropped"


class Kind(StrEnum):
    """What a process is."""

    MODEL = "model"
    JOB = "job"
    SESSION = "session"


class Reason(StrEnum):
    """Why a turn or a process ended."""

    EOS = "eos"  # the model ended its turn
    STOP = "stop"  # a stop string
    LENGTH = "length"  # the token limit asked for with the prompt
    CONTEXT = "context"  # the context is full
    LIMIT = "limit"  # a ulimit of the process
    INTERRUPT = "interrupt"  # SIGINT
    TERM = "term"  # SIGTERM
    KILL = "kill"  # SIGKILL
    HUP = "hup"  # its session ended
    END = "end"  # its input ended (a chat closed by its user)
    OOM = "oom"
    ERROR = "error"


class Overflow(StrEnum):
    """What happens to a process whose context is full."""

    STOP = "stop"  # its turn ends with the reason `context`
    SHIFT = "shift"  # the older half after the beginning is forgotten, and it goes on
    SUMMARISE = "summarise"  # a summary, by the model itself, takes the place of the beginning, and it goes on
    ERROR = "error"  # its turn fails


class Signal(StrEnum):
    """Signals a process can be sent."""

    HUP = "HUP"
    INT = "INT"
    KILL = "KILL"
    TERM = "TERM"
    STOP = "STOP"
    CONT = "CONT"


EXIT_CODES: dict[Reason, int] = {
    Reason.EOS: 0,
    Reason.STOP: 0,
    Reason.LENGTH: 0,
    Reason.CONTEXT: 0,
    Reason.END: 0,
    Reason.LIMIT: 124,
    Reason.HUP: 129,
    Reason.INTERRUPT: 130,
    Reason.KILL: 137,
    Reason.OOM: 137,
    Reason.TERM: 143,
    Reason.ERROR: 1,
}
"""Exit code of a process by its reason; signals give 128 + their number, as in sh."""


class Message(Struct, frozen=True):
    """One message of a conversation. `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


class Sampling(Struct, frozen=True, omit_defaults=True):
    """How the next token is chosen: a pure function of logits, these values, the seed and the position.

    Filters apply in this order: repetition penalties, grammar, temperature 0 → argmax; else top-k, top-p, min-p,
    temperature, draw. `seed` None means the daemon draws one at spawn and records it.
    """

    temperature: float = 0.8
    top_k: int = 40  # 0: off
    top_p: float = 0.95  # 1: off
    min_p: float = 0.05  # 0: off
    repeat_penalty: float = 1.0  # 1: off; divides positive and multiplies negative logits
    repeat_last: int = 64  # tokens looked back at; 0: off
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None  # 64-bit unsigned
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None  # per turn; None: until the model ends or the context is full
    ignore_eos: bool = False
    logprobs: int = 0  # alternatives reported per token; 0: none, not even the chosen token's
    grammar: str | None = None  # GBNF
    json_schema: str | None = None  # a JSON schema as JSON text; excludes `grammar`


class Limits(Struct, frozen=True, omit_defaults=True):
    """Per-process limits (`ulimit`). None: no limit."""

    tokens: int | None = None  # generated over the whole life
    seconds: float | None = None  # wall-clock since spawn, stopped time included
    kv_tokens: int | None = None  # longest context


class TokenLogprob(Struct, frozen=True, omit_defaults=True):
    """Natural-log probability of one sampled token, with the likeliest alternatives, best first."""

    token: int
    text: str
    logprob: float
    top: tuple[tuple[int, str, float], ...] = ()


class ExitInfo(Struct, frozen=True):
    """How a process ended."""

    pid: int
    code: int
    reason: Reason
    message: str = ""  # for people; set when `reason` is `error`, `limit` or `oom`


class ProcessInfo(Struct, frozen=True):
    """One row of `ps`."""

    pid: int
    ppid: int
    kind: Kind
    state: State
    kv: KvState
    name: str  # what the user started, e.g. the command line
    model: str  # "" for sessions
    nice: int
    started: float
    session: int  # PID of the session it belongs to, 0 when detached
    tty: str = ""
    chat: bool = False  # sleeps between turns
    prompt_tokens: int = 0  # fed, over all turns
    reused_tokens: int = 0  # of these, taken from a prefix, a fork or an image
    generated_tokens: int = 0
    recomputed_tokens: int = 0  # prefilled again after a crash or a drop
    context_tokens: int = 0  # now in its context
    context_limit: int = 0
    device_seconds: float = 0.0
    waiting_seconds: float = 0.0  # runnable, but not in a run set
    first_token_seconds: float | None = None  # spawn to first generated token
    tokens_per_second: float = 0.0  # generated, over the last second or two
    preemptions: int = 0
    virtual_runtime: float = 0.0
    resident_pages: int = 0
    shared_pages: int = 0  # of the resident ones, those some other process also references
    parked_bytes: int = 0
    exit: ExitInfo | None = None
    ended: float | None = None
    limits: Limits = field(default_factory=Limits)
    sampling: Sampling | None = None
    page_bytes: int = 0  # of its model's pool, while that is loaded
    swapped_bytes: int = 0
    overflow: Overflow = Overflow.STOP
    forgotten_tokens: int = 0  # that left the context by `Overflow.SHIFT` or `Overflow.SUMMARISE`
    group: str = ""
    foreground: bool = False  # a person waits for its answer
    deadline: float | None = None  # an instant
    missed_deadline: bool = False
    joules: float | None = None  # of its device, in its time of it; None: the device does not tell


class Turn(Struct, frozen=True, omit_defaults=True):
    """One entry of a transcript."""

    role: str  # system, user, assistant; `prompt` and `completion` for raw text
    text: str
    tokens: int = 0
    reason: Reason | None = None  # of an assistant turn that ended


class ModelEntry(Struct, frozen=True, omit_defaults=True):
    """One model of `models.toml`, resolved."""

    name: str
    path: str  # absolute path of the weights
    kernel: str = "llamacpp"
    description: str = ""
    licence: str = ""
    source: str = ""
    context: int | None = None  # tokens; None: what the weights were trained for
    kv_type: str = "f16"
    layout: Literal["auto", "shared", "split"] = "auto"
    slots: int | None = None  # sequences resident at once; None: the kernel chooses
    pool_tokens: int | None = None  # size of the KV pool; None: the kernel chooses
    threads: int | None = None
    gpu_layers: int | Literal["auto"] = 0  # -1: all; "auto": as many as fit
    gpus: tuple[int, ...] = ()  # numbers of those it may use; (): any
    draft: str = ""  # absolute path of the weights of a smaller model, which guesses tokens for this one
    keep_seconds: float | None = None  # how long it stays loaded that nobody uses it; None: LLMOS_KEEP_SECONDS
    role: str = ""  # "assistant": answers `?` and `ask` with command lines
    builtin: bool = False
    system: str = ""  # default system prompt
    sampling: dict[str, Any] = {}  # defaults for fields of `Sampling`
    options: dict[str, Any] = {}  # passed to the kernel as they are


class GpuMemory(Struct, frozen=True):
    """What a model has of a GPU, in bytes."""

    name: str  # as in `devices`
    layers: int  # of the model, that were put there
    estimated: int
    measured: int | None = None  # None: the driver does not tell


class ModelStatus(Struct, frozen=True):
    """One row of `models`."""

    entry: ModelEntry
    default: bool
    bytes: int  # size of the weights; 0 when the file is missing
    problem: str = ""  # why it cannot be loaded, one line
    worker: int | None = None  # host PID of its worker, when loaded
    processes: int = 0
    layout: str = ""
    context: int = 0
    page_tokens: int = 0
    pages: int = 0
    used_pages: int = 0
    slots: int = 0
    kv_bytes_per_token: int = 0
    load_seconds: float = 0.0
    estimated_bytes: int = 0  # what it was estimated to take before it was loaded
    measured_bytes: int = 0  # what its worker occupies
    pinned: bool = False
    warning: str = ""  # e.g. that it was to run on a GPU and runs on the CPU
    loading: float | None = None  # share of the weights that has been read, of a model being loaded
    gpus: tuple[GpuMemory, ...] = ()


class Event(Struct, frozen=True, omit_defaults=True):
    """One line of `dmesg`. `level` is `debug`, `info`, `warning` or `error`."""

    time: float
    level: str
    source: str  # the part that says it, e.g. `worker`, `sched`, `journal`
    text: str
    pid: int | None = None
