"""`device.list` and the command `devices`, on this machine and on one with scripted GPUs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from llmos_shell.abi.devices import DEVICE_LIST
from llmos_shell.abi.syscall import Nothing
from llmos_shell.abi.syscalls import GROUP_LIST, MODEL_LOAD, MODEL_PLAN, SYS_DMESG, Dmesg, ModelName
from llmos_shell.daemon.machine.rapl import Rapl
from llmos_shell.testing.clients import info, spawn, wait
from llmos_shell.testing.daemon import DaemonProcess, write_models

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


COUNTING = """
from llmos_shell.testing.nvml import Gpu, NVMLError, ScriptedNvml
class Counting(Gpu):
    spent = 5_000_000
    @property
    def millijoules(self):
        self.spent += 2000
        return self.spent
    @millijoules.setter
    def millijoules(self, value):
        pass
_nvml = ScriptedNvml(Counting())
def __getattr__(name):
    return getattr(_nvml, name)
"""


@pytest.mark.skipif(Rapl().joules() is not None, reason="this CPU tells its energy")
def test_processes_and_groups_are_charged_what_their_gpu_used(llmos_home, tmp_path):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "pynvml.py").write_text(COUNTING)
    write_models(llmos_home, gpu={"gpu": True, "step_seconds": 0.001}, cpu={})
    daemon = DaemonProcess(llmos_home, {"PYTHONPATH": str(tmp_path / "modules")})
    daemon.start()
    try:
        with daemon.connect() as client:
            pids = [spawn(client, "hello", model=name, sampling={"max_tokens": 20}) for name in ("gpu", "cpu")]
            for pid in pids:
                wait(client, pid)
            measured, unknown = (info(client, pid) for pid in pids)
            assert measured.joules is not None and measured.joules > 0
            assert unknown.joules is None
            spawn(client, model="cpu", chat=True)  # the group lives on
            (group,) = client.call(GROUP_LIST, Nothing())
            assert group.joules == measured.joules
        done = subprocess.run(
            [sys.executable, "-P", "-m", "llmos_shell", "ps", "-a", *map(str, pids)], capture_output=True, text=True
        )
        header, *rows = done.stdout.splitlines()
        column = header.split().index("ENERGY")
        assert [row.split()[column + 1][-1] for row in rows] == ["J", "-"]  # STATE is two words
        daemon.stop()
        daemon.start()
        with daemon.connect() as client:
            assert info(client, pids[0]).joules == measured.joules  # from the journal
    finally:
        daemon.stop()


VRAM = """
from llmos_shell.testing.nvml import Gpu, NVMLError, ScriptedNvml
_nvml = ScriptedNvml(Gpu(total=SIZE, used=0), Gpu(errors={"nvmlDeviceGetMemoryInfo": 15}))
def __getattr__(name):
    return getattr(_nvml, name)
"""


@pytest.fixture
def model_on_gpus(llmos_home):
    from llmos_shell.testing.random_gguf import Shape, write_random_model

    config = llmos_home / "config"
    config.mkdir(parents=True, exist_ok=True)
    write_random_model(config / "r.gguf", Shape(embedding=256, layers=8, feed_forward=512, context=256))
    lines = [f'[models.{name}]\npath = "r.gguf"\nslots = 4\n{line}\n' for name, line in MODELS.items()]
    (config / "models.toml").write_text("".join(lines))
    return llmos_home


SOME = 558
"""MiB of a GPU that hold some of the layers."""

MODELS = {
    "auto": 'gpu_layers = "auto"',
    "all": "gpu_layers = -1",
    "other": 'gpu_layers = "auto"\ngpus = [1]',
    "cpu": "",
    "odd": 'gpu_layers = "some"',
}


@pytest.mark.parametrize(
    ("mib", "auto"),
    [(8000, "9 of 9 layers go to GPUs (9 to gpu0: "), (SOME, "layers fit"), (500, "not even one layer fits")],
)
def test_layers_are_planned_by_what_is_free(model_on_gpus, tmp_path, mib, auto):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "pynvml.py").write_text(VRAM.replace("SIZE", str(mib << 20)))
    daemon = DaemonProcess(model_on_gpus, {"PYTHONPATH": str(tmp_path / "modules")})
    daemon.start()
    try:
        with daemon.connect() as client:
            plans = {name: client.call(MODEL_PLAN, ModelName(name)) for name in ("auto", "all", "other", "cpu")}
            assert auto in command("load", "--dry-run", "auto").stdout
            assert plans["all"].gpu_layers == 9 and plans["cpu"].layers == 0
            assert (plans["other"].gpu_layers, plans["other"].gpus) == (0, {})
            assert "cannot be told" in plans["other"].gpu_note
            saved = plans["cpu"].needed - plans["auto"].needed
            assert (saved > 0) == bool(plans["auto"].gpu_layers) and (mib != SOME or 0 < plans["auto"].gpu_layers < 9)
            status = client.call(MODEL_LOAD, ModelName("auto"))  # on this machine it lands on the CPU
            assert status.warning == "" and status.gpus == ()
            blind = [event.text for event in client.stream(SYS_DMESG, Dmesg()) if "built without" in event.text]
            assert len(blind) == bool(plans["auto"].gpu_layers)
            plan = client.call(MODEL_PLAN, ModelName("auto"))
            assert (plan.gpu_layers, "built without" in plan.gpu_note) == (0, True)
            assert status.estimated_bytes == pytest.approx(plans["cpu"].needed, rel=0.01)
            assert "was to run on a GPU" in client.call(MODEL_LOAD, ModelName("all")).warning
        odd = command("load", "odd")
        assert (
            odd.returncode == 1
            and "models.odd.gpu_layers: must be a number" in odd.stderr
            and odd.stderr.count("\n") == 1
        )
    finally:
        daemon.stop()


def test_auto_without_a_gpu_is_no_failure(model_on_gpus):
    daemon = DaemonProcess(model_on_gpus)
    daemon.start()
    try:
        with daemon.connect() as client:
            status = client.call(MODEL_LOAD, ModelName("auto"))
            assert status.warning == ""
            client.call(MODEL_PLAN, ModelName("auto"))
            told = [event.text for event in client.stream(SYS_DMESG, Dmesg())]
            assert sum("there is no GPU" in text for text in told) == 1
    finally:
        daemon.stop()


def command(*words):
    return subprocess.run([sys.executable, "-P", "-m", "llmos_shell", *words], capture_output=True, text=True)
