"""What a command acts on: PIDs, and jobs of the shell given as `%1`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmos_shell.abi.errors import Code, LlmosError

if TYPE_CHECKING:
    from llmos_shell.shell.command import Context


def resolve(context: Context, target: int | str) -> tuple[int, ...]:
    """The PIDs of a target. Raises ESRCH for a job that does not exist or has no model process."""
    if isinstance(target, int):
        return (target,)
    job = context.shell.jobs().find(target)
    if job is None:
        raise LlmosError(Code.ESRCH, f"{target}: no such job", hint="`jobs` lists them")
    pids: tuple[int, ...] = tuple(job.pids)
    if not pids:
        raise LlmosError(Code.ESRCH, f"{target}: the job has no model process", hint="`jobs` shows what it runs")
    return pids


def resolve_one(context: Context, target: int | str) -> int:
    """The PID of a target; of a job with several processes the last one's."""
    return resolve(context, target)[-1]
