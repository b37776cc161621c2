"""Manifest of the scripted engine, so that tests (and demonstrations) can use it as a kernel."""

from __future__ import annotations

from llmos_shell.abi.kernel import KernelManifest
from llmos_shell.abi.worker import Load


def pool_bytes(spec: Load, trained_context: int, kv_bytes_per_token: int, available_bytes: int) -> int:
    """As `abi.kernel.PoolBytes`: what the option `memory_bytes` pretends."""
    return int(spec.options.get("memory_bytes", 0))


MANIFEST = KernelManifest(
    name="scripted",
    summary="deterministic babble without weights, for tests",
    argv=("{python}", "-P", "-m", "llmos_shell.testing.scripted_worker"),
    pool_bytes="llmos_shell.testing.scripted_manifest:pool_bytes",
)
