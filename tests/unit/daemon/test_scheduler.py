"""The scheduler in simulated time: shares, wakeups, preemption, room, faults of policies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.daemon import policies
from llmos_shell.daemon.policies import MIN_RUN, Entity, weight_of
from llmos_shell.daemon.sched.runset import PATIENCE
from llmos_shell.daemon.sched.scheduler import SPARE_DEADLINES, Decision, Scheduler, Slots

STEP = 0.05


class Pages:
    """Room by memory: each process needs its pages."""

    def __init__(self, pages: int, needs: dict[int, int], running: Iterable[int] = ()) -> None:
        self.pages, self.needs = pages, needs
        self.held = set(running)

    def admit(self, pid: int) -> bool:
        assert pid not in self.held
        fits = sum(self.needs[one] for one in self.held) + self.needs[pid] <= self.pages
        if fits:
            self.held.add(pid)
        return fits

    def evict(self, pid: int) -> None:
        self.held.remove(pid)

    def possible(self, pid: int) -> bool:
        return self.needs[pid] <= self.pages


class Machine:
    """A device that computes one token of each running process per step."""

    def __init__(self, slots: int, policy: str = "fair") -> None:
        self.scheduler = Scheduler(policy)
        self.slots = slots
        self.now = 0.0
        self.run: tuple[int, ...] = ()
        self.ran: dict[int, float] = {}

    def start(self, pid: int, nice: int = 0, foreground: bool = False) -> None:
        self.scheduler.add(pid, nice, foreground)
        self.scheduler.wake(pid, self.now)

    def choose(self) -> Decision:
        decision = self.scheduler.choose(set(self.run), self.slots, self.now)
        assert len(decision.run) <= self.slots
        self.run = decision.run
        return decision

    def nap(self, pid: int) -> None:
        self.scheduler.sleep(pid, self.now)
        self.scheduler.wake(pid, self.now)
        self.run = tuple(one for one in self.run if one != pid)

    def steps(self, seconds: float) -> Iterator[tuple[int, ...]]:
        for _ in range(round(seconds / STEP)):
            self.choose()
            self.now += STEP
            self.scheduler.charge_step(dict.fromkeys(self.run, 1), STEP)
            for pid in self.run:
                self.ran[pid] = self.ran.get(pid, 0.0) + STEP / len(self.run)
            yield self.run

    def play(self, seconds: float) -> None:
        for _ in self.steps(seconds):
            pass


class TestShares:
    @given(nices=st.lists(st.integers(-8, 8), min_size=2, max_size=5))
    @settings(max_examples=6, deadline=None)
    def test_are_proportional_to_weights(self, nices: list[int]) -> None:
        machine = Machine(1)
        for pid, nice in enumerate(nices, 2):
            machine.start(pid, nice)
        machine.play(400)
        total = sum(map(weight_of, nices))
        for pid, nice in enumerate(nices, 2):
            assert machine.ran[pid] / machine.now == pytest.approx(weight_of(nice) / total, abs=0.02)

    def test_equals_share_several_slots_equally(self) -> None:
        machine = Machine(3)
        for pid in range(2, 9):
            machine.start(pid)
        machine.play(200)
        assert max(machine.ran.values()) == pytest.approx(min(machine.ran.values()), rel=0.05)

    def test_a_sleeper_gets_no_windfall(self) -> None:
        machine = Machine(1)
        machine.start(2)
        machine.scheduler.add(3, 0)
        machine.play(500)
        machine.scheduler.wake(3, machine.now)
        machine.ran = {}
        machine.play(20)
        assert machine.ran[2] == pytest.approx(machine.ran[3], abs=2.0)

    def test_nor_does_one_that_naps(self) -> None:
        machine = Machine(1)
        machine.start(2)
        machine.start(3)
        for _ in machine.steps(100):
            if 3 in machine.run:
                machine.nap(3)
        assert machine.ran[3] <= machine.ran[2] + 2.0

    def test_nor_does_a_newcomer(self) -> None:
        machine = Machine(1)
        machine.start(2)
        machine.play(100)
        machine.start(3)
        assert machine.scheduler.entity(3).vruntime == machine.scheduler.entity(2).vruntime == pytest.approx(100)

    def test_nor_does_one_that_naps_between_two_decisions(self) -> None:
        machine = Machine(1)
        machine.start(2)
        machine.start(3)
        for run in machine.steps(100):
            if 3 in run:
                machine.nap(3)
                machine.run = run
        assert machine.ran[3] <= machine.ran[2] + 2.0

    def test_a_step_is_shared_by_tokens(self) -> None:
        scheduler = Scheduler()
        scheduler.add(2, 0)
        scheduler.add(3, 0)
        scheduler.charge_step({2: 30, 3: 10, 99: 40}, 0.8)
        scheduler.charge_step({}, 0.8)
        assert scheduler.entity(2).device_seconds == pytest.approx(0.3)
        assert scheduler.entity(3).vruntime == pytest.approx(0.1)

    def test_renice_takes_effect_from_now_on(self) -> None:
        scheduler = Scheduler()
        scheduler.add(2, 0)
        scheduler.charge(2, 1.0)
        scheduler.renice(2, 5)
        scheduler.charge(2, 1.0)
        assert scheduler.entity(2).vruntime == pytest.approx(1 + 1.25**5)


class TestStarvation:
    @pytest.mark.parametrize("policy", ["fair", "fifo"])
    def test_everyone_runs_while_others_keep_coming(self, policy: str) -> None:
        machine = Machine(2, policy)
        for pid in range(2, 12):
            machine.start(pid, nice=pid % 20)
        newcomer = 100
        for _ in machine.steps(150):
            for pid in machine.run:
                if machine.ran[pid] > 2.0:
                    machine.scheduler.remove(pid)
                    newcomer += 1
                    machine.start(newcomer)
            machine.run = tuple(pid for pid in machine.run if pid in machine.scheduler)
        assert set(range(2, 12)) <= set(machine.ran)

    def test_the_background_runs_however_often_the_foreground_wakes(self) -> None:
        machine = Machine(1)
        machine.start(2)
        for pid in range(3, 9):
            machine.start(pid, foreground=True)
        for _ in machine.steps(200):
            for pid in machine.run:
                if pid != 2:
                    machine.nap(pid)
        assert machine.ran[2] > 10.0

    def test_small_ones_do_not_keep_a_large_one_out(self) -> None:
        """Each small one leaves before it has run long enough to be preempted, and another takes its place."""
        scheduler, now, running = Scheduler(), 0.0, list[int]()
        needs = dict.fromkeys(range(3, 1000), 1) | {2: 4}
        for pid in range(3, 1000):
            if pid == 7:
                scheduler.add(2, 0)
                scheduler.wake(2, now)
            scheduler.add(pid, 0)
            scheduler.wake(pid, now)
            running += scheduler.choose(running, Pages(4, needs, running), now).start
            if 2 in running:
                break
            scheduler.charge_step(dict.fromkeys(running, 1), MIN_RUN / 8)
            now += MIN_RUN / 8
            if len(running) == 4 or now > PATIENCE:
                scheduler.remove(running.pop(0))
        assert running == [2]
        assert PATIENCE < now < PATIENCE + 2


class TestForeground:
    def test_preempts_the_background_at_once(self) -> None:
        machine = Machine(2)
        for pid in (2, 3):
            machine.start(pid)
        machine.choose()
        machine.start(4, foreground=True)
        decision = machine.choose()
        assert decision.start == (4,)
        assert decision.preempt in ((2,), (3,))
        assert decision.run[0] == 4

    def test_does_so_before_ten_thousand_that_wait(self) -> None:
        machine = Machine(1)
        for pid in range(2, 10_000):
            machine.start(pid)
        machine.play(STEP)
        machine.now += 1000.0
        machine.start(10_001, foreground=True)
        assert machine.choose().run == (10_001,)

    def test_is_like_others_after_its_burst(self) -> None:
        machine = Machine(1)
        machine.start(2)
        machine.start(3, foreground=True)
        machine.play(400)
        assert machine.ran[2] == pytest.approx(machine.ran[3], abs=3.0)

    def test_keeps_its_precedence_while_it_has_the_device_to_itself(self) -> None:
        machine = Machine(1)
        machine.start(3, foreground=True)
        for _ in machine.steps(100):
            machine.nap(3)
            assert machine.scheduler.entity(3).urgent
        machine.scheduler.sleep(3, machine.now)
        machine.start(2)
        machine.choose()
        machine.scheduler.wake(3, machine.now)
        assert machine.choose().run == (3,)

    def test_can_be_taken_to_the_background(self) -> None:
        machine = Machine(1)
        machine.start(2, foreground=True)
        machine.choose()
        machine.scheduler.set_foreground(2, False)
        machine.start(3, foreground=True)
        assert machine.choose().preempt == (2,)


class TestChoose:
    def test_fills_the_room_in_order_and_keeps_who_runs(self) -> None:
        machine = Machine(3)
        for pid in (5, 4, 3, 2):
            machine.start(pid)
        assert machine.choose() == Decision((5, 4, 3), (5, 4, 3), ())
        assert machine.choose() == Decision((5, 4, 3), (), ())
        assert (machine.scheduler.running, machine.scheduler.runnable) == ((5, 4, 3), 1)

    def test_is_deterministic(self) -> None:
        runs = []
        for _ in range(2):
            machine = Machine(3)
            for pid in range(2, 20):
                machine.start(pid, nice=pid % 5, foreground=pid % 7 == 0)
            runs.append(list(machine.steps(30)))
        assert runs[0] == runs[1]

    def test_equals_alternate_no_faster_than_the_minimum_run(self) -> None:
        machine = Machine(1)
        machine.start(2)
        machine.start(3)
        machine.play(60)
        assert 4 <= sum(machine.scheduler.entity(pid).preemptions for pid in (2, 3)) <= 60 / MIN_RUN

    def test_preempts_as_few_as_it_takes_largest_runtime_first(self) -> None:
        scheduler = Scheduler()
        needs = {2: 1, 3: 1, 4: 3, 5: 3}
        for pid in (2, 3, 4):
            scheduler.add(pid, 0)
            scheduler.wake(pid, 0.0)
        scheduler.choose(set(), Pages(5, needs), 0.0)
        for pid, seconds in ((2, 2.0), (3, 4.0), (4, 3.7)):
            scheduler.charge(pid, seconds)
        scheduler.add(5, 0)
        scheduler.wake(5, 5.0)
        room = Pages(5, needs, {2, 3, 4})
        assert scheduler.choose({2, 3, 4}, room, 9.0).preempt == (4,)
        assert room.held == {2, 3, 5}

    def test_preempts_nobody_in_vain(self) -> None:
        scheduler = Scheduler()
        needs = {2: 2, 3: 2, 4: 9}
        for pid in (2, 3):
            scheduler.add(pid, 0)
            scheduler.wake(pid, 0.0)
        scheduler.choose(set(), Pages(5, needs), 0.0)
        scheduler.charge_step({2: 1, 3: 1}, 9.0)
        scheduler.add(4, -20)
        scheduler.wake(4, 9.0)
        scheduler.entity(4).vruntime = 0.0
        room = Pages(5, needs, {2, 3})
        assert scheduler.choose({2, 3}, room, 60.0).preempt == ()
        assert room.held == {2, 3}
        assert "no room" in scheduler.why(4, 60.0)

    def test_smaller_ones_may_pass_under_fair_but_not_under_fifo(self) -> None:
        needs = {2: 3, 3: 3, 4: 1}
        for policy, run in (("fair", {2, 4}), ("fifo", {2})):
            scheduler = Scheduler(policy)
            for pid in (2, 3, 4):
                scheduler.add(pid, 0)
                scheduler.wake(pid, 0.0)
            assert set(scheduler.choose(set(), Pages(5, needs), 0.0).run) == run

    def test_nobody_waits_for_one_that_can_never_run(self) -> None:
        scheduler = Scheduler("fifo")
        for pid in (2, 3):
            scheduler.add(pid, 0)
            scheduler.wake(pid, 0.0)
        assert scheduler.choose(set(), Pages(5, {2: 6, 3: 1}), 0.0).run == (3,)

    def test_a_room_that_raises_spoils_one_decision_only(self) -> None:
        class Broken(Pages):
            def admit(self, pid: int) -> bool:
                if len(self.held) == 1:
                    raise OSError("no worker")
                return super().admit(pid)

        scheduler, needs = Scheduler(), dict.fromkeys((2, 3, 4), 1)
        for pid in needs:
            scheduler.add(pid, 0)
            scheduler.wake(pid, 0.0)
        with pytest.raises(OSError, match="no worker"):
            scheduler.choose(set(), Broken(2, needs), 0.0)
        decision = scheduler.choose(set(), Pages(2, needs), 0.0)
        assert decision == Decision((2, 3), (2, 3), ())

    def test_takes_the_callers_word_for_who_runs(self) -> None:
        machine = Machine(1)
        machine.start(2)
        machine.choose()
        machine.now += 3.0
        decision = machine.scheduler.choose(set(), Slots(0), machine.now)
        assert decision == Decision((), (), ())
        assert machine.scheduler.runnable == 1
        assert machine.scheduler.choose({2, 77}, Slots(0), machine.now).run == (2,)

    def test_sleepers_and_the_removed_do_not_run(self) -> None:
        machine = Machine(4)
        for pid in (2, 3, 4):
            machine.start(pid)
        machine.choose()
        machine.scheduler.sleep(2, 0.0)
        machine.scheduler.remove(3)
        machine.scheduler.remove(3)
        machine.run = (4,)
        assert machine.choose().run == (4,)

    @given(st.data())
    @settings(max_examples=40, deadline=None)
    def test_room_always_holds_the_run_set(self, data: st.DataObject) -> None:
        scheduler, now, running = Scheduler(data.draw(st.sampled_from(["fair", "fifo"]))), 0.0, set[int]()
        needs = {pid: data.draw(st.integers(1, 6)) for pid in range(2, 14)}
        for _ in range(25):
            now += 1.5
            pid = data.draw(st.sampled_from(sorted(needs)))
            if pid not in scheduler:
                scheduler.add(pid, data.draw(st.integers(-3, 3)), data.draw(st.booleans()))
                scheduler.wake(pid, now)
            elif data.draw(st.booleans()):
                scheduler.sleep(pid, now)
                running.discard(pid)
            else:
                scheduler.wake(pid, now)
            scheduler.charge_step(dict.fromkeys(running, 1), 1.5)
            room = Pages(7, needs, running)
            decision = scheduler.choose(running, room, now)
            assert room.held == set(decision.run) == set(scheduler.running)
            assert running - set(decision.run) == set(decision.preempt)
            assert set(decision.run) - running == set(decision.start)
            running = set(decision.run)


class TestAccounting:
    def test_waiting_time(self) -> None:
        machine = Machine(1)
        machine.start(2)
        machine.start(3)
        machine.choose()
        assert machine.scheduler.waited(3, 0.5) == 0.5
        machine.scheduler.sleep(3, 0.75)
        assert machine.scheduler.waited(3, 9.0) == 0.75
        assert machine.scheduler.waited(2, 9.0) == 0.0
        machine.scheduler.remove(2)
        machine.scheduler.wake(3, 10.0)
        machine.now, machine.run = 12.0, ()
        machine.choose()
        assert machine.scheduler.waited(3, 99.0) == 2.75

    def test_victims_are_the_least_deserving_first(self) -> None:
        machine = Machine(3)
        for pid in (2, 3, 4):
            machine.start(pid)
        machine.choose()
        for pid, seconds in ((2, 2.0), (3, 4.0), (4, 3.0)):
            machine.scheduler.charge(pid, seconds)
        assert machine.scheduler.victims([2, 3, 4, 99], 1.0) == [3, 4, 2]

    def test_news_of_a_preempted_process_reorders_the_queue(self) -> None:
        machine = Machine(1)
        for pid in (2, 3, 4):
            machine.start(pid)
        machine.choose()
        machine.scheduler.charge(3, 5.0)
        machine.scheduler.remove(2)
        machine.run = ()
        assert machine.choose().run == (4,)

    def test_unknown_and_doubly_known(self) -> None:
        scheduler = Scheduler()
        scheduler.add(2, 0)
        scheduler.charge(3, 1.0)
        for call in (lambda: scheduler.wake(3, 0.0), lambda: scheduler.why(3, 0.0)):
            with pytest.raises(LlmosError) as caught:
                call()
            assert (caught.value.code, caught.value.pid) == (Code.ESRCH, 3)
        with pytest.raises(LlmosError):
            scheduler.add(2, 0)
        with pytest.raises(LlmosError):
            scheduler.renice(2, 99)

    def test_why_says_why(self) -> None:
        machine = Machine(1)
        machine.start(2)
        machine.start(3, nice=5)
        machine.scheduler.add(4, 0)
        machine.choose()
        machine.now = 2.0
        assert machine.scheduler.why(2, 2.0).startswith("runs since 2.0 s: 1 of 1 in the run set")
        assert machine.scheduler.why(3, 2.0).startswith("waits for 2.0 s: 1 of 1 in line")
        assert "sleeps" in machine.scheduler.why(4, 2.0)


class Reversed:
    """A third party's policy without a key."""

    name, strict = "reversed", False
    calls: ClassVar[list[str]] = []

    def rank(self, entities: Iterable[Entity], now: float) -> list[Entity]:
        return sorted(entities, key=lambda one: -one.pid)

    def should_preempt(self, waiting: Entity, running: Entity, now: float) -> bool:
        return waiting.pid > running.pid


class RaisesInRank(Reversed):
    def rank(self, entities: Iterable[Entity], now: float) -> list[Entity]:
        raise RuntimeError("no idea")


class LosesOne(Reversed):
    def rank(self, entities: Iterable[Entity], now: float) -> list[Entity]:
        return list(entities)[1:]


class RaisesInPreempt(Reversed):
    def should_preempt(self, waiting: Entity, running: Entity, now: float) -> bool:
        if running.pid == 3:
            raise RuntimeError("no idea")
        return True


class RaisesInKey(Reversed):
    def key(self, entity: Entity) -> int:
        raise RuntimeError("no idea")


class MixesKeys(Reversed):
    def key(self, entity: Entity) -> object:
        return entity.pid if entity.pid % 2 else str(entity.pid)


class TestPolicies:
    def test_can_be_changed_while_running(self) -> None:
        machine = Machine(1)
        for pid in (2, 3, 4):
            machine.start(pid)
        machine.scheduler.set_policy("fifo")
        machine.play(30)
        assert set(machine.ran) == {2}
        machine.scheduler.set_policy("fair")
        machine.play(30)
        assert set(machine.ran) == {2, 3, 4}
        assert machine.scheduler.policy in machine.scheduler.policies

    def test_an_unknown_one_changes_nothing(self) -> None:
        scheduler = Scheduler()
        with pytest.raises(LlmosError):
            scheduler.set_policy("lottery")
        assert scheduler.policy == "fair"

    def test_needs_no_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(policies.POLICIES, "reversed", Reversed)
        machine = Machine(2, "reversed")
        for pid in (2, 3, 4):
            machine.start(pid)
        assert machine.choose().run == (4, 3)
        machine.start(5)
        assert machine.choose() == Decision((5, 4), (5,), (3,))

    @pytest.mark.parametrize("broken", [RaisesInRank, LosesOne, RaisesInPreempt, RaisesInKey, MixesKeys])
    def test_a_broken_one_is_replaced_and_reported(
        self, broken: type[Reversed], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(policies.POLICIES, "broken", broken)
        faults: list[str] = []
        scheduler = Scheduler("broken", faults.append)
        needs = {2: 2, 3: 2, 4: 4, 5: 1}
        running: set[int] = set()
        for pid in (2, 3, 4, 5):
            scheduler.add(pid, 0)
            scheduler.wake(pid, 0.0)
            room = Pages(4, needs, running)
            decision = scheduler.choose(running, room, 0.0)
            assert room.held == set(decision.run)
            running = set(decision.run)
        assert scheduler.policy == "fair"
        assert len(faults) == 1
        assert "policy reversed" in faults[0]
        assert "fair" in faults[0]


def test_deadlines_of_those_that_have_gone_are_forgotten():
    missed: list[int] = []
    scheduler = Scheduler("deadline", on_missed=lambda pid, late: missed.append(pid))
    scheduler.add(1, 0, deadline=5.0)
    for pid in range(2, 1000):
        scheduler.add(pid, 0, deadline=1e6 - pid)
        scheduler.remove(pid)
    assert len(scheduler._deadlines) <= SPARE_DEADLINES + 2
    scheduler.wake(1, 0.0)
    scheduler.choose((), 1, 6.0)
    assert missed == [1]
