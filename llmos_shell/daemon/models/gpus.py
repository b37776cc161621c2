"""The GPUs as the driver tells of them, and which of their memory models may have.

Owns the last reading. Who was promised what is in `claims`, the arithmetic in `memory.vram`, and where layers go is
decided in `memory.offload`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from llmos_shell.abi.types import ModelEntry
from llmos_shell.daemon.machine.devices import Vram
from llmos_shell.daemon.memory import vram
from llmos_shell.daemon.memory.offload import Gpu, visible
from llmos_shell.daemon.memory.vram import Tenant

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core


class Gpus:
    """What was seen of all GPUs, by name."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._seen = Vram()

    async def look(self, workers: Collection[int]) -> None:
        """Asks the driver what is free, and what workers have, by their host PIDs."""
        self._seen = await self._core.read(lambda: self._core.devices.vram(workers))

    def measured(self, worker: int | None) -> dict[str, int]:
        """What a worker had when the driver was last asked, by GPU; without those that do not tell."""
        if worker is None:
            return {}
        return {gpu: used[worker] for gpu, used in self._seen.used.items() if worker in used}

    def budgets(self, tenants: Iterable[Tenant]) -> dict[str, int]:
        """What all models together may have of each GPU that tells."""
        return vram.budgets(self._seen.free, tenants)

    def left(self, tenants: Iterable[Tenant]) -> dict[str, int]:
        """What is free of each GPU that tells, besides what models hold or were promised."""
        return vram.left(self._seen.free, tenants)

    def usable(self, entry: ModelEntry, tenants: Collection[Tenant], idle: Collection[str]) -> list[Gpu]:
        """Those a model may use, with what is free there, or would be without these idle models."""
        gpus = visible(self._seen.gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
        staying = [one for one in tenants if one.key not in idle]
        free = {gpu: size - sum(one.held(gpu) for one in staying) for gpu, size in self.budgets(tenants).items()}
        return [
            replace(gpu, free=max(0, free[gpu.name]) if gpu.name in free else None)
            for gpu in gpus
            if not entry.gpus or gpu.number in entry.gpus
        ]
