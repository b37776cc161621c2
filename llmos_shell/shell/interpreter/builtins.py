"""The built-in commands that are part of the language: those that change the shell they run in.

Each takes the shell and its words (its own name first) and returns a status. Output goes to the shell's files, not to
`sys.stdout`. The other modules `builtins_….py` hold those that have a family of their own, and are imported when one of
these is used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from llmos_shell.shell.interpreter.control import ExitShell, LeaveLoop, ReturnFromFunction
from llmos_shell.shell.interpreter.options import LETTERS, NAMES
from llmos_shell.shell.interpreter.redirect import write_all

if TYPE_CHECKING:
    from llmos_shell.shell.interpreter.shell import Shell

Builtin = Callable[["Shell", list[str]], int]

_TARGET = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\[(.+)\])?\Z", re.DOTALL)


def write(shell: Shell, text: str) -> int:
    """Writes to the command's standard output; status 0. Raises `OSError`."""
    write_all(shell.files.get(1), text.encode("utf-8", "surrogateescape"))
    return 0


def usage(shell: Shell, words: list[str], message: str) -> int:
    """Says how a command was misused; status 2, and the end of a script if it is a special one."""
    status = shell.complain(f"{words[0]}: {message}", 2)
    return shell.misused(status) if words[0] in SPECIAL else status


def quoted(text: str) -> str:
    """The text as a word that can be read again."""
    from shlex import quote

    return quote(text)


def assign_to(shell: Shell, words: list[str], target: str, value: str) -> int:
    """Sets the variable or element that a command was given the name of; status 2 if it is none."""
    match = _TARGET.match(target)
    if match is None:
        return usage(shell, words, f"{target}: is no variable's name")
    name, index = match.groups()
    if index is None:
        shell.assign(name, value)
    else:
        shell.assign_element(name, index, value)
    return 0


def _true(_shell: Shell, _words: list[str]) -> int:
    return 0


def _false(_shell: Shell, _words: list[str]) -> int:
    return 1


# -- leaving ---------------------------------------------------------------------------------------------------------


def _number(shell: Shell, words: list[str], default: int) -> int | None:
    if len(words) < 2:
        return default
    try:
        return int(words[1])
    except ValueError:
        usage(shell, words, f"{words[1]}: is no number")
        return None


def _exit(shell: Shell, words: list[str]) -> int:
    status = _number(shell, words, shell.last_status)
    if shell.interactive and not shell.depth and len(shell.jobs()) and not shell.warned_of_jobs:
        shell.jobs().poll()
        live = [job for job in shell.jobs() if not job.done]
        if live:
            shell.warned_of_jobs = True
            kind = "stopped" if any(job.stopped for job in live) else "running"
            return shell.complain(f"there are {kind} jobs: `exit` again ends them, `disown` keeps them", 1)
    raise ExitShell(2 if status is None else status & 255)


def _return(shell: Shell, words: list[str]) -> int:
    status = _number(shell, words, shell.last_status)
    raise ReturnFromFunction(2 if status is None else status & 255)


def _break(shell: Shell, words: list[str]) -> int:
    levels = _number(shell, words, 1)
    if levels is None or levels < 1:
        return usage(shell, words, "wants a number from 1 up")
    if shell.loops:
        raise LeaveLoop(levels, words[0] == "continue")
    return 0


# -- running ---------------------------------------------------------------------------------------------------------


def _eval(shell: Shell, words: list[str]) -> int:
    text = " ".join(words[1:])
    if not text.strip():
        return 0
    shell.enter_call()
    try:
        return shell.run_program(text, "eval")
    finally:
        shell.leave_call()


def _source(shell: Shell, words: list[str]) -> int:
    if len(words) < 2:
        return usage(shell, words, "wants a file")
    from llmos_shell.shell.interpreter.texts import NoText, read_script

    path = words[1] if "/" in words[1] else _on_path(shell, words[1])
    try:
        text = read_script(path)
    except NoText as error:
        status = shell.complain(f"{words[0]}: {words[1]}: {error}", 126 if error.status == 126 else 1)
        if words[0] == ".":
            shell.misused(2)
        return status
    saved = shell.parameters
    if len(words) > 2:
        shell.parameters = words[2:]
    shell.enter_call()
    try:
        return shell.run_program(text, words[1])
    except ReturnFromFunction as returned:
        return returned.status
    finally:
        shell.leave_call()
        if len(words) > 2:
            shell.parameters = saved


def _on_path(shell: Shell, name: str) -> str:
    for folder in (shell.lookup("PATH") or "").split(os.pathsep):
        candidate = os.path.join(folder, name)
        if os.path.isfile(candidate):
            return candidate
    return name


def _exec(shell: Shell, words: list[str]) -> int:
    if len(words) < 2:
        return 0
    from llmos_shell.shell.interpreter.hostproc import StartError, find_program, replace_process

    arguments = words[1:]
    if shell.depth or shell.member is not None or shell.is_in_process(arguments[0]):
        raise ExitShell(shell.run_command(arguments))
    try:
        program = find_program(arguments[0], shell.lookup("PATH") or "/usr/bin:/bin")
        replace_process(program, arguments, shell.variables.environment(), shell.files, shell.default_signals)
    except StartError as error:
        status = shell.complain(f"exec: {error}", error.status)
    if shell.interactive:
        return status
    raise ExitShell(status)


# -- variables -------------------------------------------------------------------------------------------------------


def _shift(shell: Shell, words: list[str]) -> int:
    count = _number(shell, words, 1)
    if count is None or count < 0:
        return 2
    if count > len(shell.parameters):
        return usage(shell, words, f"there are only {len(shell.parameters)} parameters")
    shell.parameters = shell.parameters[count:]
    return 0


def _set(shell: Shell, words: list[str]) -> int:
    arguments = words[1:]
    if not arguments:
        values = shell.variables.values
        return write(shell, "".join(f"{name}={quoted(values[name])}\n" for name in sorted(values)))
    while arguments and arguments[0][:1] in ("-", "+") and len(arguments[0]) > 1:
        word = arguments.pop(0)
        if word == "--":
            shell.parameters = arguments
            return 0
        for letter in word[1:]:
            if letter == "o":
                if not arguments:
                    return _show_options(shell, word[0] == "+")
                name = arguments.pop(0)
            else:
                name = LETTERS.get(letter, "")
            if name not in NAMES:
                return usage(shell, words, f"{word if letter != 'o' else name}: is no option")
            setattr(shell.options, name, word[0] == "-")
    if arguments:
        shell.parameters = arguments[1:] if arguments[0] == "-" else arguments
    return 0


def _show_options(shell: Shell, as_commands: bool) -> int:
    lines = []
    for name in sorted(NAMES):
        on = getattr(shell.options, name)
        lines.append(f"set {'-' if on else '+'}o {name}\n" if as_commands else f"{name:<12} {'on' if on else 'off'}\n")
    return write(shell, "".join(lines))


# -- traps -----------------------------------------------------------------------------------------------------------


def _trap(shell: Shell, words: list[str]) -> int:
    from llmos_shell.shell.interpreter.traps import run_trap

    return run_trap(shell, words)


def _elsewhere(name: str, module: str) -> Builtin:
    """A built-in whose module is imported when it is first used."""

    def run(shell: Shell, words: list[str]) -> int:
        from importlib import import_module

        function: Builtin = getattr(import_module(f"llmos_shell.shell.interpreter.{module}"), name)
        BUILTINS[words[0]] = function
        return function(shell, words)

    return run


SPECIAL = frozenset(
    (
        ":",
        ".",
        "break",
        "continue",
        "eval",
        "exec",
        "exit",
        "export",
        "readonly",
        "return",
        "set",
        "shift",
        "times",
        "trap",
        "unset",
    )
)
"""Found before functions; assignments before them stay."""

BUILTINS: dict[str, Builtin] = {
    ":": _true,
    "true": _true,
    "false": _false,
    ".": _source,
    "source": _source,
    "break": _break,
    "continue": _break,
    "cd": _elsewhere("cd", "builtins_folders"),
    "eval": _eval,
    "exec": _exec,
    "exit": _exit,
    "export": _elsewhere("export", "builtins_variables"),
    "local": _elsewhere("local", "builtins_variables"),
    "pwd": _elsewhere("pwd", "builtins_folders"),
    "readonly": _elsewhere("readonly", "builtins_variables"),
    "return": _return,
    "set": _set,
    "shift": _shift,
    "trap": _trap,
    "umask": _elsewhere("umask", "builtins_folders"),
    "times": _elsewhere("times", "timing"),
    "ulimit": _elsewhere("ulimit", "builtins_limits"),
    "fc": _elsewhere("fc", "builtins_history"),
    "unset": _elsewhere("unset", "builtins_variables"),
    "declare": _elsewhere("declare", "builtins_variables"),
    "typeset": _elsewhere("declare", "builtins_variables"),
    "let": _elsewhere("let", "builtins_variables"),
    "mapfile": _elsewhere("mapfile", "builtins_read"),
    "readarray": _elsewhere("mapfile", "builtins_read"),
    "echo": _elsewhere("echo", "builtins_text"),
    "printf": _elsewhere("printf", "builtins_text"),
    "read": _elsewhere("read", "builtins_read"),
    "test": _elsewhere("test", "builtins_test"),
    "[": _elsewhere("test", "builtins_test"),
    "alias": _elsewhere("alias", "builtins_info"),
    "unalias": _elsewhere("unalias", "builtins_info"),
    "command": _elsewhere("command", "builtins_info"),
    "type": _elsewhere("type_", "builtins_info"),
    "hash": _elsewhere("hash_", "builtins_info"),
    "getopts": _elsewhere("getopts", "builtins_info"),
    "kill": _elsewhere("kill", "builtins_info"),
}


def is_command(name: str) -> bool:
    """Whether it is one of the commands that are not part of the language."""
    if "/" in name:
        return False
    from llmos_shell.shell import commands

    return name in commands.names()


def all_names() -> set[str]:
    """All built-in commands."""
    from llmos_shell.shell import commands

    return {*BUILTINS, *commands.names()}
