"""Everything at once: a tight pool, signals, priorities, dying workers and daemons. Nobody loses or changes a token."""

from __future__ import annotations

import os
import random
import signal

import pytest

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import PROC_NICE, SCHED_SET, SYS_STATUS, Nice, Nothing, PolicyName
from llmos_shell.abi.types import Signal
from llmos_shell.testing.clients import info, kill, run, spawn, text_of
from llmos_shell.testing.retry import retry_until

COUNT, MOST_DISTURBANCES = 12, 40
TIGHT = {"end_after": 60, "pages": 16, "slots": 6, "step_seconds": 0.002}


def options(number):
    return {"sampling": {"seed": number, "temperature": 1.3}, "detached": True}


def disturb(client, pids, chance):
    """One random disturbance; a process that has ended meanwhile does not mind."""
    pid = chance.choice(pids)
    try:
        chance.choice(
            [
                lambda: kill(client, pid, Signal.STOP),
                lambda: kill(client, pid, Signal.CONT),
                lambda: kill(client, pid, Signal.CONT),
                lambda: client.call(PROC_NICE, Nice(pid, chance.randrange(-5, 6))),
                lambda: client.call(SCHED_SET, PolicyName(chance.choice(["fair", "fifo"]))),
            ]
        )()
    except LlmosError as error:
        assert error.code == Code.ESRCH


def disturb_often(client, pids, chance):
    """Up to a few dozen disturbances."""
    for _ in range(chance.randrange(5, MOST_DISTURBANCES)):
        disturb(client, pids, chance)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 1 + int(os.environ.get("LLMOS_SOAK", "2"))))
@pytest.mark.llmos(models={"tight": TIGHT})
def test_storm(daemon, seed):
    chance = random.Random(seed)
    prompts = [f"{'a common beginning ' * (n % 2)}number {n} <x>" for n in range(COUNT)]
    with daemon.connect() as client:
        alone = [run(client, prompt, **options(n)) for n, prompt in enumerate(prompts)]
        pids = [spawn(client, prompt, nice=n % 5 - 2, **options(n)) for n, prompt in enumerate(prompts)]
    for victim in chance.sample(["worker", "worker", "daemon", "daemon"], 4):
        with daemon.connect() as client:
            disturb_often(client, pids, chance)
            if victim == "worker":
                workers = retry_until(lambda: client.call(SYS_STATUS, Nothing()).workers)
                os.kill(workers[0].pid, signal.SIGKILL)
        if victim == "daemon":
            daemon.kill()
            daemon.start()
    with daemon.connect() as client:
        disturb_often(client, pids, chance)
        for pid in pids:
            if info(client, pid).exit is None:
                kill(client, pid, Signal.CONT)
        assert [text_of(client, pid) for pid in pids] == alone
        assert [info(client, pid).generated_tokens for pid in pids] == [60] * COUNT
