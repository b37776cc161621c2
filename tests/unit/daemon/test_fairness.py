"""What every policy must keep, whatever comes: work conservation, no starvation, shares by weight, determinism."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import GroupSettings
from llmos_shell.daemon.policies import POLICIES, Entity, policy_named, registry, weight_of
from llmos_shell.daemon.processes.process import group_name
from llmos_shell.daemon.sched.groups import Group, Meter
from llmos_shell.daemon.sched.scheduler import URGENT_SHARE, Scheduler
from llmos_shell.daemon.sched.shares import Shares

STEP = 0.05
PREEMPTIVE = ("fair", "rr", "priority", "deadline")


class Device:
    """Computes one token of each running process per step."""

    def __init__(self, slots: int, policy: str = "fair", **parameters: float) -> None:
        self.missed: list[int] = []
        self.scheduler = Scheduler(policy, settings=parameters, on_missed=lambda pid, late: self.missed.append(pid))
        self.slots, self.now, self.run = slots, 0.0, tuple[int, ...]()
        self.used: dict[int, float] = {}
        self.last: dict[int, float] = {}
        self.history: list[tuple[int, ...]] = []

    def start(self, pid: int, nice: int = 0, group: str = "", deadline: float = math.inf) -> None:
        self.scheduler.add(pid, nice, False, group, deadline)
        self.scheduler.wake(pid, self.now)
        self.used[pid], self.last[pid] = 0.0, self.now

    def end(self, pid: int) -> None:
        self.scheduler.remove(pid)
        self.run = tuple(one for one in self.run if one != pid)

    def step(self) -> None:
        self.run = self.scheduler.choose(self.run, self.slots, self.now).run
        self.history.append(self.run)
        self.now += STEP
        self.scheduler.charge_step(dict.fromkeys(self.run, 1), STEP)
        for pid in self.run:
            self.used[pid] += STEP / len(self.run)
            self.last[pid] = self.now

    def play(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP)):
            self.step()


Events = list[tuple[str, int, int, int]]
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["start", "end", "nap", "step"]), st.integers(2, 20), st.integers(-5, 5), st.integers(0, 3)
    ),
    max_size=60,
)


@pytest.mark.parametrize("policy", POLICIES)
class TestEveryPolicy:
    @given(events=EVENTS, slots=st.integers(1, 4))
    @settings(max_examples=25, deadline=None)
    def test_no_slot_is_idle_while_somebody_waits(self, policy: str, events: Events, slots: int) -> None:
        device = Device(slots, policy)
        _play(device, events)

    @given(events=EVENTS, slots=st.integers(1, 4))
    @settings(max_examples=10, deadline=None)
    def test_is_deterministic(self, policy: str, events: Events, slots: int) -> None:
        histories = []
        for _ in range(2):
            device = Device(slots, policy)
            _play(device, events)
            histories.append(device.history)
        assert histories[0] == histories[1]

    def test_decisions_survive_clocks_that_jump(self, policy: str) -> None:
        device = Device(1, policy)
        for pid in (2, 3, 4):
            device.start(pid)
        for jump in (0.0, 1e6, -2e6, 0.0):
            device.now += jump
            device.play(5)
        assert all(device.scheduler.entity(pid).waited >= 0 for pid in (2, 3, 4))
        assert sum(device.used.values()) == pytest.approx(20)


def _play(device: Device, events: Events) -> None:
    for what, pid, nice, group in events:
        known = pid in device.scheduler
        if what == "start" and not known:
            device.start(pid, nice, f"g{group}", device.now + group if group else math.inf)
        elif what == "end" and known:
            device.end(pid)
        elif what == "nap" and known:
            device.scheduler.sleep(pid, device.now)
            device.run = tuple(one for one in device.run if one != pid)
            device.scheduler.wake(pid, device.now)
        else:
            device.step()
            waiting = device.scheduler.runnable
            assert len(device.run) == device.slots or not waiting
        fair = device.scheduler._shares.fair()
        assert fair is None or math.isfinite(fair)


@pytest.mark.parametrize("policy", PREEMPTIVE)
@given(nices=st.lists(st.integers(-3, 3), min_size=2, max_size=6))
@settings(max_examples=5, deadline=None)
def test_nobody_waits_for_ever(policy: str, nices: list[int]) -> None:
    """Newcomers keep coming, with deadlines and at every level; each leaves after half a second of device time."""
    device = Device(1, policy)
    for pid, nice in enumerate(nices, 2):
        device.start(pid, nice)
    old, pid = range(2, 2 + len(nices)), 100
    for _ in range(round(400 / STEP)):
        device.step()
        for one in [one for one in device.run if one >= 100 and device.used[one] > 0.5]:
            device.end(one)
        if device.scheduler.runnable < 8:
            pid += 1
            device.start(pid, -3, deadline=device.now + 2.0)
    assert all(device.used[pid] > 0 for pid in old)
    assert all(device.now - device.last[pid] < 300 for pid in old)


class TestGroups:
    @given(
        sizes=st.lists(st.integers(1, 12), min_size=2, max_size=4),
        weights=st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=4, max_size=4),
    )
    @settings(max_examples=8, deadline=None)
    def test_get_shares_by_weight_whatever_their_size(self, sizes: list[int], weights: list[float]) -> None:
        device, pid = Device(1), 1
        for group, size in enumerate(sizes):
            device.scheduler.set_group_weight(f"g{group}", weights[group])
            for _ in range(size):
                pid += 1
                device.start(pid, nice=pid % 3, group=f"g{group}")
        device.play(300)
        total = sum(weights[: len(sizes)])
        for group in range(len(sizes)):
            used = sum(used for pid, used in device.used.items() if device.scheduler.entity(pid).group == f"g{group}")
            assert used / device.now == pytest.approx(weights[group] / total, abs=0.03)

    def test_a_hundred_jobs_do_not_keep_the_one_of_another_group_waiting(self) -> None:
        device = Device(8)
        for pid in range(3, 103):
            device.start(pid, group="many")
        device.play(150)
        device.start(2, group="one")
        device.play(30)
        assert device.used[2] > 0.7 * 30 / 8

    def test_nor_do_a_thousand_on_a_single_slot(self) -> None:
        device = Device(1)
        for pid in range(3, 1003):
            device.start(pid, group="many")
        device.play(100)
        device.start(2, group="one")
        device.play(60)
        assert device.used[2] == pytest.approx(30, abs=4)

    def test_within_a_group_nice_decides(self) -> None:
        device = Device(1)
        device.start(2, 0, "a")
        device.start(3, 5, "a")
        device.start(4, 0, "b")
        device.play(2000)
        assert device.used[2] / device.used[3] == pytest.approx(1.25**5, rel=0.05)
        assert device.used[4] / device.now == pytest.approx(0.5, abs=0.02)

    def test_one_that_cannot_use_its_share_does_not_let_newcomers_go_before_all_others(self) -> None:
        device = Device(4)
        device.start(2, group="one")
        for pid in range(3, 23):
            device.start(pid, group="many")
        device.play(300)
        before = dict(device.used)
        for pid in range(50, 70):
            device.start(pid, group="new")
        device.play(60)
        gained = {pid: device.used[pid] - before.get(pid, 0.0) for pid in device.used}
        many, new = sum(gained[pid] for pid in range(3, 23)), sum(gained[pid] for pid in range(50, 70))
        assert 0.5 < many / new < 2.0

    def test_time_nobody_else_wanted_is_not_held_against_anybody(self) -> None:
        device = Device(2)
        device.start(2)
        device.start(3, nice=19)
        device.play(300)
        for pid in (4, 5):
            device.start(pid)
        before = device.used[3]
        device.play(400)
        assert device.used[3] > before

    def test_regrouping_moves_its_weight(self) -> None:
        device = Device(1)
        for pid in (2, 3, 4):
            device.start(pid, group="a")
        device.scheduler.regroup(4, "b")
        device.play(300)
        assert device.used[4] / device.now == pytest.approx(0.5, abs=0.03)


class TestShares:
    @given(st.lists(st.tuples(st.integers(0, 2), st.integers(-20, 19), st.floats(0, 1e4)), max_size=30), st.randoms())
    def test_sums_are_those_of_who_is_in(self, members: list[tuple[int, int, float]], random: object) -> None:
        shares, entities = Shares(), []
        for pid, (group, nice, vruntime) in enumerate(members):
            entities.append(Entity(pid, nice, weight_of(nice), f"g{group}", vruntime=vruntime))
            shares.join(entities[-1])
        random.shuffle(entities)  # type: ignore[attr-defined]
        while entities:
            assert min(one.vruntime for one in entities) - 1e-3 <= (shares.fair() or 0.0)
            assert max(one.vruntime for one in entities) + 1e-3 >= (shares.fair() or 0.0)
            shares.leave(entities.pop())
        assert shares.fair() is None and shares.load == 0.0

    @given(
        st.lists(st.tuples(st.integers(0, 3), st.integers(-20, 19), st.floats(0, 20)), min_size=1, max_size=12),
        st.lists(st.floats(0.25, 8), min_size=4, max_size=4),
    )
    def test_using_together_is_using_one_by_one(
        self, members: list[tuple[int, int, float]], weights: list[float]
    ) -> None:
        sides = []
        for together in (True, False):
            shares = Shares()
            for group, weight in enumerate(weights):
                shares.set_weight(f"g{group}", weight)
            entities = [Entity(pid, nice, weight_of(nice), f"g{group}") for pid, (group, nice, _) in enumerate(members)]
            for one in entities:
                shares.join(one)
            used = [(one, seconds) for one, (_, _, seconds) in zip(entities, members, strict=True)]
            rates = shares.use(used, 10.0) if together else [shares.use([each], 10.0)[0] for each in used]
            assert rates == [shares.rate(one) for one in entities]
            sides.append(([(one.vruntime, one.share and one.share.vruntime) for one in entities], shares.fair()))
        assert sides[0] == sides[1]

    def test_a_single_group_changes_nothing(self) -> None:
        shares = Shares()
        for pid, nice in ((2, 0), (3, 5)):
            entity = Entity(pid, nice, weight_of(nice))
            shares.join(entity)
            assert shares.rate(entity) == pytest.approx(1.25**nice)


class TestRoundRobin:
    def test_everybody_has_its_quantum_in_turn(self) -> None:
        device = Device(1, "rr", quantum=1.0)
        for pid in (2, 3, 4):
            device.start(pid)
        device.play(9)
        turns = [run[0] for run in device.history]
        order = [pid for index, pid in enumerate(turns) if not index or turns[index - 1] != pid]
        assert order == [2, 3, 4, 2, 3, 4, 2, 3, 4]

    def test_nobody_is_preempted_when_nobody_waits(self) -> None:
        device = Device(3, "rr", quantum=0.1)
        for pid in (2, 3, 4):
            device.start(pid)
        device.play(10)
        assert sum(device.scheduler.entity(pid).preemptions for pid in (2, 3, 4)) == 0


class TestPriority:
    def test_the_better_level_preempts_at_once(self) -> None:
        device = Device(1, "priority")
        device.start(2, 1)
        device.step()
        device.start(3, 0)
        device.step()
        assert device.run == (3,)

    def test_a_level_is_waited_off_and_not_taken_back_at_once(self) -> None:
        device = Device(1, "priority", age=2.0, min_run=1.0)
        device.start(2, 0)
        device.start(3, 3)
        device.play(60)
        assert 2.0 < device.used[3] < 20.0
        runs = [index for index, run in enumerate(device.history) if run == (3,)]
        assert device.history[runs[0] : runs[0] + 19] == [(3,)] * 19


class TestDeadline:
    def test_earliest_first_then_the_others_fairly(self) -> None:
        device = Device(1, "deadline")
        device.start(2)
        device.start(3, deadline=100.0)
        device.start(4, deadline=50.0)
        device.step()
        assert device.run == (4,)
        device.end(4)
        device.step()
        assert device.run == (3,)
        device.end(3)
        device.step()
        assert device.run == (2,)

    def test_a_missed_one_is_told_once_and_counts_like_the_others(self) -> None:
        device = Device(1, "deadline")
        device.start(2)
        device.start(3, deadline=5.0)
        device.play(60)
        assert device.missed == [3]
        assert device.used[2] == pytest.approx(device.used[3], abs=7.0)

    def test_deadlines_leave_the_others_a_part(self) -> None:
        device, pid = Device(1, "deadline"), 100
        device.start(2)
        for _ in range(round(300 / STEP)):
            device.step()
            if device.scheduler.runnable < 4:
                pid += 1
                device.start(pid, deadline=device.now + 1000.0)
            for one in [one for one in device.run if one > 100 and device.used[one] > 0.5]:
                device.end(one)
        assert device.used[2] > (1 - URGENT_SHARE) * device.now / 15


class TestMeters:
    @given(rate=st.floats(0.5, 1000), steps=st.integers(20, 200))
    @settings(max_examples=30, deadline=None)
    def test_what_is_used_in_the_long_run_is_the_rate(self, rate: float, steps: int) -> None:
        meter, now, used, amount = Meter(rate, ""), 0.0, 0.0, rate * 0.2
        for _ in range(steps):
            meter.take(amount, now)
            used += amount
            now += 0.01 + meter.pause(now)
        assert used <= rate * (now + 1.0) + 2 * amount

    def test_a_group_pauses_and_goes_on(self) -> None:
        group = Group("g", GroupSettings(tokens_per_second=10))
        assert not group.use(5, 0.1, 0.0)
        assert group.use(20, 0.1, 0.5)
        assert group.paused(0.6) and "10 tokens per second" in group.reason
        assert not group.use(1, 0.0, 0.6)
        assert not group.paused(group.paused_until)

    def test_a_clock_that_jumps_back_stops_nothing_for_ever(self) -> None:
        group = Group("g", GroupSettings(tokens_per_second=10))
        group.use(20, 0.0, 1e6)
        group.use(1, 0.0, 5.0)
        group.configure(group.settings)
        assert not group.paused(5.0)

    def test_names(self) -> None:
        named = (("a", "pts/1", 3), ("", "pts/1", 3), ("", "", 3), ("", "", 0))
        assert [group_name(*each) for each in named] == [
            "a", "pts/1", "session/3", "detached",
        ]  # fmt: skip


class Point:
    """An entry point."""

    def __init__(self, name: str, make: object) -> None:
        self.name, self._make = name, make

    def load(self) -> object:
        if isinstance(self._make, Exception):
            raise self._make
        return self._make


class Theirs:
    name, strict = "whatever", False

    def rank(self, entities: Iterable[Entity], now: float) -> list[Entity]:
        return sorted(entities, key=lambda one: -one.pid)

    def should_preempt(self, waiting: Entity, running: Entity, now: float) -> bool:
        return False


class TestInstalledPolicies:
    @pytest.fixture(autouse=True)
    def installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        points = [Point("theirs", Theirs), Point("gone", ImportError("no module")), Point("half", object)]
        monkeypatch.setattr(registry, "entry_points", lambda group: points)
        registry._installed.cache_clear()
        yield
        monkeypatch.undo()
        registry._installed.cache_clear()

    def test_are_listed_without_being_loaded_and_used_by_their_name(self) -> None:
        assert registry.names()[-3:] == ("theirs", "gone", "half")
        device = Device(1, "theirs")
        for pid in (2, 3):
            device.start(pid)
        device.step()
        assert (device.run, device.scheduler.policy) == ((3,), "theirs")

    @pytest.mark.parametrize(("name", "why"), [("gone", "no module"), ("half", "no `strict`")])
    def test_broken_ones_are_refused(self, name: str, why: str) -> None:
        with pytest.raises(LlmosError, match=why) as caught:
            policy_named(name)
        assert caught.value.code is Code.ENOEXEC
