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
from llmos_shell.daemon.machine import host
from llmos_shell.daemon.memory.vram import Tenant
from llmos_shell.daemon.models.budget import RAM, UNUSED_WEIGHT, Held, Verdict, budget_bytes, decide
from llmos_shell.daemon.models.gpus import Gpus
from llmos_shell.daemon.models.needs import OVERHEAD, Need, Study, need_of, study
from llmos_shell.daemon.policies import NICE_0_WEIGHT, weight_of

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core
    from llmos_shell.daemon.models.conductor import Conductor
    from llmos_shell.daemon.models.workshop import Workshop


class Claim:
    """What one model was promised: what it needs, and what its pool has more since."""

    def __init__(self, need: Need) -> None:
        self.plan(need)
        self.reserved = 0  # bytes of KV, for a pool that is being made
        self.workshop: Workshop | None = None  # of the worker that has it, or is getting it

    def plan(self, need: Need) -> None:
        """The model is about to be loaded, with the pool of its entry, as `need` says."""
        self.planned = self.need = need
        self._pool: int | None = None  # bytes of KV that were planned, once that is known
        self._grown = 0  # … more, or fewer if negative

    def landed(self, pool: int, *, on_gpu: bool) -> None:
        """It is loaded with such a pool: what was to be on GPUs is in RAM if it does not compute there."""
        self.need = self.planned if on_gpu else self.planned.in_ram
        self.has(pool)

    def has(self, pool: int) -> None:
        """Its pool has so many bytes; those that it has at first were planned."""
        if self._pool is None:
            self._pool = pool
        self._grown = pool - self._pool

    def parts(self, pool: int) -> dict[str, int]:
        """What so many bytes of KV take of each device."""
        on_gpus = {gpu: int(pool * share) for gpu, share in self.need.kv_shares.items()}
        return {RAM: int((pool - sum(on_gpus.values())) * OVERHEAD), **on_gpus}

    @property
    def bytes(self) -> dict[str, int]:
        """By device."""
        more = self.parts(self._grown + self.reserved)
        return {device: max(0, size + more.get(device, 0)) for device, size in self.need.bytes.items()}


class Claims:
    """Of models loaded or being loaded, by the key of their entry."""

    def __init__(self, core: Core, conductors: Mapping[str, Conductor], pinned: Set[str]) -> None:
        """`conductors` of models that are loaded, and the keys of `pinned` ones, are looked at and never changed."""
        self._core = core
        self._conductors = conductors
        self._pinned = pinned
        self._claims: dict[str, Claim] = {}
        self._gpus = Gpus(core)
        self._blind: set[str] = set()  # kernels that turned out to know no GPUs
        self.budget = budget_bytes(host.memory().total)

    def __contains__(self, key: str) -> bool:
        return key in self._claims

    def claim(self, key: str, need: Need) -> Claim:
        """Promises a model what it needs."""
        claim = self._claims[key] = Claim(need)
        return claim

    def disclaim(self, key: str) -> None:
        """The model has gone."""
        self._claims.pop(key, None)

    def landed(self, conductor: Conductor) -> None:
        """A worker has loaded a model."""
        entry, info, offload = conductor.entry, conductor.workshop.info, conductor.claim.planned.offload
        if info is None:
            return
        conductor.claim.landed(info.pages * info.page_bytes, on_gpu=info.gpu)
        if offload is not None and not info.gpu and not info.knows_gpus:
            self._blind.add(entry.kernel)
            if offload.layers:
                self._core.events.info("residency", f"{entry.name}: {_why_blind(entry.kernel)}")

    async def plan_again(self, conductor: Conductor) -> None:
        """Decides anew what of a model goes to GPUs, whose worker could not be started again as it was."""
        entry, claim = conductor.entry, conductor.claim
        if claim.planned.offload is None or entry.gpu_layers != "auto":
            return
        try:
            found = await study(self._core, entry)
            await self.look()
            claim.plan(self.need(found, without=conductor.key))
        except LlmosError as error:
            self._core.events.warning("residency", f"{entry.name} is tried again as it was: {error}")
            return
        self._core.events.info("residency", f"{entry.name}: {claim.planned.offload}")

    @property
    def of_gpus(self) -> bool:
        """Whether any model was promised something of a GPU."""
        return any(claim.need.gpus for claim in self._claims.values())

    async def look(self) -> None:
        """Asks the driver of GPUs what is free there."""
        workshops = [one.workshop for one in self._claims.values() if one.workshop is not None]
        await self._gpus.look({pid for one in workshops if (pid := one.occupant) is not None})

    def free_bytes(self) -> int:
        """RAM that no model has."""
        return max(0, self._room() - sum(one.bytes[RAM] for one in self._held()))

    def free_for_pool(self, claim: Claim) -> int:
        """Bytes of KV for which there is memory where the KV of this model is; none on a GPU that does not tell."""
        left = {RAM: self.free_bytes(), **self._gpus.left(self._tenants())}
        shares = {device: size / (1 << 40) for device, size in claim.parts(1 << 40).items()}
        most = (left.get(device, 0) / share for device, share in shares.items() if share > 1e-6)
        return int(min(most, default=1 << 60))

    def need(self, found: Study, most: int | None = None, without: str = "") -> Need:
        """What a model needs, by the last look at the GPUs; memory of idle models counts as free, and `without`'s.

        With `most`, no more layers than that go to GPUs by themselves. Raises what `need_of` does.
        """
        if not found.on_gpus:
            return need_of(found, self._room())
        entry = found.entry
        if entry.gpu_layers == "auto" and entry.kernel in self._blind:
            need = need_of(found, self._room(), (), most)
            assert need.offload is not None
            return replace(need, offload=replace(need.offload, why=_why_blind(entry.kernel)))
        idle = [one.key for one in self._held() if one.key == without or not (one.busy or one.pinned)]
        return need_of(found, self._room(), self._gpus.usable(entry, self._tenants(), idle), most)

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

    def verdict_on_pool(self, key: str, parts: Mapping[str, int]) -> Verdict:
        """Who makes way for a larger pool of a loaded model, that takes so much more. Raises ENOMEM if that is vain."""
        held = [replace(one, busy=one.busy or one.key == key) for one in self._held()]
        return decide(parts, self._budgets(), held)

    def gpu_memory(self, conductor: Conductor) -> tuple[GpuMemory, ...]:
        """What a model was estimated to take of each GPU, and takes."""
        need, claimed = conductor.claim.need, conductor.claim.bytes
        layers = need.offload.gpu_layers if need.offload is not None else {}
        measured = self._gpus.measured(conductor.workshop.occupant)
        return tuple(
            GpuMemory(gpu, layers.get(gpu, 0), claimed.get(gpu, 0), measured.get(gpu))
            for gpu in sorted({*need.gpus, *measured})
        )

    # -- private -------------------------------------------------------------------------------------------------------

    def _room(self) -> int:
        """Bytes that models may have now: the budget, or less where others have taken the memory."""
        ours = sum(one.workshop.rss() for one in self._claims.values() if one.workshop is not None)
        return min(self.budget, host.memory().available + ours)

    def _budgets(self) -> dict[str, int]:
        return {RAM: self._room(), **self._gpus.budgets(self._tenants())}

    def _tenants(self) -> list[Tenant]:
        return [self._tenant(key, claim) for key, claim in self._claims.items()]

    def _tenant(self, key: str, claim: Claim) -> Tenant:
        claimed, shop = {gpu: size for gpu, size in claim.bytes.items() if gpu != RAM}, claim.workshop
        if shop is None:
            return Tenant(key, claimed)
        return Tenant(key, claimed, self._gpus.measured(shop.occupant), shop.host_pid is not None)

    def _held(self) -> list[Held]:
        """Who has what of the budgets."""
        return [self._held_by(key, claim) for key, claim in self._claims.items()]

    def _held_by(self, key: str, claim: Claim) -> Held:
        conductor, pinned = self._conductors.get(key), key in self._pinned
        sizes = {RAM: claim.bytes[RAM], **self._tenant(key, claim).gpus}
        if conductor is None:  # it is on its way, or just going
            return Held(key, sizes, busy=True, pinned=pinned)
        if conductor.entry.path.endswith(".gguf"):
            sizes[RAM] = max(sizes[RAM], conductor.workshop.rss())
        nices = [one.nice for one in conductor.members.values() if one.alive]
        weight = weight_of(min(nices)) / NICE_0_WEIGHT if nices else UNUSED_WEIGHT
        idle_seconds = self._core.now() - conductor.used
        return Held(key, sizes, conductor.occupied, pinned, idle_seconds, conductor.workshop.load_seconds, weight)


def _why_blind(kernel: str) -> str:
    return f"kernel {kernel} was built without support for GPUs"
