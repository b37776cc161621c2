"""`top`: what the system does, now and from second to second, as text."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import Struct

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import (
    MEM_INFO,
    PROC_LIST,
    SYS_STATUS,
    List,
    MemoryInfo,
    Nothing,
    SystemStatus,
)
from llmos_shell.abi.types import Kind, ProcessInfo
from llmos_shell.ipc.client import Client
from llmos_shell.ipc.session import Session
from llmos_shell.shell.command import Args, Command, Context, Example, Option
from llmos_shell.shell.commands.processes import SORT_KEYS, process_table
from llmos_shell.shell.tables import Style, cut, duration, size, style_of, to_json

KEYS = {"m": "memory", "t": "tokens", "c": "time", "s": "speed", "p": "pid", "n": "nice"}
"""Keys that choose the order."""

_HELP = "q quit · order: m memory, t tokens, c device time, s speed, n nice, p PID"


class Frame(Struct, frozen=True):
    """All that is shown at one moment."""

    status: SystemStatus
    memory: MemoryInfo
    processes: tuple[ProcessInfo, ...]


def take_frame(client: Client, order: str, sessions: bool = False) -> Frame:
    """The present state, processes in the order wanted."""
    processes = client.call(PROC_LIST, List(sessions=sessions))
    chosen = [process for process in processes if sessions or process.kind is not Kind.SESSION]
    chosen.sort(key=SORT_KEYS[order])
    return Frame(client.call(SYS_STATUS, Nothing()), client.call(MEM_INFO, Nothing()), tuple(chosen))


def render_frame(frame: Frame, style: Style, height: int | None = None) -> str:
    """The frame as text of at most `height` lines."""
    lines = _summary(frame) + process_table(frame.processes, style).splitlines()
    if height is not None and len(lines) > height:
        hidden = len(lines) - height + 1
        lines = [*lines[: height - 1], f"… and {hidden} more"]
    if style.width is not None:
        lines = [line if line.startswith("\x1b") else cut(line, style.width) for line in lines]
    return "\n".join(lines) + "\n"


def _summary(frame: Frame) -> list[str]:
    import time

    status, memory = frame.status, frame.memory
    used = memory.ram_total - memory.ram_available
    lines = [
        f"llmos {status.version}, up {duration(max(0.0, time.time() - status.started))}, policy {status.policy}, "
        f"{status.tokens_per_second:.1f} tok/s, {status.tokens_total} tokens",
        f"processes: {status.running} running, {status.runnable} runnable, {status.sleeping} sleeping, "
        f"{status.stopped} stopped; sessions: {status.sessions}; ram {size(used)} of {size(memory.ram_total)}",
    ]
    for pool in memory.pools:
        share = pool.used_pages / pool.pages if pool.pages else 0.0
        bar = "█" * round(20 * share)
        lines.append(
            f"pool {pool.model}: {bar:░<20} {share:4.0%} of {pool.pages * pool.page_tokens} tokens, "
            f"{pool.used_slots}/{pool.slots} slots, parked {size(pool.parked_bytes)}"
        )
    return [*lines, ""]


def _top(context: Context, args: Args) -> int:
    if args.json:
        context.out.write(to_json(take_frame(context.client, args.sort, args.sessions)))
        return 0
    if args.once or not context.is_terminal():
        context.out.write(render_frame(take_frame(context.client, args.sort, args.sessions), style_of(context)))
        return 0
    with _cbreak(), _screen(context):
        _refresh(context, args)
    return 0


def _refresh(context: Context, args: Args) -> None:
    """Frames until `q`, Ctrl-C or the end of input."""
    order = args.sort
    session = Session("llmos top", start=False)  # a daemon that was stopped on purpose stays stopped
    context.client  # noqa: B018 - but at first one is started
    try:
        while True:
            _draw(context, session, order, args.sessions)
            key = _read_key(args.delay)
            if key in ("q", "Q", "\x04", "\x03"):
                return
            order = KEYS.get(key, order)
    except KeyboardInterrupt:
        return
    finally:
        session.close()


def _draw(context: Context, session: Session, order: str, sessions: bool) -> None:
    style = style_of(context)
    height = os.get_terminal_size(context.out.fileno()).lines - 2
    try:
        text = render_frame(take_frame(session.client(), order, sessions), style, max(height, 3))
    except LlmosError as error:
        if error.code not in (Code.EPIPE, Code.ENOENT):
            raise
        text = "the daemon has gone; this goes on when it is back\n"
    body = text.replace("\n", "\x1b[K\r\n")
    context.out.write(f"\x1b[H{body}\x1b[J\x1b[999;1H{style.paint(cut(_HELP, style.width or 80), 'dim')}")
    context.out.flush()


def _read_key(seconds: float) -> str:
    """A key pressed within this time, or an empty text."""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    if not ready:
        return ""
    return os.read(sys.stdin.fileno(), 64)[:1].decode(errors="replace") or "q"


@contextmanager
def _cbreak() -> Iterator[None]:
    """Keys come one by one and are not shown."""
    import termios
    import tty

    if not sys.stdin.isatty():
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def _screen(context: Context) -> Iterator[None]:
    """The terminal's other screen, without a cursor."""
    context.out.write("\x1b[?1049h\x1b[?25l\x1b[2J")
    try:
        yield
    finally:
        context.out.write("\x1b[?25h\x1b[?1049l")
        context.out.flush()


COMMANDS = (
    Command(
        "top",
        "watch processes, models and memory",
        _top,
        family="processes",
        options=(
            Option(("-1", "--once"), "one frame; this is what a pipe or a file gets"),
            Option(("-d", "--delay"), "time between frames", "TIME", "duration", 1.0),
            Option(("--sort",), "order of the rows", "KEY", "|".join(SORT_KEYS), "time"),
            Option(("-s", "--sessions"), "also sessions (connected clients)"),
            Option(("--json",), "one frame as JSON"),
        ),
        description=(
            "Keys: " + _HELP + ".\n\n"
            "Off a terminal one frame is printed, as with `--once`. The first lines sum up daemon and pools; the "
            "table is that of `ps`. A daemon that was stopped on purpose stays stopped."
        ),
        examples=(
            Example("top", "watch", untested="fills the terminal"),
            Example("top --once --sort memory", "one frame, the largest first"),
            Example("top --json | head -c 300 > frame.json", "a frame for a program"),
        ),
        see_also=("ps", "free", "status", "scheduling"),
    ),
)
