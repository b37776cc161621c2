"""Models on scripted GPUs: where their layers go, whose memory they get, and what becomes of a plan that fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from llmos_shell.abi import syscalls as abi
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import Signal
from llmos_shell.testing.clients import info, spawn, wait
from llmos_shell.testing.daemon import DaemonProcess
from llmos_shell.testing.random_gguf import Shape, write_random_model
from llmos_shell.testing.retry import retry_until

MIB = 1 << 20
CONTEXT = 512
"""MiB that are kept for the driver on each GPU."""

NVML = """
import json
from llmos_shell.testing.nvml import Gpu, NVMLError, ScriptedNvml
def __getattr__(name):
    with open(FILE) as file:
        gpus = json.load(file)
    for gpu in gpus:
        gpu["processes"] = {int(pid): used for pid, used in gpu.get("processes", {}).items()}
        gpu["instances"] = [Gpu(**instance) for instance in gpu.get("instances", ())]
    return getattr(ScriptedNvml(*(Gpu(**gpu) for gpu in gpus)), name)
"""


class Machine:
    """A daemon on a machine with such GPUs, and a model file of nine layers, almost all of whose bytes are KV."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.home, self._gpus = home, folder / "gpus.json"
        self.told_file = folder / "told"
        config = home / "config"
        config.mkdir(parents=True, exist_ok=True)
        write_random_model(config / "m.gguf", Shape(layers=8))
        modules = folder / "modules"
        modules.mkdir()
        (modules / "pynvml.py").write_text(NVML.replace("FILE", repr(str(self._gpus))))
        self.daemon = DaemonProcess(home, {"PYTHONPATH": str(modules), "LLMOS_LOOK_SECONDS": "0.05"})

    def gpus(self, *gpus: dict[str, Any]) -> None:
        """What the driver tells from now on; `free` MiB besides what is kept for itself, unless bytes are given."""
        self._gpus.write_text(json.dumps([self._gpu(number, dict(gpu)) for number, gpu in enumerate(gpus)]))

    def _gpu(self, number: int, gpu: dict[str, Any]) -> dict[str, Any]:
        if "free" in gpu:
            gpu |= {"total": int((gpu.pop("free") + CONTEXT) * MIB / 0.95) + 16, "used": 0}
        return {"uuid": f"GPU-{number}"} | gpu

    def models(self, **models: dict[str, Any]) -> None:
        """Scripted models: name → `mib` of KV, keys of the entry, and options of the engine."""
        lines = []
        for name, wanted in models.items():
            fields = {"gpu_layers": "auto"} | wanted
            options = {"memory_bytes": fields.pop("mib", 800) * MIB, "gpu": True, "end_after": 20, "can_resize": True}
            options |= {"told": str(self.told_file)} | fields.pop("options", {})
            lines += [f"[models.{name}]", 'path = "m.gguf"', 'kernel = "scripted"']
            lines += [f"{key} = {json.dumps(value)}" for key, value in fields.items()]
            lines += [f"[models.{name}.options]", *(f"{key} = {json.dumps(value)}" for key, value in options.items())]
        (self.home / "config" / "models.toml").write_text("\n".join(lines) + "\n")

    def told(self) -> list[tuple[int, list[int], str | None]]:
        """What workers were told, load by load: layers, split, and the GPUs they see."""
        lines = [json.loads(line) for line in self.told_file.read_text().splitlines()]
        return [(line["layers"], line["split"], line["gpus"]) for line in lines]


@pytest.fixture
def machine(llmos_home, tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = Machine(llmos_home, tmp_path)
    yield found
    found.daemon.stop()
    assert "Traceback" not in found.daemon.log()


@pytest.fixture
def client(machine):
    """Of a daemon that is started when GPUs and models are described."""

    def connect():
        machine.daemon.start()
        return machine.daemon.connect()

    return connect


def load(client, name):
    return client.call(abi.MODEL_LOAD, abi.ModelName(name))


def plan(client, name):
    return client.call(abi.MODEL_PLAN, abi.ModelName(name))


def listed(client, name):
    return next(one for one in client.call(abi.MODEL_LIST, abi.Nothing()) if one.entry.name == name)


def events(client, source="residency"):
    return [event.text for event in client.stream(abi.SYS_DMESG, abi.Dmesg()) if event.source == source]


@contextmanager
def loading(machine, name):
    """Somebody waits for a model, and gives up at the end."""

    def wait_for():
        with suppress(LlmosError):
            load(client, name)

    with ThreadPoolExecutor(1) as pool, machine.daemon.connect() as client:
        pool.submit(wait_for)
        yield
        client.close()


def llmos(*words):
    return subprocess.run([sys.executable, "-P", "-m", "llmos_shell", *words], capture_output=True, text=True)


def test_a_model_goes_to_the_gpu_that_holds_it_and_its_worker_sees_no_other(machine, client):
    machine.gpus({"free": 500}, {"free": 2000}, {"free": 1000})
    machine.models(a={}, pinned={"gpus": [2]}, wide={"mib": 2400, "gpu_layers": -1})
    with client() as one:
        found = plan(one, "a")
        assert (found.gpu_layers, found.layers, found.gpu_split) == (9, 9, {"gpu1": 9})
        assert "9 of 9 layers go to GPUs (9 to gpu1: 1.3G): they fit on" in llmos("load", "--dry-run", "a").stdout
        assert plan(one, "wide").gpu_split.keys() == {"gpu0", "gpu1", "gpu2"}
        load(one, "a")
        load(one, "pinned")
    assert machine.told() == [(9, [9], "GPU-1"), (9, [9], "GPU-2")]


def test_what_is_measured_stands_beside_what_was_estimated(machine, client):
    machine.gpus({"free": 2000})
    machine.models(a={})
    with client() as one:
        worker = load(one, "a").worker
        (gpu,) = listed(one, "a").gpus
        assert (gpu.name, gpu.layers, gpu.measured) == ("gpu0", 9, None)
        assert gpu.estimated / MIB == pytest.approx(800 + CONTEXT, abs=2)
        assert "gpu0:1.3G/-" in llmos("models").stdout
        machine.gpus({"free": 700, "processes": {worker: 1300 * MIB}})
        (gpu,) = listed(one, "a").gpus
        assert gpu.measured == 1300 * MIB
        header, row = llmos("models", "-l").stdout.splitlines()
        assert header.split()[6] == "GPUS" and "gpu0:1.3G/1.3G" in row


def test_idle_models_make_way_on_the_gpu_that_is_short_and_others_stay(machine, client):
    machine.gpus({"free": 1000}, {"free": 1000})
    machine.models(a={"gpus": [0]}, b={"gpus": [1]}, c={"gpus": [1]}, cpu={"gpu_layers": 0})
    with client() as one:
        workers = {name: load(one, name).worker for name in ("a", "b", "cpu")}
        machine.gpus(*({"free": 200, "processes": {workers[name]: 800 * MIB}} for name in ("a", "b")))
        assert plan(one, "c").gpu_split == {"gpu1": 9}
        retry_until(lambda: plan(one, "c").evict == ("b",))
        load(one, "c")
        loaded = {name for name in "abc" if listed(one, name).worker is not None} | {listed(one, "cpu").worker}
        assert loaded == {"a", "c", workers["cpu"]}


def test_memory_promised_to_a_model_on_its_way_is_not_promised_again(machine, client):
    machine.gpus({"free": 1000})
    slow = {"options": {"load_seconds": 600}}
    machine.models(a=slow, b={}, c={"gpu_layers": -1})
    with client() as one:
        with loading(machine, "a"):
            retry_until(lambda: any("loading a" in text for text in events(one)))
            found = plan(one, "b")
            assert found.gpu_layers < 9 and found.evict == ()
            assert plan(one, "c").wait_for == ("a",)
        retry_until(lambda: plan(one, "b").gpu_layers == 9)


def test_what_a_model_on_its_way_has_already_is_its_own(machine, client):
    """Its GPU is not too small for another model that can have it later."""
    machine.gpus({"free": 2000})
    machine.models(a={"options": {"load_seconds": 600}}, b={"mib": 1200, "gpu_layers": -1})
    with client() as one, loading(machine, "a"):
        retry_until(lambda: any("loading a" in text for text in events(one)))
        (worker,) = psutil.Process(machine.daemon.pid).children()
        machine.gpus({"free": 700, "processes": {worker.pid: 1300 * MIB}})
        assert plan(one, "b").wait_for == ("a",)


def test_a_model_waits_for_a_busy_one_on_its_gpu(machine, client):
    machine.gpus({"free": 1000})
    busy = {"options": {"end_after": 100000, "step_seconds": 0.005}}
    machine.models(a=busy, b={"gpu_layers": -1})
    with client() as one:
        pid = spawn(one, "x", model="a")
        retry_until(lambda: info(one, pid).generated_tokens > 0)
        machine.gpus({"free": 200, "processes": {listed(one, "a").worker: 800 * MIB}})
        assert plan(one, "a").gpu_layers == 9, "its own memory is no reason against it"
        with loading(machine, "b"):
            retry_until(lambda: any("b waits for memory that a has in use" in text for text in events(one)))
            one.call(abi.PROC_KILL, abi.Kill(pid, Signal.KILL))
            retry_until(lambda: any("a makes room for b" in text for text in events(one)))
            machine.gpus({"free": 1000})
            retry_until(lambda: listed(one, "b").worker is not None)


def test_a_load_that_fails_is_tried_with_fewer_layers_where_their_number_is_ours(machine, client):
    machine.gpus({"free": 2000})
    machine.models(
        a={"options": {"most_layers": 4}},
        none={"options": {"most_layers": 0}},
        all={"gpu_layers": -1, "options": {"most_layers": -2}},
    )
    with client() as one:
        assert load(one, "a").gpus[0].layers == 4
        assert any("a could not be loaded (no memory for 9 layers): trying with 4" in text for text in events(one))
        one.call(abi.MODEL_UNLOAD, abi.ModelName("a"))
        assert load(one, "none").gpus == ()
        with pytest.raises(LlmosError, match="no memory for 9 layers") as error:
            load(one, "all")
        assert error.value.code is Code.ENOMEM
    assert [layers for layers, _, _ in machine.told()] == [9, 4, 9, 4, 0, 9]


def test_a_gpu_that_vanished_is_not_waited_for(machine, client):
    machine.gpus({"free": 2000}, {"free": 1900})
    lost = {"crash_at_token": 30, "marker": str(machine.home / "crashed"), "lost_gpu": "GPU-0", "end_after": 1000}
    machine.models(a={"options": lost})
    with client() as one:
        load(one, "a")
        machine.gpus({"errors": {"*": 15}}, {"free": 1900})
        pid = spawn(one, "x", model="a", sampling={"max_tokens": 40})
        wait(one, pid)
        assert info(one, pid).generated_tokens == 40
        assert [gpu.name for gpu in listed(one, "a").gpus] == ["gpu1"]
        machine.gpus({"errors": {"*": 15}}, {"errors": {"nvmlDeviceGetMemoryInfo": 15}})
        found = plan(one, "a")
        assert found.gpu_layers == 0 and "cannot be told" in found.gpu_note
    assert [gpus for _, _, gpus in machine.told()] == ["GPU-0", "GPU-0", "GPU-1"]


def test_one_asked_for_a_gpu_that_lands_on_the_cpu_is_loud_and_one_that_may_choose_is_not(machine, client):
    machine.gpus({"free": 2000})
    unlucky, blind = {"options": {"gpu": False}}, {"options": {"gpu": False, "knows_gpus": False}}
    machine.models(chosen={"gpu_layers": -1, **blind}, lost=unlucky, auto=blind)
    with client() as one:
        assert load(one, "auto").warning == "" and listed(one, "auto").gpus == ()
        assert sum("built without support for GPUs" in text for text in events(one)) == 1
        assert "was to run on a GPU" in load(one, "chosen").warning
    machine.daemon.stop()
    with client() as one:
        assert "was to run on a GPU" in load(one, "lost").warning, "there is a GPU, and the kernel knows them"


def test_one_that_landed_on_the_cpu_has_nothing_of_a_gpu_when_it_was_loaded_again_either(machine, client):
    machine.gpus({"free": 2000})
    trap = machine.home / "trap"
    machine.models(a={"options": {"gpu": False, "trap": str(trap)}})
    with client() as one:
        loaded = load(one, "a")
        assert loaded.gpus == ()
        trap.touch()
        os.kill(loaded.worker, signal.SIGKILL)
        retry_until(lambda: listed(one, "a").worker not in (None, loaded.worker))
        again = listed(one, "a")
        assert (again.gpus, again.estimated_bytes) == ((), loaded.estimated_bytes)


def test_whoever_cannot_be_planned_anew_is_loaded_again_as_it_was(machine, client):
    """A file that cannot be read for a moment costs an attempt, and not all that are left."""
    machine.gpus({"free": 2000})
    machine.models(a={})
    with client() as one:
        worker = load(one, "a").worker
        (machine.home / "config" / "m.gguf").rename(machine.home / "away")
        os.kill(worker, signal.SIGKILL)
        retry_until(lambda: listed(one, "a").worker is None and not listed(one, "a").pages)
        assert sum("could not be loaded again" in text for text in events(one, "worker")) == 3


def test_pools_grow_by_what_the_gpu_has_left(machine, client):
    machine.gpus({"free": 1000})
    machine.models(a={"options": {"can_resize": True}})
    with client() as one:
        status = load(one, "a")
        machine.gpus({"free": 200, "processes": {status.worker: 800 * MIB}})
        per_token = status.kv_bytes_per_token
        resize = lambda mib: one.call(abi.MODEL_RESIZE, abi.ResizePool("a", mib * MIB // per_token))  # noqa: E731
        before = status.estimated_bytes
        with pytest.raises(LlmosError, match=r"the pool of a (needs|cannot grow).* of gpu0"):
            resize(900)
        grown = resize(100)
        assert grown.estimated_bytes == before
        assert grown.gpus[0].estimated / MIB == pytest.approx(800 + CONTEXT + 100, abs=2)


def test_instances_of_a_gpu_are_chosen_by_their_uuid(machine, client):
    machine.models(a={})
    instances = [{"uuid": f"MIG-{n}", "total": total * MIB, "used": 0} for n, total in enumerate((400, 3000))]
    machine.gpus({"instances": instances})
    with client() as one:
        assert plan(one, "a").gpu_split == {"gpu0.1": 9}
        load(one, "a")
    assert machine.told() == [(9, [9], "MIG-1")]
