"""Following output: to the end, across a lost daemon, across Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from llmos_shell.abi.errors import LlmosError
from llmos_shell.abi.syscalls import Follow, Output
from llmos_shell.abi.types import ExitInfo, Reason, Signal
from llmos_shell.shell.streaming import RECONNECTS, Progress, follow_output, show_progress

TEXT = "Once upon a time, there was a shell."


def _end(pid: int, reason: Reason = Reason.EOS, code: int = 0) -> Output:
    return Output(len(TEXT), exit=ExitInfo(pid, code, reason))


def test_output_is_written_as_it_comes(fake_daemon: Any, bench: Any) -> None:
    fake_daemon.handlers["proc.follow"] = lambda args: [Output(0, TEXT[:5]), Output(5, TEXT[5:]), _end(args.pid)]
    followed = follow_output(bench.context(), 7)
    assert bench.out.getvalue() == TEXT
    assert (followed.offset, followed.exit, followed.interrupted) == (len(TEXT), ExitInfo(7, 0, Reason.EOS), False)


def test_a_lost_daemon_costs_nothing(fake_daemon: Any, bench: Any, hangup: type[Exception]) -> None:
    """The connection breaks after every item; the new daemon repeats more than was asked for."""

    def follow(args: Follow) -> Iterator[Output]:
        if args.offset >= len(TEXT):
            yield _end(args.pid)
            return
        start = max(0, args.offset - 3)
        yield Output(start, TEXT[start : args.offset + 6])
        raise hangup

    fake_daemon.handlers["proc.follow"] = follow
    followed = follow_output(bench.context(), 7)
    assert bench.out.getvalue() == TEXT
    assert followed.exit is not None
    assert len(fake_daemon.hellos) > 5


def test_a_daemon_that_keeps_going_away_is_given_up(fake_daemon: Any, bench: Any, hangup: type[Exception]) -> None:
    def follow(args: Follow) -> None:
        raise hangup

    fake_daemon.handlers["proc.follow"] = follow
    with pytest.raises(LlmosError, match="went away 6 times"):
        follow_output(bench.context(), 7)
    assert len(fake_daemon.hellos) == RECONNECTS + 1


def test_ctrl_c_is_sent_to_the_process_and_its_end_is_awaited(fake_daemon: Any, bench: Any) -> None:
    def follow(args: Follow) -> Iterator[Output]:
        if not fake_daemon.asked("proc.kill"):
            yield Output(0, TEXT[:9])
            os.kill(os.getpid(), signal.SIGINT)
        else:
            yield Output(args.offset, TEXT[args.offset :])
            yield _end(args.pid, Reason.INTERRUPT, 130)

    fake_daemon.handlers["proc.follow"] = follow
    fake_daemon.handlers["proc.kill"] = lambda args: None
    followed = follow_output(bench.context(), 7)
    assert [args.signal for args in fake_daemon.asked("proc.kill")] == [Signal.INT]
    assert bench.out.getvalue() == TEXT
    assert followed.interrupted and followed.exit is not None and followed.exit.code == 130


def test_a_turn_ends_without_an_exit(fake_daemon: Any, bench: Any) -> None:
    fake_daemon.handlers["proc.follow"] = lambda args: [Output(4, "hi"), Output(6, turn=Reason.EOS)]
    followed = follow_output(bench.context(), 7, offset=4, until="idle")
    assert (followed.offset, followed.turn, followed.exit) == (6, Reason.EOS, None)
    assert fake_daemon.asked("proc.follow") == [Follow(7, 4, "idle", foreground=True)]


@pytest.mark.parametrize("background", [False, True])
def test_progress_is_shown_to_who_waits_and_not_where_somebody_types(
    bench: Any, monkeypatch: pytest.MonkeyPatch, background: bool
) -> None:
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as terminal, os.fdopen(ours, "rb", buffering=0) as screen:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setattr(Progress, "DELAY_SECONDS", 0.0)
        context = bench.context()
        context.err, context.background = terminal, background
        with show_progress(context, "loading it"):
            if not background:
                assert "loading it" in screen.read(200).decode()
        terminal.write("done")
        terminal.flush()
        shown = ""
        while not shown.endswith("done"):
            shown += screen.read(400).decode()
    assert shown == "done" if background else shown.endswith("\r\x1b[Kdone")
