"""The registry of built-in commands, and the one place that turns their errors into messages and exit statuses.

A module is imported only when one of its commands is used; it lists them in its `COMMANDS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.shell.arguments import HelpRequested, parse_args
from llmos_shell.shell.command import Command, Context, UsageError, report_bug

if TYPE_CHECKING:
    from llmos_shell.shell.command import Args

MODULES: dict[str, tuple[str, ...]] = {
    "processes": ("ps", "pstree"),
    "top": ("top",),
    "signals": ("kill", "stop", "cont", "renice", "ulimit"),
    "output": ("attach", "log", "fork"),
    "jobs": ("jobs", "fg", "bg", "wait", "disown"),
    "run": ("run",),
    "ask": ("ask", "?"),
    "chat": ("chat",),
    "models": ("models", "load", "unload", "pin", "unpin", "resize", "kernels", "tokenize"),
    "checkpoints": ("checkpoint", "restore", "hibernate", "resume"),
    "memory": ("free", "vmstat", "pmap", "swapon", "swapoff"),
    "devices": ("devices",),
    "system": ("status", "dmesg", "daemon"),
    "sched": ("sched", "group", "why", "schedtrace"),
    "prefix": ("nice", "nohup", "time"),
    "scripts": ("fmt",),
    "session": ("history", "version", "exit"),
    "manual": ("help", "man", "apropos", "whatis"),
}
"""Which module of this package holds which commands."""

NEED_SHELL = frozenset(MODULES["jobs"])
"""Those that work on the state of a shell, and so need the interpreter even as `llmos COMMAND`."""

_OWNERS = {name: module for module, names in MODULES.items() for name in names}
_cache: dict[str, Command] = {}


def names() -> tuple[str, ...]:
    """All built-in commands, in the order of `help`; imports nothing."""
    return tuple(_OWNERS)


def find(name: str) -> Command | None:
    """The built-in command of that name, if there is one."""
    if name not in _cache and name in _OWNERS:
        module = import_module(f"{__name__}.{_OWNERS[name]}")
        for command in module.COMMANDS:
            _cache[command.name] = command
    return _cache.get(name)


def invoke(command: Command, words: Sequence[str], context: Context) -> int:
    """Parses the words after the command's name and runs it; returns the exit status.

    Errors become one line on the context's `err`. Only what a shell needs to see passes through: requests to stop or
    to exit, which are no `Exception`s.
    """
    try:
        return command.run(context, _arguments(command, words, context))
    except HelpShown:
        return 0
    except UsageError as error:
        context.error(command.name, str(error))
        return 2
    except BrokenPipeError:
        return 141
    except KeyboardInterrupt:
        return 130
    except LlmosError as error:
        return context.error(command.name, error)
    except OSError as error:
        context.told_errno = error.errno
        return context.error(command.name, describe_os_error(error))
    except Exception:
        return report_bug(command.name, context.err)


class HelpShown(Exception):
    """`--help` was asked for and printed."""


def describe_os_error(error: OSError) -> LlmosError:
    """An error of the operating system, for people: file first, then what is wrong with it."""
    reason = (error.strerror or type(error).__name__).lower()
    return LlmosError(Code.EIO, f"{error.filename}: {reason}" if error.filename else reason)


def _arguments(command: Command, words: Sequence[str], context: Context) -> Args:
    try:
        return parse_args(command, words)
    except HelpRequested:
        from llmos_shell.shell.manpage import render_help
        from llmos_shell.shell.tables import style_of

        context.out.write(render_help(command, style_of(context)))
        context.out.flush()
        raise HelpShown from None
