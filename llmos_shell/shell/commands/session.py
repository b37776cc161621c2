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
    from llmos_shell.shell import commands
    from llmos_shell.shell.helptext import render_help

    if not args.COMMAND:
        context.out.write(overview())
        return 0
    for name in args.COMMAND:
        command = commands.find(name)
        if command is None:
            from llmos_shell.shell.direct import unknown_command

            raise LlmosError(Code.ENOENT, f"{name}: {unknown_command(name)}")
        context.out.write(render_help(command))
    return 0


def overview() -> str:
    """All commands with their summaries, by family."""
    from llmos_shell.shell import commands

    found = [command for command in map(commands.find, commands.names()) if command is not None]
    lines = ["`help COMMAND` or `COMMAND --help` says more; `? how do I …` asks the assistant.", ""]
    for family, heading in FAMILIES.items():
        lines.append(f"{heading}:")
        lines += [f"  {command.name:<10} {command.summary}" for command in found if command.family == family]
        lines.append("")
    return "\n".join(lines)


def _history(context: Context, args: Args) -> int:
    from llmos_shell.shell.history import clear_history, read_history

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
