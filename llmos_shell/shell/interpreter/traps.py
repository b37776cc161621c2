"""`trap`: commands to run when the shell ends or a signal comes. A signal's commands run between two commands."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING

from llmos_shell.shell.interpreter.builtins import quoted, usage, write

if TYPE_CHECKING:
    from llmos_shell.shell.interpreter.shell import Shell


def run_trap(shell: Shell, words: list[str]) -> int:
    """The command `trap`."""
    arguments = words[2:] if words[1:2] == ["--"] else words[1:]
    if not arguments:
        return write(shell, "".join(f"trap -- {quoted(action)} {name}\n" for name, action in shell.traps.items()))
    action: str | None = arguments[0]
    names = arguments[1:]
    if not names or (arguments[0].isascii() and arguments[0].isdigit()):
        action, names = None, arguments
    elif action == "-":
        action = None
    for given in names:
        name = signal_name(given)
        if name is None:
            return usage(shell, words, f"{given}: is no signal")
        if action is None:
            shell.traps.pop(name, None)
        else:
            shell.traps[name] = action
        if name != "EXIT":
            _install(shell, name, action)
    return 0


def signal_name(text: str) -> str | None:
    """`INT` for `INT`, `SIGINT`, `int` and `2`; `EXIT` for 0."""
    name = text.upper().removeprefix("SIG")
    if name in ("EXIT", "0"):
        return "EXIT"
    if name.isascii() and name.isdigit():
        try:
            return signal.Signals(int(name)).name.removeprefix("SIG")
        except ValueError:
            return None
    return name if f"SIG{name}" in signal.Signals.__members__ else None


def _install(shell: Shell, name: str, action: str | None) -> None:
    """Catches, ignores or restores a signal of this process; only the outermost shell does."""
    if shell.depth or threading.current_thread() is not threading.main_thread():
        return
    number = signal.Signals[f"SIG{name}"]
    pending: list[str] = shell.pending_traps

    def note(_number: int, _frame: FrameType | None) -> None:
        pending.append(name)

    try:
        if action is None:
            shell.restore_signal(number)
        else:
            signal.signal(number, note if action else signal.SIG_IGN)
    except OSError:
        return  # KILL and STOP cannot be caught
    shell.default_signals = tuple(each for each in shell.default_signals if each != number or action != "")
    shell.interrupted = lambda: run_pending(shell)


def run_pending(shell: Shell) -> None:
    """Runs the commands of signals that came."""
    while shell.pending_traps:
        action = shell.traps.get(shell.pending_traps.pop(0))
        if action:
            status = shell.last_status
            shell.run_program(action, "trap")
            shell.last_status = status
