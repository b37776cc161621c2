"""Steps: what is in one, in which order, within which limits, and what a full pool does."""

from __future__ import annotations

from llmos_shell.abi import worker as abi
from llmos_shell.abi.types import Sampling
from tests.unit.engine.conftest import BenchMaker as Maker


def test_all_together_as_each_alone(bench: Maker) -> None:
    prompts = [f"number {n} " * (n + 1) for n in range(6)]
    sampling = [Sampling(temperature=0 if n % 2 else 0.8, seed=n, max_tokens=15 + n) for n in range(6)]
    alone = []
    for n in range(6):
        b = bench()
        b.open(1, prompts[n], sampling[n])
        b.run((1, 500))
        alone.append(b.text[1])
    b = bench()
    for n in range(6):
        b.open(n, prompts[n], sampling[n])
    b.run(*((n, 500) for n in range(6)), budget=10)
    assert [b.text[n] for n in range(6)] == alone
    assert len(set(alone)) == 6


def test_decoding_goes_on_beside_a_long_prefill(bench: Maker) -> None:
    b = bench()
    b.open(1, "go")
    b.run((1, 900), steps=3)
    b.open(2, "x" * 99)
    steps = b.run((1, 900), (2, 900), budget=25, steps=5)
    assert all(any(row.seq == 1 for row in step.rows) for step in steps)
    assert [step.prefilled for step in steps] == [(abi.Prefilled(2, 25, done, 100),) for done in (25, 50, 75, 100)] + [
        ()
    ]
    assert [row.seq for row in steps[3].rows] == [1, 2]


def test_an_engine_that_does_not_mix_prefills_between_steps_that_decode(bench: Maker) -> None:
    b = bench(mixes=False)
    b.open(1, "go")
    b.run((1, 900), steps=3)
    b.open(2, "x" * 99)
    steps = b.run((1, 900), (2, 900), budget=50, steps=6)
    kinds = [(sum(part.tokens for part in step.prefilled), [row.seq for row in step.rows]) for step in steps]
    assert kinds == [(50, []), (0, [1]), (50, [2]), (0, [1, 2]), (0, [1, 2]), (0, [1, 2])]
    b.open(3, "x" * 99)
    assert all(step.rows for step in b.run((1, 900), (3, 900), budget=0, steps=3))
    b.loop.handle(abi.Run((abi.Grant(1, 900), abi.Grant(3, 900)), 40, prefill_spacing=3))
    assert [len(step.prefilled) for step in b.run(steps=9)] == [1, 0, 0, 0, 1, 0, 0, 0, 1]


def test_prefill_follows_the_order(bench: Maker) -> None:
    b = bench()
    for seq in (1, 2, 3):
        b.open(seq, "x" * 29)
    steps = b.run((3, 100), (1, 100), (2, 100), budget=40, steps=2)
    assert [(part.seq, part.tokens) for part in steps[0].prefilled] == [(3, 30), (1, 10)]
    assert [(part.seq, part.tokens) for part in steps[1].prefilled] == [(1, 20), (2, 20)]


def test_a_new_run_set_preempts_a_prefill(bench: Maker) -> None:
    b = bench()
    b.open(1, "x" * 200)
    b.run((1, 900), budget=20, steps=2)
    b.open(2, "urgent")
    steps = b.run((2, 900), (1, 900), budget=20, steps=1)
    assert steps[0].prefilled[0].seq == 2 and steps[0].rows[0].seq == 2


def test_a_step_never_exceeds_the_batch(bench: Maker) -> None:
    b = bench(max_batch=8, slots=8)
    for seq in range(8):
        b.open(seq, "x" * 10)
    for step in b.run(*((seq, 30) for seq in range(8)), budget=1000):
        decoded = len(step.rows) - sum(part.done == part.total for part in step.prefilled)
        assert decoded + sum(part.tokens for part in step.prefilled) <= 8


def test_only_the_run_set_runs(bench: Maker) -> None:
    b = bench()
    b.open(1, "a")
    b.open(2, "b")
    b.run((1, 100), steps=5)
    assert {row.seq for step in b.run((2, 100), steps=5) for row in step.rows} == {2}
    b.loop.handle(abi.Run((), 10))
    assert not b.loop.ready


def test_nothing_to_do_is_not_ready(bench: Maker) -> None:
    b = bench()
    assert not b.loop.ready
    b.open(1, "a", idle=True)
    assert b.run((1, 100)) == [] and not b.loop.ready
    b.feed(1, "b")
    assert b.loop.ready


# -- limits and pressure


def test_a_limit_is_kept_and_said_once(bench: Maker) -> None:
    b = bench()
    b.open(1, "go")
    steps = b.run((1, 10))
    assert len(b.tokens[1]) == 10
    assert [step.pressure for step in steps if step.pressure] == [(1,)]
    assert b.run((1, 10)) == []
    steps = b.run((1, 14))
    assert len(b.tokens[1]) == 14 and steps[-1].pressure == (1,)


def test_a_prompt_is_prefilled_up_to_its_limit(bench: Maker) -> None:
    b = bench()
    b.open(1, "x" * 49)
    steps = b.run((1, 32))
    assert steps[0].prefilled == (abi.Prefilled(1, 32, 32, 50),)
    assert steps[-1].pressure == (1,) and b.engine.usage().used_tokens == 32
    b.run((1, 60))
    assert len(b.tokens[1]) == 60


def test_pausing_at_limits_changes_no_text(bench: Maker) -> None:
    whole, paused = bench(), bench()
    whole.open(1, "go", Sampling(seed=9))
    whole.run((1, 64))
    paused.open(1, "go", Sampling(seed=9))
    for limit in (2, 3, 17, 18, 40, 64):
        paused.run((1, limit))
    assert paused.text[1] == whole.text[1]


def test_a_full_pool_makes_the_last_wait_and_fails_nobody(bench: Maker) -> None:
    b = bench(pages=4, slots=4)
    alone = bench()
    alone.open(1, "a" * 20)
    alone.run((1, 60))
    for seq in (1, 2, 3):
        b.open(seq, "a" * 20)
    steps = b.run((1, 60), (2, 60), (3, 60))
    assert [seq for step in steps for seq in step.pressure].count(3) == 1
    assert b.others == [] and not b.loop.ready
    b.free(3)
    b.run()
    b.free(2)
    b.run()
    assert b.text[1] == alone.text[1]
