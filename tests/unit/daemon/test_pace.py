"""The prefill budget, against devices of many speeds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmos_shell.daemon.sched.pace import MIN_BUDGET, PAUSE_SECONDS, STEP_SECONDS, STRETCH, Pace, Prefill

MOST = 1 << 20


class Device:
    """Steps take a fixed time per decoded row and per prompt token, and some overhead."""

    def __init__(self, row: float, token: float, overhead: float = 0.0) -> None:
        self.row, self.token, self.overhead = row, token, overhead

    def step(self, rows: int, prompt: int) -> float:
        return self.overhead + rows * self.row + prompt * self.token


def run(pace: Pace, device: Device, rows: int, steps: int) -> tuple[int, float]:
    """So many steps with prompts, each as large as allowed; budget and duration of the last."""
    budget, seconds = 0, 0.0
    for _ in range(steps):
        budget = pace.prefill(rows, MOST, True).budget
        seconds = device.step(rows, budget)
        pace.note(rows, budget, seconds)
    return budget, seconds


speeds = st.floats(1e-5, 0.5)


@given(row=speeds, ratio=st.floats(1, 200), rows=st.integers(1, 64), overhead=st.floats(0, 0.01))
def test_intervals_of_tokens_that_are_read_stay_within_the_target(row, ratio, rows, overhead):
    device, pace = Device(row, row / ratio, overhead), Pace()
    pace.note(rows, 0, device.step(rows, 0))
    budget, seconds = run(pace, device, rows, 30)
    assert budget == MIN_BUDGET or seconds <= 1.5 * device.step(rows, 0)


@given(token=st.floats(1e-6, STEP_SECONDS / 4 / MIN_BUDGET))
def test_steps_that_nobody_reads_are_as_long_as_letting_others_in_allows(token):
    device, pace = Device(0.01, token), Pace()
    budget, seconds = run(pace, device, 0, 10)
    assert seconds <= STEP_SECONDS * 1.001
    assert budget in (MOST, MIN_BUDGET) or seconds > STEP_SECONDS / 2


def test_the_budget_follows_a_device_that_slows_down():
    fast, slow, pace = Device(0.01, 0.0001), Device(0.04, 0.0004), Pace()
    pace.note(8, 0, fast.step(8, 0))
    before, _ = run(pace, fast, 8, 20)
    for _ in range(20):
        pace.note(8, 0, slow.step(8, 0))
    after, seconds = run(pace, slow, 8, 40)
    assert after * 2 >= before and seconds <= 1.5 * slow.step(8, 0)


def test_other_numbers_of_rows_are_judged_by_the_nearest_known():
    pace = Pace()
    pace.note(1, 0, 0.01)
    pace.note(32, 0, 0.1)
    pace.note(0, 1000, 0.1)
    assert pace.prefill(24, MOST, True).budget > pace.prefill(2, MOST, True).budget >= MIN_BUDGET


def test_nothing_is_learnt_from_steps_without_time():
    pace = Pace()
    pace.note(0, 0, 1.0)
    pace.note(4, 4, 0.0)
    assert pace.prefill(0, 64, True) == (64, 1) and pace.prefill(3, 64, True) == (MIN_BUDGET, 1)


@given(row=speeds, ratio=st.floats(1, 200), rows=st.integers(1, 64), overhead=st.floats(0, 0.01))
def test_prompts_of_their_own_steps_take_their_share_of_what_is_read(row, ratio, rows, overhead):
    device, pace = Device(row, row / ratio, overhead), Pace()
    usual = device.step(rows, 0)
    pace.note(rows, 0, usual)
    for _ in range(30):
        budget, spacing = pace.prefill(rows, MOST, False)
        pace.note(0, budget, device.step(0, budget))
    seconds = device.step(0, budget)
    assert seconds <= max(PAUSE_SECONDS * 1.001, device.step(0, MIN_BUDGET))
    assert budget == MIN_BUDGET or seconds <= STRETCH * 1.001 * spacing * usual
    assert spacing == 1 or STRETCH * (spacing - 1) * usual < PAUSE_SECONDS


def test_small_changes_are_not_worth_saying():
    assert not Prefill(100).differs(Prefill(120)) and not Prefill(120).differs(Prefill(100))
    assert Prefill(100).differs(Prefill(140)) and Prefill(140).differs(Prefill(100))
    assert Prefill(100, 10).differs(Prefill(100, 20))
