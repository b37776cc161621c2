"""The tiers of images against a simple model: no byte counted twice or lost, no limit passed without reason."""

from __future__ import annotations

import os

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from llmos_shell.daemon.memory import tiers as module
from llmos_shell.daemon.memory.costs import MEASURED_BYTES, Costs, Path
from llmos_shell.daemon.memory.tiers import HIGH, LOW, Place, Tiers

PIDS = st.integers(1, 6)
SIZES = st.integers(1, 60)


class TiersMachine(RuleBasedStateMachine):
    """Model: for each PID its size, the place of its image and where it is going."""

    def __init__(self) -> None:
        super().__init__()
        module.MIN_TRANSIT, self.transit = 20, module.MIN_TRANSIT
        self.tiers = Tiers(100, 150)
        self.model: dict[int, tuple[int, Place, Place | None]] = {}

    def teardown(self) -> None:
        module.MIN_TRANSIT = self.transit

    def used(self, place: Place) -> int:
        return sum(size for size, at, to in self.model.values() if place in (at, to))

    @rule(pid=PIDS, size=SIZES)
    def reserve(self, pid, size):
        if self.tiers.reserve(pid, size):
            self.model[pid] = (size, Place.RAM, None)
            assert self.used(Place.RAM) <= 125
        else:
            others = self.used(Place.RAM) - (self.model[pid][0] if self.touches_ram(pid) else 0)
            assert others + size > 100, "refused although there was room"

    def touches_ram(self, pid):
        return pid in self.model and Place.RAM in self.model[pid][1:]

    @rule(pid=PIDS, size=SIZES, place=st.sampled_from(Place))
    def hold(self, pid, size, place):
        self.tiers.hold(pid, size, place)
        self.model[pid] = (size, place, None)

    @rule(pid=PIDS)
    def release(self, pid):
        self.tiers.release(pid)
        self.model.pop(pid, None)

    @rule(order=st.permutations(range(1, 7)))
    def spill(self, order):
        before = self.staying()
        moves = self.tiers.spill(order)
        assert len(set(moves)) == len(moves)
        for pid in moves:
            size, at, to = self.model[pid]
            assert at is Place.RAM and to is None
            self.model[pid] = (size, at, Place.DISK)
        if moves:
            assert before > HIGH * 100
            assert self.used(Place.DISK) <= 150
            last = self.model[moves[-1]][0]
            assert self.staying() + last > LOW * 100, "more moved than was needed"

    def staying(self):
        return sum(size for size, at, to in self.model.values() if (at is Place.RAM and to is None) or to is Place.RAM)

    @rule(pid=PIDS)
    def fetch(self, pid):
        if self.tiers.fetch(pid):
            size, at, to = self.model[pid]
            assert at is Place.DISK and to is None
            self.model[pid] = (size, at, Place.RAM)

    @rule(pid=PIDS, ok=st.booleans())
    def arrived(self, pid, ok):
        self.tiers.arrived(pid, ok)
        if pid in self.model and self.model[pid][2] is not None:
            size, at, to = self.model[pid]
            self.model[pid] = (size, to if ok else at, None)

    @invariant()
    def agrees(self):
        assert self.tiers.ram_used == self.used(Place.RAM)
        assert self.tiers.disk_used == self.used(Place.DISK)
        assert self.tiers.crowded == (self.staying() > HIGH * 100)
        for pid in range(1, 7):
            size, at, to = self.model.get(pid, (0, None, None))
            assert (self.tiers.size(pid), self.tiers.place(pid), self.tiers.moving(pid)) == (size, at, to is not None)


TestTiers = TiersMachine.TestCase
TestTiers.settings = settings(
    max_examples=int(os.environ.get("LLMOS_FUZZ", "4000")) // 40, stateful_step_count=40, deadline=None
)


def test_without_a_disk_the_limit_is_kept():
    tiers = Tiers(100, 0)
    assert tiers.reserve(1, 60) and not tiers.reserve(2, 60)
    assert tiers.reserve(1, 90), "a promise to the same process is replaced"
    tiers.hold(1, 50)
    assert tiers.ram_used == 50 and tiers.reserve(2, 50)
    tiers.release(1)
    tiers.release(99)
    assert tiers.ram_used == 50
    assert tiers.spill([2]) == []


def test_what_is_cheaper_to_compute_again_is_not_kept():
    costs = Costs()
    assert costs.keeps(1 << 30, 1000, 0.0, disk=True), "nothing is known of the model"
    costs.note(Path.READ, 1 << 20, 0.01)
    assert costs.measured(Path.READ) == (1 << 20) / 0.01
    assert costs.keeps(100 << 20, 4000, 1000.0, disk=True)
    assert not costs.keeps(1 << 30, 4000, 10_000.0, disk=True)
    assert costs.keeps(1 << 30, 8000, 10_000.0, disk=False), "RAM is faster"


def test_small_images_say_nothing_of_bandwidth():
    costs = Costs()
    costs.note(Path.RESTORE, MEASURED_BYTES - 1, 1.0)
    assert costs.measured(Path.RESTORE) == 0.0
    costs.note(Path.RESTORE, MEASURED_BYTES, 1.0)
    costs.note(Path.RESTORE, MEASURED_BYTES * 2, 1.0)
    assert MEASURED_BYTES < costs.rate(Path.RESTORE) < 2 * MEASURED_BYTES
