"""After a restart: the journal's processes come back, as children of PID 1 without a session."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec import MsgspecError

from llmos_shell import paths
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.daemon.journaling.records import Saved
from llmos_shell.daemon.memory import park
from llmos_shell.daemon.memory.tiers import Place
from llmos_shell.daemon.models.residency import keep_for_later
from llmos_shell.daemon.processes import lifecycle
from llmos_shell.daemon.processes.process import Phase, Process
from llmos_shell.daemon.processes.record import decode_record, revived

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core


def recover(core: Core) -> None:
    """Enters every living process of the journal into the table; those that ran go on."""
    processes = [process for saved in core.journal.load() if (process := _restore(core, saved)) is not None]
    park.clean({process.image for process in processes if process.image})
    for process in processes:
        core.table.add(process)
        core.save(process)
        lifecycle.arm_timer(core, process)
        resume(core, process)
    if processes:
        core.events.info("journal", f"{len(processes)} processes came back")


def _restore(core: Core, saved: Saved) -> Process | None:
    try:
        process = revived(saved)
        count = decode_record(saved.record).token_count
    except (MsgspecError, ValueError) as error:
        core.events.error("journal", f"process {saved.pid} cannot be read back: {error}", saved.pid)
        return None
    if saved.damage:
        core.events.error("journal", f"its tokens are damaged: {saved.damage}", saved.pid)
    if process.phase is not Phase.READY and len(process.tokens) > count:
        del process.tokens[count:]
        core.journal.truncate(process.pid, count)
    size = park.file_size(process.image) if process.image else None
    if size is not None:
        on_disk = os.path.dirname(process.image) != paths.park_dir()
        core.swap.tiers.hold(process.pid, process.image_bytes, Place.DISK if on_disk else Place.RAM, size)
        process.computed = process.known_computed
        process.kv = core.swap.state(process)
    else:
        process.image, process.image_bytes = "", 0
    return process


def resume(core: Core, process: Process) -> None:
    """Has a process go on that was in the middle of a turn."""
    if process.phase is Phase.NEW:
        core.begin_turn(process)
    elif process.phase is Phase.READY:
        core.run_for(process, _run(core, process))


async def _run(core: Core, process: Process) -> None:
    try:
        conductor = await core.residency.get(process.model)
    except LlmosError as error:
        if error.code is Code.ENOMEM:
            core.events.error("residency", str(error), process.pid)
            keep_for_later(core, process)
        else:
            lifecycle.fail(core, process, str(error))
        return
    if process.alive:
        conductor.attach(process)
