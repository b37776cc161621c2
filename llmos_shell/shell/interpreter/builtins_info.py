"""Built-ins that look things up (`type`, `command`, `hash`, `alias`), `getopts`, and `kill` for the host's jobs."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from llmos_shell.lang.compound import RESERVED
from llmos_shell.lang.printer import program_text
from llmos_shell.shell.interpreter.builtins import BUILTINS, is_command, quoted, usage, write
from llmos_shell.shell.interpreter.execution import DEFAULT_PATH
from llmos_shell.shell.interpreter.hostproc import StartError, find_program, forget_programs

if TYPE_CHECKING:
    from llmos_shell.shell.interpreter.shell import Shell


def alias(shell: Shell, words: list[str]) -> int:
    """Shows or sets aliases."""
    status = 0
    for word in words[1:] or sorted(shell.aliases):
        name, equals, value = word.partition("=")
        if equals and name:
            shell.aliases[name] = value
        elif word in shell.aliases:
            write(shell, f"alias {word}={quoted(shell.aliases[word])}\n")
        else:
            status = shell.complain(f"alias: {word}: no such alias", 1)
    return status


def unalias(shell: Shell, words: list[str]) -> int:
    """Removes aliases; `-a` all."""
    if words[1:] == ["-a"]:
        shell.aliases.clear()
        return 0
    status = 0
    for name in words[1:]:
        if shell.aliases.pop(name, None) is None:
            status = shell.complain(f"unalias: {name}: no such alias", 1)
    return status


def command(shell: Shell, words: list[str]) -> int:
    """Runs a command that is no function; `-p` one of the host's, `-v` and `-V` say what it is."""
    arguments, host, say, explain = words[1:], False, False, False
    while arguments and arguments[0].startswith("-") and len(arguments[0]) > 1:
        option = arguments.pop(0)
        if option == "--":
            break
        if not set(option[1:]) <= set("pvV"):
            return usage(shell, words, f"{option}: unknown option")
        host, say, explain = host or "p" in option, say or "v" in option, explain or "V" in option
    if not arguments:
        return 0
    if explain:
        return type_(shell, ["type", *arguments])
    if say:
        return _say_which(shell, arguments)
    if host:
        from llmos_shell.shell.interpreter.pipelines import run_host

        try:
            program = find_program(arguments[0], DEFAULT_PATH)
            return run_host(shell, [program, *arguments[1:]], None)
        except StartError as error:
            return shell.complain(str(error), error.status)
    saved = shell.functions
    shell.functions = {name: value for name, value in saved.items() if name != arguments[0]}
    try:
        return shell.run_command(arguments)
    finally:
        shell.functions = {**saved, **shell.functions}


def _say_which(shell: Shell, names: list[str]) -> int:
    status = 0
    for name in names:
        kind, what = find(shell, name)
        if kind == "alias":
            write(shell, f"alias {name}={quoted(what)}\n")
        elif kind:
            write(shell, f"{what if kind == 'file' else name}\n")
        else:
            status = 127
    return status


def find(shell: Shell, name: str) -> tuple[str, str]:
    """What a word means as a command: `alias`, `keyword`, `function`, `builtin`, `file` or nothing; and the details."""
    if name in shell.aliases:
        return "alias", shell.aliases[name]
    if name in RESERVED:
        return "keyword", ""
    if name in shell.functions:
        return "function", program_text(shell.functions[name][0])
    if name in BUILTINS or is_command(name):
        return "builtin", ""
    try:
        path = find_program(name, shell.lookup("PATH") or DEFAULT_PATH)
        import os

        return ("file", path) if os.access(path, os.X_OK) else ("", "")
    except StartError:
        return "", ""


def type_(shell: Shell, words: list[str]) -> int:
    """Says what words mean as commands; `-t` in one word."""
    short, names = words[1:2] == ["-t"], words[1:]
    status = 0
    for name in names[1:] if short else names:
        kind, what = find(shell, name)
        if not kind:
            status = 1 if short else shell.complain(f"{words[0]}: {name}: not found", 1)
        elif short:
            write(shell, f"{kind}\n")
        elif kind == "function":
            write(shell, f"{name} is a function\n{what}")
        elif kind == "alias":
            write(shell, f"{name} is aliased to `{what}`\n")
        else:
            write(shell, f"{name} is {what or f'a shell {kind}'}\n")
    return status


def hash_(shell: Shell, words: list[str]) -> int:
    """Forgets where programs are (`-r`); otherwise looks them up."""
    if words[1:] == ["-r"]:
        forget_programs()
        return 0
    status = 0
    for name in words[1:]:
        if not find(shell, name)[0]:
            status = shell.complain(f"hash: {name}: not found", 1)
    return status


def getopts(shell: Shell, words: list[str]) -> int:
    """Takes the next option out of the positional parameters."""
    if len(words) < 3:
        return usage(shell, words, "usage: getopts OPTIONS NAME [ARG…]")
    letters, name = words[1], words[2]
    arguments = words[3:] if len(words) > 3 else shell.parameters
    index = max(int(shell.lookup("OPTIND") or "1") if (shell.lookup("OPTIND") or "1").isdigit() else 1, 1)
    if index != shell.getopts_index:
        shell.getopts_at = 1
    word = arguments[index - 1] if index <= len(arguments) else ""
    if shell.getopts_at == 1 and (not word.startswith("-") or word == "-" or word == "--"):
        shell.assign("OPTIND", str(index + (word == "--")))
        shell.assign(name, "?")
        shell.getopts_index = index
        return 1
    letter = word[shell.getopts_at : shell.getopts_at + 1]
    shell.getopts_at += 1
    if shell.getopts_at >= len(word):
        index, rest = index + 1, ""
        shell.getopts_at = 1
    else:
        rest = word[shell.getopts_at :]
    shell.variables.unset("OPTARG")
    place = letters.find(letter) if letter != ":" else -1
    if place < 0:
        value = _bad_option(shell, letters, letter, "unknown option")
    elif letters[place + 1 : place + 2] == ":":
        if not rest and index > len(arguments):
            value = _bad_option(shell, letters, letter, "wants an argument")
            value = ":" if letters.startswith(":") else value
        else:
            shell.assign("OPTARG", rest or arguments[index - 1])
            index, value = index + 1, letter
            shell.getopts_at = 1
    else:
        value = letter
    shell.assign(name, value)
    shell.assign("OPTIND", str(index))
    shell.getopts_index = index
    return 0


def _bad_option(shell: Shell, letters: str, letter: str, problem: str) -> str:
    if letters.startswith(":"):
        shell.assign("OPTARG", letter)
    else:
        shell.complain(f"-{letter}: {problem}", 1)
    return "?"


def kill(shell: Shell, words: list[str]) -> int:
    """Signals jobs and programs that this shell started; model processes are left to the command of that name."""
    number, targets = _parse_kill(words[1:])
    if number is None:
        return shell.run_llmos(words)
    status, others = 0, []
    for target in targets:
        job = shell.jobs().find(target) if target.startswith("%") else None
        if job is None and target.isascii() and target.isdigit():
            job = shell.jobs().of_pid(int(target))
            if job is not None and int(target) in job.pids:
                job = None  # a model process wins
            elif job is None and int(target) == _own_pid():
                signal.raise_signal(number)
                continue
        if job is None:
            others.append(target)
            continue
        job.poll()
        if job.done:
            status = shell.complain(f"kill: {target}: has ended", 1)
        else:
            job.signal(number)
            if job.stopped and number in (signal.SIGTERM, signal.SIGHUP):
                job.proceed()
    if others or not targets:
        options = words[1 : len(words) - len(targets)]
        status = shell.run_llmos(["kill", *options, *others]) or status
    return status


def _own_pid() -> int:
    import os

    return os.getpid()


def _parse_kill(arguments: list[str]) -> tuple[int | None, list[str]]:
    """The signal and the targets; no signal where the words are for the other `kill` to judge."""
    name = "TERM"
    if arguments[:1] == ["-s"] and len(arguments) > 1:
        name, arguments = arguments[1], arguments[2:]
    elif arguments and arguments[0].startswith("-") and arguments[0] not in ("-", "--"):
        name, arguments = arguments[0][1:], arguments[1:]
    if arguments[:1] == ["--"]:
        arguments = arguments[1:]
    name = name.upper().removeprefix("SIG")
    if any(target.startswith("-") for target in arguments):
        return None, []
    if name.isascii() and name.isdigit():
        return (int(name) if int(name) in signal.valid_signals() and int(name) else None), arguments
    member = signal.Signals.__members__.get(f"SIG{name}")
    return (None if member is None else int(member)), arguments
