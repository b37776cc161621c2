"""Devices: every reading by itself, and what becomes of it when it fails."""

from __future__ import annotations

import os

import pytest

from llmos_shell.daemon.machine import devices
from llmos_shell.daemon.machine.devices import DeviceReader
from llmos_shell.testing.nvml import ERRORS, Gpu, ScriptedNvml

READINGS = {
    "nvmlDeviceGetMemoryInfo": ("memory_total", "memory_used", "memory_free"),
    "nvmlDeviceGetUtilizationRates": ("utilisation",),
    "nvmlDeviceGetPowerUsage": ("watts",),
    "nvmlDeviceGetEnforcedPowerLimit": ("watts_limit",),
    "nvmlDeviceGetTotalEnergyConsumption": ("joules",),
    "nvmlDeviceGetTemperature": ("celsius",),
}


def read(*gpus, ours=(), errors=None):
    return DeviceReader(lambda: ScriptedNvml(*gpus, errors=errors)).read(ours)


def gpu(*args, **options):
    return read(*args, **options).devices[1]


def test_all_figures_of_a_gpu():
    found = gpu(Gpu(processes={1: 5 << 20, 2: None}, graphics={3: 7}), ours={2})
    assert (found.name, found.kind, found.model) == ("gpu0", "gpu", "Scripted GPU")
    assert (found.memory_total, found.memory_used, found.memory_free) == (24 << 30, 1 << 30, 23 << 30)
    assert (found.utilisation, found.watts, found.watts_limit) == (0.37, 123.456, 350.0)
    assert (found.joules, found.celsius, found.problem, found.partitioned) == (5000.0, 61, "", False)
    assert [(one.pid, one.memory) for one in found.processes] == [(1, 5 << 20), (3, 7)]


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("function", READINGS)
def test_a_reading_that_fails_is_unknown_and_the_others_are_not(function, code):
    found, sound = gpu(Gpu(errors={function: code})), gpu(Gpu())
    for field in found.__struct_fields__:
        if field in READINGS[function]:
            assert getattr(found, field) is None
        elif field != "problem":
            assert getattr(found, field) == getattr(sound, field)


def test_a_lost_gpu_is_listed_with_its_error_and_does_not_hide_the_next():
    lost, sound = read(Gpu(errors={"*": 15}), Gpu(name="second")).devices[1:]
    assert lost.problem == "GPU is lost"
    assert lost.memory_total is None and lost.processes is None
    assert (sound.name, sound.model, sound.problem) == ("gpu1", "second", "")
    falling = gpu(Gpu(errors={"nvmlDeviceGetMemoryInfo": 15}))
    assert falling.problem == "GPU is lost" and falling.watts == 123.456


def vram(*gpus, workers=(), errors=None):
    return DeviceReader(lambda: ScriptedNvml(*gpus, errors=errors)).vram(workers)


def test_memory_that_models_may_have():
    found = vram(Gpu(uuid="GPU-a", processes={1: 5 << 20, 2: None, 3: 7}), Gpu(), workers={1, 2})
    assert [(one.name, one.number, one.uuid, one.free) for one in found.gpus] == [
        ("gpu0", 0, "GPU-a", 23 << 30),
        ("gpu1", 1, "", 23 << 30),
    ]
    assert found.used == {"gpu0": {1: 5 << 20}, "gpu1": {}}, "what is not told, or not asked for, is missing"


def test_memory_of_a_lost_gpu_is_unknown_and_the_others_keep_their_numbers():
    found = vram(Gpu(errors={"*": 15}), Gpu(errors={"nvmlDeviceGetHandleByIndex": 15}), Gpu())
    assert found.free == {"gpu0": None, "gpu1": None, "gpu2": 23 << 30}
    assert [one.number for one in found.gpus] == [0, 1, 2]
    assert vram(Gpu(), errors={"nvmlInit": 9}).gpus == ()


def test_models_are_put_on_instances_that_can_be_named():
    named = [Gpu(uuid="MIG-a", total=10 << 30), None, Gpu(uuid="MIG-b", processes={1: 9})]
    first, second = vram(Gpu(uuid="GPU-a", instances=named), workers={1}).gpus
    assert (first.name, first.uuid, first.free, first.instance) == ("gpu0.0", "MIG-a", 9 << 30, True)
    assert (second.name, second.number) == ("gpu0.2", 0)
    assert [one.name for one in vram(Gpu(instances=[Gpu(), Gpu()])).gpus] == ["gpu0.0"], "as CUDA does"
    assert vram(Gpu(instances=[None])).gpus == (), "nobody can compute on it"


def test_processes_nobody_can_tell_are_unknown_not_none_at_all():
    both = {"nvmlDeviceGetComputeRunningProcesses": 4, "nvmlDeviceGetGraphicsRunningProcesses": 3}
    assert gpu(Gpu(errors=both)).processes is None
    assert gpu(Gpu(errors={"nvmlDeviceGetGraphicsRunningProcesses": 3})).processes == ()


def test_a_process_of_ours_is_not_reported_and_a_known_one_has_its_name():
    (one,) = gpu(Gpu(processes={os.getpid(): 1})).processes
    assert "py" in one.name
    assert gpu(Gpu(processes={os.getpid(): 1}), ours=[os.getpid()]).processes == ()


def test_mig_instances_are_devices_of_their_own():
    small = Gpu(name="MIG 1g.10gb", total=10 << 30, errors={"nvmlDeviceGetUtilizationRates": 3})
    whole, first, third = read(Gpu(instances=[small, None, Gpu(name="MIG 3g.40gb")])).devices[1:]
    assert whole.partitioned and whole.kind == "gpu"
    assert (first.name, first.kind, first.memory_total, first.utilisation) == ("gpu0.0", "mig", 10 << 30, None)
    assert (third.name, third.model) == ("gpu0.2", "MIG 3g.40gb")


@pytest.mark.parametrize("code", ERRORS)
def test_without_a_working_library_there_are_no_gpus_and_a_reason(code):
    found = read(Gpu(), errors={"nvmlInit": code})
    assert [one.kind for one in found.devices] == ["cpu"]
    assert found.no_gpu == f"NVML: {ERRORS[code]}"


def test_without_the_package_there_are_no_gpus():
    def missing():
        raise ImportError

    assert DeviceReader(missing).read().no_gpu == "the package nvidia-ml-py is not installed"
    assert read().no_gpu == "NVML finds no GPU"


def test_a_driver_that_went_away_and_came_back():
    nvml = ScriptedNvml(Gpu())
    reader = DeviceReader(lambda: nvml)
    assert len(reader.read().devices) == 2
    nvml.errors["nvmlDeviceGetCount"] = 1
    assert reader.read().no_gpu == "NVML: Uninitialized"
    nvml.errors.clear()
    assert len(reader.read().devices) == 2
    assert nvml.started == 2


def test_the_scripted_functions_are_those_of_pynvml():
    pynvml = pytest.importorskip("pynvml")
    nvml = ScriptedNvml()
    for name in (*nvml._answers, "nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"):
        assert callable(getattr(pynvml, name))
    assert pynvml.NVML_DEVICE_MIG_ENABLE == nvml.NVML_DEVICE_MIG_ENABLE
    assert pynvml.NVML_TEMPERATURE_GPU == nvml.NVML_TEMPERATURE_GPU
    for code, text in ERRORS.items():
        assert str(pynvml.NVMLError(code)) == text


def test_bytes_for_a_name_as_old_versions_give_them():
    assert gpu(Gpu(name=b"Old")).model == "Old"


def test_this_machine():
    reader = DeviceReader()
    cpu = reader.read().devices[0]
    assert cpu.memory_total > cpu.memory_free > 0
    assert cpu.memory_used == cpu.memory_total - cpu.memory_free
    assert cpu.watts is None


def test_utilisation_is_unknown_until_some_time_has_passed(monkeypatch):
    times, now = iter([(10.0, 100.0), (13.0, 110.0), (13.0, 110.0)]), [0.0]
    monkeypatch.setattr(devices, "_cpu_times", lambda: next(times))
    monkeypatch.setattr(devices.time, "monotonic", lambda: now[0])
    cpu = devices.Cpu()
    assert cpu.read().utilisation is None
    now[0] = 1.0
    assert cpu.read().utilisation == pytest.approx(0.3)
    assert cpu.read().utilisation == pytest.approx(0.3)
    now[0] = 2.0
    assert cpu.read().utilisation is None, "no time was counted"


@pytest.mark.parametrize("error", [AttributeError, OSError, RuntimeError, devices.psutil.AccessDenied])
def test_what_psutil_cannot_read_is_unknown(monkeypatch, error):
    def fail():
        raise error

    for name in ("virtual_memory", "sensors_temperatures", "cpu_times"):
        monkeypatch.setattr(devices.psutil, name, fail)
    cpu = devices.Cpu().read()
    assert (cpu.memory_total, cpu.memory_used, cpu.memory_free) == (None, None, None)
    assert cpu.celsius is None and cpu.utilisation is None
