"""Short words for what tests say to a daemon."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import (
    PROC_FOLLOW,
    PROC_INFO,
    PROC_INPUT,
    PROC_KILL,
    PROC_SPAWN,
    PROC_WAIT,
    Follow,
    Input,
    Kill,
    Pid,
    Spawn,
    Wait,
)
from llmos_shell.abi.types import ExitInfo, ProcessInfo, Signal, State
from llmos_shell.ipc.client import Client
from llmos_shell.testing.hurry import hurry
from llmos_shell.testing.retry import retry_until


def spawn(client: Client, prompt: str | None = "hello <x>", **options: Any) -> int:
    """The PID of a new process; a chat when `chat=True`, then without a prompt unless one is given."""
    if options.get("chat") and prompt == "hello <x>":
        prompt = None
    return int(client.call(PROC_SPAWN, Spawn(prompt=prompt, **options)).pid)


def text_of(client: Client, pid: int, **options: Any) -> str:
    """What it says, to the end."""
    return "".join(item.text for item in client.stream(PROC_FOLLOW, Follow(pid, **options)))


def run(client: Client, prompt: str = "hello <x>", **options: Any) -> str:
    """What a new process says."""
    return text_of(client, spawn(client, prompt, **options))


def run_alone(client: Client, prompts: Iterable[str], **options: Any) -> list[str]:
    """What processes of slow models say one after the other, each undisturbed; that takes no longer than it has to."""
    with hurry():
        return [run(client, prompt, **options) for prompt in prompts]


def say(client: Client, pid: int, text: str) -> str:
    """A chat's answer."""
    offset = client.call(PROC_INPUT, Input(pid, text)).offset
    return text_of(client, pid, offset=offset, until="idle")


def kill(client: Client, pid: int, signal: Signal = Signal.TERM, **options: Any) -> None:
    """Sends a signal."""
    client.call(PROC_KILL, Kill(pid, signal, **options))


def wait(client: Client, pid: int, timeout: float = 30.0) -> ExitInfo:
    """How it ended."""
    info = client.call(PROC_WAIT, Wait(pid, timeout=timeout))
    assert isinstance(info, ExitInfo)
    return info


def info(client: Client, pid: int) -> ProcessInfo:
    """Its row of `ps`."""
    row = client.call(PROC_INFO, Pid(pid))
    assert isinstance(row, ProcessInfo)
    return row


def wait_for_state(client: Client, pid: int, *states: State) -> ProcessInfo:
    """Its row, once it is in one of these states."""
    retry_until(lambda: info(client, pid).state in states)
    return info(client, pid)


def wait_for_tokens(client: Client, pid: int, count: int = 1) -> ProcessInfo:
    """Its row, once it has generated so many tokens."""
    retry_until(lambda: info(client, pid).generated_tokens >= count)
    return info(client, pid)


def code_of(client: Client, syscall: Any, args: Any) -> Code | None:
    """The error of a call; None when it succeeds."""
    try:
        client.call(syscall, args)
    except LlmosError as error:
        return error.code
    return None
