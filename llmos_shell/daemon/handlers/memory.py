"""`mem.*`: pools, pages, and the swap space."""

from __future__ import annotations

import os
from itertools import groupby

from msgspec import structs

from llmos_shell.abi import memory as abi
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscall import Nothing, Pid
from llmos_shell.abi.types import KvState, State
from llmos_shell.daemon.core import Core
from llmos_shell.daemon.machine import host
from llmos_shell.daemon.memory import park
from llmos_shell.daemon.memory.costs import Path
from llmos_shell.daemon.memory.pager import Pager
from llmos_shell.daemon.memory.tiers import Place
from llmos_shell.daemon.models.conductor import Conductor
from llmos_shell.daemon.processes.process import Process
from llmos_shell.daemon.saving import hibernation
from llmos_shell.daemon.syscalls import Context, Handler

LEAST_SWAP = 1 << 20


async def info(context: Context, args: Nothing) -> abi.MemoryInfo:
    """`free`."""
    core, ram = context.core, host.memory()
    swap, tiers, there = core.swap, core.swap.tiers, core.swap.tiers.swapped()
    pools = [_pool(core, conductor) for conductor in core.residency.all()]
    return abi.MemoryInfo(
        ram.total, ram.available, tiers.ram_used, tiers.ram_limit, tuple(pool for pool in pools if pool is not None),
        tiers.disk_used, tiers.disk_limit, swap.folder, swap.problem, there.bytes, there.image_bytes,
    )  # fmt: skip


def _pool(core: Core, conductor: Conductor) -> abi.PoolInfo | None:
    shop = conductor.workshop
    if shop.pager is None or shop.info is None:
        return None
    info, ledger = shop.info, shop.pager.ledger
    held = dict.fromkeys(Place, 0)
    for pid in conductor.members:
        place = core.swap.tiers.place(pid)
        if place is not None:
            held[place] += core.swap.tiers.size(pid)
    return abi.PoolInfo(
        conductor.entry.name, info.pages, ledger.used_pages, ledger.shared_pages, ledger.cached_pages, info.page_tokens,
        info.page_bytes, info.slots, info.slots - ledger.free_slots,
        held[Place.RAM], info.layout, held[Place.DISK], ledger.waste(),
    )  # fmt: skip


async def stat(context: Context, args: Nothing) -> abi.MemoryStat:
    """`vmstat`."""
    core, costs = context.core, context.core.costs
    ledgers = [c.workshop.pager.ledger for c in core.residency.all() if c.workshop.pager is not None]
    states = [process.state for process in core.table.live_models()]
    there = core.swap.tiers.swapped()
    return abi.MemoryStat(
        **structs.asdict(core.counts),
        running=states.count(State.RUNNING),
        waiting=states.count(State.RUNNABLE) + states.count(State.NEW),
        free_pages=sum(ledger.free_pages for ledger in ledgers),
        used_pages=sum(ledger.used_pages for ledger in ledgers),
        cached_pages=sum(ledger.cached_pages for ledger in ledgers),
        park_used=core.swap.tiers.ram_used,
        swap_used=core.swap.tiers.disk_used,
        swap_packed=there.bytes,
        swap_unpacked=there.image_bytes,
        export_rate=costs.measured(Path.EXPORT),
        restore_rate=costs.measured(Path.RESTORE),
        write_rate=costs.measured(Path.WRITE),
        read_rate=costs.measured(Path.READ),
    )


async def map_(context: Context, args: Pid) -> abi.Map:
    """`pmap`."""
    process = context.core.table.living(args.pid)
    conductor = context.core.residency.find(process.model)
    pager = conductor.workshop.pager if conductor is not None else None
    total = len(process.tokens)
    extents: list[abi.Extent] = []
    waste, held = 0, 0
    if pager is not None and process.seq is not None and process.resident and process.seq in pager.ledger:
        extents = _resident(pager, process)
        held = pager.ledger.length(process.seq)
        waste = pager.ledger.pages_of(process.seq)[0] * pager.ledger.page_tokens - held
    elif process.image:
        held = min(process.computed, total)
        kind = "swapped" if process.kv is KvState.SWAPPED else "parked"
        extents = [abi.Extent(0, held, kind, path=process.image)]
    if held < total:
        extents.append(abi.Extent(held, total - held, "absent"))
    page, per_token = (pager.info.page_tokens, pager.info.kv_bytes_per_token) if pager is not None else (0, 0)
    return abi.Map(process.pid, process.kv, page, per_token, tuple(extents), waste)


def _resident(pager: Pager, process: Process) -> list[abi.Extent]:
    """Runs of pages with equally many users."""
    assert process.seq is not None
    ledger = pager.ledger
    length, size, start = ledger.length(process.seq), ledger.page_tokens, 0
    extents: list[abi.Extent] = []
    for users, run in groupby(ledger.users_of(process.seq)):
        pages = len(list(run))
        tokens = max(0, min(length, (start + pages) * size) - start * size)
        extents.append(abi.Extent(start * size, tokens, "shared" if users > 1 else "own", pages, users))
        start += pages
    return extents


async def swap(context: Context, args: Nothing) -> abi.SwapInfo:
    """The swap space as it is."""
    return _swap_info(context.core)


async def swapon(context: Context, args: abi.SwapOn) -> abi.SwapInfo:
    """Swaps to a folder from now on. Images in a former one stay there until their processes take them back."""
    core, swap = context.core, context.core.swap
    folder = swap.folder if args.folder is None else os.path.join(args.folder, "llmos-swap")
    if args.folder is not None and not os.path.isabs(args.folder):
        raise LlmosError(Code.EINVAL, f"{args.folder} is no absolute path")
    if args.limit is not None and args.limit < LEAST_SWAP:
        text = f"{args.limit} bytes of swap space are too few"
        raise LlmosError(Code.EINVAL, text, hint="use 1M or more, or `swapoff`")
    limit = args.limit
    if limit is None and folder == swap.folder and not swap.problem:
        limit = swap.tiers.disk_limit or None
    if limit is None:
        limit = park.disk_limit(folder) or int(park.disk_free(folder) * park.DISK_SHARE)
    compress = swap.compress if args.compress is None else args.compress
    swap.set_up(folder, limit, compress)
    text = f"swapping to {folder}, up to {limit / 2**20:,.0f} MiB{', compressed' if compress else ''}"
    core.events.info("swap", text, context.caller.pid)
    return _swap_info(core)


async def swapoff(context: Context, args: Nothing) -> abi.SwapInfo:
    """No swapping from now on."""
    core = context.core
    count, tokens = core.swap.turn_off()
    core.events.info("swap", f"off; {count} processes' KV was given up, {tokens} tokens", context.caller.pid)
    return _swap_info(core, count, tokens)


def _swap_info(core: Core, dropped: int = 0, tokens: int = 0) -> abi.SwapInfo:
    swap, tiers, there = core.swap, core.swap.tiers, core.swap.tiers.swapped()
    return abi.SwapInfo(
        swap.folder, tiers.disk_used, tiers.disk_limit, park.disk_free(swap.folder), there.images, swap.problem,
        dropped, tokens, swap.compress, there.bytes, there.image_bytes,
    )  # fmt: skip


async def checkpoint(context: Context, args: abi.Checkpoint) -> abi.Checkpointed:
    """A process to a file."""
    from llmos_shell.daemon.saving import checkpoint as images

    _require_absolute(args.path)
    return await images.checkpoint(context.core, args)


async def restore(context: Context, args: abi.Restore) -> abi.RestoredAll:
    """Processes of a file."""
    from llmos_shell.daemon.saving import checkpoint as images

    _require_absolute(args.path)
    return await images.restore(context.core, args, context.caller)


def _require_absolute(path: str) -> None:
    if not os.path.isabs(path):
        raise LlmosError(Code.EINVAL, f"{path} is no absolute path")


async def hibernate(context: Context, args: Nothing) -> abi.Hibernated:
    """Everything to the disk; the daemon ends."""
    core = context.core
    done = await hibernation.hibernate(core)
    core.loop.call_soon(core.stopping.set)
    return done


HANDLERS: dict[str, Handler] = {
    "mem.info": info,
    "mem.stat": stat,
    "mem.map": map_,
    "mem.swap": swap,
    "mem.swapon": swapon,
    "mem.swapoff": swapoff,
    "proc.checkpoint": checkpoint,
    "proc.restore": restore,
    "sys.hibernate": hibernate,
}
