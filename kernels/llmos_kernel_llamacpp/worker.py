"""Worker of the llama.cpp kernel."""

from __future__ import annotations

from llmos_kernel_llamacpp.engine import load
from llmos_shell.engine.worker import serve

if __name__ == "__main__":
    serve(load, "llamacpp")
