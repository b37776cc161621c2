"""The manifest of a kernel: what the daemon knows of it without importing it.

A package registers `name = module:MANIFEST` in the entry-point group `llmos.kernels`; that module imports nothing
heavy.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from llmos_shell.abi.worker import Load

ENTRY_POINTS = "llmos.kernels"


class KernelManifest(Struct, frozen=True):
    """How to start a kernel's workers, and what it needs.

    The worker gets the number of its socket's file descriptor as last argument, and speaks first (`worker.Hello`). Its
    stdout and stderr go to the daemon's log.
    """

    name: str
    summary: str
    argv: tuple[str, ...]  # "{python}" stands for the running interpreter
    requires: tuple[str, ...] = ()  # top-level modules that must be importable
    extra: str = ""  # what to `pip install` when one is missing
    formats: tuple[str, ...] = ()  # file endings, without the dot
    pool_bytes: str = ""  # "module:function", a `PoolBytes` that is quick to import; "": it cannot say
    compute_bytes: str = ""  # the same of a `ComputeBytes`


class PoolBytes(Protocol):
    """How much memory a kernel takes for its KV pool. The daemon asks before it loads a model."""

    def __call__(self, spec: Load, trained_context: int, kv_bytes_per_token: int, available_bytes: int) -> int:
        """Bytes, or an upper bound, where so many are `available` besides the weights.

        Raises EINVAL for what it cannot do, ENOMEM when what was asked for cannot fit.
        """


class Shape(Struct, frozen=True):
    """Dimensions of a model; what is not known is 0."""

    embedding: int
    feed_forward: int  # of those that compute for one token
    heads: int
    vocabulary: int


class ComputeBytes(Protocol):
    """How much memory a kernel computes in on each of the GPUs it uses. The daemon asks before it loads a model."""

    def __call__(self, spec: Load, shape: Shape, kv_tokens: int, gpus: int) -> int:
        """Bytes, or an upper bound, where the KV pool has `kv_tokens` and there are so many `gpus`. Raises EINVAL."""
