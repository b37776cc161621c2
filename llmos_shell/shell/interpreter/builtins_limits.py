"""`ulimit` for what the host limits; limits of model processes are left to the command of that name.

The letters of sh that mean something else there (`-n`, `-t`) are about the host together with `-H` or `-S`.
"""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, NamedTuple

from llmos_shell.shell.interpreter.builtins import usage, write

if TYPE_CHECKING:
    from llmos_shell.shell.interpreter.shell import Shell


class _Limit(NamedTuple):
    what: str
    number: int
    unit: int  # bytes or the like
    measure: str


def _limits() -> dict[str, _Limit]:
    """By letter; not every system has all of them."""
    known = (
        ("c", "core file size", "CORE", 512, "blocks"),
        ("d", "data seg size", "DATA", 1024, "kbytes"),
        ("f", "file size", "FSIZE", 512, "blocks"),
        ("l", "max locked memory", "MEMLOCK", 1024, "kbytes"),
        ("m", "max memory size", "RSS", 1024, "kbytes"),
        ("n", "open files", "NOFILE", 1, ""),
        ("s", "stack size", "STACK", 1024, "kbytes"),
        ("t", "cpu time", "CPU", 1, "seconds"),
        ("u", "max user processes", "NPROC", 1, ""),
        ("v", "virtual memory", "AS", 1024, "kbytes"),
    )
    return {
        letter: _Limit(what, getattr(resource, f"RLIMIT_{name}"), unit, measure)
        for letter, what, name, unit, measure in known
        if hasattr(resource, f"RLIMIT_{name}")
    }


_OWN = frozenset("cdflmsuv")
"""Letters that are about the host without `-H` or `-S` too."""


def ulimit(shell: Shell, words: list[str]) -> int:
    """Shows or sets a limit of the host; other words are for the command."""
    limits = _limits()
    letters: list[str] = []
    arguments = words[1:]
    while arguments and arguments[0][:1] == "-" and arguments[0][1:].isalpha():
        letters += arguments.pop(0)[1:]
    kinds = {letter for letter in letters if letter in "HS"}
    chosen = [letter for letter in letters if letter not in "HSa"]
    if not kinds and not set(letters) & (_OWN | {"a"}):
        return shell.run_llmos(words)
    unknown = [letter for letter in chosen if letter not in limits]
    if unknown:
        return usage(shell, words, f"-{unknown[0]}: unknown option; of the host there are -{''.join(limits)}")
    if "a" in letters:
        return _show_all(shell, limits, kinds)
    if len(arguments) > 1:
        return usage(shell, words, "too many arguments")
    if arguments:
        return _set(shell, words, limits[chosen[-1] if chosen else "f"], kinds, arguments[0])
    rows = [limits[letter] for letter in chosen or ["f"]]
    return write(shell, "".join(f"{_label(row, len(rows))}{_value(row, kinds)}\n" for row in rows))


def _show_all(shell: Shell, limits: dict[str, _Limit], kinds: set[str]) -> int:
    for letter, limit in limits.items():
        option = f"-{letter}" if letter in _OWN else f"-S{letter}"
        unit = f"({limit.measure}, {option})" if limit.measure else f"({option})"
        write(shell, f"{limit.what:<20} {unit:>16} {_value(limit, kinds)}\n")
    return shell.run_llmos(["ulimit"])


def _label(limit: _Limit, count: int) -> str:
    return f"{limit.what:<20} " if count > 1 else ""


def _value(limit: _Limit, kinds: set[str]) -> str:
    soft, hard = resource.getrlimit(limit.number)
    value = hard if kinds == {"H"} else soft
    return "unlimited" if value == resource.RLIM_INFINITY else str(value // limit.unit)


def _set(shell: Shell, words: list[str], limit: _Limit, kinds: set[str], text: str) -> int:
    soft, hard = resource.getrlimit(limit.number)
    if text in ("unlimited", "hard", "soft"):
        value = {"unlimited": resource.RLIM_INFINITY, "hard": hard, "soft": soft}[text]
    elif text.isascii() and text.isdigit():
        value = int(text) * limit.unit
    else:
        return usage(shell, words, f"{text}: is no limit: give a number or `unlimited`")
    try:
        resource.setrlimit(limit.number, (value if kinds != {"H"} else soft, value if kinds != {"S"} else hard))
    except (ValueError, OSError, OverflowError) as error:
        return shell.complain(f"ulimit: {text}: {getattr(error, 'strerror', None) or error}".lower(), 1)
    return 0
