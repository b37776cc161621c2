from __future__ import annotations

from collections.abc import Callable

from llmos_shell.engine.threads import (
    LONGEST_ALARM_WAIT,
    LONGEST_WAIT,
    Governor,
    Plan,
    Window,
    decide,
    default_threads,
    idle_seconds,
)

SECONDS = 0.25


def _simulate(plan: Plan, windows: int, machine: Callable[[int], tuple[float, float]]) -> list[int]:
    """Threads in every window; `machine` gives speed in tokens per second and processors received, per thread count."""
    used = []
    for _ in range(windows):
        used.append(plan.threads)
        speed, processors = machine(plan.threads)
        tokens = int(speed * SECONDS)
        plan = decide(plan, Window(tokens // 8 or 1, tokens, SECONDS, processors * SECONDS))
    return used


def _idle(threads: int) -> tuple[float, float]:
    return 180.0 * threads, float(threads)


def _busy(threads: int) -> tuple[float, float]:
    return (235.0, 1.0) if threads == 1 else (72.0, 1.4)


def test_idle_machine_keeps_all_threads() -> None:
    assert set(_simulate(Plan(4, 4), 500, _idle)) == {4}


def test_busy_machine_gets_fewer_threads_soon() -> None:
    used = _simulate(Plan(2, 2), 60, _busy)
    assert used.index(1) == 1
    assert used[20:].count(1) >= 30


def test_disturbance_is_noticed_soon_even_after_a_long_quiet_time() -> None:
    plan = Plan(2, 2, wait=200, backoff=200)
    assert _simulate(plan, 3, _busy) == [2, 1, 1]


def test_false_alarms_become_rare() -> None:
    def sleepy(threads: int) -> tuple[float, float]:
        return 180.0 * threads, 0.7 * threads

    used = _simulate(Plan(2, 2), 2000, sleepy)
    assert used[-1000:].count(1) <= 1000 // LONGEST_ALARM_WAIT + 1


def test_trials_become_rare() -> None:
    used = _simulate(Plan(1, 2), 2000, _busy)
    assert used[-1000:].count(2) <= 1000 // LONGEST_WAIT + 1


def test_more_threads_are_not_tried_while_no_processor_is_spare() -> None:
    window = Window(8, 60, SECONDS, SECONDS, 0.1)
    plan = Plan(1, 2, wait=1)
    for _ in range(50):
        plan = decide(plan, window)
        assert plan.threads == 1
    assert decide(plan, Window(8, 60, SECONDS, SECONDS, 0.9)).threads == 2


def test_the_machine_tells_its_idle_time() -> None:
    assert (idle_seconds() or 0.0) > 0.0


def test_threads_come_back_when_the_machine_is_idle_again() -> None:
    assert _simulate(Plan(1, 4), 40, _idle)[-1] == 4


def test_short_steps_try_fewer_threads_and_keep_what_is_faster() -> None:
    def tiny(threads: int) -> tuple[float, float]:
        return 8000.0 / threads, float(threads)

    assert _simulate(Plan(2, 2), 20, tiny)[-3:].count(1) >= 2


def test_windows_of_other_work_are_not_compared() -> None:
    plan = Plan(1, 2, fallback=2, baseline=Window(10, 20, SECONDS, SECONDS))
    after = decide(plan, Window(10, 5000, SECONDS, SECONDS))
    assert (after.threads, after.baseline, after.backoff) == (2, None, plan.backoff) and after.alarm_wait


def test_one_thread_is_never_changed() -> None:
    assert set(_simulate(Plan(1, 1), 50, _busy)) == {1}


class _Machine:
    """A machine on which one thread is best for small steps and all are for large ones."""

    def __init__(self) -> None:
        self.cpu = 0.0
        self.governor = Governor(2, lambda: self.cpu, lambda: None)

    def step(self, tokens: int) -> int:
        threads = self.governor.threads_for(tokens)
        seconds = 0.001 * (1.5 if threads == 2 else 1.0) if tokens < 4 else tokens * 0.001 / threads
        self.cpu += seconds * threads + 0.0001
        self.governor.record(tokens, seconds, 0.0001)
        return threads


def test_each_size_of_step_finds_its_own_number() -> None:
    machine = _Machine()
    used = [(machine.step(1), machine.step(32)) for _ in range(5000)]
    assert [pair[0] for pair in used[-2000:]].count(1) >= 1800
    assert {pair[1] for pair in used} == {2}


def test_default_is_what_this_process_may_use() -> None:
    assert default_threads() >= 1
