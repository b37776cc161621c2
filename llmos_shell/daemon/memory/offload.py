"""Which layers of a model go to which GPU, by what fits. Pure.

llama.cpp offloads the last layers of a model: with n of them its output, which counts as one, and the last n - 1 blocks
with their KV. It deals them out to the GPUs in order, by shares. The token embeddings stay with the CPU. On each GPU
that is used `CONTEXT_BYTES` are left for the driver's context and the buffers of computation, and of what is free a
`MARGIN` is not touched. (Both are assumptions: no GPU was there to measure them on.)
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

CONTEXT_BYTES = 640 << 20
MARGIN = 0.05


class Gpu(Struct, frozen=True):
    """A GPU as CUDA numbers it, and what may be had of its memory, in bytes; None where nobody can tell."""

    index: int
    name: str
    free: int | None


class Layers(Struct, frozen=True):
    """What a model has in its layers, in bytes: each block with its KV, then the output."""

    blocks: tuple[int, ...]
    output: int
    rest: int  # embeddings and the like, which stay with the CPU

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.blocks) + self.output + self.rest


class Offload(Struct, frozen=True):
    """A plan: layers on GPUs, in llama.cpp's count, of how many; where; and what that takes."""

    layers: int
    of: int
    split: tuple[int, ...]  # layers on each GPU, by index
    gpu_bytes: dict[str, int]  # by name
    host_bytes: int  # of weights and KV
    note: str = ""  # why it is not all of them

    @property
    def whole(self) -> bool:
        """Whether nothing but the embeddings is left to the CPU."""
        return self.layers == self.of


def plan(layers: Layers, gpus: Sequence[Gpu], wanted: int | None) -> Offload:
    """Puts `wanted` layers on GPUs (-1: all; None: as many as fit).

    Where all fit on one GPU they go there, to the one with most room. Else they are dealt out, so that GPUs are filled
    alike. A number that was asked for is kept even where it does not seem to fit; then `note` says so.
    """
    items = (*layers.blocks, layers.output)
    of = len(items)
    most = of if wanted is None or wanted < 0 else min(wanted, of)
    usable = [gpu for gpu in gpus if gpu.free is not None and _room(gpu) > 0]
    if not usable or not most:
        note = "" if not most else _nothing(gpus)
        forced = most if wanted is not None else 0
        return Offload(forced, of, (), {}, layers.total, note)
    for count in range(most, 0, -1):
        found = _placed(items[of - count :], usable)
        if found is not None:
            note = "" if count == most else f"no more than {count} of {of} layers fit"
            return _plan(layers, items, gpus, found, note)
        if wanted is not None:
            return _plan(layers, items, gpus, _dealt(items[of - count :], usable, None), "they may not fit")
    return Offload(0, of, (), {}, layers.total, "not even one layer fits")


def visible(gpus: Sequence[Gpu], chosen: str | None) -> list[Gpu]:
    """GPUs as CUDA will number them where `chosen`, CUDA_VISIBLE_DEVICES, names some; none where it uses other names.

    They are given in the order of the bus, as NVML and CUDA_DEVICE_ORDER=PCI_BUS_ID have them.
    """
    if chosen is None:
        return list(gpus)
    found: list[Gpu] = []
    for word in chosen.split(","):
        named = [gpu for gpu in gpus if word.strip() == str(gpu.index)]
        if not named:  # as for CUDA, what cannot be found ends the list
            break
        found.append(Gpu(len(found), named[0].name, named[0].free))
    return found


def _nothing(gpus: Sequence[Gpu]) -> str:
    if not gpus:
        return "there is no GPU"
    if all(gpu.free is None for gpu in gpus):
        return "how much memory of the GPUs is free cannot be told"
    return "no GPU has memory free"


def _room(gpu: Gpu) -> int:
    return int((gpu.free or 0) * (1 - MARGIN)) - CONTEXT_BYTES


def _placed(items: Sequence[int], gpus: Sequence[Gpu]) -> dict[int, int] | None:
    """How many of the items, in order, each GPU gets, by index; None when they do not fit."""
    alone = max(gpus, key=_room)
    if sum(items) <= _room(alone):
        return {alone.index: len(items)}
    if sum(items) > sum(map(_room, gpus)):
        return None
    low, high = 0.0, 1.0
    best = _dealt(items, gpus, 1.0)
    if sum(best.values()) < len(items):
        return None
    for _ in range(20):
        middle = (low + high) / 2
        found = _dealt(items, gpus, middle)
        if sum(found.values()) == len(items):
            best, high = found, middle
        else:
            low = middle
    return best


def _dealt(items: Sequence[int], gpus: Sequence[Gpu], share: float | None) -> dict[int, int]:
    """Fills GPU after GPU up to this share of its room; without a share, by their rooms, whether they fit or not."""
    counts: dict[int, int] = {}
    if share is None:
        total, given = sum(map(_room, gpus)), 0
        for number, gpu in enumerate(gpus):
            rooms = sum(_room(one) for one in gpus[: number + 1])
            until = len(items) if number == len(gpus) - 1 else round(len(items) * rooms / total)
            counts[gpu.index], given = until - given, until
        return counts
    at = 0
    for gpu in gpus:
        left = int(_room(gpu) * share)
        first = at
        while at < len(items) and items[at] <= left:
            left -= items[at]
            at += 1
        counts[gpu.index] = at - first
    return counts


def _plan(layers: Layers, items: Sequence[int], gpus: Sequence[Gpu], counts: dict[int, int], note: str) -> Offload:
    count = sum(counts.values())
    names = {gpu.index: gpu.name for gpu in gpus}
    at, taken = len(items) - count, {}
    for index in sorted(counts):
        if counts[index]:
            taken[names[index]] = sum(items[at : at + counts[index]]) + CONTEXT_BYTES
            at += counts[index]
    split = tuple(counts.get(index, 0) for index in range(max(counts) + 1))
    return Offload(count, len(items), split, taken, layers.total - sum(items[len(items) - count :]), note)
