"""The tiers of images against a simple model: no byte counted twice or lost, no limit passed without reason."""

from __future__ import annotations

import os

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import astuple

from llmos_shell.daemon.memory import tiers as module
from llmos_shell.daemon.memory.costs import MEASURED_BYTES, Costs, Path
from llmos_shell.daemon.memory.tiers import HIGH, LOW, Place, Tiers

PIDS = st.integers(1, 6)
SIZES = st.integers(1, 60)


class TiersMachine(RuleBasedStateMachine):
    """Model: for each PID its sizes in RAM and on disk, the place of its image and where it is going."""

    def __init__(self) -> None:
        super().__init__()
        module.MIN_TRANSIT, self.transit = 20, module.MIN_TRANSIT
        self.tiers = Tiers(100, 150)
        self.model: dict[int, tuple[dict[Place, int], Place, Place | None]] = {}

    def teardown(self) -> None:
        module.MIN_TRANSIT = self.transit

    def used(self, place: Place) -> int:
        return sum(sizes[place] for sizes, at, to in self.model.values() if place in (at, to))

    @rule(pid=PIDS, size=SIZES)
    def reserve(self, pid, size):
        if self.tiers.reserve(pid, size):
            self.model[pid] = (dict.fromkeys(Place, size), Place.RAM, None)
            assert self.used(Place.RAM) <= 125
        else:
            others = self.used(Place.RAM) - (self.model[pid][0][Place.RAM] if self.touches_ram(pid) else 0)
            assert others + size > 100, "refused although there was room"

    def touches_ram(self, pid):
        return pid in self.model and Place.RAM in self.model[pid][1:]

    @rule(pid=PIDS, size=SIZES, place=st.sampled_from(Place), packed=st.none() | SIZES)
    def hold(self, pid, size, place, packed):
        self.tiers.hold(pid, size, place, packed)
        there = packed if packed and place is Place.DISK else size
        self.model[pid] = ({Place.RAM: size, Place.DISK: there}, place, None)

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
            sizes, at, to = self.model[pid]
            assert at is Place.RAM and to is None
            self.model[pid] = (sizes, at, Place.DISK)
        if moves:
            assert before > HIGH * 100
            assert self.used(Place.DISK) <= 150
            last = self.model[moves[-1]][0][Place.RAM]
            assert self.staying() + last > LOW * 100, "more moved than was needed"

    def staying(self):
        staying = {(Place.RAM, None), (Place.DISK, Place.RAM)}
        return sum(sizes[Place.RAM] for sizes, at, to in self.model.values() if (at, to) in staying)

    @rule(pid=PIDS)
    def fetch(self, pid):
        if self.tiers.fetch(pid):
            sizes, at, to = self.model[pid]
            assert at is Place.DISK and to is None
            self.model[pid] = (sizes, at, Place.RAM)

    @rule(pid=PIDS, ok=st.booleans(), packed=st.none() | SIZES)
    def arrived(self, pid, ok, packed):
        self.tiers.arrived(pid, ok, packed)
        if pid in self.model and self.model[pid][2] is not None:
            sizes, at, to = self.model[pid]
            if ok:
                there = packed if packed and to is Place.DISK else sizes[Place.RAM]
                sizes = {**sizes, Place.DISK: there}
            self.model[pid] = (sizes, to if ok else at, None)

    @invariant()
    def agrees(self):
        assert self.tiers.ram_used == self.used(Place.RAM)
        assert self.tiers.disk_used == self.used(Place.DISK)
        assert self.tiers.crowded == (self.staying() > HIGH * 100)
        for pid in range(1, 7):
            sizes, at, to = self.model.get(pid, ({None: 0}, None, None))
            found = (self.tiers.size(pid), self.tiers.place(pid), self.tiers.moving(pid))
            assert found == (sizes[at], at, to is not None)
        there = [sizes for sizes, at, _ in self.model.values() if at is Place.DISK]
        expected = len(there), sum(sizes[Place.DISK] for sizes in there), sum(sizes[Place.RAM] for sizes in there)
        assert astuple(self.tiers.swapped()) == expected


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


def test_a_way_that_becomes_another_is_measured_anew():
    costs = Costs()
    for path in Path:
        costs.note(path, 1 << 20, 1.0)
    costs.forget(Path.WRITE, Path.READ)
    assert [costs.measured(path) for path in (Path.WRITE, Path.READ)] == [0.0, 0.0]
    assert costs.measured(Path.RESTORE) == costs.measured(Path.EXPORT) == 1 << 20
