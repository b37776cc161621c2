"""Everything at once: a tight pool, signals, priorities, dying workers and daemons. Nobody loses or changes a token."""

from __future__ import annotations

import os
import random
import signal

import pytest

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import PROC_NICE, SCHED_SET, SYS_STATUS, Nice, Nothing, PolicyName
from llmos_shell.abi.types import Signal
from llmos_shell.models.registry import Registry
from llmos_shell.testing.clients import info, kill, run, spawn, text_of
from llmos_shell.testing.hurry import hurry
from llmos_shell.testing.retry import retry_until

SOAK = int(os.environ.get("LLMOS_SOAK", "2"))
COUNT, MOST_DISTURBANCES = 12, 40
TIGHT = {"end_after": 60, "pages": 16, "slots": 6, "step_seconds": 0.002}
STEADY = """
slots = 4
options = { deterministic = true }
"""
"""Four slots for twelve, and bits that do not depend on who else runs: whatever happens, tokens must be equal."""


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


def go_on(client, pids):
    """Whoever was stopped goes on, unless it ends meanwhile."""
    for pid in pids:
        if info(client, pid).exit is None:
            try:
                kill(client, pid, Signal.CONT)
            except LlmosError as error:
                assert error.code == Code.ESRCH


def generated(client, pids):
    """Tokens so far, of all together."""
    return sum(info(client, pid).generated_tokens for pid in pids)


def ended(client, pids):
    """Whether all of them have."""
    return all(info(client, pid).exit is not None for pid in pids)


def kill_worker(client, pids):
    """Kills the worker, or the next one, unless everybody has ended by then."""

    def workers():
        return client.call(SYS_STATUS, Nothing()).workers

    if not workers():  # all may have been stopped since the last one died
        go_on(client, pids)
    found = retry_until(lambda: workers() or ended(client, pids))
    if found is not True:
        os.kill(found[0].pid, signal.SIGKILL)


def storm(daemon, victims, chance, tokens, **sampling):
    """Twelve processes say what they say alone, although they are disturbed and workers and daemons are killed.

    The victims are killed at random moments between the first token and the last.
    """
    prompts = [f"{'a common beginning ' * (n % 2)}number {n} <x>" for n in range(COUNT)]
    each = [{"sampling": {"seed": n, "temperature": 1.3, **sampling}, "detached": True} for n in range(COUNT)]
    with daemon.connect() as client:
        with hurry():
            alone = [run(client, prompt, **options) for prompt, options in zip(prompts, each, strict=True)]
        pids = [spawn(client, prompts[n], nice=n % 5 - 2, **each[n]) for n in range(COUNT)]
    moments = sorted(chance.uniform(0, 0.9) for _ in victims)
    for victim, moment in zip(victims, moments, strict=True):
        with daemon.connect() as client:
            go_on(client, pids)
            retry_until(lambda done=moment * COUNT * tokens: generated(client, pids) >= done)
            disturb_often(client, pids, chance)
            if victim == "worker":
                kill_worker(client, pids)
        if victim == "daemon":
            daemon.kill()
            daemon.start()
    with daemon.connect() as client:
        disturb_often(client, pids, chance)
        go_on(client, pids)
        assert [text_of(client, pid) for pid in pids] == alone
        assert [info(client, pid).generated_tokens for pid in pids] == [tokens] * COUNT


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 1 + SOAK))
@pytest.mark.llmos(models={"tight": TIGHT})
def test_storm(daemon, seed):
    chance = random.Random(seed)
    storm(daemon, chance.sample(["worker", "worker", "daemon", "daemon"], 4), chance, 60)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 1 + max(1, SOAK // 20)))
def test_storm_on_real_weights(llmos_home, seed, request):
    weights = Registry().resolve("tiny").path
    models = f'default = "steady"\n[models.steady]\npath = "{weights}"{STEADY}'
    (llmos_home / "config" / "models.toml").write_text(models)
    chance = random.Random(seed)
    victims = ["worker", "daemon"] * (1 if SOAK <= 2 else 2)
    storm(request.getfixturevalue("daemon"), victims, chance, 200, max_tokens=200, ignore_eos=True)
