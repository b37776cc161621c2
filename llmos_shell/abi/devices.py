"""The syscalls about the machine's devices.

Sizes are bytes. A figure that is None could not be read: unknown, which is not zero.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from llmos_shell.abi.syscall import Nothing, Syscall


class DeviceProcess(Struct, frozen=True):
    """A process of the host on a device that is none of our workers."""

    pid: int
    name: str = ""  # "": not known, e.g. in another container
    memory: int | None = None


class DeviceInfo(Struct, frozen=True, omit_defaults=False):
    """One device at one moment. `name` is how it is spoken of: `cpu`, `gpu0`, and `gpu0.1` for a MIG instance."""

    name: str
    kind: Literal["cpu", "gpu", "mig"]
    model: str = ""  # what the maker calls it
    memory_total: int | None = None
    memory_used: int | None = None
    memory_free: int | None = None
    utilisation: float | None = None  # share of time, 0 to 1; of a CPU since it was last asked
    watts: float | None = None
    watts_limit: float | None = None
    joules: float | None = None  # since the driver was loaded, or the machine started
    celsius: float | None = None
    processes: tuple[DeviceProcess, ...] | None = None  # not ours; of a CPU never told
    partitioned: bool = False  # a GPU in MIG mode: its instances are devices of their own
    problem: str = ""  # why readings fail, if they do


class Devices(Struct, frozen=True):
    """All devices, and why there is no GPU among them if there is none."""

    devices: tuple[DeviceInfo, ...]
    no_gpu: str = ""


DEVICE_LIST: Final = Syscall("device.list", "read the machine's devices", Nothing, Devices, "sys.read")
