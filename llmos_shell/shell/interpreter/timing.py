"""How long commands take: `time` before a pipeline, and `times`."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from llmos_shell.lang import ast
from llmos_shell.shell.interpreter.builtins import usage, write

if TYPE_CHECKING:
    from llmos_shell.shell.interpreter.shell import Shell


def run_timed(shell: Shell, node: ast.Timed) -> int:
    """Runs a pipeline and says on standard error how long it took; of model processes also what they used."""
    pids: list[int] = []
    outer, shell.timers = shell.timers, (*shell.timers, pids)
    before, begun = os.times(), time.monotonic()
    try:
        return shell.execute(node.body) if node.body is not None else 0
    finally:
        shell.timers = outer
        seconds, after = time.monotonic() - begun, os.times()
        user = after.user + after.children_user - before.user - before.children_user
        system = after.system + after.children_system - before.system - before.children_system
        if node.portable:
            shell.say(f"real {seconds:.2f}\nuser {user:.2f}\nsys {system:.2f}")
        else:
            shell.say("\n".join([f"real    {seconds:.3f} s", f"user    {user:.3f} s", f"sys     {system:.3f} s"]))
            _report_models(shell, pids)


def _report_models(shell: Shell, pids: list[int]) -> None:
    if pids:
        from llmos_shell.shell.commands.prefix import describe_usage

        for line in describe_usage(shell.client(), pids):
            shell.say(line)


def times(shell: Shell, words: list[str]) -> int:
    """What the shell and its children have used so far."""
    if len(words) > 1:
        return usage(shell, words, "takes no arguments")
    used = os.times()
    return write(
        shell,
        f"{_minutes(used.user)} {_minutes(used.system)}\n"
        f"{_minutes(used.children_user)} {_minutes(used.children_system)}\n",
    )


def _minutes(seconds: float) -> str:
    return f"{int(seconds // 60)}m{seconds % 60:.6f}s"
