"""The machine's devices behind one interface: the CPU with its RAM by psutil, NVIDIA's GPUs by NVML.

A machine without NVIDIA libraries, or with libraries and without a driver, is a normal case. Every reading may fail by
itself; it is None then. Reading GPUs may take tens of milliseconds, so the daemon does it outside its loop.
"""

from __future__ import annotations

import contextlib
import platform
import threading
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar

import psutil
from msgspec import Struct

from llmos_shell.abi.devices import DeviceInfo, DeviceProcess, Devices
from llmos_shell.daemon.machine.rapl import POWERCAP, Rapl
from llmos_shell.daemon.memory.offload import Gpu

T = TypeVar("T")
SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "acpitz")
"""Names under which the kernel's drivers report a CPU's temperature, best first."""

LEAST_SECONDS = 0.1
"""Between two readings of the CPU's utilisation; sooner the last one still holds."""


class DeviceReader:
    """Reads all devices. May be used from any thread."""

    def __init__(self, import_nvml: Callable[[], Any] | None = None, powercap: str = POWERCAP) -> None:
        """`import_nvml` gives a module with the functions of pynvml, or raises ImportError."""
        self._cpu = Cpu(powercap)
        self._gpus = Nvml(import_nvml or _import_pynvml)
        self._lock = threading.Lock()

    def read(self, ours: Collection[int] = ()) -> Devices:
        """All devices now; processes of the host with the PIDs `ours` are not reported."""
        with self._lock:
            gpus = self._gpus.read(ours)
            return Devices((self._cpu.read(), *gpus), "" if gpus else self._gpus.problem)

    def vram(self, workers: Collection[int] = ()) -> Vram:
        """The GPUs that models can be put on, and what `workers`, host PIDs, have of their memory."""
        with self._lock:
            return self._gpus.vram(workers)

    def energy(self, workers: Collection[int] = ()) -> Energy:
        """What devices have used so far; of GPUs only if there are `workers`, host PIDs, that compute on them."""
        with self._lock:
            joules, places = self._gpus.energy(workers) if workers else ({}, {})
            return Energy({"cpu": self._cpu.joules(), **joules}, places)


class Energy(Struct, frozen=True):
    """Joules by device, None where it does not tell, and the devices that each worker's host PID computes on."""

    joules: dict[str, float | None]
    places: dict[int, tuple[str, ...]]


class Vram(Struct, frozen=True):
    """GPUs with what is free of their memory, in bytes, and what workers have of it, by GPU and host PID."""

    gpus: tuple[Gpu, ...] = ()
    used: dict[str, dict[int, int]] = {}  # of workers that the driver knows by these PIDs, and tells of

    @property
    def free(self) -> dict[str, int | None]:
        """By name; None where nobody can tell."""
        return {gpu.name: gpu.free for gpu in self.gpus}


class Cpu:
    """All cores as one device."""

    def __init__(self, powercap: str = POWERCAP) -> None:
        self._rapl = Rapl(powercap)
        self._times = _cpu_times()
        self._read_at = time.monotonic()
        self._share: float | None = None

    def read(self) -> DeviceInfo:
        """The figures of this moment."""
        memory = _or_none(psutil.virtual_memory)
        total = int(memory.total) if memory else None
        available = int(memory.available) if memory else None
        return DeviceInfo(
            "cpu",
            "cpu",
            f"{psutil.cpu_count() or '?'} cores, {platform.machine()}",
            total,
            total - available if total is not None and available is not None else None,
            available,
            self._utilisation(),
            joules=self.joules(),
            celsius=_or_none(_cpu_celsius),
        )

    def joules(self) -> float | None:
        """What it has used since the machine was started."""
        return _or_none(self._rapl.joules)

    def _utilisation(self) -> float | None:
        now = time.monotonic()
        if now - self._read_at >= LEAST_SECONDS:
            before, self._times, self._read_at = self._times, _cpu_times(), now
            self._share = _share(before, self._times)
        return self._share


class _Gpu(Struct, frozen=True):
    """Where a device is in NVML."""

    handle: Any
    name: str


class Nvml:
    """NVIDIA's management library, initialised when first used, and again after it was lost."""

    def __init__(self, import_module: Callable[[], Any]) -> None:
        self._import = import_module
        self._nvml: Any = None
        self.problem = ""  # why there are no devices

    def read(self, ours: Collection[int]) -> tuple[DeviceInfo, ...]:
        """All GPUs, each followed by its MIG instances."""
        return tuple(info for index in range(self._count()) for info in self._device(index, ours))

    def energy(self, workers: Collection[int]) -> tuple[dict[str, float | None], dict[int, tuple[str, ...]]]:
        """Joules of each GPU, and on which of them each worker is.

        NVML may know workers by other PIDs, as in containers; the only GPU there is must be theirs all the same. What a
        MIG instance uses of its GPU nobody tells.
        """
        joules: dict[str, float | None] = {}
        places: dict[int, tuple[str, ...]] = {}
        for index in range(self._count()):
            handle = self._ask(self._nvml.nvmlDeviceGetHandleByIndex, index)
            if handle is None:
                continue
            name = f"gpu{index}"
            joules[name] = None if self._partitioned(handle) else self._joules(handle)
            there = {int(one.pid) for one in self._ask(self._nvml.nvmlDeviceGetComputeRunningProcesses, handle) or ()}
            places |= {pid: (*places.get(pid, ()), name) for pid in there.intersection(workers)}
        if len(joules) == 1:
            places = dict.fromkeys(workers, tuple(joules))
        return joules, places

    def vram(self, workers: Collection[int]) -> Vram:
        """Those a process can compute on: whole GPUs, or the instances of one in MIG mode.

        A GPU that is lost is among them, with nothing known; it keeps its number. An instance has no number, so one
        whose UUID is not told cannot be chosen, unless it is the first.
        """
        found: list[Gpu] = []
        used: dict[str, dict[int, int]] = {}
        for number in range(self._count()):
            handle = self._ask(self._nvml.nvmlDeviceGetHandleByIndex, number)
            if handle is None:
                found.append(Gpu(number, f"gpu{number}", None, number))
                continue
            whole = _Gpu(handle, f"gpu{number}")
            partitioned = self._partitioned(handle)
            for place, one in enumerate(self._instances(whole) if partitioned else [whole]):
                memory = self._ask(self._nvml.nvmlDeviceGetMemoryInfo, one.handle)
                uuid = _text(self._ask(self._nvml.nvmlDeviceGetUUID, one.handle))
                if uuid or not place:
                    free = int(memory.free) if memory is not None else None
                    found.append(Gpu(number, one.name, free, number, uuid, partitioned))
                    used[one.name] = self._used(one.handle, workers)
        return Vram(tuple(found), used)

    def _used(self, handle: Any, workers: Collection[int]) -> dict[int, int]:
        found = self._ask(self._nvml.nvmlDeviceGetComputeRunningProcesses, handle) or ()
        known = {int(one.pid): one.usedGpuMemory for one in found}
        return {pid: int(used) for pid, used in known.items() if pid in workers and used is not None}

    def _count(self) -> int:
        """How many GPUs there are; 0 when NVML does not work."""
        if self._nvml is None and not self._start():
            return 0
        try:
            count = int(self._nvml.nvmlDeviceGetCount())
        except self._nvml.NVMLError as error:  # e.g. the driver was unloaded: begin anew next time
            self.problem = f"NVML: {error}"
            self._nvml = None
            return 0
        self.problem = "" if count else "NVML finds no GPU"
        return count

    def _partitioned(self, handle: Any) -> bool:
        mode = self._ask(self._nvml.nvmlDeviceGetMigMode, handle)
        return mode is not None and mode[0] == self._nvml.NVML_DEVICE_MIG_ENABLE

    def _joules(self, handle: Any) -> float | None:
        """Since the driver was loaded."""
        millijoules = self._ask(self._nvml.nvmlDeviceGetTotalEnergyConsumption, handle)
        return millijoules / 1000 if millijoules is not None else None

    def _start(self) -> bool:
        try:
            nvml = self._import()
        except ImportError:
            self.problem = "the package nvidia-ml-py is not installed"
            return False
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            self.problem = f"NVML: {error}"
            return False
        self._nvml = nvml
        return True

    def _device(self, index: int, ours: Collection[int]) -> Iterator[DeviceInfo]:
        nvml, name = self._nvml, f"gpu{index}"
        try:
            gpu = _Gpu(nvml.nvmlDeviceGetHandleByIndex(index), name)
        except nvml.NVMLError as error:  # lost, or not ours to see
            yield DeviceInfo(name, "gpu", problem=str(error))
            return
        partitioned = self._partitioned(gpu.handle)
        yield self._describe(gpu, "gpu", ours, partitioned)
        if partitioned:
            for instance in self._instances(gpu):
                yield self._describe(instance, "mig", ours, False)

    def _instances(self, gpu: _Gpu) -> Iterator[_Gpu]:
        nvml = self._nvml
        most = self._ask(nvml.nvmlDeviceGetMaxMigDeviceCount, gpu.handle) or 0
        for index in range(most):
            handle = self._ask(nvml.nvmlDeviceGetMigDeviceHandleByIndex, gpu.handle, index)
            if handle is not None:  # the numbers of instances that were removed stay empty
                yield _Gpu(handle, f"{gpu.name}.{index}")

    def _describe(self, gpu: _Gpu, kind: Any, ours: Collection[int], partitioned: bool) -> DeviceInfo:
        nvml, handle = self._nvml, gpu.handle
        problems: list[str] = []
        memory = self._ask(nvml.nvmlDeviceGetMemoryInfo, handle, problems=problems)
        rates = self._ask(nvml.nvmlDeviceGetUtilizationRates, handle)
        milliwatts = self._ask(nvml.nvmlDeviceGetPowerUsage, handle)
        limit = self._ask(nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
        return DeviceInfo(
            gpu.name,
            kind,
            _text(self._ask(nvml.nvmlDeviceGetName, handle, problems=problems)),
            int(memory.total) if memory is not None else None,
            int(memory.used) if memory is not None else None,
            int(memory.free) if memory is not None else None,
            rates.gpu / 100 if rates is not None else None,
            milliwatts / 1000 if milliwatts is not None else None,
            limit / 1000 if limit is not None else None,
            self._joules(handle),
            self._ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            self._others(handle, ours),
            partitioned,
            problems[0] if problems else "",
        )

    def _others(self, handle: Any, ours: Collection[int]) -> tuple[DeviceProcess, ...] | None:
        """Processes that compute or draw on it; None when neither can be told."""
        nvml = self._nvml
        lists = [
            self._ask(ask, handle)
            for ask in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses)
        ]
        if all(one is None for one in lists):
            return None
        found = {int(one.pid): one.usedGpuMemory for one in (*(lists[1] or ()), *(lists[0] or ()))}
        return tuple(
            DeviceProcess(pid, _name_of(pid), int(used) if used is not None else None)
            for pid, used in sorted(found.items())
            if pid not in ours
        )

    def _ask(self, function: Callable[..., Any], *args: Any, problems: list[str] | None = None) -> Any:
        """One reading; None when NVML refuses it. Missing functions count as refused: drivers differ in age."""
        try:
            return function(*args)
        except self._nvml.NVMLError as error:
            if problems is not None:
                problems.append(str(error))
            return None


def _import_pynvml() -> Any:
    import pynvml

    return pynvml


def _or_none(read: Callable[[], T]) -> T | None:
    """What `read` returns, None when it fails for whatever reason a platform may have."""
    try:
        return read()
    except (OSError, ValueError, RuntimeError, AttributeError, NotImplementedError, psutil.Error):
        return None


def _cpu_times() -> tuple[float, float] | None:
    """(busy, all) seconds since the machine started."""
    times = _or_none(psutil.cpu_times)
    if times is None:
        return None
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)  # counted in `user` too
    return total - times.idle - getattr(times, "iowait", 0.0), total


def _share(before: tuple[float, float] | None, after: tuple[float, float] | None) -> float | None:
    if before is None or after is None or after[1] <= before[1]:
        return None
    return min(1.0, max(0.0, (after[0] - before[0]) / (after[1] - before[1])))


def _cpu_celsius() -> float | None:
    sensors = psutil.sensors_temperatures()
    for name in SENSORS:
        for reading in sensors.get(name, ()):
            return float(reading.current)
    return None


def _text(value: str | bytes | None) -> str:
    """Older versions of pynvml give bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""


def _name_of(pid: int) -> str:
    with contextlib.suppress(psutil.Error, OSError):
        return psutil.Process(pid).name()
    return ""
