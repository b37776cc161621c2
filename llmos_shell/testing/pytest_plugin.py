"""Fixtures for tests of the project and of third-party kernels and plugins.

`llmos_home`   a temporary LLMOS_HOME whose `models.toml` has the scripted model as default
`daemon`       a real daemon in that home; its log must hold no traceback at the end
`client`       a connected client

The marker `llmos(models={...}, env={...})` sets the scripted models' engine options (name → options) and environment
variables of the daemon.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from llmos_shell.ipc.client import Client
    from llmos_shell.testing.daemon import DaemonProcess

DEFAULT_OPTIONS: dict[str, Any] = {"end_after": 20}


def pytest_configure(config: pytest.Config) -> None:
    """Declares the marker."""
    config.addinivalue_line("markers", "llmos(models, env): scripted models and environment of the `daemon` fixture")


@pytest.fixture
def llmos_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A private LLMOS_HOME with a scripted model."""
    from llmos_shell import paths
    from llmos_shell.testing.daemon import MODEL, write_models

    home = tmp_path / "llmos"
    monkeypatch.setenv("LLMOS_HOME", str(home))
    marker = request.node.get_closest_marker("llmos")
    models = marker.kwargs.get("models") if marker else None
    write_models(home, **(models or {MODEL: DEFAULT_OPTIONS}))
    yield home
    shutil.rmtree(paths.park_dir(), ignore_errors=True)
    if not paths.runtime_dir().startswith(os.fspath(home)):
        shutil.rmtree(paths.runtime_dir(), ignore_errors=True)


@pytest.fixture
def daemon(llmos_home: Path, request: pytest.FixtureRequest) -> Iterator[DaemonProcess]:
    """A running daemon."""
    from llmos_shell.testing.daemon import DaemonProcess

    marker = request.node.get_closest_marker("llmos")
    process = DaemonProcess(llmos_home, marker.kwargs.get("env") if marker else None)
    process.start()
    try:
        yield process
    finally:
        process.stop()
    log = process.log()
    assert process.expected_faults or "Traceback" not in log, f"the daemon's log holds a traceback:\n{log}"


@pytest.fixture
def client(daemon: DaemonProcess) -> Iterator[Client]:
    """A client of the running daemon."""
    with daemon.connect() as connected:
        yield connected
