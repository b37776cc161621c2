"""A scripted NVML: the functions of pynvml that are used here, over GPUs described in Python. Every call can fail.

An object of `ScriptedNvml` stands for the module `pynvml`; `Gpu` describes a device. `errors` maps a function's name to
the NVML error it raises, `Gpu.errors` does so for one device only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

ERRORS = {
    1: "Uninitialized", 2: "Invalid Argument", 3: "Not Supported", 4: "Insufficient Permissions",
    5: "Already Initialized", 6: "Not Found", 7: "Insufficient Size", 8: "Insufficient External Power",
    9: "Driver Not Loaded", 10: "Timeout", 11: "Interrupt Request Issue", 12: "NVML Shared Library Not Found",
    13: "Function Not Found", 14: "Corrupted infoROM", 15: "GPU is lost", 16: "GPU requires restart",
    17: "The operating system has blocked the request.", 18: "RM has detected an NVML/RM version mismatch.",
    20: "Insufficient Memory", 999: "Unknown Error",
}  # fmt: skip
"""NVML's error codes with the texts that pynvml gives them."""


class NVMLError(Exception):
    """As pynvml's: `value` is the code."""

    def __init__(self, value: int) -> None:
        super().__init__(ERRORS[value])
        self.value = value


@dataclass
class Gpu:
    """One GPU, or one of its MIG instances."""

    name: str = "Scripted GPU"
    uuid: str = ""
    total: int = 24 << 30
    used: int = 1 << 30
    utilisation: int = 37
    milliwatts: int = 123_456
    limit_milliwatts: int = 350_000
    millijoules: int = 5_000_000
    celsius: int = 61
    processes: dict[int, int | None] = field(default_factory=dict)
    graphics: dict[int, int | None] = field(default_factory=dict)
    instances: list[Gpu | None] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)


class ScriptedNvml:
    """Stands for the module."""

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = 0
    NVML_DEVICE_MIG_ENABLE = 1

    def __init__(self, *gpus: Gpu, errors: dict[str, int] | None = None) -> None:
        self.gpus = list(gpus)
        self.errors = dict(errors or {})
        self.started = 0
        self._answers: dict[str, Callable[..., Any]] = {
            "nvmlDeviceGetName": lambda gpu: gpu.name,
            "nvmlDeviceGetUUID": _uuid,
            "nvmlDeviceGetMemoryInfo": lambda gpu: SimpleNamespace(
                total=gpu.total, used=gpu.used, free=gpu.total - gpu.used
            ),
            "nvmlDeviceGetUtilizationRates": lambda gpu: SimpleNamespace(gpu=gpu.utilisation, memory=0),
            "nvmlDeviceGetPowerUsage": lambda gpu: gpu.milliwatts,
            "nvmlDeviceGetEnforcedPowerLimit": lambda gpu: gpu.limit_milliwatts,
            "nvmlDeviceGetTotalEnergyConsumption": lambda gpu: gpu.millijoules,
            "nvmlDeviceGetTemperature": lambda gpu, sensor: gpu.celsius,
            "nvmlDeviceGetMigMode": _mig_mode,
            "nvmlDeviceGetMaxMigDeviceCount": lambda gpu: len(gpu.instances),
            "nvmlDeviceGetMigDeviceHandleByIndex": _instance,
            "nvmlDeviceGetComputeRunningProcesses": lambda gpu: _processes(gpu.processes),
            "nvmlDeviceGetGraphicsRunningProcesses": lambda gpu: _processes(gpu.graphics),
        }

    def nvmlInit(self) -> None:
        """Starts it."""
        self._fail("nvmlInit")
        self.started += 1

    def nvmlDeviceGetCount(self) -> int:
        """How many GPUs there are."""
        self._fail("nvmlDeviceGetCount")
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Gpu:
        """The handle of a GPU: the description itself."""
        gpu = self.gpus[index]
        self._fail("nvmlDeviceGetHandleByIndex", gpu)
        return gpu

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """All other functions take a handle first."""
        if name not in self._answers:
            raise AttributeError(name)

        def call(gpu: Gpu, *args: Any) -> Any:
            self._fail(name, gpu)
            return self._answers[name](gpu, *args)

        return call

    def _fail(self, name: str, gpu: Gpu | None = None) -> None:
        code = self.errors.get(name) or (gpu.errors.get(name) or gpu.errors.get("*") if gpu is not None else None)
        if code:
            raise NVMLError(code)


def _uuid(gpu: Gpu) -> str:
    if not gpu.uuid:
        raise NVMLError(3)
    return gpu.uuid


def _mig_mode(gpu: Gpu) -> tuple[int, int]:
    if not gpu.instances:
        raise NVMLError(3)
    return 1, 1


def _instance(gpu: Gpu, index: int) -> Gpu:
    instance = gpu.instances[index]
    if instance is None:
        raise NVMLError(6)
    return instance


def _processes(processes: dict[int, int | None]) -> list[SimpleNamespace]:
    return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in processes.items()]
