"""`device.*`."""

from __future__ import annotations

from llmos_shell.abi.devices import Devices
from llmos_shell.abi.syscall import Nothing
from llmos_shell.daemon.syscalls import Context, Handler


async def list_(context: Context, args: Nothing) -> Devices:
    """All devices, read outside the loop."""
    core = context.core
    ours = {conductor.workshop.host_pid or 0 for conductor in core.residency.all()}
    found: Devices = await core.read(lambda: core.devices.read(ours))
    return found


HANDLERS: dict[str, Handler] = {"device.list": list_}
"""Handlers by name."""
