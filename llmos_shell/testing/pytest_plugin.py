"""Fixtures for tests of the project and of third-party kernels and plugins.

`llmos_home`   a temporary LLMOS_HOME whose `models.toml` has the scripted model as default
`daemon`       a real daemon in that home; its log must hold no traceback at the end
`client`       a connected client

The marker `llmos(models={...}, env={...})` sets the scripted models' engine options (name → options) and environment
variables of the daemon. With `llmos(shared=True)` home and daemon are those of all tests of a module that are marked
so, which is for tests that do not mind the processes of others.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from llmos_shell.ipc.client import Client
    from llmos_shell.testing.daemon import DaemonProcess

DEFAULT_OPTIONS: dict[str, Any] = {"end_after": 20}


def pytest_configure(config: pytest.Config) -> None:
    """Declares the marker."""
    config.addinivalue_line("markers", "llmos(models, env, shared): how the `daemon` fixture is started")


@pytest.fixture
def llmos_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A private LLMOS_HOME with a scripted model; with `shared` that of the module."""
    options = _marked(request)
    if options.get("shared"):
        home: Path = request.getfixturevalue("_shared_daemon").home
        monkeypatch.setenv("LLMOS_HOME", str(home))
        yield home
        return
    with _home(tmp_path / "llmos", monkeypatch, options.get("models")) as home:
        yield home


@pytest.fixture
def daemon(llmos_home: Path, request: pytest.FixtureRequest) -> Iterator[DaemonProcess]:
    """A running daemon; with `shared` that of the module."""
    options = _marked(request)
    if options.get("shared"):
        process: DaemonProcess = request.getfixturevalue("_shared_daemon")
        yield process
        assert process.lives, f"a daemon that others need has ended:\n{process.log()}"
        return
    with _running(llmos_home, options.get("env")) as process:
        yield process


@pytest.fixture
def client(daemon: DaemonProcess) -> Iterator[Client]:
    """A client of the running daemon."""
    with daemon.connect() as connected:
        yield connected


@pytest.fixture(scope="module")
def _shared_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    with (
        pytest.MonkeyPatch.context() as environment,
        _home(tmp_path_factory.mktemp("shared") / "llmos", environment) as home,
        _running(home) as process,
    ):
        yield process


def _marked(request: pytest.FixtureRequest) -> dict[str, Any]:
    marker = request.node.get_closest_marker("llmos")
    return dict(marker.kwargs) if marker else {}


@contextmanager
def _home(home: Path, environment: pytest.MonkeyPatch, models: dict[str, Any] | None = None) -> Iterator[Path]:
    from llmos_shell import paths
    from llmos_shell.testing.daemon import MODEL, write_models

    environment.setenv("LLMOS_HOME", str(home))
    write_models(home, **(models or {MODEL: DEFAULT_OPTIONS}))
    yield home
    shutil.rmtree(paths.park_dir(), ignore_errors=True)
    if not paths.runtime_dir().startswith(os.fspath(home)):
        shutil.rmtree(paths.runtime_dir(), ignore_errors=True)


@contextmanager
def _running(home: Path, env: dict[str, str] | None = None) -> Iterator[DaemonProcess]:
    from llmos_shell.testing.daemon import DaemonProcess

    process = DaemonProcess(home, env)
    process.start()
    try:
        yield process
    finally:
        process.stop()
    log = process.log()
    assert process.expected_faults or "Traceback" not in log, f"the daemon's log holds a traceback:\n{log}"
