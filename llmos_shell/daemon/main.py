"""The daemon's main: arguments, lock, log, signals, and the way down.

    python -m llmos_shell.daemon [--auto] [--ready-fd N] [--foreground]

`--auto`: started on first use; ends when idle. `--ready-fd`: where to say `ready`, or in one line why not.
`--foreground`: the log also goes to stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from logging.handlers import RotatingFileHandler

from llmos_shell import __version__, paths
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.daemon.core import Core
from llmos_shell.daemon.handlers import bind_all
from llmos_shell.daemon.instance import Instance, private_dir
from llmos_shell.daemon.memory import park
from llmos_shell.daemon.saving.recovery import recover
from llmos_shell.daemon.server import Connection

LOG_BYTES = 4 << 20
LOG_FILES = 3


def main(argv: list[str] | None = None) -> int:
    """Runs the daemon; returns its exit status."""
    parser = argparse.ArgumentParser(prog="llmosd")
    parser.add_argument("--auto", action="store_true")
    parser.add_argument("--ready-fd", type=int, default=-1)
    parser.add_argument("--foreground", action="store_true")
    args = parser.parse_args(argv)
    os.umask(0o077)
    try:
        instance = Instance()
        for folder in (paths.config_dir(), paths.data_dir(), paths.state_dir()):
            private_dir(folder)
        _log_to_file(args.foreground)
    except (LlmosError, OSError) as error:
        text = _in_words(error)
        busy = isinstance(error, LlmosError) and error.code is Code.EBUSY
        _say(args.ready_fd, f"{'busy ' if busy else ''}{text}\n")
        print(f"llmosd: {text}", file=sys.stderr)
        return 1
    try:
        asyncio.run(_serve(instance, args.auto, args.ready_fd))
    except Exception as error:
        logging.getLogger("llmosd").exception("the daemon ended")
        _say(args.ready_fd, f"{error}\n")
        print(f"llmosd: {error}", file=sys.stderr)
        return 1
    finally:
        instance.close()
    return 0


async def _serve(instance: Instance, auto: bool, ready_fd: int) -> None:
    loop = asyncio.get_running_loop()
    core = Core(loop, auto=auto)
    bind_all(core.syscalls)
    loop.set_exception_handler(lambda _, context: _loop_fault(core, context))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, core.stopping.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    try:
        core.scheduling.restore()
        recover(core)
        server = await loop.create_unix_server(lambda: Connection(core), sock=instance.listen())
        core.events.info("daemon", f"llmosd {__version__} runs as host process {os.getpid()}")
        core.note_activity()
        _say(ready_fd, "ready\n")
        await core.stopping.wait()
        server.close()
    finally:
        await _shut_down(core)


async def _shut_down(core: Core) -> None:
    """Processes stay in the journal as they are, and come back."""
    core.events.info("daemon", "stopping")
    core.closing = True
    for connection in list(core.connections):
        connection.refuse_calls(Code.EPIPE, "the daemon is stopping; processes are kept, and go on when it runs again")
        connection.close()
    await core.cancel_tasks()
    await core.residency.close()
    for process in core.table.live_models():
        core.save(process)
    await core.read(core.journal.close)
    core.swap.close()
    park.leave()


def _loop_fault(core: Core, context: dict[str, object]) -> None:
    error = context.get("exception")
    if isinstance(error, BaseException):
        core.events.exception("daemon", error)
    else:
        core.events.error("daemon", str(context.get("message")))


def _log_to_file(foreground: bool) -> None:
    handlers: list[logging.Handler] = [
        RotatingFileHandler(paths.log_path(), maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8")
    ]
    if foreground:
        handlers.append(logging.StreamHandler())
    logging.basicConfig(
        level=os.environ.get("LLMOS_LOG", "INFO").upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        handlers=handlers,
    )


def _in_words(error: LlmosError | OSError) -> str:
    if isinstance(error, LlmosError):
        return str(error)
    return f"cannot write {error.filename}: {error.strerror}: set LLMOS_HOME to a folder that can be written"


def _say(ready_fd: int, text: str) -> None:
    if ready_fd < 0:
        return
    try:
        os.write(ready_fd, text.encode())
        os.close(ready_fd)
    except OSError:
        pass
