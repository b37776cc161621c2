"""The built-in syscalls: every way into the daemon, with typed arguments and results."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field

from llmos_shell.abi.devices import DEVICE_LIST as DEVICE_LIST
from llmos_shell.abi.memory import MEM_INFO as MEM_INFO
from llmos_shell.abi.memory import MEM_MAP as MEM_MAP
from llmos_shell.abi.memory import MEM_STAT as MEM_STAT
from llmos_shell.abi.memory import MEM_SWAP as MEM_SWAP
from llmos_shell.abi.memory import MEM_SWAPOFF as MEM_SWAPOFF
from llmos_shell.abi.memory import MEM_SWAPON as MEM_SWAPON
from llmos_shell.abi.memory import PROC_CHECKPOINT as PROC_CHECKPOINT
from llmos_shell.abi.memory import PROC_RESTORE as PROC_RESTORE
from llmos_shell.abi.memory import SYS_HIBERNATE as SYS_HIBERNATE
from llmos_shell.abi.memory import MemoryInfo as MemoryInfo
from llmos_shell.abi.memory import PoolInfo as PoolInfo
from llmos_shell.abi.syscall import Nothing as Nothing
from llmos_shell.abi.syscall import Pid as Pid
from llmos_shell.abi.syscall import Syscall
from llmos_shell.abi.types import (
    Event,
    ExitInfo,
    Limits,
    Message,
    ModelStatus,
    Overflow,
    ProcessInfo,
    Reason,
    Signal,
    State,
    TokenLogprob,
    Turn,
)

# -- processes -------------------------------------------------------------------------------------------------------


class Spawn(Struct, frozen=True, omit_defaults=True):
    """Starts a model process.

    Exactly one of `prompt` (raw text, completed as it stands) and `messages` (rendered with the model's chat template)
    is given, unless `chat`, where both may be absent and the process sleeps until its first input. `messages` with a
    last role of `user` starts generating at once. With `source`, `prompt` is the next thing said to a copy of that
    process, in its form, raw or rendered; the model is its model, and only what is said from now on is output.
    """

    model: str = ""  # "": the default model
    prompt: str | None = None
    messages: tuple[Message, ...] | None = None
    chat: bool = False  # sleep after each turn instead of exiting
    name: str = ""
    nice: int = 0
    sampling: dict[str, Any] = {}  # fields of `Sampling` that differ from the model's defaults
    limits: Limits = field(default_factory=Limits)
    detached: bool = False  # belongs to PID 1, survives the session
    parent: int | None = None  # default: the calling session
    private: bool = False  # never shares its KV with other processes
    overflow: Overflow = Overflow.STOP
    group: str = ""  # shares the device as a part of this group; "": of its terminal's or session's
    deadline: float | None = None  # seconds from now by which it should have ended; matters under policy `deadline`
    foreground: bool = False  # a person waits for it, until nobody follows it in the foreground any more
    source: int | None = None  # PID of a process, also an ended one, from which it goes on


class Spawned(Struct, frozen=True):
    """A new process."""

    pid: int
    prompt_tokens: int = 0
    warning: str = ""  # about its model, e.g. that it landed on the CPU


class List(Struct, frozen=True, omit_defaults=True):
    """Selects processes: live ones, or with `all` also those that ended, newest last."""

    all: bool = False
    sessions: bool = True
    limit: int = 1000  # of ended ones


class Kill(Struct, frozen=True, omit_defaults=True):
    """Sends a signal; `tree` also to all descendants."""

    pid: int
    signal: Signal = Signal.TERM
    tree: bool = False


class Nice(Struct, frozen=True):
    """Sets the nice value, -20…19."""

    pid: int
    nice: int


class Wait(Struct, frozen=True, omit_defaults=True):
    """Waits until a process exits, and reaps it. With `until="idle"` a chat that fell asleep also counts."""

    pid: int
    until: Literal["exit", "idle"] = "exit"
    timeout: float | None = None  # seconds; running out is ETIMEDOUT


class Input(Struct, frozen=True, omit_defaults=True):
    """Gives a sleeping chat its next user message; `end` instead closes its input, and it exits with reason `end`."""

    pid: int
    text: str = ""
    end: bool = False
    sampling: dict[str, Any] = {}  # changed from this turn on


class Rewrite(Struct, frozen=True, omit_defaults=True):
    """Changes what a sleeping chat has in mind; what it has said stays in its output.

    The first `keep` turns stay (None: all), then `messages` are appended; a system prompt counts as no turn: it stays,
    unless `system` replaces it ("": there is none any more). The KV of what stays the same is kept.
    """

    pid: int
    keep: int | None = None
    system: str | None = None
    messages: tuple[Message, ...] = ()


class InputTaken(Struct, frozen=True):
    """Where the answer will start in the process's output."""

    offset: int  # characters


class Follow(Struct, frozen=True, omit_defaults=True):
    """Streams a process's output from `offset` on, to its end (or, with `until="idle"`, to the end of its turn).

    Several clients may follow one process; each reads at its own pace.
    """

    pid: int
    offset: int = 0  # characters of output; negative counts from the present end
    until: Literal["exit", "idle"] = "exit"
    logprobs: bool = False
    foreground: bool = False  # a person waits for it


class Output(Struct, frozen=True, omit_defaults=True):
    """One item of `proc.follow`: text, a change of state, the end of a turn or the exit."""

    offset: int  # characters of output before this item
    text: str = ""
    state: State | None = None
    turn: Reason | None = None  # the turn ended for this reason
    exit: ExitInfo | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    prefill: tuple[int, int] | None = None  # prompt tokens done, of


class Fork(Struct, frozen=True, omit_defaults=True):
    """Copies a process (also an ended one) `count` times; a child continues from the same tokens.

    A child of a generating process keeps generating, with a seed of its own unless `keep_seed`; a child of a chat
    sleeps, ready for input; a child of a process that ended by itself is a chat too, so that it can be talked to. With
    `again` a child gives the source's present or last answer anew, from where the prompt ends, with the next seeds.
    """

    pid: int
    count: int = 1
    nice: int | None = None
    detached: bool = False
    keep_seed: bool = False
    again: bool = False


class Forked(Struct, frozen=True):
    """The children, in order."""

    pids: tuple[int, ...]


class SetLimits(Struct, frozen=True):
    """Replaces a process's limits."""

    pid: int
    limits: Limits


class Transcript(Struct, frozen=True):
    """What a process was asked and said; also of ended processes."""

    pid: int
    model: str
    turns: tuple[Turn, ...]
    seed: int
    length: int = 0  # characters of its output so far, where following goes on


# -- models, memory, scheduler, system -------------------------------------------------------------------------------


class ModelName(Struct, frozen=True):
    """A call about one model: a name of models.toml, or a path to a weights file."""

    model: str


class ResizePool(Struct, frozen=True):
    """What is None stays as it is; a split pool then has room for `slots` whole contexts."""

    model: str
    pool_tokens: int | None = None
    slots: int | None = None
    layout: Literal["shared", "split"] | None = None


class Pin(Struct, frozen=True):
    """Keeps a model loaded, or no longer."""

    model: str
    pinned: bool = True


class LoadPlan(Struct, frozen=True):
    """What loading a model would take; bytes."""

    model: str
    needed: int
    budget: int
    evict: tuple[str, ...]  # models that would make way
    wait_for: tuple[str, ...]  # busy models it would wait for
    loaded: bool = False
    gpus: dict[str, int] = {}  # of the memory of GPUs, by name
    gpu_layers: int = 0  # that would go there, the output counted as one
    layers: int = 0  # of so many; 0: it does not ask for a GPU
    gpu_note: str = ""  # why they go where they do, or why not all of them
    gpu_split: dict[str, int] = {}  # layers on each GPU, by name


class Awaited(Struct, frozen=True, omit_defaults=True):
    """A model that somebody waits for: that of a name, or that of a process."""

    model: str = ""  # "": the default model
    pid: int | None = None


class ModelLoad(Struct, frozen=True):
    """How far a model is that is being loaded. Bytes are those of the weights."""

    model: str
    read: int
    total: int  # 0: not known yet
    seconds: float  # since somebody asked for it
    waits_for: tuple[str, ...] = ()  # busy models whose memory it needs


class Tokenize(Struct, frozen=True, omit_defaults=True):
    """Counts (and returns) the tokens of a text."""

    text: str
    model: str = ""


class TokenList(Struct, frozen=True):
    """Token ids."""

    tokens: tuple[int, ...]


class PolicyName(Struct, frozen=True, omit_defaults=True):
    """Chooses a scheduling policy with its parameters, those not named being its defaults."""

    policy: str
    parameters: dict[str, float] = {}


class PolicyParameter(Struct, frozen=True):
    """A parameter of the policy in force."""

    name: str
    value: float
    default: float
    low: float
    high: float
    help: str


class Gang(Struct, frozen=True):
    """Whether workers that share a device take turns: `on`, `off`, or `auto`: when that is measured to be faster."""

    mode: Literal["auto", "on", "off"]


class DeviceSharing(Struct, frozen=True):
    """How models share a device: all at once (`free`) or in turns (`gang`). Rates are tokens computed per second."""

    device: str
    models: tuple[str, ...]  # that want to run
    setting: str  # auto, on, off
    mode: str  # free, gang, or alone
    holder: str  # the model whose turn it is, with `gang`
    measuring: bool
    quantum: float  # seconds
    free_rate: float | None = None
    gang_rate: float | None = None


class SchedulerInfo(Struct, frozen=True):
    """The policy in force, those to choose from, and the queue lengths."""

    policy: str
    policies: tuple[str, ...]
    running: int
    runnable: int
    sleeping: int
    stopped: int
    parameters: tuple[PolicyParameter, ...] = ()
    quarantined: dict[str, str] = {}  # policies that failed, and how
    devices: tuple[DeviceSharing, ...] = ()
    queue_limit: int = 0  # processes of one model that may wait
    process_limit: int = 0  # in all


class Why(Struct, frozen=True):
    """Why a process runs, waits or sleeps, as a sentence, with what it is made of."""

    pid: int
    text: str
    state: State
    waited: float = 0.0  # seconds, in all
    place: int = 0  # in line, from 1
    of: int = 0
    behind: tuple[int, ...] = ()  # some of those that come first
    seconds: float | None = None  # about how long it will wait; None: not known


class GroupSettings(Struct, frozen=True, omit_defaults=True):
    """What a group gets, and what it may use at most. None: no limit."""

    weight: float = 1.0  # beside other groups
    processes: int | None = None
    tokens_per_second: float | None = None  # generated
    kv_tokens: int | None = None  # of context, of those of its processes that run
    device_share: float | None = None  # of the time of all devices, 0 to 1


class SetGroup(Struct, frozen=True, omit_defaults=True):
    """Changes settings of a group, made if there is none; `changes` are fields of `GroupSettings`."""

    name: str
    changes: dict[str, Any] = {}
    reset: bool = False  # to the defaults first


class GroupInfo(Struct, frozen=True):
    """One group; figures since the daemon was started."""

    name: str
    settings: GroupSettings
    processes: int  # that live
    running: int
    runnable: int
    tokens: int  # generated
    device_seconds: float
    kv_tokens: int  # of context, of those that run
    paused: str = ""  # why it may not run at present
    joules: float | None = None  # None: no device has told


class Trace(Struct, frozen=True):
    """Begins to record what the scheduler does, or ends it and returns the record."""

    action: Literal["start", "stop"]


class TraceEvent(Struct, frozen=True, array_like=True):
    """One event of a record. `kind` is state, spawn, exit, preempt, decision or step; times are monotonic."""

    time: float
    kind: str
    pid: int
    text: str = ""
    args: dict[str, Any] = {}


class TraceRecord(Struct, frozen=True):
    """What was recorded: the newest events, and how many older ones were dropped."""

    events: tuple[TraceEvent, ...] = ()
    dropped: int = 0


class WorkerInfo(Struct, frozen=True):
    """One worker."""

    pid: int  # on the host
    model: str
    kernel: str
    started: float
    steps: int
    rss: int  # bytes
    threads: int
    tokens_per_second: float
    restarts: int
    step_seconds: float = 0.0  # spent in steps
    engine_seconds: float = 0.0  # of these, inside the engine
    guessed_tokens: int = 0  # by speculation
    right_tokens: int = 0  # of these, those that were generated


class SystemStatus(Struct, frozen=True):
    """The daemon at a glance; cheap enough to poll once a second."""

    version: str
    daemon_pid: int
    started: float
    home: str
    socket: str
    auto_started: bool
    processes: int
    running: int
    runnable: int
    sleeping: int
    stopped: int
    sessions: int
    workers: tuple[WorkerInfo, ...]
    tokens_per_second: float
    tokens_total: int
    policy: str
    journal_bytes: int
    journal_error: str = ""  # set while the journal cannot be written, e.g. disk full


class KernelInfo(Struct, frozen=True):
    """One installed kernel."""

    name: str
    summary: str
    available: bool
    missing: str  # what to install when it is not
    formats: tuple[str, ...]


class Stop(Struct, frozen=True, omit_defaults=True):
    """Stops the daemon: processes stay in the journal and come back at the next start."""


class Dmesg(Struct, frozen=True, omit_defaults=True):
    """Streams the daemon's messages: the newest `limit`, then with `follow` new ones as they come."""

    limit: int = 1000
    follow: bool = False


class Adopt(Struct, frozen=True):
    """Makes a process belong to the calling session."""

    pid: int


PROC_SPAWN = Syscall("proc.spawn", "start a model process", Spawn, Spawned, "proc.spawn")
PROC_LIST = Syscall("proc.list", "list processes", List, tuple[ProcessInfo, ...], "proc.read")
PROC_INFO = Syscall("proc.info", "describe one process", Pid, ProcessInfo, "proc.read")
PROC_KILL = Syscall("proc.kill", "send a signal to a process", Kill, Nothing, "proc.signal")
PROC_NICE = Syscall("proc.nice", "change a process's priority", Nice, Nothing, "proc.signal")
PROC_WAIT = Syscall("proc.wait", "wait for a process to exit", Wait, ExitInfo | None, "proc.read")
PROC_INPUT = Syscall("proc.input", "give a chat its next message", Input, InputTaken, "proc.write")
PROC_REWRITE = Syscall("proc.rewrite", "change what a chat has in mind", Rewrite, Nothing, "proc.write")
PROC_FOLLOW = Syscall("proc.follow", "stream a process's output", Follow, Output, "proc.read", streams=True)
PROC_FORK = Syscall("proc.fork", "copy a process", Fork, Forked, "proc.spawn")
PROC_LIMITS = Syscall("proc.limits", "set a process's limits", SetLimits, Nothing, "proc.signal")
PROC_DETACH = Syscall("proc.detach", "let a process survive its session", Pid, Nothing, "proc.signal")
PROC_ADOPT = Syscall("proc.adopt", "make a process belong to this session", Adopt, Nothing, "proc.signal")
PROC_TRANSCRIPT = Syscall("proc.transcript", "read a process's transcript", Pid, Transcript, "proc.read")
MODEL_LIST = Syscall("model.list", "list models", Nothing, tuple[ModelStatus, ...], "model.read")
MODEL_LOAD = Syscall("model.load", "load a model and wait until it is ready", ModelName, ModelStatus, "model.load")
MODEL_RESIZE = Syscall("model.resize", "give a loaded model another KV pool", ResizePool, ModelStatus, "model.load")
MODEL_UNLOAD = Syscall("model.unload", "unload a model; its processes are kept", ModelName, Nothing, "model.load")
MODEL_PIN = Syscall("model.pin", "keep a model loaded, or no longer", Pin, Nothing, "model.load")
MODEL_PLAN = Syscall("model.plan", "say what loading a model would take", ModelName, LoadPlan, "model.read")
MODEL_PROGRESS = Syscall(
    "model.progress", "say how far a model is that is being loaded", Awaited, ModelLoad | None, "model.read"
)
MODEL_TOKENIZE = Syscall("model.tokenize", "tokenize a text", Tokenize, TokenList, "model.read")
MODEL_PROBLEMS = Syscall("model.problems", "say what is wrong with models.toml", Nothing, tuple[str, ...], "model.read")
KERNEL_LIST = Syscall("kernel.list", "list installed kernels", Nothing, tuple[KernelInfo, ...], "model.read")
SCHED_SHOW = Syscall("sched.show", "show the scheduler", Nothing, SchedulerInfo, "sys.read")
SCHED_SET = Syscall("sched.set", "choose the scheduling policy", PolicyName, SchedulerInfo, "sys.admin")
SCHED_GANG = Syscall("sched.gang", "choose whether models take turns", Gang, SchedulerInfo, "sys.admin")
SCHED_TRACE = Syscall("sched.trace", "record what the scheduler does", Trace, TraceRecord, "sys.admin")
PROC_WHY = Syscall("proc.why", "say why a process runs or waits", Pid, Why, "proc.read")
GROUP_LIST = Syscall("group.list", "list groups", Nothing, tuple[GroupInfo, ...], "proc.read")
GROUP_SET = Syscall("group.set", "set a group's weight and limits", SetGroup, GroupInfo, "sys.admin")
SYS_STATUS = Syscall("sys.status", "show the daemon's state", Nothing, SystemStatus, "sys.read")
SYS_STOP = Syscall("sys.stop", "stop the daemon", Stop, Nothing, "sys.admin")
SYS_DMESG = Syscall("sys.dmesg", "read the daemon's messages", Dmesg, Event, "sys.read", streams=True)

BUILTIN: dict[str, Syscall] = {call.name: call for call in list(globals().values()) if isinstance(call, Syscall)}
"""All of the above by name."""
