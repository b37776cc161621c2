"""`llmos` as a shell: options of the command line as sh has them, and the program they name: a text, a file, standard
input, or whatever is typed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from llmos_shell.shell.interpreter.options import LETTERS, NAMES


class Misuse(Exception):
    """The command line makes no sense; the text says why."""


class Invocation:
    """What was asked for."""

    __slots__ = ("arguments", "interactive", "options", "stdin", "text")

    def __init__(self) -> None:
        self.text = False  # -c: the first argument is the program
        self.stdin = False  # -s: standard input is, even if there are arguments
        self.interactive = False  # -i
        self.options: dict[str, bool] = {}
        self.arguments: list[str] = []


def parse_invocation(words: Sequence[str]) -> Invocation:
    """The words after `llmos`. Raises `Misuse`."""
    asked = Invocation()
    left = list(words)
    while left and left[0][:1] in ("-", "+") and left[0] not in ("+",):
        word = left.pop(0)
        if word == "-":
            asked.stdin = not asked.text
            break
        if word == "--":
            break
        for letter in word[1:]:
            _take_letter(asked, word, letter, left)
    asked.arguments = left
    if asked.text and not left:
        raise Misuse("-c needs a SCRIPT")
    return asked


def _take_letter(asked: Invocation, word: str, letter: str, left: list[str]) -> None:
    on = word[0] == "-"
    if on and letter in "csi":
        asked.text = asked.text or letter == "c"
        asked.stdin = asked.stdin or letter == "s"
        asked.interactive = asked.interactive or letter == "i"
    elif letter == "o":
        if not left:
            raise Misuse(f"{word} needs the name of an option ({' '.join(NAMES)})")
        name = left.pop(0)
        if name not in NAMES:
            raise Misuse(f"{word} {name}: is no option ({' '.join(NAMES)})")
        asked.options[name] = on
    elif letter in LETTERS:
        asked.options[LETTERS[letter]] = on
    else:
        raise Misuse(f"unknown option {word}")


def run_invocation(words: Sequence[str]) -> int:
    """Runs what the words ask for; its exit status."""
    try:
        asked = parse_invocation(words)
    except Misuse as error:
        print(f"llmos: {error}: try `llmos --help`", file=sys.stderr)
        return 2
    typed = not asked.text and (asked.stdin or not asked.arguments)
    if asked.interactive or (typed and sys.stdin.isatty() and "noexec" not in asked.options):
        return run_terminal(asked.options)
    if asked.text:
        return run_script(asked.arguments[0], asked.arguments[1:], asked.options)
    if typed:
        return run_stdin(asked.arguments, asked.options)
    return run_file(asked.arguments[0], asked.arguments[1:], asked.options)


def run_terminal(options: dict[str, bool]) -> int:
    """What is typed."""
    if os.environ.get("TERM", "") in ("", "dumb") or not (sys.stdin.isatty() and sys.stdout.isatty()):
        from llmos_shell.shell.interactive.plain import run_plain

        return run_plain(options)
    from llmos_shell.shell.interactive.repl import run_repl

    return run_repl(options)


def run_script(text: str, arguments: Sequence[str], options: dict[str, bool]) -> int:
    """A program given as text (`-c`); the first argument is `$0`, the others are `$1` and so on."""
    if options.get("noexec"):
        return check_syntax(text, "-c")
    from llmos_shell.shell.interpreter.shell import Shell

    name = arguments[0] if arguments else "llmos"
    shell = Shell(name=name, args=arguments[1:], options=options)
    shell.run_text(text, "-c")
    return shell.close()


def run_file(path: str, arguments: Sequence[str], options: dict[str, bool]) -> int:
    """A script file; `$0` is its path."""
    if options.get("noexec"):
        return check_file(path)
    from llmos_shell.shell.interpreter.shell import Shell

    shell = Shell(name=path, args=arguments, options=options)
    shell.run_file(path, arguments)
    return shell.close()


def run_stdin(arguments: Sequence[str], options: dict[str, bool]) -> int:
    """A script on standard input, of which its commands can read what follows them."""
    from llmos_shell.shell.interpreter.shell import Shell
    from llmos_shell.shell.interpreter.standard_input import read_all, run_stream
    from llmos_shell.shell.interpreter.texts import NoText

    try:
        if options.get("noexec"):
            return check_syntax(read_all(0), "stdin")
        shell = Shell(name="llmos", args=arguments, options=options)
        run_stream(shell, 0)
    except NoText as error:
        print(f"llmos: standard input {error}", file=sys.stderr)
        return error.status
    return shell.close()


def check_file(path: str) -> int:
    """`llmos -n FILE`."""
    from llmos_shell.shell.interpreter.texts import NoText, read_script

    try:
        text = read_script(path)
    except NoText as error:
        print(f"llmos: {path}: {error}", file=sys.stderr)
        return error.status
    return check_syntax(text, path)


def check_syntax(text: str, name: str) -> int:
    """Shows what is wrong with a program without running it; status 2 if anything is."""
    from llmos_shell.lang.check import syntax_errors
    from llmos_shell.lang.errors import Source

    source = Source(text, name)
    errors = syntax_errors(source)
    for error in errors:
        print(f"llmos: {source.point_out(error.message, error.position.offset)}", file=sys.stderr)
    return 2 if errors else 0
