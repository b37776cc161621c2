"""Parses a command's words by its declaration.

GNU manners: options and operands may be mixed, short flags combined (`-ats NAME`), values attached (`-n5`,
`--tokens=5`), and `--` ends the options. A word like `-5` is an operand unless the command declares such a flag.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llmos_shell.abi.types import Signal
from llmos_shell.shell.command import Args, Command, Manual, Operand, Option, UsageError

SIGNAL_NUMBERS = {
    1: Signal.HUP,
    2: Signal.INT,
    9: Signal.KILL,
    15: Signal.TERM,
    18: Signal.CONT,
    19: Signal.STOP,
}
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class HelpRequested(Exception):
    """`--help` was among the options."""


def parse_args(command: Command, words: Sequence[str]) -> Args:
    """The words after the command's name, as arguments by name.

    Options that were not given have their default (flags False, repeatable ones an empty tuple), operands that were
    not given are None, or an empty tuple where several may be. Raises `UsageError` and `HelpRequested`.
    """
    if command.rewrite is not None:
        words = command.rewrite(words)
    options = {flag: option for option in command.options for flag in option.flags}
    args = Args({option.name: _unset(option) for option in command.options})
    operands = _take_options(command, list(words), options, args)
    _take_operands(command, operands, args)
    return args


def usage(command: Manual) -> str:
    """One line, e.g. `kill [-s SIGNAL] PID…`."""
    if command.synopsis:
        return command.synopsis[0]
    parts = [command.name]
    for option in command.options:
        flag = option.flags[0]
        value = f"{'' if not flag.startswith('--') else '='}{option.value}" if option.value else ""
        separator = " " if value and not flag.startswith("--") else ""
        parts.append(f"[{flag}{separator}{value}]" + ("…" if option.repeat else ""))
    if len(parts) > 5:
        parts[1:] = ["[OPTION…]"]
    for operand in command.operands:
        name = operand.name + ("…" if operand.many else "")
        parts.append(name if operand.required else f"[{name}]")
    return " ".join(parts)


def parse_duration(text: str) -> float:
    """Seconds of `90`, `1.5h`, `2m30s`. Raises ValueError."""
    total, number = 0.0, ""
    for char in text:
        if char in _UNITS:
            total += float(number) * _UNITS[char]
            number = ""
        else:
            number += char
    total += float(number) if number else 0.0
    if not text or " " in text or total < 0 or total != total or total == float("inf"):
        raise ValueError(text)
    return total


def parse_integer(text: str, bits: int = 63) -> int:
    """A whole number that the daemon can take. Raises ValueError, and OverflowError for one that is too large."""
    number = int(text)
    if abs(number) >> bits:
        raise OverflowError(text)
    return number


def parse_signal(text: str) -> Signal:
    """A signal by its name, with or without SIG, or by its number. Raises ValueError."""
    if text.isdigit():
        if int(text) not in SIGNAL_NUMBERS:
            raise ValueError(text)
        return SIGNAL_NUMBERS[int(text)]
    return Signal(text.upper().removeprefix("SIG"))


def _parse_pid(text: str) -> int | str:
    """A PID, or a job (`%1`, `%%`, `%+`, `%-`) as it stands."""
    if text.startswith("%"):
        return text
    if not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    return parse_integer(text)


def _parse_count(text: str) -> int:
    number = parse_integer(text, 64)
    if number < 0:
        raise ValueError(text)
    return number


def _parse_number(text: str) -> float:
    number = float(text)
    if number != number or abs(number) == float("inf"):
        raise ValueError(text)
    return number


def parse_size(text: str) -> int:
    """Bytes of `4096`, `64K`, `1.5G`, with or without a final B or iB. Raises ValueError."""
    number = text.upper().removesuffix("B").removesuffix("I")
    power = "KMGT".find(number[-1:]) + 1 if number else 0
    value = _parse_number(number[:-1] if power else number) * 1024**power
    if value < 0 or value >= 1 << 62:
        raise ValueError(text)
    return int(value)


CONVERTERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "str": (str, "a text"),
    "int": (parse_integer, "a whole number"),
    "count": (_parse_count, "a whole number, 0 or more"),
    "float": (_parse_number, "a number"),
    "size": (parse_size, "a size such as 64M or 1.5G"),
    "duration": (parse_duration, "a duration such as 90, 5m or 1h30m"),
    "file": (str, "a file"),
    "model": (str, "a model"),
    "command": (str, "a command"),
    "pid": (_parse_pid, "a PID or a job such as %1"),
    "signal": (parse_signal, "a signal (`kill -l` lists them)"),
    "variable": (str, "a variable"),
    "job": (str, "a job"),
    "target": (str, "a PID or a job"),
    "policy": (str, "a scheduling policy"),
    "syscall": (str, "a syscall"),
    "page": (str, "a command or a topic"),
}
"""Types of options and operands: how to read one, and what to call it in an error."""


def _unset(option: Option) -> Any:
    if option.repeat:
        return ()
    return option.default if option.value else False


def _take_options(command: Command, words: list[str], options: dict[str, Option], args: Args) -> list[str]:
    """Reads all options into `args`; returns the operands."""
    operands: list[str] = []
    while words:
        word = words.pop(0)
        if word == "--":
            return operands + words
        if word == "--help":
            raise HelpRequested
        if word.startswith("--"):
            _take_long(command, word, words, options, args)
        elif _is_short(word, options):
            _take_short(command, word, words, options, args)
        else:
            operands.append(word)
            if command.raw:
                return operands + words
    return operands


def _is_short(word: str, options: dict[str, Option]) -> bool:
    if len(word) < 2 or word[0] != "-":
        return False
    return word[:2] in options or not (word[1].isdigit() or word[1] == ".")


def _take_long(command: Command, word: str, words: list[str], options: dict[str, Option], args: Args) -> None:
    flag, equals, value = word.partition("=")
    option = options.get(flag)
    if option is None:
        raise _unknown(command, flag, options)
    if not option.value:
        if equals:
            raise UsageError(f"{flag} takes no value: usage: {usage(command)}")
        args[option.name] = True
        return
    _store(command, option, flag, value if equals else _next(command, option, flag, words), args)


def _take_short(command: Command, word: str, words: list[str], options: dict[str, Option], args: Args) -> None:
    rest = word[1:]
    while rest:
        flag, rest = "-" + rest[0], rest[1:]
        option = options.get(flag)
        if option is None:
            raise _unknown(command, flag, options)
        if option.value:
            _store(command, option, flag, rest or _next(command, option, flag, words), args)
            return
        args[option.name] = True


def _next(command: Command, option: Option, flag: str, words: list[str]) -> str:
    if not words:
        raise UsageError(f"{flag} needs a value {option.value}: usage: {usage(command)}")
    return words.pop(0)


def _store(command: Command, option: Option, flag: str, text: str, args: Args) -> None:
    value = convert(command.name, text, option.type, f"{flag} {option.value}")
    args[option.name] = (*args[option.name], value) if option.repeat else value


def _take_operands(command: Command, words: list[str], args: Args) -> None:
    for operand in command.operands:
        if operand.many:
            args[operand.name] = tuple(_operand(command, operand, word) for word in words)
            missing, words = not words, []
        else:
            args[operand.name] = _operand(command, operand, words.pop(0)) if words else None
            missing = args[operand.name] is None
        if missing and operand.required:
            raise UsageError(f"{operand.name} is missing: usage: {usage(command)}")
    if words:
        raise UsageError(f"unexpected argument `{words[0]}`: usage: {usage(command)}")


def _operand(command: Command, operand: Operand, word: str) -> Any:
    return convert(command.name, word, operand.type, operand.name)


def convert(command: str, text: str, kind: str, where: str) -> Any:
    """A word as a value of that type; `where` names the option or operand. Raises `UsageError`."""
    if "|" in kind:
        choices = kind.split("|")
        if text not in choices:
            raise UsageError(f"{where}: `{text}` is not one of {', '.join(choices)}: try `{command} --help`")
        return text
    read, called = CONVERTERS[kind]
    try:
        return read(text)
    except OverflowError:
        raise UsageError(f"{where}: {text} is too large") from None
    except ValueError:
        raise UsageError(f"{where}: `{text}` is not {called}: try `{command} --help`") from None


def _unknown(command: Command, flag: str, options: dict[str, Option]) -> UsageError:
    from difflib import get_close_matches

    close = get_close_matches(flag, options, 1) if flag.startswith("--") else []
    mend = f"did you mean {close[0]}?" if close else f"try `{command.name} --help`"
    return UsageError(f"unknown option {flag}: {mend}")
