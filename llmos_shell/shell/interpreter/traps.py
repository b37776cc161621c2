"""`trap`: commands to run when the shell ends (EXIT), when a signal comes, when a command fails (ERR) or before each
one (DEBUG). A signal's commands run between two commands.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING

from llmos_shell.shell.interpreter.builtins import quoted, write
from llmos_shell.shell.interpreter.control import WaitInterrupted

if TYPE_CHECKING:
    from llmos_shell.shell.interpreter.shell import Shell

_PSEUDO = ("EXIT", "ERR", "DEBUG")


def run_trap(shell: Shell, words: list[str]) -> int:
    """The command `trap`."""
    arguments = words[1:]
    if arguments[:1] == ["-l"]:
        return write(shell, "".join(f"{each.value:2d} {each.name.removeprefix('SIG')}\n" for each in signal.Signals))
    if arguments[:1] == ["-p"]:
        return _show(shell, arguments[1:])
    if arguments[:1] == ["--"]:
        arguments = arguments[1:]
    if not arguments:
        return _show(shell, [])
    action: str | None = arguments[0]
    names = arguments[1:]
    if not names or (arguments[0].isascii() and arguments[0].isdigit()):
        action, names = None, arguments
    elif action == "-":
        action = None
    return max([_set(shell, given, action) for given in names])


def _set(shell: Shell, given: str, action: str | None) -> int:
    name = signal_name(given)
    if name is None:
        return shell.complain(f"trap: {given}: is no signal", 1)
    shell.inherited_traps = {}
    if action is None:
        shell.traps.pop(name, None)
    else:
        shell.traps[name] = action
    if name not in _PSEUDO:
        _install(shell, name, action)
    return 0


def _show(shell: Shell, given: list[str]) -> int:
    """The traps as commands; a subshell that has set none shows those of the shell it was made from."""
    traps, status = shell.inherited_traps or shell.traps, 0
    names: list[str] = []
    for each in given:
        name = signal_name(each)
        if name is None:
            status = shell.complain(f"trap: {each}: is no signal", 1)
        elif name in traps:
            names.append(name)
    chosen = names if given else sorted(traps, key=_order)
    write(shell, "".join(f"trap -- {quoted(traps[name])} {name}\n" for name in chosen))
    return status


def _order(name: str) -> int:
    return -_PSEUDO.index(name) if name in _PSEUDO else signal.Signals[f"SIG{name}"].value


def signal_name(text: str) -> str | None:
    """`INT` for `INT`, `SIGINT`, `int` and `2`; `EXIT` for 0."""
    name = text.upper().removeprefix("SIG")
    if name == "0" or name in _PSEUDO:
        return "EXIT" if name == "0" else name
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
        if shell.waiting:
            shell.waiting = False
            raise WaitInterrupted(number)

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
        _run(shell, shell.traps.get(shell.pending_traps.pop(0)))


def run_pseudo_trap(shell: Shell, name: str) -> None:
    """Runs the commands of ERR or DEBUG; neither while they run, nor in functions."""
    if not shell.variables.in_function and not shell.in_trap:
        shell.in_trap = True
        try:
            _run(shell, shell.traps[name])
        finally:
            shell.in_trap = False


def _run(shell: Shell, action: str | None) -> None:
    if action:
        status = shell.last_status
        shell.run_program(action, "trap")
        shell.last_status = status
