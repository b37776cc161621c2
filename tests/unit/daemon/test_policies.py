"""The policies' orders and preemption rules."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.daemon.policies import AGEING, LEAD, MIN_RUN, POLICIES, Entity, KeyedPolicy, policy_named, weight_of

ENTITIES = st.builds(
    Entity,
    pid=st.integers(2, 9999),
    vruntime=st.floats(0, 100),
    enqueued=st.floats(0, 100),
    started=st.floats(0, 100),
    arrived=st.integers(1, 1000),
    foreground=st.booleans(),
    burst=st.sampled_from([0.0, 1.0]),
    nice=st.integers(-20, 19),
    slice=st.floats(0, 5),
    last_wait=st.floats(0, 500),
    deadline=st.sampled_from([50.0, 200.0, 300.0, math.inf]),
    missed=st.booleans(),
    favoured=st.booleans(),
)


class TestWeights:
    def test_nice_0_is_1024_and_a_step_is_a_quarter(self) -> None:
        assert weight_of(0) == 1024
        for nice in range(-20, 19):
            assert weight_of(nice) == pytest.approx(1.25 * weight_of(nice + 1))

    def test_is_near_the_kernels_table(self) -> None:
        kernel = {-20: 88761, -10: 9548, -5: 3121, 5: 335, 10: 110, 19: 15}
        for nice, weight in kernel.items():
            assert weight_of(nice) == pytest.approx(weight, rel=0.04)

    @pytest.mark.parametrize("nice", [-21, 20])
    def test_range(self, nice: int) -> None:
        with pytest.raises(LlmosError) as caught:
            weight_of(nice)
        assert caught.value.code is Code.EINVAL


@pytest.mark.parametrize("name", POLICIES)
class TestEveryPolicy:
    def test_name(self, name: str) -> None:
        assert policy_named(name).name == name

    @given(entities=st.lists(ENTITIES, max_size=20, unique_by=lambda one: one.pid), later=st.floats(0, 50))
    def test_rank_sorts_by_key_at_any_time(self, name: str, entities: list[Entity], later: float) -> None:
        policy = policy_named(name)
        assert isinstance(policy, KeyedPolicy)
        ranked = policy.rank(entities, 100.0 + later)
        assert [policy.key(one) for one in ranked] == sorted(policy.key(one) for one in entities)

    @given(waiting=ENTITIES, running=ENTITIES)
    def test_the_preempted_does_not_strike_back(self, name: str, waiting: Entity, running: Entity) -> None:
        policy, now = policy_named(name), 100.0
        if policy.should_preempt(waiting, running, now):
            waiting.last_wait = now - waiting.enqueued
            running.enqueued = waiting.started = now
            waiting.slice = 0.0
            assert not policy.should_preempt(running, waiting, now)


def test_an_unknown_policy_names_the_known_ones() -> None:
    with pytest.raises(LlmosError, match="fair, fifo") as caught:
        policy_named("lottery")
    assert caught.value.code is Code.ENOENT


class TestFair:
    fair = policy_named("fair")

    def test_least_virtual_runtime_first(self) -> None:
        one, other = Entity(1, vruntime=2.0, arrived=1), Entity(2, vruntime=1.0, arrived=2)
        assert self.fair.rank([one, other], 5.0) == [other, one]

    def test_waiting_makes_up_for_virtual_runtime(self) -> None:
        patient = Entity(1, vruntime=2.0, enqueued=0.0)
        fresh = Entity(2, vruntime=1.0, enqueued=1.01 / AGEING)
        assert self.fair.rank([fresh, patient], 20.0) == [patient, fresh]

    def test_foreground_wakeups_come_first(self) -> None:
        patient = Entity(1, vruntime=0.0, enqueued=0.0)
        woken = Entity(2, vruntime=9.0, enqueued=50.0, foreground=True, burst=0.1)
        assert self.fair.rank([patient, woken], 50.0) == [woken, patient]

    def test_equals_do_not_preempt_each_other(self) -> None:
        assert not self.fair.should_preempt(Entity(1, enqueued=5.0), Entity(2), 5.0)

    def test_needs_a_lead(self) -> None:
        running = Entity(2, vruntime=1.0)
        assert not self.fair.should_preempt(Entity(1, vruntime=1.0 - LEAD, enqueued=5.0), running, 5.0)
        assert self.fair.should_preempt(Entity(1, vruntime=0.99 - LEAD, enqueued=5.0), running, 5.0)

    def test_a_process_runs_a_while_first(self) -> None:
        running = Entity(2, vruntime=9.0, started=5.0)
        assert not self.fair.should_preempt(Entity(1, enqueued=5.0), running, 5.0 + MIN_RUN / 2)
        assert self.fair.should_preempt(Entity(1, enqueued=5.0), running, 5.0 + MIN_RUN)

    def test_a_foreground_wakeup_preempts_the_background_at_once(self) -> None:
        woken = Entity(1, vruntime=9.0, enqueued=5.0, foreground=True, burst=1.0)
        assert self.fair.should_preempt(woken, Entity(2, started=5.0), 5.0)
        assert not self.fair.should_preempt(woken, Entity(2, started=5.0, foreground=True), 5.0)

    def test_the_background_does_not_preempt_a_foreground_wakeup(self) -> None:
        woken = Entity(1, vruntime=9.0, foreground=True, burst=1.0)
        assert not self.fair.should_preempt(Entity(2, enqueued=5.0), woken, 5.0)
        woken.burst = 0.0
        assert self.fair.should_preempt(Entity(2, enqueued=5.0), woken, 5.0)


class TestFifo:
    def test_order_of_arrival_whatever_the_runtime(self) -> None:
        one, other = Entity(1, vruntime=9.0, arrived=1), Entity(2, arrived=2, foreground=True, burst=1.0)
        fifo = policy_named("fifo")
        assert fifo.rank([other, one], 0.0) == [one, other]
        assert not fifo.should_preempt(one, other, 100.0)
