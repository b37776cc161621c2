"""Which sequence to move to another slot so that those that compute are neighbours. Pure.

In the split layout an engine computes a run of neighbouring slots in one pass over the weights, and every gap costs a
pass more. Where sequences end and fall asleep, gaps come; moving a sequence costs copying its KV once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import accumulate, pairwise

PATIENCE_STEPS = 16
"""A move is worth what it saves in so many steps: most sequences run longer, some do not."""


def runs(slots: Collection[int]) -> int:
    """How many runs of neighbours these are."""
    ordered = sorted(slots)
    return len(ordered) - sum(right - left == 1 for left, right in pairwise(ordered))


def next_move(active: Mapping[int, int], asleep: Mapping[int, int], slots: int) -> tuple[int, int, int] | None:
    """From which slot to which, and how many tokens all moves together copy; None when nothing can be gained.

    `active` and `asleep` map taken slots to the tokens they hold. The active ones gather where least must be copied:
    those outside of that window go to free slots in it or else change places with those asleep there, the smallest
    first.
    """
    count = len(active)
    if count < 2:
        return None
    # a slot without tokens counts 1: among equal windows the one that is fullest already
    inside = [0, *accumulate(asleep.get(slot, 0) - active.get(slot, -1) for slot in range(slots))]
    start = min(range(slots - count + 1), key=lambda first: inside[first + count] - inside[first])
    window = range(start, start + count)
    outside = [slot for slot in active if slot not in window]
    if not outside:
        return None
    target = min((slot for slot in window if slot not in active), key=lambda slot: asleep.get(slot, -1))
    copied = sum(active[slot] for slot in outside) + sum(asleep.get(slot, 0) for slot in window)
    return min(outside, key=lambda slot: (active[slot], slot)), target, copied
