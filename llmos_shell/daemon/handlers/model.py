"""`model.*` and `kernel.*`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from llmos_shell.abi import syscalls as abi
from llmos_shell.abi import worker
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import ModelStatus
from llmos_shell.daemon.models import kernels
from llmos_shell.daemon.models.budget import RAM
from llmos_shell.daemon.syscalls import Context, Handler
from llmos_shell.models.registry import Listed

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core
    from llmos_shell.daemon.models.conductor import Conductor

MOST_POOL_TOKENS, MOST_SLOTS = (1 << 31) - 1, 4096


async def list_(context: Context, args: abi.Nothing) -> tuple[ModelStatus, ...]:
    """`models`; one loaded from a path is listed too."""
    core = context.core
    if core.residency.claims.of_gpus:
        await core.residency.claims.look()
    rows = {one.entry.name: one for one in core.registry.listing()}
    for conductor in core.residency.all():
        rows.setdefault(conductor.key, core.registry.status(conductor.entry))
    return tuple(_row(core, key, one) for key, one in rows.items())


async def problems(context: Context, args: abi.Nothing) -> tuple[str, ...]:
    """What is wrong with models.toml."""
    return context.core.registry.problems


async def load(context: Context, args: abi.ModelName) -> ModelStatus:
    """Loads a model and waits for it."""
    return _status(await context.core.residency.get(args.model))


async def resize(context: Context, args: abi.ResizePool) -> ModelStatus:
    """Gives a model another KV pool."""
    for name, value, most in (("pool", args.pool_tokens, MOST_POOL_TOKENS), ("slots", args.slots, MOST_SLOTS)):
        if value is not None and not 1 <= value <= most:
            raise LlmosError(Code.EINVAL, f"{name} {value} is out of range", hint=f"use 1 to {most}")
    residency = context.core.residency
    conductor = residency.loaded(args.model)
    await residency.pools.resize(conductor, args.pool_tokens, args.slots, args.layout, by_hand=True)
    return _status(conductor)


async def unload(context: Context, args: abi.ModelName) -> abi.Nothing:
    """Unloads a model."""
    await context.core.residency.unload(args.model)
    return abi.Nothing()


async def pin(context: Context, args: abi.Pin) -> abi.Nothing:
    """Pins a model, or no longer."""
    context.core.residency.pin(args.model, args.pinned)
    return abi.Nothing()


async def plan(context: Context, args: abi.ModelName) -> abi.LoadPlan:
    """What loading a model would take."""
    core = context.core
    entry = core.registry.resolve(args.model)
    need, evict, wait_for = await core.residency.plan(args.model)
    loaded = core.residency.find(core.residency.key_of(entry)) is not None
    found = abi.LoadPlan(entry.name, need.host, core.residency.claims.budget, evict, wait_for, loaded, need.gpus)
    if need.offload is None:
        return found
    offload = need.offload
    return structs.replace(
        found, gpu_layers=offload.layers, layers=offload.of, gpu_note=offload.why, gpu_split=offload.gpu_layers
    )


async def progress(context: Context, args: abi.Awaited) -> abi.ModelLoad | None:
    """How far a load is."""
    core = context.core
    model = args.model if args.pid is None else core.table.living(args.pid).model
    return core.residency.progress(core.residency.resolve(model)[1])


async def tokenize(context: Context, args: abi.Tokenize) -> abi.TokenList:
    """The tokens of a text, as they stand, without BOS."""
    conductor = await context.core.residency.get(args.model)
    answer = await conductor.tokenizer.ask(worker.Tokenize(0, text=args.text, special=False))
    return abi.TokenList(answer.tokens)


async def list_kernels(context: Context, args: abi.Nothing) -> tuple[abi.KernelInfo, ...]:
    """Installed kernels."""
    return tuple(kernels.describe(manifest) for _, manifest in sorted(kernels.manifests().items()))


def _status(conductor: Conductor) -> ModelStatus:
    return _row(conductor.core, conductor.key, conductor.core.registry.status(conductor.entry))


def _row(core: Core, key: str, listed: Listed) -> ModelStatus:
    """What `models` shows of a model, loaded or not."""
    residency = core.residency
    using, pinned = sum(process.model == key for process in core.table.live_models()), key in residency.pinned
    conductor, progress = residency.find(key), residency.progress(key)
    if conductor is None or (info := conductor.workshop.info) is None:
        share = progress.read / max(1, progress.total) if progress is not None else None
        return ModelStatus(
            listed.entry, listed.default, listed.bytes, listed.problem, processes=using, pinned=pinned, loading=share
        )
    shop = conductor.workshop
    ledger = shop.pager.ledger if shop.pager is not None else None
    return ModelStatus(
        listed.entry, listed.default, listed.bytes, listed.problem, shop.host_pid, using, info.layout, info.context,
        info.page_tokens, info.pages, ledger.used_pages if ledger is not None else 0, info.slots,
        info.kv_bytes_per_token, shop.load_seconds, conductor.claim.bytes[RAM], shop.rss(), pinned, shop.landed,
        gpus=residency.claims.gpu_memory(conductor),
    )  # fmt: skip


HANDLERS: dict[str, Handler] = {
    "model.list": list_,
    "model.problems": problems,
    "model.load": load,
    "model.unload": unload,
    "model.resize": resize,
    "model.pin": pin,
    "model.plan": plan,
    "model.progress": progress,
    "model.tokenize": tokenize,
    "kernel.list": list_kernels,
}
