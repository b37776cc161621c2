"""Manifest of the llama.cpp kernel."""

from __future__ import annotations

from llmos_shell.abi.kernel import KernelManifest

MANIFEST = KernelManifest(
    name="llamacpp",
    summary="GGUF models with llama.cpp, on CPU and GPU",
    argv=("{python}", "-P", "-m", "llmos_kernel_llamacpp.worker"),
    requires=("llama_cpp", "numpy", "jinja2"),
    extra="llama-cpp-python",
    formats=("gguf",),
    pool_bytes="llmos_kernel_llamacpp.planning:pool_bytes",
    compute_bytes="llmos_kernel_llamacpp.planning:compute_bytes",
)
