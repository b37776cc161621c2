"""Turns of models on a device, in simulated time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos_shell.daemon.sched.arbiter import KEEP_SECONDS, QUANTUM, ROUNDS, WINDOW, Arbiter

STEP = 0.05


class Machine:
    """Models that compute `rate` tokens per second of their turn; side by side all together `free`."""

    def __init__(
        self, free: float, turns: float, setting: str = "auto", weights: dict[str, float] | None = None
    ) -> None:
        self.arbiter, self.free, self.turns, self.now = Arbiter(setting), free, turns, 0.0
        self.weights = weights or {"a": 1.0, "b": 1.0}
        self.seconds = dict.fromkeys(self.weights, 0.0)
        for model, weight in self.weights.items():
            self.arbiter.wants(model, weight)

    def play(self, seconds: float) -> None:
        until = self.now + seconds
        again = self.now
        while self.now < until:
            if self.now >= again:
                again = self.arbiter.decide(self.now)
            allowed = [model for model in self.weights if self.arbiter.allowed(model)]
            assert allowed
            rate = self.turns if len(allowed) == 1 else self.free
            for model in allowed:
                self.arbiter.charge(model, STEP, round(rate * STEP / len(allowed)))
                self.seconds[model] += STEP
            self.now += STEP


def test_the_faster_way_is_measured_and_taken() -> None:
    for free, turns, gang in ((1000, 2000, True), (2000, 1000, False), (1000, 1020, False)):
        machine = Machine(free, turns)
        machine.play(2 * ROUNDS * WINDOW + 2)
        assert (machine.arbiter.measuring, machine.arbiter.gang) == (False, gang)
        assert machine.arbiter.rates[False] == pytest.approx(free, rel=0.1)
        assert machine.arbiter.rates[True] == pytest.approx(turns, rel=0.1)
        machine.play(KEEP_SECONDS)
        assert machine.arbiter.measuring


def test_turns_go_by_the_weight_of_the_processes() -> None:
    machine = Machine(1, 1, "on", {"a": 3.0, "b": 1.0})
    machine.play(200)
    assert machine.seconds["a"] / machine.seconds["b"] == pytest.approx(3, rel=0.1)


def test_an_urgent_one_has_its_turn_at_once() -> None:
    arbiter = Arbiter("on")
    arbiter.wants("a", 5.0)
    arbiter.wants("b", 1.0)
    assert arbiter.decide(0.0) == QUANTUM
    holder = arbiter.holder
    other = "b" if holder == "a" else "a"
    assert arbiter.wants(other, 1.0, urgent=True)
    arbiter.decide(QUANTUM / 10)
    assert arbiter.holder == other


def test_alone_a_model_waits_for_nobody() -> None:
    arbiter = Arbiter("on")
    arbiter.wants("a", 1.0)
    assert arbiter.decide(0.0) == math.inf and arbiter.allowed("a")
    arbiter.wants("b", 1.0)
    arbiter.decide(1.0)
    arbiter.wants(arbiter.holder, 0.0)
    arbiter.decide(1.1)
    assert arbiter.allowed("a") and arbiter.allowed("b")
    arbiter.remove("a")
    arbiter.decide(1.2)
    assert arbiter.allowed("b")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0.0, 1.0, 4.0]), st.booleans(), st.floats(0, 5))))
def test_somebody_may_always_compute(events: list[tuple[str, float, bool, float]]) -> None:
    for setting in ("auto", "on", "off"):
        arbiter, now = Arbiter(setting), 0.0
        wants: dict[str, float] = {}
        for model, weight, urgent, later in events:
            now += later
            wants[model] = weight
            arbiter.wants(model, weight, urgent)
            arbiter.charge(model, 0.1, 10)
            assert arbiter.decide(now) > now - 1e-9
            eager = [name for name, weight in wants.items() if weight]
            assert not eager or any(map(arbiter.allowed, eager))
