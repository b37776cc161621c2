"""`history`, `version` and `exit`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmos_shell import __version__, paths
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.shell.arguments import parse_integer
from llmos_shell.shell.command import ERROR_STATUSES, Args, Command, Context, Example, Operand, Option, UsageError

if TYPE_CHECKING:
    from llmos_shell.shell.interactive.history import History


def _history(context: Context, args: Args) -> int:
    from llmos_shell.shell.interactive.history import open_history

    history = open_history(context.shell.get("HISTSIZE"))
    if args["clear"]:
        history.clear()
        return 0
    if args.delete is not None:
        return _forget(history, args.delete)
    found = [
        (number, entry)
        for number, entry in enumerate(history.entries, 1)
        if args.search is None or args.search in entry
    ]
    found = found[max(0, len(found) - args.N) :] if args.N is not None else found
    if args.json:
        from llmos_shell.shell.tables import to_json

        rows = [(number, history.times[number - 1], entry.encode(errors="replace").decode()) for number, entry in found]
        context.out.write(to_json([dict(zip(("number", "time", "text"), row, strict=True)) for row in rows]))
        return 0
    for number, entry in found:
        continued = entry.replace("\n", "\n       ")
        context.out.write(f"{number:5d}  {continued}\n")
    return 0 if found or args.search is None else 1


def _forget(history: History, which: str) -> int:
    newest = which.removeprefix("-") if which.startswith("-") else ""
    first, dash, last = which.partition("-")
    try:
        if newest:
            history.delete(len(history.entries) + 1 - parse_integer(newest))
        else:
            history.delete(parse_integer(first), parse_integer(last) if dash else None)
    except ValueError:
        raise UsageError(f"-d N: `{which}` is neither a number nor N-M: `history` shows them") from None
    except (IndexError, OverflowError):
        raise LlmosError(
            Code.ENOENT, f"{which}: no such entry", hint=f"there are {len(history.entries)}: `history` shows them"
        ) from None
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
        "history",
        "show what was typed",
        _history,
        family="shell",
        options=(
            Option(("-s", "--search"), "only entries that hold TEXT", "TEXT"),
            Option(("-d", "--delete"), "forget entry N, entries N-M, or the Nth newest, -N", "N"),
            Option(("-c", "--clear"), "forget all of it"),
            Option(("--json",), "as JSON: number, time and text"),
        ),
        operands=(Operand("N", "only the newest N", "count", required=False),),
        description=(
            "The history is shared by all your shells and kept in a file that only you can read. A line that begins "
            "with a space is not kept. Up, Down and Ctrl-R search it while you type."
        ),
        examples=(
            Example("history 20", "the newest twenty"),
            Example("history --search fork", "what was done with `fork`?", status=1),
            Example("history --clear", "forget all of it"),
        ),
        exit_statuses=(("0", "success"), ("1", "`--search` found nothing, or something failed"), ERROR_STATUSES[1]),
        environment=(("HISTSIZE", "how many entries are kept"),),
        files=(("history", "the history; the topic configuration says where it is"),),
        see_also=("keys", "configuration"),
    ),
    Command(
        "version",
        "show the version",
        _version,
        family="shell",
        options=(Option(("-v", "--verbose"), "also of Python, and where files are kept"),),
        examples=(Example("version --verbose", "what to tell when something is wrong"),),
        see_also=("status", "configuration"),
    ),
    Command(
        "exit",
        "leave the shell",
        _exit,
        family="shell",
        operands=(Operand("STATUS", "exit status; none: that of the last command", "int", required=False),),
        description=(
            "The EXIT trap is run. An interactive shell that has jobs warns once; its jobs end with it, unless they "
            "were disowned or started with `nohup`. In a subshell only that is left."
        ),
        examples=(
            Example("exit 3", "with a status", status=3),
            Example('(exit 5); echo "$?"', "leave a subshell", output="5"),
        ),
        exit_statuses=(("STATUS", "the one given, 0 to 255"), ("2", "STATUS is no number")),
        see_also=("return", "trap", "disown"),
    ),
)
