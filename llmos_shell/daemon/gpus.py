"""The memory of GPUs that models have and were promised, and which of it may be had.

Owns the claims and the last reading of the driver. The arithmetic is in `memory.vram`, and where layers go is decided
in `memory.offload`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from msgspec.structs import replace

from llmos_shell.abi.types import ModelEntry
from llmos_shell.daemon.devices import Vram
from llmos_shell.daemon.memory.offload import Gpu, visible
from llmos_shell.daemon.memory.vram import Tenant, budgets, left
from llmos_shell.daemon.needs import Need

if TYPE_CHECKING:
    from llmos_shell.daemon.conductor import Conductor
    from llmos_shell.daemon.core import Core


class Gpus:
    """What models have of GPUs, by the key of their entry."""

    def __init__(self, core: Core, conductors: Mapping[str, Conductor]) -> None:
        """`conductors` of models that are loaded are looked at and never changed."""
        self._core = core
        self._conductors = conductors
        self._claims: dict[str, dict[str, int]] = {}  # bytes, by name of the GPU
        self._shares: dict[str, dict[str, float]] = {}  # of each byte of KV
        self._seen = Vram()
        self.blind: set[str] = set()  # kernels that turned out to know no GPUs

    async def look(self) -> None:
        """Asks the driver what is free, and what workers have."""
        workers = {one.workshop.host_pid for one in self._conductors.values()} - {None}
        pids = {pid for pid in workers if pid is not None}
        self._seen = await self._core.read(lambda: self._core.devices.vram(pids))

    def claim(self, key: str, need: Need) -> None:
        """Promises a model what it needs."""
        self._claims[key], self._shares[key] = dict(need.gpus), need.kv_shares

    def grow(self, key: str, more: int) -> None:
        """So many bytes of KV more, or fewer if negative, of a model whose pool is changed."""
        for gpu, size in self.parts(key, more).items():
            self._claims[key][gpu] = max(0, self._claims[key].get(gpu, 0) + size)

    def disclaim(self, key: str) -> None:
        """The model has gone, or turned out to be elsewhere."""
        self._claims.pop(key, None)
        self._shares.pop(key, None)

    def parts(self, key: str, pool: int) -> dict[str, int]:
        """What of so many bytes of KV is on each GPU."""
        return {gpu: int(pool * share) for gpu, share in self._shares.get(key, {}).items()}

    def claimed(self, key: str) -> dict[str, int]:
        """What a model was promised, by GPU."""
        return self._claims.get(key, {})

    def measured(self, key: str) -> dict[str, int]:
        """What a model's worker had when the driver was last asked, by GPU; without those that do not tell."""
        conductor = self._conductors.get(key)
        pid = conductor.workshop.host_pid if conductor is not None else None
        if pid is None:
            return {}
        return {gpu: used[pid] for gpu, used in self._seen.used.items() if pid in used}

    def held(self, key: str) -> dict[str, int]:
        """What a model must be taken to have."""
        return self._tenant(key).gpus

    @property
    def claiming(self) -> bool:
        """Whether any model was promised something."""
        return any(self._claims.values())

    def budgets(self) -> dict[str, int]:
        """What all models together may have of each GPU that tells."""
        return budgets(self._seen.free, map(self._tenant, self._claims))

    def spare(self, key: str) -> float:
        """Bytes that the KV pool of a model may grow by, for what is left on GPUs; one that does not tell has none."""
        free = left(self._seen.free, map(self._tenant, self._claims))
        shares = self._shares.get(key, {})
        return min((free.get(gpu, 0) / share for gpu, share in shares.items()), default=float("inf"))

    def usable(self, entry: ModelEntry, idle: Collection[str]) -> list[Gpu]:
        """Those a model may use, with what is free there, or would be without these idle models."""
        gpus = visible(self._seen.gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
        staying = [self._tenant(key) for key in self._claims if key not in idle]
        known = budgets(self._seen.free, map(self._tenant, self._claims))
        free = {gpu: size - sum(one.held(gpu) for one in staying) for gpu, size in known.items()}
        return [
            replace(gpu, free=max(0, free[gpu.name]) if gpu.name in free else None)
            for gpu in gpus
            if not entry.gpus or gpu.number in entry.gpus
        ]

    def _tenant(self, key: str) -> Tenant:
        conductor = self._conductors.get(key)
        loaded = conductor is not None and conductor.workshop.host_pid is not None
        return Tenant(key, self._claims.get(key, {}), self.measured(key), loaded)


def why_blind(kernel: str) -> str:
    """What is said of a kernel that turned out to know no GPUs."""
    return f"kernel {kernel} was built without support for GPUs"
