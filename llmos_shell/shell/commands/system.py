"""`status`, `dmesg` and `daemon`: the daemon itself."""

from __future__ import annotations

import os
import signal
import sys
import time

from llmos_shell import __version__, paths
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import (
    SYS_DMESG,
    SYS_STATUS,
    SYS_STOP,
    Dmesg,
    Nothing,
    Stop,
    SystemStatus,
)
from llmos_shell.abi.types import Event
from llmos_shell.ipc.client import Client, ConnectionLost, connect
from llmos_shell.shell.command import ERROR_STATUSES, Args, Command, Context, Example, Operand, Option, UsageError
from llmos_shell.shell.streaming import show_progress
from llmos_shell.shell.tables import Column, Style, clean, duration, render, size, style_of, to_json

_STOP_SECONDS = 30.0
_LEVELS = ("debug", "info", "warning", "error")
_COLOURS = {"debug": "dim", "warning": "yellow", "error": "red"}
_WORKERS = (
    Column("WORKER", right=True),
    Column("MODEL"),
    Column("KERNEL"),
    Column("THREADS", right=True),
    Column("RSS", right=True),
    Column("TOK/S", right=True),
    Column("STEPS", right=True),
    Column("GUESSED", right=True),
    Column("RESTARTS", right=True),
)


def _status(context: Context, args: Args) -> int:
    """Asks a daemon that runs; starts none."""
    try:
        client = connect("llmos status", start=False)
    except LlmosError as error:
        if error.code is not Code.ENOENT:
            raise
        context.out.write(to_json({"up": False}) if args.json else "the daemon is not running\n")
        return 3
    with client:
        status: SystemStatus = client.call(SYS_STATUS, Nothing())
    if args.json:
        import msgspec

        context.out.write(to_json({"up": True, **msgspec.structs.asdict(status)}))
    else:
        context.out.write(_describe(status, style_of(context)))
    return 0


def _describe(status: SystemStatus, style: Style) -> str:
    counts = ((status.running, "running"), (status.runnable, "runnable"), (status.sleeping, "sleeping"))
    states = ", ".join(f"{count} {what}" for count, what in (*counts, (status.stopped, "stopped")) if count)
    version = status.version if status.version == __version__ else f"{status.version} (this client is {__version__})"
    rows = [
        ("daemon", f"{version}, PID {status.daemon_pid}, up {duration(max(0.0, time.time() - status.started))}"),
        ("socket", status.socket),
        ("processes", f"{status.processes}" + (f": {states}" if states else "")),
        ("sessions", str(status.sessions)),
        ("scheduler", status.policy),
        ("tokens", f"{status.tokens_total} generated, {status.tokens_per_second:.1f} per second now"),
        ("journal", status.journal_error or size(status.journal_bytes)),
    ]
    text = "".join(f"{name:<10} {value}\n" for name, value in rows)
    return text + ("\n" + _worker_table(status, style) if status.workers else "")


def _worker_table(status: SystemStatus, style: Style) -> str:
    rows = [
        [
            str(worker.pid),
            worker.model,
            worker.kernel,
            str(worker.threads),
            size(worker.rss),
            f"{worker.tokens_per_second:.1f}",
            str(worker.steps),
            f"{worker.right_tokens / worker.guessed_tokens:.0%} of {worker.guessed_tokens}"
            if worker.guessed_tokens
            else "-",
            str(worker.restarts),
        ]
        for worker in status.workers
    ]
    return render(_WORKERS, rows, style)


def _dmesg(context: Context, args: Args) -> int:
    lowest = _LEVELS.index(args.level)
    style = style_of(context)
    for event in context.client.stream(SYS_DMESG, Dmesg(args.lines, args.follow)):
        if event.level not in _LEVELS or _LEVELS.index(event.level) >= lowest:
            _write_event(context, event, style, args.json)
    return 0


def _write_event(context: Context, event: Event, style: Style, as_json: bool) -> None:
    if as_json:
        import msgspec

        context.out.write(msgspec.json.encode(event).decode() + "\n")
    else:
        when = time.strftime("%H:%M:%S", time.localtime(event.time)) + f"{event.time % 1:.3f}"[1:]
        whom = f"{event.source}[{event.pid}]" if event.pid is not None else event.source
        line = f"{when} {event.level:<7} {whom}: {clean(event.text)}"
        context.out.write(style.paint(line, _COLOURS.get(event.level, "")) + "\n")
    context.out.flush()


def _daemon(context: Context, args: Args) -> int:
    if args.foreground:
        os.execv(sys.executable, [sys.executable, "-P", "-m", "llmos_shell.daemon", "--foreground"])
    actions = {"status": _status, "start": _start, "stop": _stop_daemon, "restart": _restart}
    if args.ACTION is None:
        raise UsageError("ACTION is missing: usage: daemon start|stop|restart|status, or daemon --foreground")
    return actions[args.ACTION](context, args)


def _start(context: Context, args: Args) -> int:
    with show_progress(context, "starting the daemon"), connect("llmos daemon start") as client:
        print(f"the daemon runs with PID {client.daemon_pid}", file=context.out)
    return 0


def _stop_daemon(context: Context, args: Args) -> int:
    try:
        client = connect("llmos daemon stop", start=False)
    except LlmosError as error:
        if error.code is Code.EPROTO:  # of another version, so that it understands a signal only
            with show_progress(context, "stopping the daemon"):
                _terminate()
            return 0
        if error.code is not Code.ENOENT:
            raise
        print("the daemon is not running", file=context.out)
        return 0
    with show_progress(context, "stopping the daemon"):
        _end(client)
    return 0


def _terminate() -> None:
    try:
        with open(paths.lock_path()) as lock:
            pid = int(lock.read())
        os.kill(pid, signal.SIGTERM)
    except (OSError, ValueError) as error:
        raise LlmosError(Code.EIO, f"the daemon cannot be signalled: {error}") from None
    _await_end(pid)


def _end(client: Client) -> None:
    """Asks the daemon to end, and waits until it has."""
    pid = client.daemon_pid
    try:
        client.call(SYS_STOP, Stop())
    except ConnectionLost:
        pass
    finally:
        client.close()
    _await_end(pid)


def _await_end(pid: int) -> None:
    from llmos_shell.ipc.launch import daemon_lives

    deadline = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < deadline:
        if not daemon_lives():
            return
        time.sleep(0.02)
    what = f"the daemon (PID {pid}) did not end within {_STOP_SECONDS:.0f} s"
    raise LlmosError(Code.ETIMEDOUT, what, hint=f"its log is {paths.log_path()}")


def _restart(context: Context, args: Args) -> int:
    return _stop_daemon(context, args) or _start(context, args)


COMMANDS = (
    Command(
        "status",
        "show the daemon's state at a glance",
        _status,
        family="system",
        options=(Option(("--json",), "as JSON, with all fields"),),
        description="Shows version, processes, sessions, policy, speed, and the workers. Starts no daemon.",
        examples=(
            Example("status", "is all well?", before="daemon start"),
            Example("status --json | grep -c up", "for a program", before="daemon start"),
        ),
        exit_statuses=(("0", "the daemon runs"), *ERROR_STATUSES, ("3", "the daemon does not run")),
        see_also=("daemon", "top", "dmesg"),
    ),
    Command(
        "dmesg",
        "show the daemon's messages",
        _dmesg,
        family="system",
        options=(
            Option(("-f", "--follow"), "go on with new ones as they come"),
            Option(("-n", "--lines"), "the newest N", "N", "count", 1000),
            Option(("-l", "--level"), "this level and above", "LEVEL", "|".join(_LEVELS), "info"),
            Option(("--json",), "as JSON, one message per line"),
        ),
        description=(
            "What the daemon and its workers have to say since it was started: models loaded and unloaded, processes "
            "parked, workers that died, mistakes in `models.toml`. Each line has its time, its level, who says it, and "
            "the PID of the process it is about."
        ),
        examples=(
            Example("dmesg | tail -n 5", "the newest"),
            Example("dmesg -l warning", "only what matters"),
            Example("dmesg -f", "as they come", untested="never ends by itself"),
        ),
        files=(("llmosd.log", "the daemon's log; the topic configuration says where it is"),),
        environment=(("LLMOS_LOG", "level of the log file"),),
        see_also=("status", "daemon", "log"),
    ),
    Command(
        "daemon",
        "start and stop the daemon",
        _daemon,
        family="system",
        options=(
            Option(("--foreground",), "be the daemon, in this terminal"),
            Option(("--json",), "`status` as JSON"),
        ),
        operands=(Operand("ACTION", "what to do", "start|stop|restart|status", required=False),),
        description=(
            "The daemon is started by whatever needs it first. When it is stopped, processes stay in its journal and "
            "carry on after the next start. One that was started so ends by itself when it has had neither clients nor "
            "processes for a while."
        ),
        examples=(
            Example("daemon restart > pid.txt", "processes carry on"),
            Example("daemon stop", "until the next command that needs it"),
            Example("daemon --foreground", "under a service manager", untested="never ends by itself"),
        ),
        exit_statuses=(("0", "success"), *ERROR_STATUSES, ("3", "with `status`: the daemon does not run")),
        environment=(("LLMOS_IDLE_SECONDS", "ends after so long without clients, processes and loaded models"),),
        files=(("llmosd.sock", "its socket"), ("llmosd.log", "its log"), ("journal.db", "its journal")),
        see_also=("status", "dmesg", "configuration"),
    ),
)
