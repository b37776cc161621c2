"""`free`, `vmstat`, `pmap`, `swapon` and `swapoff`: where KV is, what happened to it, and the disk it may go to."""

from __future__ import annotations

import os
import time

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.memory import (
    MEM_INFO,
    MEM_MAP,
    MEM_STAT,
    MEM_SWAPOFF,
    MEM_SWAPON,
    Extent,
    Map,
    MemoryInfo,
    MemoryStat,
    PoolInfo,
    SwapInfo,
    SwapOn,
)
from llmos_shell.abi.syscall import Nothing, Pid
from llmos_shell.shell.command import Args, Command, Context, Example, Operand, Option, UsageError
from llmos_shell.shell.tables import Column, render, size, style_of, to_json
from llmos_shell.shell.targets import resolve

_RAM = (Column("MEMORY"), Column("TOTAL", right=True), Column("USED", right=True), Column("FREE", right=True))
_POOLS = (
    Column("POOL"),
    Column("TOTAL", right=True),
    Column("USED", right=True),
    Column("FREE", right=True),
    Column("SHARED", right=True),
    Column("CACHED", right=True),
    Column("WASTE", right=True),
    Column("PARKED", right=True),
    Column("SWAPPED", right=True),
    Column("SLOTS", right=True),
    Column("BYTES", right=True),
)
_MAP = (
    Column("TOKENS", right=True),
    Column("COUNT", right=True),
    Column("KIND"),
    Column("PAGES", right=True),
    Column("USERS", right=True),
    Column("BYTES", right=True),
    Column("FILE", flexible=True),
)
_HEADER_EVERY = 20  # lines
_STAT = "run wait  pages: free cached   park   swap  out:park   swap   in:swap restore   dropped recomp reused"


def _free(context: Context, args: Args) -> int:
    memory: MemoryInfo = context.client.call(MEM_INFO, Nothing())
    if args.json:
        context.out.write(to_json(memory))
        return 0
    style = style_of(context)
    rows = [
        ["ram", *map(size, (memory.ram_total, memory.ram_total - memory.ram_available, memory.ram_available))],
        ["park", *map(size, (memory.park_limit, memory.park_used, max(0, memory.park_limit - memory.park_used)))],
        ["swap", *map(size, (memory.swap_limit, memory.swap_used, max(0, memory.swap_limit - memory.swap_used)))],
    ]
    context.out.write(render(_RAM, rows, style))
    if memory.swap_packed < memory.swap_unpacked:
        context.out.write(f"swap holds {_packed(memory.swap_packed, memory.swap_unpacked)}\n")
    if memory.swap_problem:
        context.out.write(f"swap stands still: {memory.swap_problem}\n")
    if memory.pools:
        context.out.write("\n" + render(_POOLS, [_pool_row(pool) for pool in memory.pools], style))
    else:
        context.out.write("\nno model is loaded, so there is no KV pool\n")
    return 0


def _packed(packed: int, unpacked: int) -> str:
    """How much KV is in how many bytes."""
    return f"{size(unpacked)} of KV compressed to {size(packed)}, {packed / unpacked:.2f} of that"


def _pool_row(pool: PoolInfo) -> list[str]:
    """One pool; all but the bytes in tokens."""
    pages = (pool.pages, pool.used_pages, pool.pages - pool.used_pages, pool.shared_pages, pool.cached_pages)
    return [
        pool.model,
        *(str(count * pool.page_tokens) for count in pages),
        str(pool.waste_tokens),
        size(pool.parked_bytes),
        size(pool.swapped_bytes),
        f"{pool.used_slots}/{pool.slots}",
        size(pool.pages * pool.page_bytes),
    ]


def _pmap(context: Context, args: Args) -> int:
    status = 0
    for target in args.PID:
        try:
            for pid in resolve(context, target):
                _map_one(context, context.client.call(MEM_MAP, Pid(pid)), args.json)
        except LlmosError as error:
            status = context.error("pmap", error)
    return status


def _map_one(context: Context, found: Map, as_json: bool) -> None:
    if as_json:
        context.out.write(to_json(found))
        return
    total = sum(extent.tokens for extent in found.extents)
    context.out.write(f"{found.pid}: {found.kv}, {total} tokens, {size(total * found.bytes_per_token)}\n")
    if found.extents:
        context.out.write(render(_MAP, [_extent_row(found, extent) for extent in found.extents], style_of(context)))
    if found.waste_tokens:
        context.out.write(f"room for {found.waste_tokens} more tokens in its last page\n")


def _extent_row(found: Map, extent: Extent) -> list[str]:
    end = extent.start + max(0, extent.tokens - 1)
    return [
        f"{extent.start}-{end}" if extent.tokens else "-",
        str(extent.tokens),
        extent.kind,
        str(extent.pages) if extent.pages else "-",
        str(extent.users) if extent.users else "-",
        size(extent.tokens * found.bytes_per_token) if extent.kind != "absent" else "-",
        extent.path or "-",
    ]


def _vmstat(context: Context, args: Args) -> int:
    before: MemoryStat | None = None
    shown = 0
    while True:
        now: MemoryStat = context.client.call(MEM_STAT, Nothing())
        if args.json:
            context.out.write(to_json(now))
        else:
            if shown % _HEADER_EVERY == 0:
                context.out.write(style_of(context).paint(_STAT, "bold") + "\n")
            context.out.write(_stat_line(now, before) + "\n")
        context.out.flush()
        before, shown = now, shown + 1
        if args.SECONDS is None or shown == args.COUNT:
            return 0
        time.sleep(args.SECONDS)


def _stat_line(now: MemoryStat, before: MemoryStat | None) -> str:
    """The present state, and what happened since the line before (in the first: since the daemon started)."""
    old = before or MemoryStat()
    return (
        f"{now.running:3} {now.waiting:4}  {now.free_pages:11} {now.cached_pages:6} {size(now.park_used):>6} "
        f"{size(now.swap_used):>6}  {size(now.parked_bytes - old.parked_bytes):>8} "
        f"{size(now.swapped_out_bytes - old.swapped_out_bytes):>6} "
        f"{size(now.swapped_in_bytes - old.swapped_in_bytes):>9} {size(now.restored_bytes - old.restored_bytes):>7} "
        f"{now.dropped_tokens - old.dropped_tokens:9} {now.recomputed_tokens - old.recomputed_tokens:6} "
        f"{now.reused_tokens - old.reused_tokens:6}"
    )


def _swapon(context: Context, args: Args) -> int:
    folder = os.path.abspath(os.path.join(os.getcwd(), args.FOLDER)) if args.FOLDER is not None else None
    if folder is not None and not os.path.isdir(folder):
        raise LlmosError(Code.ENOENT, f"{args.FOLDER}: no such folder", hint="make it first, on a disk with room")
    if args.compress and args.no_compress:
        raise UsageError("--compress and --no-compress exclude each other")
    compress = True if args.compress else False if args.no_compress else None
    _show_swap(context, context.client.call(MEM_SWAPON, SwapOn(folder, args.size, compress)), args.json)
    return 0


def _swapoff(context: Context, args: Args) -> int:
    _show_swap(context, context.client.call(MEM_SWAPOFF, Nothing()), args.json)
    return 0


def _show_swap(context: Context, swap: SwapInfo, as_json: bool) -> None:
    if as_json:
        context.out.write(to_json(swap))
    elif swap.limit:
        held = f"{size(swap.used)} of {size(swap.limit)} used by {swap.images} processes"
        folder = f"{swap.folder}, compressed" if swap.compress else swap.folder
        context.out.write(f"swapping to {folder}: {held}, {size(swap.free)} free on that disk\n")
        if swap.packed < swap.unpacked:
            context.out.write(f"it holds {_packed(swap.packed, swap.unpacked)}\n")
    else:
        context.out.write("swapping is off")
        if swap.dropped:
            context.out.write(f": {swap.dropped} processes recompute {swap.dropped_tokens} tokens when they run")
        context.out.write("\n")


_JSON = Option(("--json",), "as JSON, with all fields")
COMMANDS = (
    Command(
        "free",
        "show memory and KV pools",
        _free,
        family="system",
        options=(_JSON,),
        description=(
            "Pools are counted in tokens. SHARED is referenced by several processes, CACHED is kept only in case a "
            "prompt begins the same way and is given up first, WASTE is room in used pages that holds nothing yet, "
            "PARKED and SWAPPED are memory of processes that wait outside. SLOTS "
            "are processes whose memory is in the pool, and how many fit. The line `park` is the RAM that parked "
            "processes take, and may take; the line `swap` the disk."
        ),
        examples=(
            Example("free", "how full is it?"),
            Example("load tiny > loaded.txt; free --json | grep -c pages", "for a program"),
        ),
        environment=(
            ("LLMOS_PARK_BYTES", "most RAM for parked KV"),
            ("LLMOS_SWAP_BYTES", "most disk for swapped KV; 0: none"),
            ("LLMOS_SWAP_DIR", "where to swap"),
        ),
        see_also=("ps", "pmap", "vmstat", "swapon", "models", "unload", "memory"),
    ),
    Command(
        "vmstat",
        "show what happens to KV: parking, swapping, recomputing",
        _vmstat,
        family="system",
        options=(_JSON,),
        operands=(
            Operand("SECONDS", "a line again and again, after so long", "duration", required=False),
            Operand("COUNT", "so many lines", "count", required=False),
        ),
        description=(
            "The first line counts since the daemon started, every further one since the line before. `run` and "
            "`wait` are processes; pages are of all pools; then bytes held in RAM (`park`) and on disk (`swap`), bytes "
            "moved out of the pool and on to the disk, bytes read back from the disk and restored into a pool, and "
            "tokens whose KV was dropped, computed once more, and taken over instead of computed."
        ),
        examples=(
            Example("vmstat", "since the start"),
            Example("vmstat 0.1 3", "three lines, a tenth of a second apart"),
        ),
        see_also=("free", "pmap", "top", "memory"),
    ),
    Command(
        "pmap",
        "show where the memory of a process is",
        _pmap,
        family="system",
        options=(_JSON,),
        operands=(Operand("PID", "processes, or jobs such as %1", "pid", many=True),),
        description=(
            "One line per run of tokens: `own` and `shared` are pages of the pool, USERS counts the processes that "
            "reference them; `parked` is in RAM, `swapped` on disk, `absent` is computed when the process runs."
        ),
        examples=(Example("pmap 12", "a process, by its PID", before="pid=$(chat -d)"),),
        see_also=("ps", "free", "fork", "memory"),
    ),
    Command(
        "swapon",
        "let KV that does not fit into RAM go to a disk",
        _swapon,
        family="system",
        options=(
            Option(("-s", "--size"), "at most so much", "SIZE", "size"),
            Option(("--compress",), "compress what goes there from now on"),
            Option(("--no-compress",), "write it as it is: the default"),
            _JSON,
        ),
        operands=(Operand("FOLDER", "where; the default is the daemon's own folder", "file", required=False),),
        description=(
            "On from the start, with a tenth of the disk's free space. Says where it swaps to, and how much. What is "
            "chosen here holds until the daemon ends; LLMOS_SWAP_DIR, LLMOS_SWAP_BYTES and LLMOS_SWAP_COMPRESS hold "
            "for every start. Compressed, KV in f16 takes three quarters to nine tenths of its size, in bf16 three "
            "fifths to three quarters. That is slower than a good SSD, and quicker than a hard disk or a folder in the "
            "network. Nothing is lost by it, and what is there already stays as it is."
        ),
        examples=(
            Example("swapon", "where does it swap to?"),
            Example("swapon -s 2G", "up to 2 GiB"),
            Example("swapon --compress; swapon --no-compress", "smaller on the disk, and as it was again"),
        ),
        environment=(
            ("LLMOS_SWAP_BYTES", "most disk for swapped KV; 0: none"),
            ("LLMOS_SWAP_COMPRESS", "1: compress it"),
            ("LLMOS_SWAP_DIR", "where to swap"),
        ),
        see_also=("swapoff", "free", "vmstat", "memory"),
    ),
    Command(
        "swapoff",
        "give up the swap space",
        _swapoff,
        family="system",
        options=(_JSON,),
        description="Nothing is lost: processes whose KV was on the disk compute it again when they run.",
        examples=(Example("swapoff; swapon > swap.txt", "off, and on again"),),
        see_also=("swapon", "free", "memory"),
    ),
)
