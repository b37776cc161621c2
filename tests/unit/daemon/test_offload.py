"""Which layers go to which GPU."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmos_shell.daemon.memory.offload import CONTEXT_BYTES, MARGIN, Gpu, Layers, plan, visible

MIB = 1 << 20
LAYERS = Layers((100 * MIB,) * 32, 300 * MIB, 200 * MIB)


def gpu(index: int, mib: int | None, **fields: object) -> Gpu:
    """One with room for so many MiB of layers."""
    free = None if mib is None else int((mib * MIB + CONTEXT_BYTES) / (1 - MARGIN)) + 8
    return Gpu(index, f"gpu{index}", free, index, **fields)


def test_all_on_the_one_gpu_that_holds_them() -> None:
    found = plan(LAYERS, [gpu(0, 3000), gpu(1, 9000), gpu(2, 4000)], None)
    assert (found.layers, found.of, found.split, found.fewer) == (33, 33, (0, 33), False)
    assert found.gpu_bytes == {"gpu1": 3500 * MIB + CONTEXT_BYTES} and found.gpu_layers == {"gpu1": 33}
    assert found.host_bytes == 200 * MIB and found.why == "they fit on the GPU with most memory free"


def test_across_gpus_alike_where_none_holds_them_alone() -> None:
    found = plan(LAYERS, [gpu(0, 1000), gpu(1, 3000)], None)
    assert found.layers == 33 and found.split[1] > 2 * found.split[0] > 0
    assert "dealt out" in found.why and not found.fewer


def test_as_many_as_fit() -> None:
    found = plan(LAYERS, [gpu(0, 1000)], None)
    assert (found.layers, found.split, found.fewer) == (8, (8,), True)  # the output and seven blocks
    assert found.why == "no more than 8 of 33 layers fit"
    assert found.host_bytes == LAYERS.total - 1000 * MIB
    assert plan(LAYERS, [gpu(0, 10)], None).why == "not even one layer fits"


@pytest.mark.parametrize(
    ("gpus", "why"),
    [
        ([], "there is no GPU"),
        ([gpu(0, None)], "how much memory of the GPUs is free cannot be told"),
        ([Gpu(0, "gpu0", 0)], "no GPU has memory free"),
    ],
)
def test_nothing_where_there_is_nothing(gpus: list[Gpu], why: str) -> None:
    found = plan(LAYERS, gpus, None)
    assert (found.layers, found.why, found.fewer, found.host_bytes) == (0, why, True, LAYERS.total)
    assert plan(LAYERS, gpus, -1, False).layers == 33, "what was asked for is tried, and its failure told"
    assert not plan(LAYERS, gpus, 0, False).fewer


def test_a_number_is_kept() -> None:
    assert plan(LAYERS, [gpu(0, 9000)], 5, False).split == (5,)
    assert plan(LAYERS, [gpu(0, 9000)], 99, False).layers == 33
    found = plan(LAYERS, [gpu(0, 500), gpu(1, 500)], -1, False)
    assert (found.layers, sum(found.split), found.why) == (33, 33, "they may not fit")


def test_buffers_are_kept_free_where_they_are_needed() -> None:
    layers = Layers((100 * MIB,) * 32, 300 * MIB, 200 * MIB, (), 50 * MIB, 150 * MIB, 70 * MIB)
    assert plan(layers, [gpu(0, 3550)], None).layers == 33
    assert plan(layers, [gpu(0, 3549)], None).layers == 32, "and a copy of the largest tensor beside 3400 MiB"
    assert plan(layers, [gpu(0, 3519)], None).layers == 31
    several = plan(layers, [gpu(0, 1950), gpu(1, 1950)], None)
    assert several.layers == 33 and min(several.split) > 0
    assert plan(layers, [gpu(0, 1850), gpu(1, 1850)], None).layers < 33


def test_an_instance_of_a_gpu_is_used_alone() -> None:
    one, two = (Gpu(0, f"gpu0.{n}", 2000 * MIB, 0, f"MIG-{n}", True) for n in range(2))
    found = plan(LAYERS, [one, two], None)
    assert found.uuids == ("MIG-0",) and found.split == (found.layers,) and found.layers < 33
    assert plan(LAYERS, [one, two], -1, False).gpu_layers == {"gpu0.0": 33}
    wholes = [Gpu(n, f"gpu{n}", 1900 * MIB, n, f"GPU-{n}") for n in (1, 2)]
    assert list(plan(LAYERS, [one, *wholes], None).gpu_layers) == ["gpu1", "gpu2"]


def test_workers_are_shown_the_gpus_they_use_and_no_others() -> None:
    gpus = [gpu(0, 100, uuid="GPU-a"), gpu(1, 2000, uuid="GPU-b"), gpu(2, 2000, uuid="GPU-c")]
    found = plan(LAYERS, [gpus[1], gpus[2]], None)
    assert found.uuids == ("GPU-b", "GPU-c") and len(found.split) == 2 and sum(found.split) == 33
    found = plan(LAYERS, [gpu(1, 2000), gpus[2]], None)
    assert found.uuids == () and found.split[0] == 0 and len(found.split) == 3, "one has no name to be shown by"


def llama_deals(split: tuple[int, ...], blocks: int, layers: int) -> list[int]:
    """On how many GPUs' shares llama.cpp puts each layer: `load_tensors`, with its 32-bit numbers."""
    shares = np.cumsum(np.array(split, np.float32), dtype=np.float32)
    shares /= shares[-1]
    start = max(blocks + 1 - layers, 0)
    counts = [0] * len(split)
    for layer in range(start, blocks + 1):
        place = np.float32(layer - start) / np.float32(min(layers, blocks + 1))
        counts[int(np.searchsorted(shares, place, side="right"))] += 1
    return counts


@given(st.lists(st.integers(0, 60), min_size=1, max_size=8).filter(any))
def test_llama_cpp_puts_as_many_layers_on_each_gpu_as_it_is_told(split: list[int]) -> None:
    assert llama_deals(tuple(split), sum(split) + 3, sum(split)) == split
    assert llama_deals(tuple(split), sum(split) - 1, sum(split)) == split


@given(
    st.lists(st.integers(1, 900), min_size=1, max_size=40),
    st.integers(0, 900),
    st.integers(0, 900),
    st.lists(st.tuples(st.one_of(st.none(), st.integers(-2000, 9000)), st.booleans()), max_size=4),
    st.one_of(st.none(), st.integers(-1, 50)),
    st.tuples(*[st.integers(0, 400)] * 3),
    st.booleans(),
    st.booleans(),
)
@example([1], 0, 0, [(1, False)], None, (0, 0, 0), False, True)
def test_every_plan_adds_up_and_fits(
    blocks: list[int], output: int, rest: int, rooms: list[tuple[int | None, bool]], wanted: int | None,
    overheads: tuple[int, int, int], named: bool, fitting: bool,
) -> None:  # fmt: skip
    sizes = tuple(size * MIB for size in blocks)
    buffers, each, largest = (size * MIB for size in overheads)
    layers = Layers(
        sizes, output * MIB, rest * MIB, tuple(size // 3 for size in sizes), buffers, max(buffers, each), largest
    )
    gpus = [
        Gpu(n, f"gpu{n}", None if room is None else max(0, room * MIB), n, f"GPU-{n}" if named else "", instance)
        for n, (room, instance) in enumerate(rooms)
    ]
    found = plan(layers, gpus, wanted, fitting)
    of = len(blocks) + 1
    most = of if wanted is None or wanted < 0 else min(wanted, of)
    assert 0 <= found.layers <= most and found.of == of
    assert found.layers == most or fitting
    assert sum(found.split) in (found.layers, 0) and sum(found.gpu_layers.values()) == sum(found.split)
    used = [one for one in gpus if one.name in found.gpu_bytes]
    assert len(used) < 2 or not any(one.instance for one in used)
    assert all(found.gpu_layers[one.name] > 0 for one in used)
    for one in used:
        assert found.split[found.uuids.index(one.uuid) if named else one.index] == found.gpu_layers[one.name]
    partly = largest if found.layers < of else 0
    overhead = CONTEXT_BYTES + partly + (max(buffers, each) if len(used) > 1 else buffers)
    assert found.host_bytes + sum(found.gpu_bytes.values()) - overhead * len(used) == layers.total
    on_gpus = [size // 3 for size in sizes[max(0, of - sum(found.split)) :]]
    assert sum(found.gpu_kv.values()) == (sum(on_gpus) if used else 0)
    if found.why != "they may not fit":
        for one in used:
            assert found.gpu_bytes[one.name] <= (one.free or 0) * (1 - MARGIN) + 1
    if fitting and found.layers < most:
        items = [*sizes, layers.output][-found.layers - 1 :]
        needed = sum(items) + CONTEXT_BYTES + buffers + (largest if found.layers + 1 < of else 0)
        assert all(needed > int((one.free or 0) * (1 - MARGIN)) for one in gpus), "one more would have fitted"


def test_cuda_s_numbers() -> None:
    gpus = [gpu(0, 100), gpu(1, 200), gpu(2, 300, uuid="GPU-5f2a77")]
    assert visible(gpus, None) == gpus
    assert [(one.index, one.name) for one in visible(gpus, "2, 0")] == [(0, "gpu2"), (1, "gpu0")]
    assert [one.name for one in visible(gpus, "1,9,0")] == ["gpu1"]
    assert [one.name for one in visible(gpus, "GPU-5f2a,1,1")] == ["gpu2", "gpu1"]
    assert visible(gpus, "") == [] and visible(gpus, "GPU-77") == [] and visible(gpus, "GPU-") == []
