"""`devices`: what the machine computes with."""

from __future__ import annotations

from llmos_shell.abi.devices import DEVICE_LIST, DeviceInfo, Devices
from llmos_shell.abi.syscall import Nothing
from llmos_shell.shell.command import Args, Command, Context, Example, Option
from llmos_shell.shell.tables import Column, render, size, style_of, to_json

_COLUMNS = (
    Column("DEVICE"),
    Column("TOTAL", right=True),
    Column("USED", right=True),
    Column("FREE", right=True),
    Column("BUSY", right=True),
    Column("POWER", right=True),
    Column("TEMP", right=True),
    Column("ENERGY", right=True),
    Column("NAME", flexible=True),
)
_OTHERS = (Column("DEVICE"), Column("PID", right=True), Column("MEMORY", right=True), Column("PROCESS", flexible=True))
_UNKNOWN = "-"


def _devices(context: Context, args: Args) -> int:
    found: Devices = context.client.call(DEVICE_LIST, Nothing())
    if args.json:
        context.out.write(to_json(found))
        return 0
    style = style_of(context)
    colours = ["red" if device.problem else "" for device in found.devices]
    context.out.write(render(_COLUMNS, [_row(device) for device in found.devices], style, colours))
    others = [
        [device.name, str(one.pid), _bytes(one.memory), one.name or _UNKNOWN]
        for device in found.devices
        for one in device.processes or ()
    ]
    if others:
        context.out.write("\nnot ours:\n" + render(_OTHERS, others, style))
    if found.no_gpu:
        context.out.write(f"\nno GPU: {found.no_gpu}\n")
    return 0


def _row(device: DeviceInfo) -> list[str]:
    name = f"{device.model}, in MIG mode" if device.partitioned else device.model
    return [
        device.name,
        *map(_bytes, (device.memory_total, device.memory_used, device.memory_free)),
        _UNKNOWN if device.utilisation is None else f"{device.utilisation:.0%}",
        _power(device),
        _UNKNOWN if device.celsius is None else f"{device.celsius:.0f}°C",
        _UNKNOWN if device.joules is None else f"{device.joules / 3600:.1f}Wh",
        f"{name}: {device.problem}" if device.problem else name,
    ]


def _power(device: DeviceInfo) -> str:
    if device.watts is None:
        return _UNKNOWN
    limit = "" if device.watts_limit is None else f"/{device.watts_limit:.0f}"
    return f"{device.watts:.0f}{limit}W"


def _bytes(count: int | None) -> str:
    return _UNKNOWN if count is None else size(count)


COMMANDS = (
    Command(
        "devices",
        "show CPU and GPUs: memory, load, power, temperature",
        _devices,
        family="system",
        options=(Option(("--json",), "as JSON, with all fields; what cannot be read is null"),),
        description=(
            "The CPU with its RAM, NVIDIA GPUs, and the instances of GPUs in MIG mode as `gpu0.1`. What a driver does "
            "not tell is shown as `-`. BUSY is the share of time in which the device computed, of the CPU since it was "
            "last asked for. Processes on a GPU that are none of our workers are listed below. Without a GPU it says "
            "why there is none."
        ),
        examples=(Example("devices", "is there a GPU, and who is on it?"),),
        see_also=("free", "top", "status", "kernels"),
    ),
)
