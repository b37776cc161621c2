"""The entry point `llmos`: decides what was asked for, and imports only what that needs.

A built-in command given on the command line runs without the language and without the interpreter.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from typing import TextIO

from llmos_shell import __version__, paths

USAGE = """\
usage: llmos [OPTION…]                          a shell, or the commands of standard input
       llmos COMMAND [ARG…]                     one built-in command (`llmos help` lists them)
       llmos [OPTION…] FILE [ARG…]              the commands of a file
       llmos [OPTION…] -c SCRIPT [NAME [ARG…]]  the commands of SCRIPT; NAME is its `$0`
       llmos --help | --version

options, as sh has them:
  -n  only check the syntax          -e  leave at the first failure
  -x  show commands as they run      -u  unset variables are errors
  -v  show lines as they are read    -f  no pathname expansion
  -i  interactive                    -s  commands from standard input, words are `$1` …
  -o NAME   an option of `set`; with + instead of - it is turned off
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `llmos` with these arguments (default: the command line's); returns its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    _mend_streams()
    paths.settle()
    try:
        status = _dispatch(words)
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        status = 141
    return _flush(status)


def _dispatch(words: list[str]) -> int:
    if not words:
        return _run_shell([])
    first, rest = words[0], words[1:]
    if first in ("--version", "-V"):
        print(f"llmos {__version__}")
        return 0
    if first in ("--help", "-h"):
        print(USAGE, end="")
        return 0
    if first == "--" and not rest:
        return _dispatch([])
    if first == "--":
        return _run_word(rest[0], rest[1:])
    if first[:1] in ("-", "+") and first != "+":
        if first.startswith("--"):
            return _misused(f"unknown option {first}")
        return _run_shell(words)
    return _run_word(first, rest)


def _run_word(word: str, rest: list[str]) -> int:
    """A built-in command, else a script file."""
    from llmos_shell.shell import commands

    if word in commands.names():
        return _run_builtin(word, rest)
    if os.path.isdir(word):
        print(f"llmos: {word}: is a folder: give a script or a command", file=sys.stderr)
        return 126
    if os.path.exists(word):
        return _run_shell(["--", word, *rest])
    from llmos_shell.shell.direct import unknown_command

    print(f"llmos: {word}: {unknown_command(word)}", file=sys.stderr)
    return 127


def _run_builtin(name: str, words: list[str]) -> int:
    from llmos_shell.shell.command import Context
    from llmos_shell.shell.commands import NEED_SHELL
    from llmos_shell.shell.direct import DirectShell

    if name in NEED_SHELL:
        return _run_in_shell(name, words)
    shell = DirectShell(f"llmos {name}")
    context = Context(shell, stdin=sys.stdin.buffer, out=sys.stdout, err=sys.stderr, on_track=shell.track)
    try:
        return shell.run_words([name, *words], context)
    finally:
        shell.close()


def _run_in_shell(name: str, words: list[str]) -> int:
    """A command that is part of the language, such as `jobs`."""
    from shlex import quote

    return _run_shell(["-c", " ".join(map(quote, [name, *words]))])


def _run_shell(words: list[str]) -> int:
    """A shell with these options, for the program they name."""
    from llmos_shell.shell.interpreter.invocation import run_invocation

    return run_invocation(words)


def _misused(what: str) -> int:
    print(f"llmos: {what}: try `llmos --help`", file=sys.stderr)
    return 2


def _mend_streams() -> None:
    """Whatever the locale, writing text never fails; streams that were closed are replaced by nothing."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - for the rest of the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="replace")


def _flush(status: int) -> int:
    """Writes what is buffered; a reader that has gone is no error worth a message."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            _silence(stream)
            status = 141 if status == 0 else status
        except OSError as error:
            _silence(stream)
            status = status or 1
            _complain(f"llmos: cannot write: {(error.strerror or str(error)).lower()}\n")
    return status


def _silence(stream: TextIO) -> None:
    """Sends what the interpreter will flush at exit nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def _complain(text: str) -> None:
    with suppress(OSError):
        os.write(2, text.encode())


if __name__ == "__main__":
    sys.exit(main())
