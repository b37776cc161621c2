"""Who makes way for a model that is to be loaded."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import ModelEntry
from llmos_shell.daemon.models import budget as budget_module
from llmos_shell.daemon.models import needs
from llmos_shell.daemon.models.budget import RAM, Held, Verdict
from llmos_shell.daemon.models.supervisor import load_message
from llmos_shell.engine.drafts import draft_load


def held(key, bytes=100, **fields):
    return Held(key, {RAM: bytes}, **{"idle_seconds": 60.0, "load_seconds": 1.0, **fields})


def decide(needed, budget, held):
    """With RAM alone."""
    return budget_module.decide({RAM: needed}, {RAM: budget}, held)


def test_nobody_makes_way_while_there_is_room():
    assert decide(50, 150, [held("a")]) == Verdict()


def test_what_never_fits_is_refused_with_the_numbers():
    with pytest.raises(LlmosError, match=r"needs about 200 MiB, there are 150 MiB for models") as error:
        decide(200 << 20, 150 << 20, [held("a", busy=True)])
    assert error.value.code is Code.ENOMEM


def test_pinned_models_are_never_given_up_and_named():
    with pytest.raises(LlmosError, match=r"pinned models have 0 MiB: unpin one of a"):
        decide(100, 150, [held("a", pinned=True)])
    assert decide(100, 250, [held("a", pinned=True), held("b")]).evict == ("b",)


def test_busy_models_are_waited_for():
    assert decide(100, 150, [held("a", busy=True)]) == Verdict(wait=True, blockers=("a",), short=(RAM,))
    assert decide(100, 250, [held("a", busy=True), held("b")]).evict == ("b",)


def test_a_model_that_just_fell_idle_stays_for_as_long_as_loading_it_would_take():
    assert decide(100, 150, [held("a", idle_seconds=2.9, load_seconds=3.0)]) == Verdict(wait=True, short=(RAM,))
    assert decide(100, 150, [held("a", idle_seconds=3.0, load_seconds=3.0)]).evict == ("a",)
    assert decide(100, 150, [held("a", idle_seconds=30.0, load_seconds=300.0)]).evict == ("a",)


@pytest.mark.parametrize(
    ("dear", "cheap"),
    [
        ({"load_seconds": 10.0}, {"load_seconds": 1.0}),
        ({"idle_seconds": 50.0}, {"idle_seconds": 500.0}),
        ({"weight": 3.0}, {"weight": 1.0}),
        ({"bytes": 100}, {"bytes": 200}),
    ],
)
def test_the_cheapest_to_lose_goes_first(dear, cheap):
    assert decide(100, 300, [held("dear", **dear), held("cheap", **cheap), held("x", busy=True, bytes=0)]).evict in (
        ("cheap",),
        (),
    )
    budget = sum(one.get("bytes", 100) for one in (dear, cheap))
    assert decide(100, budget, [held("dear", **dear), held("cheap", **cheap)]).evict == ("cheap",)


def test_no_more_make_way_than_must():
    small, large = held("small", 10, load_seconds=0.01), held("large", 200, load_seconds=5.0)
    assert decide(150, 210, [small, large]).evict == ("large",)


@pytest.mark.parametrize("fields", [{}, {"context": 8192}, {"layout": "split", "slots": 4}, {"pool_tokens": 20000}])
def test_the_estimate_is_the_plan_of_the_kernel(fields):
    from llmos_kernel_llamacpp.planning import plan_kv

    entry = ModelEntry("big", "/big.gguf", **fields)
    info = SimpleNamespace(context=8192, kv_bytes_per_token=lambda kind: 131072)
    cells = plan_kv(load_message(entry), 8192, 131072, 15 << 30).cells
    expected = needs.WORKER_BYTES + int(((1 << 30) + cells * 131072) * needs.OVERHEAD)
    assert needs.estimate(entry, needs.Weights(1 << 30, info), 16 << 30) == expected


@pytest.mark.parametrize("fields", [{}, {"context": 8192, "slots": 2}, {"pool_tokens": 20000}])
def test_the_estimate_counts_a_draft_as_it_will_be_loaded(fields):
    from llmos_kernel_llamacpp.planning import plan_kv

    entry = ModelEntry("big", "/big.gguf", draft="/small.gguf", **fields)
    big = needs.Weights(1 << 30, SimpleNamespace(context=8192, kv_bytes_per_token=lambda kind: 131072))
    small = needs.Weights(1 << 20, SimpleNamespace(context=2048, kv_bytes_per_token=lambda kind: 1024))
    alone = needs.estimate(entry, big, 16 << 30)
    pool = plan_kv(load_message(entry), 8192, 131072, 15 << 30).cells
    draft = plan_kv(draft_load(load_message(entry), 8192, pool), 2048, 1024, 1 << 40)
    assert draft.cells <= pool + draft.slots * 256
    together = needs.estimate(entry, big, 16 << 30, small)
    assert together - alone == pytest.approx(((1 << 20) + draft.cells * 1024) * needs.OVERHEAD, abs=2)
