"""`help`, `history`, `version` and `exit`."""

from __future__ import annotations

from llmos_shell import __version__, paths
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.shell.command import Args, Command, Context, Operand, Option

FAMILIES = {
    "models": "Models and prompts",
    "processes": "Processes",
    "shell": "The shell",
    "system": "The system",
}
"""Headings of `help`, in this order."""


def _help(context: Context, args: Args) -> int:
    if not args.COMMAND:
        context.out.write(overview())
    for name in args.COMMAND:
        context.out.write(_page(name))
    return 0


def _page(name: str) -> str:
    """Help on one word. Raises ENOENT when it is no command."""
    from llmos_shell.shell import commands
    from llmos_shell.shell.helptext import render_help
    from llmos_shell.shell.interpreter.language_help import LANGUAGE, render_language_help

    command = commands.find(name)
    if command is not None:
        return render_help(command)
    if name in LANGUAGE:
        return render_language_help(name)
    from shutil import which

    if which(name):
        return f"`{name}` is a program of this computer, not of llmos: try `{name} --help` or `man {name}`\n"
    from llmos_shell.shell.direct import unknown_command

    raise LlmosError(Code.ENOENT, f"{name}: {unknown_command(name)}")


def overview() -> str:
    """All commands with their summaries, by family."""
    from textwrap import fill

    from llmos_shell.shell import commands
    from llmos_shell.shell.interpreter.language_help import LANGUAGE

    found = [command for command in map(commands.find, commands.names()) if command is not None]
    lines = ["`help COMMAND` or `COMMAND --help` says more; `? how do I …` asks the assistant.", ""]
    for family, heading in FAMILIES.items():
        lines.append(f"{heading}:")
        lines += [f"  {command.name:<10} {command.summary}" for command in found if command.family == family]
        lines.append("")
    language = fill(" ".join(LANGUAGE), 90, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join([*lines, "The language:", language, ""])


def _history(context: Context, args: Args) -> int:
    from llmos_shell.shell.interactive.history import clear_history, read_history

    path = paths.history_path()
    if args["clear"]:
        clear_history(path)
        return 0
    entries = read_history(path)
    first = max(0, len(entries) - args.N) if args.N is not None else 0
    for number, entry in enumerate(entries[first:], first + 1):
        context.out.write(f"{number:5d}  {entry}\n")
    return 0


def _version(context: Context, args: Args) -> int:
    context.out.write(f"llmos {__version__}\n")
    if args.verbose:
        import platform

        context.out.write(f"python {platform.python_version()} on {platform.platform()}\n")
        context.out.write(f"config {paths.config_dir()}\nstate  {paths.state_dir()}\nsocket {paths.socket_path()}\n")
    return 0


def _exit(context: Context, args: Args) -> int:
    """Outside a shell there is nothing to leave; inside, the interpreter takes this word for itself."""
    return context.shell.last_status if args.STATUS is None else int(args.STATUS) & 0xFF


COMMANDS = (
    Command(
        "help",
        "explain a command, or list all",
        _help,
        family="shell",
        operands=(Operand("COMMAND", "commands to explain", "command", required=False, many=True),),
    ),
    Command(
        "history",
        "show what was typed",
        _history,
        family="shell",
        options=(Option(("-c", "--clear"), "forget all of it"),),
        operands=(Operand("N", "only the newest N", "count", required=False),),
    ),
    Command(
        "version",
        "show the version",
        _version,
        family="shell",
        options=(Option(("-v", "--verbose"), "also of Python, and where files are kept"),),
    ),
    Command(
        "exit",
        "leave the shell",
        _exit,
        family="shell",
        operands=(Operand("STATUS", "exit status; none: that of the last command", "int", required=False),),
    ),
)
