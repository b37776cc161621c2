"""Which layers of a model go to which GPU, by what fits. Pure.

llama.cpp offloads the last layers of a model: with n of them its output, which counts as one, and the last n - 1 blocks
with their KV. It deals them out to the GPUs in order, by shares. The token embeddings stay with the CPU. On each GPU
that is used `CONTEXT_BYTES` are left for the driver's context and libraries, and of what is free a `MARGIN` is not
touched. (Both are assumptions: no GPU was there to measure them on.)
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

CONTEXT_BYTES = 512 << 20
MARGIN = 0.05


class Gpu(Struct, frozen=True):
    """A GPU, or an instance of one in MIG mode, and what may be had of its memory, in bytes; None: nobody can tell."""

    index: int  # by which a worker finds it that sees all GPUs
    name: str  # as in `devices`
    free: int | None
    number: int = 0  # of the whole GPU, as in `devices`
    uuid: str = ""  # by which a worker can be shown it alone; "": not known
    instance: bool = False  # a process sees no other GPU beside it


class Layers(Struct, frozen=True):
    """What a model has in its layers, in bytes: each block with its KV, then the output."""

    blocks: tuple[int, ...]
    output: int  # with the draft model, which goes where the output does
    rest: int  # embeddings and the like, which stay with the CPU
    kv: tuple[int, ...] = ()  # of each block, included above
    buffers: int = 0  # of computation, where there is one GPU
    buffers_each: int = 0  # … on each of several
    largest: int = 0  # tensor: a GPU that computes beside the CPU takes a copy of it for long prompts

    @property
    def total(self) -> int:
        """All of it, without buffers."""
        return sum(self.blocks) + self.output + self.rest


class Offload(Struct, frozen=True):
    """A plan: layers on GPUs, in llama.cpp's count, of how many; where; and what that takes."""

    layers: int
    of: int
    split: tuple[int, ...]  # layers on each GPU the worker sees, in its order; (): as the kernel likes
    gpu_bytes: dict[str, int]  # by name
    host_bytes: int  # of weights and KV
    why: str  # … it is not all of them, or they are where they are
    fewer: bool = False  # than was asked for, or could not be told
    uuids: tuple[str, ...] = ()  # GPUs that the worker is to see, in its order; (): all
    gpu_layers: dict[str, int] = {}  # by name
    gpu_kv: dict[str, int] = {}  # bytes of the KV pool, included above, by name

    def __str__(self) -> str:
        where = ", ".join(f"{count} to {name}" for name, count in self.gpu_layers.items())
        return f"{self.layers} of {self.of} layers go to GPUs" + (f" ({where})" if where else "") + f": {self.why}"


def plan(layers: Layers, gpus: Sequence[Gpu], wanted: int | None, fitting: bool = True) -> Offload:
    """Puts `wanted` layers on GPUs (None or less than 0: all); of these, if `fitting`, only as many as fit.

    Where all fit on one GPU they go there, to the one with most room. Else they are dealt out, so that GPUs are filled
    alike. A number that need not fit is kept even where it does not seem to; then `why` says so.
    """
    of = len(layers.blocks) + 1
    most = of if wanted is None or wanted < 0 else min(wanted, of)
    usable = [gpu for gpu in gpus if gpu.free]
    if not usable or not most:
        why = _nothing(gpus) if most else "none is to go there"
        return Offload(0 if fitting else most, of, (), {}, layers.total, why, bool(most))
    for count in range(most, 0, -1):
        found = _placed(layers, count, usable)
        if found is not None:
            return _plan(layers, gpus, found, _reason(found, count, most, of), count < most)
        if not fitting:
            return _plan(layers, gpus, _forced(count, usable), "they may not fit", True)
    return Offload(0, of, (), {}, layers.total, "not even one layer fits", True)


def visible(gpus: Sequence[Gpu], chosen: str | None) -> list[Gpu]:
    """GPUs as CUDA finds them where `chosen`, CUDA_VISIBLE_DEVICES, names some: by number, or by how their UUID begins.

    They are given in the order of the bus, as NVML and CUDA_DEVICE_ORDER=PCI_BUS_ID have them. By its number a GPU in
    MIG mode is found as the first of its instances; as for CUDA, a word that names none ends the list.
    """
    if chosen is None:
        return list(gpus)
    found: list[Gpu] = []
    for word in map(str.strip, chosen.split(",")):
        named = [gpu for gpu in gpus if word == str(gpu.number) or (len(word) > 4 and gpu.uuid.startswith(word))]
        if not named or named[0] in found:
            break
        found.append(named[0])
    return [Gpu(place, one.name, one.free, one.number, one.uuid, one.instance) for place, one in enumerate(found)]


def _nothing(gpus: Sequence[Gpu]) -> str:
    if not gpus:
        return "there is no GPU"
    if all(gpu.free is None for gpu in gpus):
        return "how much memory of the GPUs is free cannot be told"
    return "no GPU has memory free"


def _reason(counts: dict[str, int], count: int, most: int, of: int) -> str:
    if count < most:
        return f"no more than {count} of {of} layers fit"
    if len(counts) == 1:
        return "they fit on the GPU with most memory free"
    return "no GPU holds them alone, so they are dealt out by what is free"


def _overhead(layers: Layers, count: int, several: bool) -> int:
    """What a GPU needs besides its layers."""
    partly = layers.largest if count <= len(layers.blocks) else 0
    return CONTEXT_BYTES + (layers.buffers_each if several else layers.buffers) + partly


def _room(gpu: Gpu, overhead: int) -> int:
    """What is left for layers; below 0 not even one that takes nothing can go there."""
    return int((gpu.free or 0) * (1 - MARGIN)) - overhead


def _items(layers: Layers, count: int) -> tuple[int, ...]:
    return (*layers.blocks, layers.output)[len(layers.blocks) + 1 - count :]


def _placed(layers: Layers, count: int, gpus: Sequence[Gpu]) -> dict[str, int] | None:
    """How many of the last layers, in order, each GPU gets, by name; None when they do not fit."""
    items, overhead = _items(layers, count), _overhead(layers, count, False)
    alone = max(gpus, key=lambda gpu: gpu.free or 0)
    if sum(items) <= _room(alone, overhead):
        return {alone.name: count}
    each = _overhead(layers, count, True)
    rooms = {gpu.name: room for gpu in gpus if not gpu.instance and (room := _room(gpu, each)) >= 0}
    if len(rooms) < 2 or sum(items) > sum(rooms.values()):
        return None
    best = _filled(items, rooms, 1.0)
    if best is None:
        return None
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        found = _filled(items, rooms, middle)
        if found is not None:
            best, high = found, middle
        else:
            low = middle
    return best


def _filled(items: Sequence[int], rooms: dict[str, int], share: float) -> dict[str, int] | None:
    """Fills GPU after GPU up to this share of its room; None when something is left over."""
    counts: dict[str, int] = {}
    at = 0
    for name, room in rooms.items():
        left, first = int(room * share), at
        while at < len(items) and items[at] <= left:
            left -= items[at]
            at += 1
        if at > first:
            counts[name] = at - first
    return counts if at == len(items) else None


def _forced(count: int, gpus: Sequence[Gpu]) -> dict[str, int]:
    """Dealt out by the memory that is free, whether they fit or not."""
    largest = max(gpus, key=lambda gpu: gpu.free or 0)
    whole = [] if largest.instance else [gpu for gpu in gpus if not gpu.instance]
    if not whole:
        return {largest.name: count}
    total, counts, seen, given = sum(gpu.free or 0 for gpu in whole), {}, 0, 0
    for gpu in whole:
        seen += gpu.free or 0
        until = round(count * seen / total)
        if until > given:
            counts[gpu.name] = until - given
        given = until
    return counts


def _plan(layers: Layers, gpus: Sequence[Gpu], counts: dict[str, int], why: str, fewer: bool) -> Offload:
    used = [gpu for gpu in gpus if gpu.name in counts]
    count, of = sum(counts.values()), len(layers.blocks) + 1
    items = _items(layers, count)
    kv = (*(layers.kv or (0,) * len(layers.blocks)), 0)[of - count :]
    overhead = _overhead(layers, count, len(used) > 1)
    taken: dict[str, int] = {}
    pools: dict[str, int] = {}
    at = 0
    for gpu in used:
        until = at + counts[gpu.name]
        taken[gpu.name], pools[gpu.name] = sum(items[at:until]) + overhead, sum(kv[at:until])
        at = until
    uuids = tuple(gpu.uuid for gpu in used if gpu.uuid)
    if len(uuids) == len(used):
        split = tuple(counts[gpu.name] for gpu in used)
    else:
        layers_at = {gpu.index: counts[gpu.name] for gpu in used}
        uuids, split = (), tuple(layers_at.get(index, 0) for index in range(max(layers_at) + 1))
    return Offload(
        count, of, split, taken, layers.total - sum(items), why, fewer, uuids,
        {gpu.name: counts[gpu.name] for gpu in used}, pools,
    )  # fmt: skip
