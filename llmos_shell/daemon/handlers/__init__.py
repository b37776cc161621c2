"""The built-in syscalls' handlers, one module per family; `bind_all` enters them into the table."""

from __future__ import annotations

from llmos_shell.abi.syscalls import BUILTIN
from llmos_shell.daemon.handlers import devices, memory, model, proc, sched, system
from llmos_shell.daemon.syscalls import Handler, SyscallTable


def bind_all(table: SyscallTable) -> None:
    """Binds every built-in syscall. Raises KeyError when a handler is missing."""
    handlers: dict[str, Handler] = {
        **proc.HANDLERS,
        **model.HANDLERS,
        **system.HANDLERS,
        **memory.HANDLERS,
        **sched.HANDLERS,
        **devices.HANDLERS,
    }
    for name, syscall in BUILTIN.items():
        table.bind(syscall, handlers.pop(name))
    assert not handlers, f"handlers without a declaration: {', '.join(handlers)}"
