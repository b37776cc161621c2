"""Which layers go to which GPU."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos_shell.daemon.memory.offload import CONTEXT_BYTES, MARGIN, Gpu, Layers, plan, visible

MIB = 1 << 20
LAYERS = Layers((100 * MIB,) * 32, 300 * MIB, 200 * MIB)


def gpu(index: int, mib: int | None) -> Gpu:
    """One with room for so many MiB of layers."""
    return Gpu(index, f"gpu{index}", None if mib is None else int((mib * MIB + CONTEXT_BYTES) / (1 - MARGIN)) + 8)


def test_all_on_the_one_gpu_that_holds_them() -> None:
    found = plan(LAYERS, [gpu(0, 3000), gpu(1, 9000), gpu(2, 4000)], None)
    assert (found.layers, found.of, found.split) == (33, 33, (0, 33)) and found.whole
    assert found.gpu_bytes == {"gpu1": 3500 * MIB + CONTEXT_BYTES}
    assert found.host_bytes == 200 * MIB and found.note == ""


def test_across_gpus_alike_where_none_holds_them_alone() -> None:
    found = plan(LAYERS, [gpu(0, 1000), gpu(1, 3000)], None)
    assert found.layers == 33 and found.split[1] > 2 * found.split[0] > 0


def test_as_many_as_fit() -> None:
    found = plan(LAYERS, [gpu(0, 1000)], None)
    assert (found.layers, found.split) == (8, (8,))  # the output and seven blocks
    assert found.note == "no more than 8 of 33 layers fit"
    assert found.host_bytes == LAYERS.total - 1000 * MIB
    assert plan(LAYERS, [gpu(0, 10)], None).note == "not even one layer fits"


@pytest.mark.parametrize(
    ("gpus", "note"),
    [
        ([], "there is no GPU"),
        ([gpu(0, None)], "how much memory of the GPUs is free cannot be told"),
        ([Gpu(0, "gpu0", 5)], "no GPU has memory free"),
    ],
)
def test_nothing_where_there_is_nothing(gpus: list[Gpu], note: str) -> None:
    found = plan(LAYERS, gpus, None)
    assert (found.layers, found.note, found.host_bytes) == (0, note, LAYERS.total)
    assert plan(LAYERS, gpus, -1).layers == 33, "what was asked for is tried, and its failure told"
    assert plan(LAYERS, gpus, 0).note == ""


def test_a_number_is_kept() -> None:
    assert plan(LAYERS, [gpu(0, 9000)], 5).split == (5,)
    assert plan(LAYERS, [gpu(0, 9000)], 99).layers == 33
    found = plan(LAYERS, [gpu(0, 500), gpu(1, 500)], -1)
    assert (found.layers, sum(found.split), found.note) == (33, 33, "they may not fit")


@given(
    st.lists(st.integers(1, 900), min_size=1, max_size=40),
    st.integers(0, 900),
    st.integers(0, 900),
    st.lists(st.one_of(st.none(), st.integers(-2000, 9000)), max_size=4),
    st.one_of(st.none(), st.integers(-1, 50)),
)
def test_every_plan_adds_up_and_fits(
    blocks: list[int], output: int, rest: int, rooms: list[int | None], wanted: int | None
) -> None:
    layers = Layers(tuple(size * MIB for size in blocks), output * MIB, rest * MIB)
    gpus = [Gpu(n, f"gpu{n}", None if room is None else max(0, room * MIB)) for n, room in enumerate(rooms)]
    found = plan(layers, gpus, wanted)
    most = len(blocks) + 1 if wanted is None or wanted < 0 else min(wanted, len(blocks) + 1)
    assert 0 <= found.layers <= most and found.of == len(blocks) + 1
    assert found.layers == most or wanted is None
    assert sum(found.split) in (found.layers, 0)
    used = sum(found.gpu_bytes.values()) - CONTEXT_BYTES * len(found.gpu_bytes)
    assert found.host_bytes + used == layers.total
    if found.note != "they may not fit":
        for one in gpus:
            assert found.gpu_bytes.get(one.name, 0) <= (one.free or 0)
    if wanted is None and found.layers < most and found.note.startswith("no more"):
        items = [*layers.blocks, layers.output][-found.layers - 1 :]
        assert all(sum(items) > (one.free or 0) * (1 - MARGIN) - CONTEXT_BYTES for one in gpus if one.free is not None)


def test_cuda_s_numbers() -> None:
    gpus = [gpu(0, 100), gpu(1, 200), gpu(2, 300)]
    assert visible(gpus, None) == gpus
    assert visible(gpus, "2,0") == [Gpu(0, "gpu2", gpus[2].free), Gpu(1, "gpu0", gpus[0].free)]
    assert visible(gpus, "1,9,0") == [Gpu(0, "gpu1", gpus[1].free)]
    assert visible(gpus, "") == [] and visible(gpus, "GPU-5f2a") == []
