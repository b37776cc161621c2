"""Who used how much energy: that of a device, shared among processes by the time they had of it.

Devices count the joules they have used. The counters are read every second while anything is computed. What a device
used between two readings is charged in proportion to the device time of that interval: of an interval in which steps
took a third of the time a third is charged, so that idling is nobody's. It is the whole device's, with what programs
that are not ours did on it meanwhile, and only that of the device that computes: a GPU's host is left out.
A counter that cannot be read at present is read later, over a longer interval; one that can never be read leaves the
figures unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING

from llmos_shell.daemon.machine.devices import Energy

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core
    from llmos_shell.daemon.models.conductor import Conductor

PERIOD_SECONDS = 1.0
RETRY_SECONDS = 60.0
"""How long a counter that cannot be read is left alone, and how long one that could be is waited for."""

CPU = 0
"""Stands for the workers that compute on the CPU, in the place of a GPU worker's host PID."""


class EnergyShares:
    """Shares what devices used among processes. Pure: readings and time are handed in."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[float, float]] = {}  # device → joules, and when
        self._used: dict[int, dict[int, float]] = {}  # worker → PID → seconds of device time, not placed yet
        self._placed: dict[str, dict[int, float]] = {}  # device → PID → seconds since it was read

    def note(self, worker: int, pid: int, seconds: float) -> None:
        """A process had so much of the device that its worker computes on."""
        used = self._used.setdefault(worker, {})
        used[pid] = used.get(pid, 0.0) + seconds

    def pending(self, pid: int) -> bool:
        """Whether energy of that process is not charged yet."""
        return any(pid in used for used in (*self._used.values(), *self._placed.values()))

    @property
    def idle(self) -> bool:
        """Whether nobody has used anything since the last reading."""
        return not self._used and not self._placed

    def take(self, reading: Energy, now: float) -> dict[int, float]:
        """Joules of each process since the last reading of its devices."""
        self._place(reading)
        charged: dict[int, float] = {}
        for device, joules in reading.joules.items():
            if joules is None:
                self._skip(device, now)
                continue
            before, self._before[device] = self._before.get(device), (joules, now)
            if before is None:
                continue  # this is where the first interval begins: what was computed just before counts to it
            used = self._placed.pop(device, {})
            busy, whole = sum(used.values()), now - before[1]
            if busy <= 0 or whole <= 0 or joules < before[0]:  # less than before: the driver was loaded anew
                continue
            each = (joules - before[0]) * min(1.0, busy / whole) / busy
            for pid, seconds in used.items():
                charged[pid] = charged.get(pid, 0.0) + each * seconds
        return charged

    def rest(self) -> None:
        """Nothing is read for a while: the next reading begins an interval."""
        self._before.clear()
        self._placed.clear()
        self._used.clear()

    def _place(self, reading: Energy) -> None:
        for worker, used in self._used.items():
            devices = ("cpu",) if worker == CPU else reading.places.get(worker, ())
            if any(reading.joules.get(device) is None and device not in self._before for device in devices):
                continue  # a part of what it uses is not known, so nothing is
            for device in devices:
                placed = self._placed.setdefault(device, {})
                for pid, seconds in used.items():
                    placed[pid] = placed.get(pid, 0.0) + seconds
        self._used.clear()

    def _skip(self, device: str, now: float) -> None:
        before = self._before.get(device)
        if before is not None and now - before[1] > RETRY_SECONDS:
            del self._before[device]
            self._placed.pop(device, None)


class Metering:
    """Reads the counters while something is computed, and charges processes and their groups."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._shares = EnergyShares()
        self._task: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._quiet_until = 0.0  # monotonic

    @property
    def wanted(self) -> bool:
        """Whether it makes sense to note who uses what."""
        return self._task is not None or self._core.now() >= self._quiet_until

    def note(self, conductor: Conductor, pid: int, seconds: float) -> None:
        """A process had so much device time."""
        worker = (conductor.workshop.host_pid or CPU) if conductor.device == "gpu" else CPU
        self._shares.note(worker, pid, seconds)
        if self._task is None:
            self._task = self._core.spawn_task(self._watch())

    async def settled(self, pid: int) -> None:
        """Returns when all that a process has used is charged to it, as far as that can be known."""
        if self._shares.pending(pid):
            await self._read()

    async def _watch(self) -> None:
        try:
            if not await self._read():
                self._quiet_until = self._core.now() + RETRY_SECONDS
                return
            while True:
                await asyncio.sleep(PERIOD_SECONDS)
                idle = self._shares.idle
                if idle or not await self._read():
                    return
        finally:
            self._shares.rest()
            self._task = None

    async def _read(self) -> bool:
        """One reading; returns whether any device tells anything."""
        async with self._lock:
            workers = self._gpu_workers()
            reading: Energy = await self._core.read(lambda: self._core.devices.energy(workers))
            for pid, joules in self._shares.take(reading, self._core.now()).items():
                self._charge(pid, joules)
            return any(joules is not None for joules in reading.joules.values())

    def _gpu_workers(self) -> Collection[int]:
        return {
            conductor.workshop.host_pid or CPU for conductor in self._core.residency.all() if conductor.device == "gpu"
        }

    def _charge(self, pid: int, joules: float) -> None:
        process = self._core.table.find(pid)
        if process is None:
            return
        process.joules = (process.joules or 0.0) + joules
        group = self._core.scheduling.groups.find(process.group)
        if group is not None:  # else it was forgotten when the last of its processes ended
            group.joules = (group.joules or 0.0) + joules
        if not process.alive:
            self._core.save(process)
