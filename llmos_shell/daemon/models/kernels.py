"""Which kernels are installed: manifests from entry points, without importing a kernel."""

from __future__ import annotations

import logging
import re
import sys
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.kernel import ENTRY_POINTS, ComputeBytes, KernelManifest, PoolBytes, Shape
from llmos_shell.abi.syscalls import KernelInfo
from llmos_shell.abi.worker import Load

_NO_MODULE = re.compile(r"No module named '?([\w.]+)'?")
_log = logging.getLogger("llmosd.kernels")


@cache
def manifests() -> dict[str, KernelManifest]:
    """All installed kernels by name; one whose manifest cannot be read is logged and left out."""
    found: dict[str, KernelManifest] = {}
    for point in entry_points(group=ENTRY_POINTS):
        try:
            manifest = point.load()
        except Exception as error:
            _log.warning("the manifest of kernel %s cannot be read: %s: %s", point.name, type(error).__name__, error)
            continue
        if isinstance(manifest, KernelManifest):
            found[manifest.name] = manifest
    return found


def manifest_named(name: str) -> KernelManifest:
    """An installed kernel whose requirements are met. Raises ENOENT or ENOEXEC, saying what to install."""
    manifest = manifests().get(name)
    if manifest is None:
        installed = ", ".join(sorted(manifests()))
        raise LlmosError(Code.ENOENT, f"no kernel is called {name}", hint=f"installed are {installed}")
    missing = missing_modules(manifest)
    if missing:
        raise _incomplete(manifest, missing)
    return manifest


def lacks(name: str, said: str) -> LlmosError | None:
    """What to install when the last words of a kernel's worker, which may run in an environment of its own, were that
    a module is missing; None when they were not."""
    found = _NO_MODULE.search(said)
    manifest = manifests().get(name)
    return _incomplete(manifest, (found.group(1),)) if found and manifest is not None else None


def _incomplete(manifest: KernelManifest, missing: tuple[str, ...]) -> LlmosError:
    pip = "pip" if "{python}" in manifest.argv[0] else f"{manifest.argv[0]} -m pip"
    hint = f"{pip} install '{manifest.extra}'" if manifest.extra else f"install {', '.join(missing)}"
    if not manifest.extra and pip != "pip":
        hint += f" where {manifest.argv[0]} finds it"
    return LlmosError(Code.ENOEXEC, f"kernel {manifest.name} needs {', '.join(missing)}", hint=hint)


def missing_modules(manifest: KernelManifest) -> tuple[str, ...]:
    """Required modules that are not installed."""
    return tuple(name for name in manifest.requires if find_spec(name) is None)


def argv_of(manifest: KernelManifest) -> list[str]:
    """The command line of a worker, without the descriptor."""
    return [part.replace("{python}", sys.executable) for part in manifest.argv]


def pool_bytes(kernel: str, spec: Load, trained_context: int, kv_bytes_per_token: int, available_bytes: int) -> int:
    """What a kernel takes for its KV pool (`abi.kernel.PoolBytes`); 0 where it cannot say."""
    plan: PoolBytes | None = _named(manifest_named(kernel).pool_bytes)
    return plan(spec, trained_context, kv_bytes_per_token, available_bytes) if plan is not None else 0


def compute_bytes(kernel: str, spec: Load, shape: Shape, kv_tokens: int, gpus: int) -> int:
    """What a kernel computes in on each GPU (`abi.kernel.ComputeBytes`); 0 where it cannot say."""
    plan: ComputeBytes | None = _named(manifest_named(kernel).compute_bytes)
    return plan(spec, shape, kv_tokens, gpus) if plan is not None else 0


def _named(place: str) -> Any:
    module, _, function = place.partition(":")
    return getattr(import_module(module), function) if place else None


def describe(manifest: KernelManifest) -> KernelInfo:
    """The row of `kernels`."""
    missing = missing_modules(manifest)
    install = (manifest.extra or ", ".join(missing)) if missing else ""
    return KernelInfo(manifest.name, manifest.summary, not missing, install, manifest.formats)
