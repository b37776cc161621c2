"""What a model will take of the machine, before it is loaded: from its file, its kernel's plan and the GPUs."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import ModelEntry
from llmos_shell.daemon import kernels
from llmos_shell.daemon.memory.offload import Gpu, Layers, Offload, plan
from llmos_shell.daemon.supervisor import load_message
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

    def __str__(self) -> str:
        sizes = [f"{self.host / 2**20:,.0f} MiB"]
        return " and ".join([*sizes, *(f"{size / 2**20:,.0f} MiB of {name}" for name, size in self.gpus.items())])


class Weights(Struct, frozen=True):
    """A file of weights: its size in bytes, and what it says of itself."""

    size: int
    info: GgufInfo


async def need_of(core: Core, entry: ModelEntry, room: int, gpus: Callable[[ModelEntry], Awaitable[list[Gpu]]]) -> Need:
    """What a model should take where `room` bytes may be had, and these GPUs. Raises ENOENT, ENOEXEC, ENOMEM."""
    if not entry.path.endswith(".gguf"):
        size, problem = weights_size(entry.path)
        if problem:
            raise LlmosError(Code.ENOENT, problem)
        return Need(size + kernels.pool_bytes(entry.kernel, load_message(entry), 0, 0, room))
    draft = await _weights(core, entry.draft, f"the draft model of {entry.name}: ") if entry.draft else None
    weights = await _weights(core, entry.path)
    needed = estimate(entry, weights, room, draft)
    if not entry.gpu_layers:
        return Need(needed)
    layers = layers_of(entry, weights, room)
    offload = plan(layers, await gpus(entry), None if entry.gpu_layers == "auto" else entry.gpu_layers)
    if offload.note:
        core.events.info("residency", f"{entry.name}: {offload.note}")
    if not offload.gpu_bytes:
        return Need(needed, offload=offload, without_gpus=needed)
    host = needed - int((layers.total - offload.host_bytes) * OVERHEAD)
    return Need(max(WORKER_BYTES, host), offload.gpu_bytes, offload, needed)


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
    spec, info = load_message(entry), weights.info
    per_token = info.kv_bytes_per_token(entry.kv_type)
    pool = kernels.pool_bytes(entry.kernel, spec, info.context, per_token, left) if left else 0
    size = weights.size + pool
    if draft is not None:
        small = draft_load(spec, entry.context or info.context, pool // max(1, per_token))
        per_token = draft.info.kv_bytes_per_token(small.kv_type)
        size += draft.size + kernels.pool_bytes(entry.kernel, small, draft.info.context, per_token, sys.maxsize)
    return WORKER_BYTES + int(size * OVERHEAD)


def layers_of(entry: ModelEntry, weights: Weights, available: int) -> Layers:
    """What of a model may go to GPUs: its layers, each with its part of the KV pool."""
    info, spec = weights.info, load_message(entry)
    per_token = info.kv_bytes_per_token(entry.kv_type)
    pool = kernels.pool_bytes(entry.kernel, spec, info.context, per_token, max(1, available - weights.size))
    heads = max(1, sum(info.kv_heads))
    blocks = tuple(size + pool * number // heads for size, number in zip(info.block_bytes, info.kv_heads, strict=True))
    return Layers(blocks, info.output_bytes, max(0, weights.size - sum(info.block_bytes) - info.output_bytes))
