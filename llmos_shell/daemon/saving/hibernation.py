"""Everything to the disk, so that the machine may be switched off: what `hibernate` does before the daemon ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmos_shell.abi.memory import Hibernated
from llmos_shell.daemon.memory.tiers import Place

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core

NO_LIMIT = 1 << 62


async def hibernate(core: Core) -> Hibernated:
    """Stops all steps, takes the KV of all processes out of the workers and puts it on the disk.

    What cannot be kept is computed again. Nobody runs afterwards: the caller ends the daemon.
    """
    core.hibernating = True
    core.swap.tiers.ram_limit = NO_LIMIT
    for conductor in core.residency.all():
        pager = conductor.workshop.pager
        if pager is not None:
            for process in pager.residents():
                pager.park(process)
    for conductor in core.residency.all():
        if conductor.workshop.pager is not None:
            await conductor.tokenizer.settled()
    _, problems = await core.swap.save_all()
    processes = core.table.live_models()
    for process in processes:
        core.save(process)
    await core.durable()
    kept = [process for process in processes if core.swap.tiers.place(process.pid) is Place.DISK]
    lost = sum(len(process.tokens) for process in processes) - sum(process.computed for process in kept)
    core.events.info("daemon", f"hibernating: the KV of {len(kept)} of {len(processes)} processes is on the disk")
    return Hibernated(
        len(processes), len(kept), sum(len(process.tokens) for process in processes),
        sum(core.swap.tiers.size(process.pid) for process in kept), lost, tuple(dict.fromkeys(problems)),
    )  # fmt: skip
