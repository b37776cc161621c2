"""`ps` and `pstree`: which processes there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llmos_shell.abi.syscalls import PROC_LIST, List
from llmos_shell.abi.types import Kind, KvState, ProcessInfo, State
from llmos_shell.shell.command import ERROR_STATUSES, Args, Command, Context, Example, Operand, Option
from llmos_shell.shell.tables import Column, Style, clean, cut, duration, energy, render, size, style_of, to_json

SORT_KEYS: dict[str, Callable[[ProcessInfo], Any]] = {
    "pid": lambda process: process.pid,
    "memory": lambda process: (-process.resident_pages, -process.context_tokens),
    "tokens": lambda process: -process.generated_tokens,
    "time": lambda process: -process.device_seconds,
    "nice": lambda process: process.nice,
    "speed": lambda process: -process.tokens_per_second,
    "started": lambda process: process.started,
    "name": lambda process: process.name,
    "model": lambda process: process.model,
    "state": lambda process: process.state,
}
"""What `--sort` accepts; sizes come largest first."""

ENDED = (State.ZOMBIE, State.GONE)
_COLOURS = {State.RUNNING: "green", State.STOPPED: "yellow", State.ZOMBIE: "dim", State.GONE: "dim"}
_KV = {KvState.RESIDENT: "res", KvState.PARKED: "park", KvState.SWAPPED: "swap", KvState.DROPPED: "drop"}
_COLUMNS = (
    Column("PID", right=True),
    Column("PPID", right=True),
    Column("STATE"),
    Column("KV"),
    Column("NI", right=True),
    Column("CTX", right=True),
    Column("TOKENS", right=True),
    Column("TIME", right=True),
    Column("MODEL"),
    Column("NAME", flexible=True),
)

_AFTER_TIME = 8
_ENERGY = Column("ENERGY", right=True)
"""Where no device tells it, there is no such column."""

_MEMORY = (
    Column("PID", right=True),
    Column("STATE"),
    Column("KV"),
    Column("CTX", right=True),
    Column("RES", right=True),
    Column("SHR", right=True),
    Column("PARK", right=True),
    Column("SWAP", right=True),
    Column("REUSED", right=True),
    Column("RECOMP", right=True),
    Column("MODEL"),
    Column("NAME", flexible=True),
)


def _memory_row(process: ProcessInfo, indent: str = "") -> list[str]:
    """A process as cells of the table of `ps -v`."""
    page = process.page_bytes
    held = (process.resident_pages * page, process.shared_pages * page, process.parked_bytes, process.swapped_bytes)
    return [
        str(process.pid),
        state_text(process),
        _KV.get(process.kv, "-"),
        str(process.context_tokens),
        *map(size, held),
        str(process.reused_tokens),
        str(process.recomputed_tokens),
        model_name(process),
        indent + process.name,
    ]


def process_row(process: ProcessInfo, indent: str = "") -> list[str]:
    """A process as cells of the table of `ps`."""
    return [
        str(process.pid),
        str(process.ppid),
        state_text(process),
        _KV.get(process.kv, "-"),
        str(process.nice),
        str(process.context_tokens),
        str(process.generated_tokens),
        duration(process.device_seconds),
        model_name(process),
        indent + process.name,
    ]


def model_name(process: ProcessInfo) -> str:
    """The model's name; of a weights file without the folder it is in."""
    return process.model.rpartition("/")[2] or "-"


def _model_names(process: ProcessInfo) -> tuple[str, ...]:
    """What the model may be called: its name, or of a weights file the path, the file, or what `models` shows."""
    file = model_name(process)
    return process.model, file, file.removesuffix(".gguf")


def state_text(process: ProcessInfo) -> str:
    """The state's letter; of an ended process also why it ended."""
    return f"{process.state} {process.exit.reason}" if process.exit is not None else str(process.state)


def process_table(
    processes: Sequence[ProcessInfo], style: Style, indents: Sequence[str] = (), *, memory: bool = False
) -> str:
    """The table of `ps`."""
    row = _memory_row if memory else process_row
    rows = [row(process, indents[i] if indents else "") for i, process in enumerate(processes)]
    columns: tuple[Column, ...] = _MEMORY if memory else _COLUMNS
    if not memory and any(process.joules is not None for process in processes):
        columns = (*columns[:_AFTER_TIME], _ENERGY, *columns[_AFTER_TIME:])
        for cells, process in zip(rows, processes, strict=True):
            cells.insert(_AFTER_TIME, energy(process.joules))
    return render(columns, rows, style, [_COLOURS.get(process.state, "") for process in processes])


def arrange(processes: Sequence[ProcessInfo]) -> list[tuple[int, ProcessInfo]]:
    """Processes in the order of their tree, each with its depth; one whose parent is not listed is a root."""
    by_pid = {process.pid: process for process in processes}
    children: dict[int, list[ProcessInfo]] = {}
    for process in processes:
        parent = process.ppid if process.ppid in by_pid and process.ppid != process.pid else 0
        children.setdefault(parent, []).append(process)
    arranged: list[tuple[int, ProcessInfo]] = []
    waiting = [(0, process) for process in reversed(children.get(0, []))]
    while waiting:
        depth, process = waiting.pop()
        arranged.append((depth, process))
        waiting += [(depth + 1, child) for child in reversed(children.pop(process.pid, []))]
    return arranged


def _ps(context: Context, args: Args) -> int:
    everything: tuple[ProcessInfo, ...] = context.client.call(PROC_LIST, List(all=args.all, sessions=True))
    wanted = set(args.PID)
    processes = [
        process
        for process in everything
        if (process.pid in wanted if wanted else args.sessions or process.kind is not Kind.SESSION)
        and (not args.model or args.model in _model_names(process))
    ]
    processes.sort(key=SORT_KEYS[args.sort])
    if args.json:
        context.out.write(to_json(processes))
        return 0
    if args.quiet:
        context.out.writelines(f"{process.pid}\n" for process in processes)
    elif args.tree:
        ordered = arrange(processes)
        indents = ["  " * depth for depth, _ in ordered]
        context.out.write(
            process_table([process for _, process in ordered], style_of(context), indents, memory=args.memory)
        )
    else:
        context.out.write(process_table(processes, style_of(context), memory=args.memory))
    return 0 if not wanted or processes else 1


def _pstree(context: Context, args: Args) -> int:
    processes: tuple[ProcessInfo, ...] = context.client.call(PROC_LIST, List(all=args.all, sessions=True))
    style = style_of(context)
    if args.json:
        context.out.write(to_json([{"depth": depth, "process": process} for depth, process in arrange(processes)]))
        return 0
    for line in _draw(arrange(processes)):
        context.out.write((cut(line, style.width) if style.width else line) + "\n")
    return 0


def _draw(arranged: Sequence[tuple[int, ProcessInfo]]) -> list[str]:
    """The tree with its branches, one line per process, from the last line up to know which branches go on."""
    lines: list[str] = []
    open_depths: set[int] = set()
    for depth, process in reversed(arranged):
        stem = "".join("│  " if level in open_depths else "   " for level in range(1, depth))
        branch = ("├─ " if depth in open_depths else "└─ ") if depth else ""
        open_depths = {level for level in open_depths if level < depth} | {depth}
        what = f" [{model_name(process)}]" if process.model else ""
        lines.append(f"{stem}{branch}{process.pid} {clean(process.name)}{what} {state_text(process)}")
    return lines[::-1]


COMMANDS = (
    Command(
        "ps",
        "list processes",
        _ps,
        family="processes",
        options=(
            Option(("-a", "--all"), "also those that have ended"),
            Option(("-s", "--sessions"), "also sessions (connected clients)"),
            Option(("-t", "--tree"), "indented under their parents"),
            Option(("-v", "--memory"), "with their memory instead of priority, tokens and time"),
            Option(("-q", "--quiet"), "PIDs only"),
            Option(("-m", "--model"), "only those of this model", "MODEL", "model"),
            Option(("--sort",), "order of the rows", "KEY", "|".join(SORT_KEYS), "pid"),
            Option(("--json",), "as JSON, with all fields"),
        ),
        operands=(Operand("PID", "only these processes", "pid", required=False, many=True),),
        description=(
            "STATE is N new, R runnable, r running, S sleeping (waits for input), D in a syscall, T stopped, Z exited, "
            "X exited and waited for; an ended process also shows why. KV is where its memory is: res (in the pool), "
            "park (in RAM), swap (on disk), drop (to be recomputed). CTX counts the tokens in its context, TOKENS "
            "those it generated, TIME the seconds of device time it used. With -v: RES is what it has in the pool, SHR "
            "the part of it that others reference as well, PARK and SWAP what it has in RAM and on disk, REUSED tokens "
            "it took over from others or from an image, RECOMP tokens that had to be computed once more."
        ),
        examples=(
            Example("ps --sort memory", "the largest first"),
            Example("ps -v", "where is everybody's memory?"),
            Example("ps -a --json", "everything, for a program"),
            Example(
                "kill $(ps -q -m tiny)",
                "end all processes of a model",
                before="chat -d tiny > pid.txt",
                untested="ends the processes of other tests",
            ),
            Example("ps -t 12", "a process, by its PID", before="pid=$(chat -d)"),
        ),
        exit_statuses=(("0", "success"), ("1", "none of the PIDs is known, or something failed"), ERROR_STATUSES[1]),
        see_also=("top", "pstree", "log", "jobs", "memory"),
    ),
    Command(
        "pstree",
        "show processes as a tree, sessions included",
        _pstree,
        family="processes",
        description=(
            "The parent of a process is what started it: a session, or the process it was forked from. The state "
            "stands at the end of the line, as `ps` shows it."
        ),
        examples=(
            Example("pstree", "who started what?"),
            Example("pstree -a | grep chat", "conversations, also ended ones", before="chat -d > pid.txt"),
        ),
        see_also=("ps", "fork"),
        options=(
            Option(("-a", "--all"), "also those that have ended"),
            Option(("--json",), "as JSON: depth and process, in the order of the tree"),
        ),
    ),
)
