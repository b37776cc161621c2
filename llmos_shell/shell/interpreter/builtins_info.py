"""Built-ins that look things up (`type`, `command`, `hash`, `alias`), `getopts`, and `kill` for the host's jobs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmos_shell.lang.compound import RESERVED
from llmos_shell.lang.printer import program_text
from llmos_shell.shell.interpreter.builtins import BUILTINS, is_command, quoted, usage, write
from llmos_shell.shell.interpreter.execution import DEFAULT_PATH
from llmos_shell.shell.interpreter.hostproc import StartError, find_program, forget_programs, known_programs

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
            write(shell, f"{word}={quoted(shell.aliases[word])}\n")
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
    shell.ordinary += 1
    try:
        return shell.run_command(arguments)
    finally:
        shell.ordinary -= 1
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
    return next(_meanings(shell, name), ("", ""))


def find_all(shell: Shell, name: str) -> list[tuple[str, str]]:
    """All that a word could mean, the first as it is."""
    return list(_meanings(shell, name, everywhere=True))


def _meanings(shell: Shell, name: str, *, everywhere: bool = False) -> Iterator[tuple[str, str]]:
    if name in shell.aliases:
        yield "alias", shell.aliases[name]
    if name in RESERVED:
        yield "keyword", ""
    if name in shell.functions:
        yield "function", program_text(shell.functions[name][0])
    if name in BUILTINS or is_command(name):
        yield "builtin", ""
    path = shell.lookup("PATH") or DEFAULT_PATH
    for folders in path.split(os.pathsep) if everywhere and "/" not in name else [path]:
        try:
            place = find_program(name, folders)
        except StartError:
            continue
        if os.access(place, os.X_OK):
            yield "file", place


def type_(shell: Shell, words: list[str]) -> int:
    """Says what words mean as commands: `-a` all that they could, `-t` in one word, `-p` only where programs are."""
    names, letters = words[1:], set[str]()
    while names and names[0][:1] == "-" and len(names[0]) > 1:
        option = names.pop(0)
        if option == "--":
            break
        letters |= set(option[1:])
    if not letters <= set("atp"):
        return usage(shell, words, f"-{min(letters - set('atp'))}: unknown option; -a, -t and -p are known")
    status = 0
    for name in names:
        found = find_all(shell, name) if "a" in letters else [find(shell, name)]
        if not found or not found[0][0]:
            status = 1 if letters & set("tp") else shell.complain(f"{words[0]}: {name}: not found", 1)
        for kind, what in found:
            write(shell, _description(name, kind, what, letters))
    return status


def _description(name: str, kind: str, what: str, letters: set[str]) -> str:
    if not kind or ("p" in letters and kind != "file"):
        return ""
    if letters & set("tp"):
        return f"{what if 'p' in letters else kind}\n"
    if kind == "function":
        return f"{name} is a function\n{what}"
    if kind == "alias":
        return f"{name} is aliased to `{what}`\n"
    return f"{name} is {what or f'a shell {kind}'}\n"


def hash_(shell: Shell, words: list[str]) -> int:
    """Shows where programs were found; `-r` forgets it; names are looked up."""
    if words[1:] == ["-r"]:
        forget_programs()
        return 0
    if len(words) == 1:
        return write(shell, "".join(f"{path}\n" for path in known_programs()))
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
    if words[1:2] == ["-l"] and len(words) > 2:
        return _name_signals(shell, words)
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
            elif job is None and int(target) == os.getpid():
                signal.pthread_kill(threading.main_thread().ident or 0, number)  # which may be in `wait`
                continue
        if job is None:
            others.append(target)
            continue
        job.poll()
        if job.done:
            status = shell.complain(f"kill: {target}: has ended", 1)
        elif number:
            job.signal(number)
            if number in (signal.SIGTERM, signal.SIGHUP):
                job.proceed()  # where it is stopped, it could not end
    if number == 0 and targets:
        return max([status, *(_is_there(shell, target) for target in others)])
    if others or not targets:
        options = words[1 : len(words) - len(targets)]
        status = shell.run_llmos(["kill", *options, *others]) or status
    return status


def _is_there(shell: Shell, target: str) -> int:
    """Whether a model process is there (`kill -0`), as a status."""
    from llmos_shell.shell.interpreter.bridge import model_info

    info = model_info(shell, int(target)) if target.isascii() and target.isdigit() else None
    if info is None or info.exit is not None:
        return shell.complain(f"kill: {target}: there is no such process", 1)
    return 0


def _name_signals(shell: Shell, words: list[str]) -> int:
    """`kill -l SIGNAL…`: names for numbers, also for exit statuses that tell of a signal; numbers for names."""
    status = 0
    for word in words[2:]:
        named = signal.Signals.__members__.get(f"SIG{word.upper().removeprefix('SIG')}")
        number = int(word) if word.isascii() and word.isdigit() else -1
        try:
            name = signal.Signals(number - 128 if number > 128 else number).name if named is None else ""
        except ValueError:
            status = usage(shell, words, f"{word}: is no signal")
        else:
            write(shell, f"{name.removeprefix('SIG') if named is None else named.value}\n")
    return status


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
        return (int(name) if int(name) in signal.valid_signals() or name == "0" else None), arguments
    member = signal.Signals.__members__.get(f"SIG{name}")
    return (None if member is None else int(member)), arguments
