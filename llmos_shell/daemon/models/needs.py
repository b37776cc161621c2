"""What a model will take of the machine, before it is loaded: from its file, its kernel's plan and the GPUs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.kernel import Shape
from llmos_shell.abi.types import ModelEntry
from llmos_shell.daemon.memory.offload import Gpu, Layers, Offload, plan
from llmos_shell.daemon.models import kernels
from llmos_shell.daemon.models.budget import RAM
from llmos_shell.daemon.models.supervisor import load_message
from llmos_shell.engine.drafts import draft_load
from llmos_shell.models.gguf import GgufInfo, read_gguf
from llmos_shell.models.registry import weights_size

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core

OVERHEAD = 1.05
"""Compute buffers and the like, as a factor on weights and KV."""

WORKER_BYTES = 54 << 20
"""A worker with its libraries, before it has a model; measured with llama-cpp-python 0.3.36."""


class Need(Struct, frozen=True):
    """What a model is estimated to take: bytes of RAM, and of GPUs by name."""

    host: int
    gpus: dict[str, int] = {}
    offload: Offload | None = None
    without_gpus: int = 0  # bytes of RAM where they are not used after all
    pool: int = 0  # bytes of KV, wherever they are
    room: int | None = None  # bytes of RAM that this was planned in

    def __str__(self) -> str:
        sizes = [f"{self.host / 2**20:,.0f} MiB"]
        return " and ".join([*sizes, *(f"{size / 2**20:,.0f} MiB of {name}" for name, size in self.gpus.items())])

    @property
    def bytes(self) -> dict[str, int]:
        """By device."""
        return {RAM: self.host, **self.gpus}

    @property
    def kv_shares(self) -> dict[str, float]:
        """What part of each byte of KV is on each GPU; the rest is in RAM."""
        kv = self.offload.gpu_kv if self.offload is not None else {}
        return {gpu: size / max(1, self.pool) for gpu, size in kv.items() if size}

    @property
    def in_ram(self) -> Need:
        """The same model where no GPU is used."""
        return self if self.offload is None else replace(self, host=self.without_gpus, gpus={}, offload=None)


class Weights(Struct, frozen=True):
    """A file of weights: its size in bytes, and what it says of itself; None where it is none that we can read."""

    size: int
    info: GgufInfo | None


class Study(Struct, frozen=True):
    """What there is to know of a model before it is loaded."""

    entry: ModelEntry
    weights: Weights
    draft: Weights | None = None

    @property
    def on_gpus(self) -> bool:
        """Whether it asks for a GPU."""
        return bool(self.entry.gpu_layers) and self.weights.info is not None


async def study(core: Core, entry: ModelEntry) -> Study:
    """Reads what a model's files say. Raises ENOENT, ENOEXEC."""
    if not entry.path.endswith(".gguf"):
        size, problem = weights_size(entry.path)
        if problem:
            raise LlmosError(Code.ENOENT, problem)
        return Study(entry, Weights(size, None))
    draft = await _weights(core, entry.draft, f"the draft model of {entry.name}: ") if entry.draft else None
    return Study(entry, await _weights(core, entry.path), draft)


def need_of(found: Study, room: int, gpus: Sequence[Gpu] = (), most: int | None = None) -> Need:
    """What a model should take where `room` bytes of RAM may be had, and these GPUs.

    With `most`, no more layers than that go there by themselves. Raises ENOEXEC, EINVAL, ENOMEM.
    """
    entry, weights = found.entry, found.weights
    if weights.info is None:
        return Need(weights.size + kernels.pool_bytes(entry.kernel, load_message(entry), 0, 0, room), room=room)
    needed = estimate(entry, weights, room, found.draft)
    if not entry.gpu_layers:
        return Need(needed, room=room)
    pool = _pool(entry, weights, max(1, room - weights.size))
    layers = layers_of(found, pool)
    offload = plan(layers, gpus, most if entry.gpu_layers == "auto" else entry.gpu_layers, entry.gpu_layers == "auto")
    if not offload.gpu_bytes:
        return Need(needed, {}, offload, needed, pool, room)
    host = needed - int((layers.total - offload.host_bytes) * OVERHEAD)
    return Need(max(WORKER_BYTES, host), offload.gpu_bytes, offload, needed, pool, room)


def fewer_layers(entry: ModelEntry, need: Need, most: int | None, error: BaseException) -> int | None:
    """How many layers to try on GPUs after a load that failed, where that is ours to choose: half, then none.

    What a GPU needs is an estimate, and others may take its memory meanwhile. None: it is not to be tried again.
    """
    layers = need.offload.layers if need.offload is not None else 0
    if entry.gpu_layers != "auto" or not layers or not isinstance(error, LlmosError):
        return None
    if error.code not in (Code.ENOMEM, Code.ENOEXEC, Code.EIO):
        return None
    return layers // 2 if most is None else 0


async def _weights(core: Core, path: str, whose: str = "") -> Weights:
    """Raises ENOENT, ENOEXEC."""
    size, problem = weights_size(path)
    if problem:
        raise LlmosError(Code.ENOENT, whose + problem)
    return Weights(size, await core.read(lambda: read_gguf(path)))  # a large vocabulary takes its time


def estimate(entry: ModelEntry, weights: Weights, available: int, draft: Weights | None = None) -> int:
    """Bytes for a model and the KV pool that the kernel plans in what its weights leave of `available`.

    And for its draft model, whose KV takes as many tokens at most.
    """
    left = max(0, available - weights.size)
    pool = _pool(entry, weights, left) if left else 0
    size = weights.size + pool
    if draft is not None:
        size += draft.size + _draft_pool(entry, weights, draft, pool)
    return WORKER_BYTES + int(size * OVERHEAD)


def layers_of(found: Study, pool: int) -> Layers:
    """What of a model may go to GPUs: its layers, each with its part of the KV pool, which has so many bytes."""
    entry, weights = found.entry, found.weights
    info, spec = weights.info, load_message(entry)
    assert info is not None
    heads = max(1, sum(info.kv_heads))
    kv = tuple(pool * number // heads for number in info.kv_heads)
    blocks = tuple(size + part for size, part in zip(info.block_bytes, kv, strict=True))
    tokens = pool // max(1, info.kv_bytes_per_token(entry.kv_type))
    shape = Shape(info.embedding, info.feed_forward, info.heads, info.vocabulary)
    buffers, each = (kernels.compute_bytes(entry.kernel, spec, shape, tokens, gpus) for gpus in (1, 2))
    draft = found.draft.size + _draft_pool(entry, weights, found.draft, pool) if found.draft is not None else 0
    rest = max(0, weights.size - sum(info.block_bytes) - info.output_bytes)
    return Layers(blocks, info.output_bytes + draft, rest, kv, buffers, each, info.largest_bytes)


def _pool(entry: ModelEntry, weights: Weights, left: int) -> int:
    """Bytes of the KV pool that the kernel plans where so many are left."""
    assert weights.info is not None
    per_token = weights.info.kv_bytes_per_token(entry.kv_type)
    return kernels.pool_bytes(entry.kernel, load_message(entry), weights.info.context, per_token, left)


def _draft_pool(entry: ModelEntry, weights: Weights, draft: Weights, pool: int) -> int:
    """Bytes of the KV of a draft model, beside a pool of so many."""
    assert weights.info is not None and draft.info is not None
    tokens = pool // max(1, weights.info.kv_bytes_per_token(entry.kv_type))
    small = draft_load(load_message(entry), entry.context or weights.info.context, tokens)
    per_token = draft.info.kv_bytes_per_token(small.kv_type)
    return kernels.pool_bytes(entry.kernel, small, draft.info.context, per_token, sys.maxsize)
