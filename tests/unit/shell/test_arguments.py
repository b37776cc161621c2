"""The parser of a command's words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos_shell.abi.types import Signal
from llmos_shell.shell import commands
from llmos_shell.shell.arguments import HelpRequested, parse_args, parse_duration, parse_signal, usage
from llmos_shell.shell.command import Args, Command, Operand, Option, UsageError


def _nothing(_context: Any, _args: Args) -> int:
    return 0


COMMAND = Command(
    "cmd",
    "test",
    _nothing,
    options=(
        Option(("-a", "--all"), "flag"),
        Option(("-v",), "flag"),
        Option(("-n", "--number"), "number", "N", "int", 7),
        Option(("--stop",), "text", "TEXT", repeat=True),
        Option(("--sort",), "order", "KEY", "up|down", "up"),
    ),
    operands=(Operand("FIRST", type="int"), Operand("REST", required=False, many=True)),
)
RAW = Command("raw", "test", _nothing, options=(Option(("-n", "--n"), "", "N", "int", 10),), raw=True,
              operands=(Operand("COMMAND", many=True),))  # fmt: skip


def parse(*words: str) -> Args:
    return parse_args(COMMAND, words)


def test_defaults() -> None:
    args = parse("1")
    assert args == {"all": False, "v": False, "number": 7, "stop": (), "sort": "up", "FIRST": 1, "REST": ()}


def test_forms_of_options() -> None:
    assert parse("-n5", "1").number == 5
    assert parse("-n", "5", "1").number == 5
    assert parse("-n", "-5", "1").number == -5
    assert parse("--number=5", "1").number == 5
    assert parse("1", "--number", "5").number == 5
    assert parse("-avn3", "1") == parse("-a", "-v", "-n", "3", "1")
    assert parse("--stop=a", "--stop", "b", "1").stop == ("a", "b")
    assert parse("--stop=", "1").stop == ("",)


def test_operands() -> None:
    assert parse("-5").FIRST == -5
    assert parse("1", "-", "x").REST == ("-", "x")
    assert parse("--", "1", "-a", "--help").REST == ("-a", "--help")
    assert parse("1", "").REST == ("",)


def test_raw_commands_leave_the_rest_alone() -> None:
    assert parse_args(RAW, ["-n", "5", "run", "-n", "3", "--help"]) == {"n": 5, "COMMAND": ("run", "-n", "3", "--help")}


def test_help_is_requested_anywhere_but_after_dashes() -> None:
    with pytest.raises(HelpRequested):
        parse("--help")
    with pytest.raises(HelpRequested):
        parse_args(RAW, ["--help", "run"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "FIRST is missing: usage: cmd [OPTION…] FIRST [REST…]"),
        (["x"], "FIRST: `x` is not a whole number: try `cmd --help`"),
        (["1", "-n"], "-n needs a value N: usage: cmd [OPTION…] FIRST [REST…]"),
        (["1", "--all=yes"], "--all takes no value: usage: cmd [OPTION…] FIRST [REST…]"),
        (["1", "--al"], "unknown option --al: did you mean --all?"),
        (["1", "-x"], "unknown option -x: try `cmd --help`"),
        (["1", "-ax"], "unknown option -x: try `cmd --help`"),
        (["1", "--sort", "no"], "--sort KEY: `no` is not one of up, down: try `cmd --help`"),
    ],
)
def test_mistakes(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(*words)
    assert str(caught.value) == message


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1.5h", 5400), ("2m30s", 150), ("1d", 86400), ("0", 0)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "1x", "-5", "m", "nan", "inf", "5 m5"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


def test_signals() -> None:
    assert parse_signal("9") is parse_signal("kill") is parse_signal("SIGKILL") is Signal.KILL
    with pytest.raises(ValueError):
        parse_signal("99")


@pytest.mark.parametrize(
    ("command", "words"),
    [("run", ["-n", "9" * 20, "x"]), ("run", ["--seed", str(2**64), "x"]), ("fork", ["-n", "9" * 20, "1"]),
     ("log", ["9" * 19]), ("ulimit", ["-n", "9" * 20, "1"])],
)  # fmt: skip
def test_numbers_that_fit_nowhere(command: str, words: list[str]) -> None:
    found = commands.find(command)
    assert found
    with pytest.raises(UsageError, match=r"too large|is not a limit"):
        found.run(None, parse_args(found, words))  # type: ignore[arg-type]


def test_rewritten_forms() -> None:
    kill, renice, nice = commands.find("kill"), commands.find("renice"), commands.find("nice")
    assert kill and renice and nice
    assert parse_args(kill, ["-9", "12"]).signal is Signal.KILL
    assert parse_args(kill, ["-KILL", "12"]).signal is Signal.KILL
    assert parse_args(kill, ["-s", "INT", "%1", "3"]).PID == ("%1", 3)
    assert parse_args(renice, ["-10", "14"]) == {"N": -10, "PID": (14,)}
    assert parse_args(renice, ["-n", "5", "-p", "14"]) == {"N": 5, "PID": (14,)}
    assert parse_args(nice, ["-5", "run", "-n", "3"]) == {"adjustment": 5, "COMMAND": ("run", "-n", "3")}


def _declared() -> list[Command]:
    return [
        command
        for name in commands.names()
        if name not in commands.NEED_SHELL and (command := commands.find(name)) is not None
    ]


@pytest.mark.parametrize("command", _declared(), ids=lambda command: command.name)
def test_declarations_are_sound(command: Command) -> None:
    flags = [flag for option in command.options for flag in option.flags]
    assert len(flags) == len(set(flags)) and "--help" not in flags
    assert all(option.default is None or option.value for option in command.options)
    assert command.family and command.summary and not command.summary.endswith(".")
    assert [operand.many for operand in command.operands[:-1]] == [False] * max(0, len(command.operands) - 1)
    assert len(usage(command)) < 100


@given(st.sampled_from(_declared()), st.lists(st.text(alphabet="-=ansx15% ./é", max_size=6), max_size=5))
def test_any_words_parse_or_are_misused(command: Command, words: list[str]) -> None:
    try:
        args = parse_args(command, words)
    except (UsageError, HelpRequested):
        return
    assert set(args) == {o.name for o in command.options} | {o.name for o in command.operands}
