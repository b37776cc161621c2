"""Manifest of the scripted engine, so that tests (and demonstrations) can use it as a kernel."""

from __future__ import annotations

from llmos_shell.abi.kernel import KernelManifest

MANIFEST = KernelManifest(
    name="scripted",
    summary="deterministic babble without weights, for tests",
    argv=("{python}", "-P", "-m", "llmos_shell.testing.scripted_worker"),
)
