"""A daemon of its own in a temporary folder, for tests: a real one, in a real process, with the scripted engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from llmos_shell import paths
from llmos_shell.ipc.client import Client, connect

MODEL = "scripted"
STOP_SECONDS = 20.0


def write_models(home: Path, **models: dict[str, Any]) -> None:
    """Writes `models.toml` with scripted models: name → engine options. The first is the default."""
    config = home / "config"
    config.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines = [f"default = {json.dumps(next(iter(models)))}"]
    for name, options in models.items():
        (config / f"{name}.model").write_text("scripted\n")
        lines += [
            f"[models.{name}]",
            f"path = {json.dumps(f'{name}.model')}",
            'kernel = "scripted"',
            f"[models.{name}.options]",
            *(f"{key} = {_toml(value)}" for key, value in options.items()),
        ]
    (config / "models.toml").write_text("\n".join(lines) + "\n")


def _toml(value: Any) -> str:
    """A scalar as TOML, whose strings, numbers and booleans are those of JSON."""
    return json.dumps(value)


class DaemonProcess:
    """A daemon that can be started, killed and started again in one LLMOS_HOME."""

    def __init__(self, home: Path, env: dict[str, str] | None = None) -> None:
        self.home = home
        self.env = {"LLMOS_HOME": str(home), **(env or {})}
        self.wrapper: tuple[str, ...] = ()  # a command that runs the one behind it
        self.process: subprocess.Popen[bytes] | None = None
        self.expected_faults = False  # set by a test that provokes a traceback in the log

    @property
    def pid(self) -> int:
        """Its PID on the host."""
        assert self.process is not None
        return self.process.pid

    @property
    def lives(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.poll() is None

    def start(self, *args: str) -> None:
        """Starts it and waits until it accepts connections."""
        reader, writer = os.pipe()
        argv = [sys.executable, "-P", "-m", "llmos_shell.daemon", "--ready-fd", str(writer), *args]
        argv = [*self.wrapper, *argv]
        try:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(writer,),
                env={**os.environ, **self.env},
            )
        finally:
            os.close(writer)
        with os.fdopen(reader, "rb") as said:
            line = said.readline().decode()
        assert line == "ready\n", f"the daemon did not start: {line!r}\n{self.log()}"

    def connect(self, name: str = "test", **options: Any) -> Client:
        """A client of this daemon; needs LLMOS_HOME to be its home, as the fixtures see to."""
        return connect(name, start=False, **options)

    def kill(self) -> None:
        """`kill -9`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def stop(self) -> None:
        """SIGTERM, and waits for the end."""
        if self.process is None:
            return
        process, self.process = self.process, None
        hung = threading.Event()

        def give_up() -> None:
            hung.set()
            process.kill()

        watchdog = threading.Timer(STOP_SECONDS, give_up)
        watchdog.daemon = True
        watchdog.start()
        process.terminate()
        process.wait()  # without a limit, since the one of `Popen` looks only every 50 ms
        watchdog.cancel()
        if hung.is_set():
            raise AssertionError(f"the daemon did not stop within {STOP_SECONDS:g} s\n{self.log()}")

    def log(self) -> str:
        """What it has logged."""
        try:
            return Path(paths.log_path()).read_text(errors="replace")
        except FileNotFoundError:
            return ""
