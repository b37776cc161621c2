"""`device.list` and the command `devices`, on this machine and on one with scripted GPUs."""

from __future__ import annotations

import json
import subprocess
import sys

from llmos_shell.abi.devices import DEVICE_LIST
from llmos_shell.abi.syscall import Nothing
from llmos_shell.testing.daemon import DaemonProcess

GPUS = """
import os
from llmos_shell.testing.nvml import Gpu, NVMLError, ScriptedNvml
_nvml = ScriptedNvml(
    Gpu(name="Big", processes={1: 3 << 30}, errors={"nvmlDeviceGetTemperature": 3}),
    Gpu(errors={"*": 15}),
)
def __getattr__(name):
    return getattr(_nvml, name)
"""


def devices(*words):

    done = subprocess.run(
        [sys.executable, "-P", "-m", "llmos_shell", "devices", *words], capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.stdout


def test_this_machine(client):
    cpu = client.call(DEVICE_LIST, Nothing()).devices[0]
    assert (cpu.name, cpu.kind) == ("cpu", "cpu")
    assert 0 < cpu.memory_free < cpu.memory_total
    assert devices().splitlines()[1].startswith("cpu ")


def test_gpus_their_processes_and_what_nobody_knows(llmos_home, tmp_path):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "pynvml.py").write_text(GPUS)
    daemon = DaemonProcess(llmos_home, {"PYTHONPATH": str(tmp_path / "modules")})
    daemon.start()
    try:
        lines = devices().splitlines()
        assert lines[2].split() == ["gpu0", "24G", "1.0G", "23G", "37%", "123/350W", "-", "1.4Wh", "Big"]
        assert lines[3].split()[:8] == ["gpu1", *["-"] * 7] and "GPU is lost" in lines[3]
        assert lines[5:] == ["not ours:", "DEVICE  PID  MEMORY  PROCESS", lines[-1]]
        assert lines[-1].split()[:3] == ["gpu0", "1", "3.0G"]
        gpu = json.loads(devices("--json"))["devices"][1]
        assert gpu["celsius"] is None and gpu["watts"] == 123.456
    finally:
        daemon.stop()
    assert "Traceback" not in daemon.log()
