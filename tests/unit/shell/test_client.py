"""The client: calls, streams, threads, interruptions, and a daemon that goes away."""

from __future__ import annotations

import _signal
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from types import FrameType
from typing import Any

import pytest

from llmos_shell import paths
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import MODEL_LIST, PROC_FOLLOW, PROC_KILL, Follow, Kill, Nothing, Output
from llmos_shell.ipc.client import ConnectionLost, connect
from llmos_shell.ipc.interrupts import Uninterrupted
from llmos_shell.ipc.session import Session


def test_a_call_and_its_failure(fake_daemon: Any) -> None:
    def refuse(args: Kill) -> None:
        raise LlmosError(Code.ESRCH, f"no process {args.pid}", hint="`ps` lists them", pid=args.pid)

    fake_daemon.handlers["model.list"] = lambda args: ()
    fake_daemon.handlers["proc.kill"] = refuse
    with connect("test") as client:
        assert client.session == 101
        assert client.call(MODEL_LIST, Nothing()) == ()
        with pytest.raises(LlmosError) as caught:
            client.call(PROC_KILL, Kill(9))
    error = caught.value
    assert (error.code, error.pid, str(error)) == (Code.ESRCH, 9, "no process 9: `ps` lists them")


def test_a_daemon_that_is_about_to_end_is_no_error(fake_daemon: Any) -> None:
    fake_daemon.ends = 2
    fake_daemon.handlers["model.list"] = lambda args: ()
    with connect("test") as client:
        assert client.call(MODEL_LIST, Nothing()) == ()
    fake_daemon.ends = 1000
    with pytest.raises(ConnectionLost):
        connect("test")


def test_a_stream_that_is_closed_early_is_cancelled(fake_daemon: Any) -> None:
    fake_daemon.handlers["proc.follow"] = lambda args: [Output(0, "a"), Output(1, "b")]
    fake_daemon.handlers["model.list"] = lambda args: ()
    with connect("test") as client:
        stream = client.stream(PROC_FOLLOW, Follow(1))
        assert next(stream).text == "a"
        stream.close()
        client.call(MODEL_LIST, Nothing())
        assert [item.text for item in client.stream(PROC_FOLLOW, Follow(1))] == ["a", "b"]
    assert fake_daemon.cancelled == [1]


def test_threads_share_one_connection(fake_daemon: Any) -> None:
    fake_daemon.handlers["proc.follow"] = lambda args: [Output(i, str(args.pid)) for i in range(50)]
    results: dict[int, list[str]] = {}
    with connect("test") as client:

        def follow(pid: int) -> None:
            results[pid] = [item.text for item in client.stream(PROC_FOLLOW, Follow(pid))]

        threads = [threading.Thread(target=follow, args=(pid,)) for pid in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == {pid: [str(pid)] * 50 for pid in range(8)}
    assert len(fake_daemon.hellos) == 1


def test_who_is_about_to_wait_when_another_thread_closes_waits_for_no_other_socket(
    fake_daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of a closed socket may be another one's a moment later."""
    about_to, go_on = threading.Event(), threading.Event()
    fake_daemon.handlers["model.list"] = lambda args: go_on.wait() and ()
    client = connect("test")
    poll = client._poll

    class Late:
        def poll(self) -> None:
            about_to.set()
            go_on.wait()
            poll.poll()

    def call() -> None:
        with pytest.raises(ConnectionLost):
            client.call(MODEL_LIST, Nothing())

    monkeypatch.setattr(client, "_poll", Late())
    caller, closer = threading.Thread(target=call, daemon=True), threading.Thread(target=client.close)
    caller.start()
    about_to.wait()
    closer.start()
    closer.join(0.2)
    one, other = socket.socketpair()  # they get the lowest numbers that are free
    with one, other:
        go_on.set()
        caller.join(10)
        assert not caller.is_alive()
    closer.join()


def test_a_lost_connection_is_said_and_remembered(fake_daemon: Any, hangup: type[Exception]) -> None:
    def hang_up(args: Any) -> None:
        raise hangup

    fake_daemon.handlers["model.list"] = hang_up
    client = connect("test")
    with pytest.raises(ConnectionLost, match="lost"):
        client.call(MODEL_LIST, Nothing())
    assert client.lost
    with pytest.raises(ConnectionLost):
        client.call(MODEL_LIST, Nothing())
    client.close()


def test_a_session_connects_again_and_reclaims(fake_daemon: Any, hangup: type[Exception]) -> None:
    answers: Iterator[Any] = iter([hangup, ()])

    def answer(args: Any) -> Any:
        value = next(answers)
        if value is hangup:
            raise hangup
        return value

    fake_daemon.handlers["model.list"] = answer
    session = Session("test")
    session.client()
    session.own(7)
    with pytest.raises(ConnectionLost):
        session.client().call(MODEL_LIST, Nothing())
    assert session.current() is None
    assert session.client().call(MODEL_LIST, Nothing()) == ()
    session.close()
    assert [hello.reclaim for hello in fake_daemon.hellos] == [(), (7,)]


def test_a_daemon_that_goes_between_two_calls_costs_no_call(fake_daemon: Any) -> None:
    fake_daemon.handlers["model.list"] = lambda args: ()
    session = Session("test")
    before = session.client()
    assert before.call(MODEL_LIST, Nothing()) == ()
    fake_daemon.hang_up()
    assert session.current() is None
    assert session.client().call(MODEL_LIST, Nothing()) == ()
    assert before.lost and not session.client().lost
    session.close()


def test_without_a_daemon_nothing_is_started_unless_wanted(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOS_HOME", str(tmp_path))
    with pytest.raises(LlmosError, match="no daemon is running"):
        connect("test", start=False)
    assert not os.path.exists(paths.socket_path())


def test_an_interrupt_in_a_call_cancels_it_and_loses_nothing(fake_daemon: Any) -> None:
    held = threading.Event()

    def interrupt(args: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        held.wait(10)
        return ()

    fake_daemon.handlers["model.list"] = interrupt
    fake_daemon.handlers["proc.kill"] = lambda args: None
    with connect("test") as client:
        with pytest.raises(KeyboardInterrupt):
            client.call(MODEL_LIST, Nothing())
        held.set()
        client.call(PROC_KILL, Kill(1))
    assert fake_daemon.cancelled == [1]


def test_handlers_run_after_an_uninterrupted_block() -> None:
    steps: list[str] = []
    with pytest.raises(KeyboardInterrupt), Uninterrupted():
        signal.raise_signal(signal.SIGINT)
        steps.append("went on")
    assert steps == ["went on"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class Stopped(BaseException):
    """What Ctrl-Z raises."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTSTP])
@pytest.mark.parametrize("moment", range(1, 9))
def test_an_uninterrupted_block_puts_handlers_back_whenever_one_raises(moment: int, number: int) -> None:
    """Each handler is replaced and put back once; these are the moments just before and after that."""
    moments = 0

    def press(_frame: FrameType, event: str, function: Any) -> None:
        nonlocal moments
        if event in ("c_call", "c_return") and function is _signal.signal:
            moments += 1
            if moments == moment:
                os.kill(os.getpid(), number)

    def stop(*_: object) -> None:
        raise Stopped

    before = signal.signal(signal.SIGTSTP, stop)
    try:
        with suppress(KeyboardInterrupt, Stopped):
            sys.setprofile(press)
            with Uninterrupted():
                pass
        sys.setprofile(None)
        assert moments >= moment
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTSTP) is stop
    finally:
        sys.setprofile(None)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTSTP, before)
