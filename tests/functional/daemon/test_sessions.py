"""Connections: what becomes of processes, and who is let in."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from msgspec import msgpack

from llmos_shell import paths
from llmos_shell.abi import PROTOCOL
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.framing import Splitter, encode
from llmos_shell.abi.syscalls import (
    PROC_ADOPT,
    PROC_DETACH,
    PROC_FOLLOW,
    PROC_LIST,
    PROC_SPAWN,
    SYS_DMESG,
    SYS_STATUS,
    SYS_STOP,
    Adopt,
    Dmesg,
    Follow,
    List,
    Nothing,
    Pid,
    Spawn,
    Stop,
)  # fmt: skip
from llmos_shell.abi.types import Reason
from llmos_shell.abi.wire import Call, Failure, Hello, Refused, Welcome
from llmos_shell.daemon.instance import Instance
from llmos_shell.ipc.client import connect, open_socket
from llmos_shell.ipc.launch import start_daemon
from llmos_shell.testing.clients import info, kill, run, spawn, text_of, wait, wait_for_tokens
from llmos_shell.testing.retry import retry_until

ENDLESS = {"endless": {"step_seconds": 0.002, "pages": 4096}}


def raw_connection():
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(paths.socket_path())
    sock.settimeout(20)
    return sock


def receive(sock, kind, splitter=None):
    """The next message, of this kind."""
    splitter = splitter or Splitter()
    while True:
        data = sock.recv(1 << 16)
        assert data, "the daemon closed the connection"
        bodies = splitter.feed(data)
        if bodies:
            return msgpack.decode(bodies[0], type=kind)


def hello(name="raw", protocol=PROTOCOL):
    return encode(Hello(protocol, "0.0.1", name, os.getpid()))


# -- the end of a session ----------------------------------------------------------------------------------------------


@pytest.mark.llmos(models=ENDLESS)
@pytest.mark.parametrize(
    ("interactive", "bye", "survives"),
    [(False, True, True), (False, False, False), (True, True, False), (True, False, False)],
)
def test_the_end_of_a_session(client, daemon, interactive, bye, survives):
    other = daemon.connect(interactive=interactive)
    pid = spawn(other)
    detached = spawn(other, detached=True)
    wait_for_tokens(other, pid)
    session = other.session
    other.close(bye=bye)
    retry_until(lambda: session not in {row.pid for row in client.call(PROC_LIST, List())})
    row = info(client, pid)
    if survives:
        assert row.exit is None and (row.ppid, row.session) == (1, 0)
    else:
        assert row.exit.reason is Reason.HUP and row.exit.code == 129
    assert info(client, detached).exit is None


@pytest.mark.llmos(models=ENDLESS)
def test_detaching_and_adopting(client, daemon):
    with daemon.connect() as other:
        stays, moves = spawn(other), spawn(other)
        other.call(PROC_DETACH, Pid(stays))
        client.call(PROC_ADOPT, Adopt(moves))
        other.close(bye=False)
    retry_until(lambda: len(client.call(PROC_LIST, List())) == 4)
    assert info(client, stays).ppid == 1
    assert info(client, moves).session == client.session
    kill(client, moves)
    assert wait(client, moves).reason is Reason.TERM


def test_zombies_of_a_session_go_with_it(client, daemon):
    with daemon.connect() as other:
        pid = spawn(other)
        text_of(other, pid)
    retry_until(lambda: pid not in {row.pid for row in client.call(PROC_LIST, List())})
    assert pid in {row.pid for row in client.call(PROC_LIST, List(all=True))}


# -- who is let in -----------------------------------------------------------------------------------------------------


def test_an_old_client_is_refused_with_both_versions(daemon):
    with raw_connection() as sock:
        sock.sendall(hello(protocol=99))
        refused = receive(sock, Refused)
        assert refused.code == Code.EPROTO and "99" in refused.message and str(PROTOCOL) in refused.message


def test_another_users_socket_is_not_used(llmos_home, daemon, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(LlmosError) as error:
        connect("test", start=False)
    assert error.value.code == Code.EACCES


@pytest.mark.parametrize(
    "junk", [b"\0\0\0\5hello", b"\xff\xff\xff\xff", b"\0\0\0\1\xc1", encode(Call(1, "sys.status", {})), b"\0\0\0\0"]
)
def test_a_malformed_greeting_closes_only_that_connection(client, junk):
    with raw_connection() as sock:
        sock.sendall(junk)
        assert receive(sock, Refused).code == Code.EPROTO
        assert sock.recv(100) == b""
    assert client.call(SYS_STATUS, Nothing()).sessions == 1


@pytest.mark.parametrize(
    "junk",
    [b"\0\0\0\5hello", b"\xff\xff\xff\xff", b"\0\0\0\2\x81\xa1", hello()],
    ids=["no msgpack", "too long", "no message", "a second greeting"],
)
def test_a_malformed_frame_ends_only_that_session(client, junk):
    with raw_connection() as sock:
        sock.sendall(hello())
        receive(sock, Welcome)
        sock.sendall(junk)
        assert receive(sock, Failure).code == Code.EPROTO
        assert sock.recv(100) == b""
    retry_until(lambda: client.call(SYS_STATUS, Nothing()).sessions == 1)


def test_unknown_syscalls_and_arguments(client):
    for name, args, code in (
        ("proc.fly", {}, Code.ENOENT),
        ("proc.kill", {}, Code.EINVAL),
        ("proc.kill", {"pid": "x"}, Code.EINVAL),
        ("proc.kill", {"pid": 1, "signal": "SMILE"}, Code.EINVAL),
    ):
        with raw_connection() as sock:
            sock.sendall(hello())
            receive(sock, Welcome)
            sock.sendall(encode(Call(1, name, args)))
            assert receive(sock, Failure).code == code


def test_a_cancelled_call_is_answered(client):
    pid = spawn(client, chat=True)
    stream = client.stream(PROC_FOLLOW, Follow(pid))
    next(stream)
    stream.close()
    assert info(client, pid).exit is None


# -- one daemon --------------------------------------------------------------------------------------------------------


def test_a_second_daemon_is_refused(daemon):
    second = subprocess.run(
        [sys.executable, "-P", "-m", "llmos_shell.daemon"], capture_output=True, text=True, timeout=30
    )
    assert second.returncode == 1
    assert second.stderr == f"llmosd: a daemon is running already (PID {daemon.pid})\n"


def test_one_that_is_about_to_end_is_followed_by_another(llmos_home):
    ending = Instance()
    asked = []

    def open_when_it_has_ended():
        if not asked:
            ending.close()
        asked.append(open_socket())
        return asked[-1]

    start_daemon(open_when_it_has_ended).close()
    assert asked[0] is None, "the first that was started has found the lock held"
    with connect("test", start=False) as client:
        client.call(SYS_STOP, Stop())


def test_a_stale_socket_is_replaced(daemon):
    daemon.kill()
    assert os.path.exists(paths.socket_path())
    with pytest.raises(LlmosError):
        daemon.connect()
    daemon.start()
    with daemon.connect() as client:
        assert run(client)


def test_private_files(daemon):
    assert os.stat(paths.socket_path()).st_mode & 0o777 == 0o600
    for folder in (paths.runtime_dir(), paths.state_dir(), paths.park_dir()):
        assert os.stat(folder).st_mode & 0o777 == 0o700


@pytest.mark.llmos(env={"LLMOS_IDLE_SECONDS": "0.05", "LLMOS_KEEP_SECONDS": "0.05"})
def test_an_idle_daemon_that_was_started_on_first_use_ends(llmos_home, daemon):
    daemon.stop()
    daemon.start("--auto")
    with daemon.connect() as client:
        run(client)
        process = daemon.process
    assert process.wait(20) == 0
    assert not os.path.exists(paths.socket_path())


def test_a_client_starts_the_daemon(llmos_home):
    with connect("test") as client:
        status = client.call(SYS_STATUS, Nothing())
        assert status.auto_started and status.home == str(llmos_home)
        client.call(SYS_STOP, Stop())
    retry_until(lambda: not os.path.exists(paths.socket_path()))


# -- slow readers ------------------------------------------------------------------------------------------------------


@pytest.mark.llmos(models={"long": {"context": 20000, "pages": 4000, "end_after": 9000}})
def test_a_reader_that_does_not_read_holds_nobody_up(client, daemon):
    pid = spawn(client, "x <y>", sampling={"seed": 2})
    with raw_connection() as sock:
        sock.sendall(hello("slow"))
        receive(sock, Welcome)
        for number in range(200):
            sock.sendall(encode(Call(number + 1, "proc.follow", {"pid": pid})))
        text = text_of(client, pid)
        assert len(text) == 9000
        assert info(client, 1).name == "llmosd"
        splitter, got = Splitter(), 0
        while got < 9000:
            for body in splitter.feed(sock.recv(1 << 16)):
                item = msgpack.decode(body)
                if item["id"] == 200 and item["type"] == "item":
                    got += len(item["value"].get("text", ""))
        assert got == 9000


def test_dmesg(client):
    pid = spawn(client)
    text_of(client, pid)
    events = list(client.stream(SYS_DMESG, Dmesg()))
    assert any(event.pid == pid and "started" in event.text for event in events)
    assert len(list(client.stream(SYS_DMESG, Dmesg(limit=2)))) == 2
    stream = client.stream(SYS_DMESG, Dmesg(limit=1, follow=True))
    next(stream)  # now it follows
    later = client.call(PROC_SPAWN, Spawn(prompt="x <y>")).pid
    assert next(event for event in stream if event.pid == later)
    stream.close()
