"""`proc.rewrite`: turns of a sleeping chat are taken back, replaced or added."""

from __future__ import annotations

from llmos_shell.abi import syscalls as abi
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import Turn
from llmos_shell.daemon.handlers.start import check_roles
from llmos_shell.daemon.processes import lifecycle
from llmos_shell.daemon.processes.process import Phase, Process
from llmos_shell.daemon.syscalls import Context


async def rewrite(context: Context, args: abi.Rewrite) -> abi.Nothing:
    """Changes a chat's turns; its next input is read after them."""
    core = context.core
    process = core.table.living(args.pid)
    if not process.chat:
        raise LlmosError(Code.EINVAL, f"process {args.pid} is no chat", pid=args.pid)
    if process.phase is not Phase.IDLE:
        text = f"process {args.pid} is still answering"
        raise LlmosError(Code.EBUSY, text, hint="wait, or interrupt it", pid=args.pid)
    if process.raw and (args.system or args.messages):
        text = f"process {args.pid} goes on with a raw text, which has no messages"
        raise LlmosError(Code.EINVAL, text, hint="begin a new chat", pid=args.pid)
    if args.keep is not None and args.keep < 0:
        raise LlmosError(Code.EINVAL, f"cannot keep {args.keep} turns", hint="use 0 or more")
    check_roles(args.messages)
    lifecycle.rewrite(core, process, _changed(process, args))
    await core.durable()
    return abi.Nothing()


def _changed(process: Process, args: abi.Rewrite) -> list[Turn]:
    leading = [turn for turn in process.turns[:1] if turn.role == "system"]
    kept = process.turns[len(leading) :][: args.keep]
    if args.system is not None:
        leading = [Turn("system", args.system)] if args.system else []
    return [*leading, *kept, *(Turn(message.role, message.content) for message in args.messages)]
