"""`free`: memory and KV pools."""

from __future__ import annotations

from llmos_shell.abi.syscalls import MEM_INFO, MemoryInfo, Nothing, PoolInfo
from llmos_shell.shell.command import Args, Command, Context, Example, Option
from llmos_shell.shell.tables import Column, render, size, style_of, to_json

_RAM = (Column("MEMORY"), Column("TOTAL", right=True), Column("USED", right=True), Column("FREE", right=True))
_POOLS = (
    Column("POOL"),
    Column("TOTAL", right=True),
    Column("USED", right=True),
    Column("FREE", right=True),
    Column("SHARED", right=True),
    Column("CACHED", right=True),
    Column("PARKED", right=True),
    Column("SLOTS", right=True),
    Column("BYTES", right=True),
)


def _free(context: Context, args: Args) -> int:
    memory: MemoryInfo = context.client.call(MEM_INFO, Nothing())
    if args.json:
        context.out.write(to_json(memory))
        return 0
    style = style_of(context)
    rows = [
        ["ram", *map(size, (memory.ram_total, memory.ram_total - memory.ram_available, memory.ram_available))],
        ["park", *map(size, (memory.park_limit, memory.park_used, memory.park_limit - memory.park_used))],
    ]
    context.out.write(render(_RAM, rows, style))
    if memory.pools:
        context.out.write("\n" + render(_POOLS, [_pool_row(pool) for pool in memory.pools], style))
    else:
        context.out.write("\nno model is loaded, so there is no KV pool\n")
    return 0


def _pool_row(pool: PoolInfo) -> list[str]:
    """One pool; all but the bytes in tokens."""
    pages = (pool.pages, pool.used_pages, pool.pages - pool.used_pages, pool.shared_pages, pool.cached_pages)
    return [
        pool.model,
        *(str(count * pool.page_tokens) for count in pages),
        size(pool.parked_bytes),
        f"{pool.used_slots}/{pool.slots}",
        size(pool.pages * pool.page_bytes),
    ]


COMMANDS = (
    Command(
        "free",
        "show memory and KV pools",
        _free,
        family="system",
        options=(Option(("--json",), "as JSON, with all fields"),),
        description=(
            "Pools are counted in tokens. SHARED is referenced by several processes, CACHED is kept only in case a "
            "prompt begins the same way and is given up first, PARKED is memory of processes that wait outside. SLOTS "
            "are processes whose memory is in the pool, and how many fit. The line `park` is the RAM that parked "
            "processes take, and may take."
        ),
        examples=(
            Example("free", "how full is it?"),
            Example("load tiny > loaded.txt; free --json | grep -c pages", "for a program"),
        ),
        environment=(("LLMOS_PARK_BYTES", "most RAM for parked KV"),),
        see_also=("ps", "models", "unload", "memory"),
    ),
)
