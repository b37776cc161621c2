from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from llmos_kernel_llamacpp.cells import Cells

SLOTS = 4


@given(st.lists(st.tuples(st.sampled_from(["extend", "share", "cut", "free"]), *[st.integers(0, 20)] * 3), max_size=40))
def test_counts_what_a_list_of_cells_would(actions: list[tuple[str, int, int, int]]) -> None:
    cells, model, serial = Cells(SLOTS), [[] for _ in range(SLOTS)], 0  # type: tuple[Cells, list[list[int]], int]
    for action, first, second, count in actions:
        slot, other = first % SLOTS, second % SLOTS
        if action == "extend":
            model[slot] += range(serial, serial + count)
            serial += count
            cells.lengths[slot] += count
        elif action == "share" and not model[other] and model[slot]:
            kept = 1 + count % len(model[slot])
            model[other] = model[slot][:kept]
            cells.share(slot, other, kept)
        elif action == "cut" and model[slot]:
            kept = count % len(model[slot])
            del model[slot][kept:]
            cells.cut(slot, kept)
        elif action == "free":
            model[slot] = []
            cells.cut(slot, 0)
        assert cells.used() == len({cell for slot_cells in model for cell in slot_cells})
