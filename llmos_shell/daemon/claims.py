"""Who has what of the memory, RAM and GPUs: what models were promised, what is left, and who would make way.

Owns the claims and the budget. When to load, unload and resize is decided elsewhere (`residency`, `pools`, `sizer`);
what a model needs is in `needs`, and whose memory it may get in `budget`.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING

from msgspec.structs import replace

from llmos_shell.abi.errors import LlmosError
from llmos_shell.abi.types import GpuMemory
from llmos_shell.daemon import host
from llmos_shell.daemon.budget import RAM, UNUSED_WEIGHT, Held, Verdict, budget_bytes, decide
from llmos_shell.daemon.gpus import Gpus, why_blind
from llmos_shell.daemon.needs import OVERHEAD, Need, Study, need_of
from llmos_shell.daemon.policies import NICE_0_WEIGHT, weight_of

if TYPE_CHECKING:
    from llmos_shell.daemon.conductor import Conductor
    from llmos_shell.daemon.core import Core


class Claims:
    """Of models loaded or being loaded, by the key of their entry."""

    def __init__(self, core: Core, conductors: Mapping[str, Conductor], pinned: Set[str]) -> None:
        """`conductors` of models that are loaded, and the keys of `pinned` ones, are looked at and never changed."""
        self._core = core
        self._conductors = conductors
        self._pinned = pinned
        self._ram: dict[str, int] = {}  # bytes
        self.gpus = Gpus(core, conductors)
        self.budget = budget_bytes(host.memory().total)

    def __contains__(self, key: str) -> bool:
        return key in self._ram

    def claim(self, key: str, need: Need) -> None:
        """Promises a model what it needs."""
        self._ram[key] = need.host
        self.gpus.claim(key, need)

    def claim_without_gpus(self, key: str, need: Need) -> None:
        """The same, for one that does not use them after all."""
        self._ram[key] = need.without_gpus
        self.gpus.disclaim(key)

    def grow(self, key: str, pool: int) -> None:
        """So many bytes of KV more, or fewer if negative."""
        if key in self._ram:
            self._ram[key] += self.parts(key, pool)[RAM]
            self.gpus.grow(key, pool)

    def disclaim(self, key: str) -> None:
        """The model has gone."""
        self._ram.pop(key, None)
        self.gpus.disclaim(key)

    def claimed(self, key: str) -> int:
        """The RAM that a model was promised."""
        return self._ram.get(key, 0)

    def parts(self, key: str, pool: int) -> dict[str, int]:
        """What so many bytes of KV take of each device."""
        on_gpus = self.gpus.parts(key, pool)
        return {RAM: int((pool - sum(on_gpus.values())) * OVERHEAD), **on_gpus}

    def free_bytes(self, key: str = "") -> int:
        """What no model has: of the RAM, or where the KV of this one is."""
        free = max(0, self._room() - sum(one.bytes[RAM] for one in self._held()))
        if not key:
            return free
        in_ram = self.parts(key, 1 << 40)[RAM] / (1 << 40)
        return int(min(free / in_ram if in_ram > 1e-6 else float("inf"), self.gpus.spare(key), 1 << 60))

    def need(self, found: Study, most: int | None = None, without: str = "") -> Need:
        """What a model needs, by the last look at the GPUs; memory of idle models counts as free, and `without`'s.

        With `most`, no more layers than that go to GPUs by themselves. Raises what `need_of` does.
        """
        if not found.on_gpus:
            return need_of(found, self._room())
        entry = found.entry
        if entry.gpu_layers == "auto" and entry.kernel in self.gpus.blind:
            need = need_of(found, self._room(), (), most)
            assert need.offload is not None
            return replace(need, offload=replace(need.offload, why=why_blind(entry.kernel)))
        idle = [one.key for one in self._held() if one.key == without or not (one.busy or one.pinned)]
        return need_of(found, self._room(), self.gpus.usable(entry, idle), most)

    def verdict(self, key: str, need: Need) -> Verdict:
        """Who makes way on all devices. Raises ENOMEM if that is vain.

        For a GPU that seems too small nobody makes way: that may be wrong, and the kernel says so if it is not.
        """
        held, budgets = [one for one in self._held() if one.key != key], self._budgets()
        for gpu, size in need.gpus.items():
            try:
                decide({gpu: size}, budgets, held)
            except LlmosError:
                del budgets[gpu]
        return decide(need.bytes, budgets, held)

    def verdict_on_pool(self, key: str, more: int) -> Verdict:
        """Who makes way for so many bytes of KV more of a loaded model. Raises ENOMEM if that is vain."""
        held = [replace(one, busy=one.busy or one.key == key) for one in self._held()]
        return decide(self.parts(key, more), self._budgets(), held)

    def gpu_memory(self, key: str) -> tuple[GpuMemory, ...]:
        """What a model was estimated to take of each GPU, and takes."""
        conductor = self._conductors.get(key)
        offload = conductor.need.offload if conductor is not None else None
        layers = offload.gpu_layers if offload is not None else {}
        claimed, measured = self.gpus.claimed(key), self.gpus.measured(key)
        return tuple(
            GpuMemory(gpu, layers.get(gpu, 0) if gpu in claimed else 0, claimed.get(gpu, 0), measured.get(gpu))
            for gpu in sorted({*claimed, *measured})
        )

    # -- private -------------------------------------------------------------------------------------------------------

    def _room(self) -> int:
        """Bytes that models may have now: the budget, or less where others have taken the memory."""
        ours = sum(one.workshop.rss() for one in self._conductors.values())
        return min(self.budget, host.memory().available + ours)

    def _budgets(self) -> dict[str, int]:
        return {RAM: self._room(), **self.gpus.budgets()}

    def _held(self) -> list[Held]:
        """Who has what of the budget."""
        return [self._held_by(key, claimed) for key, claimed in self._ram.items()]

    def _held_by(self, key: str, claimed: int) -> Held:
        conductor, pinned = self._conductors.get(key), key in self._pinned
        if conductor is None:  # it is on its way, or is just being unloaded
            return Held(key, {RAM: claimed, **self.gpus.held(key)}, busy=True, pinned=pinned)
        rss = conductor.workshop.rss() if conductor.entry.path.endswith(".gguf") else 0
        nices = [one.nice for one in conductor.members.values() if one.alive]
        weight = weight_of(min(nices)) / NICE_0_WEIGHT if nices else UNUSED_WEIGHT
        return Held(
            key, {RAM: max(claimed, rss), **self.gpus.held(key)}, conductor.occupied, pinned,
            self._core.now() - conductor.used, conductor.workshop.load_seconds, weight,
        )  # fmt: skip
