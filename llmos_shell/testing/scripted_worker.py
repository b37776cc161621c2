"""Worker of the scripted engine."""

from __future__ import annotations

from llmos_shell.engine.worker import serve
from llmos_shell.testing.scripted import load

if __name__ == "__main__":
    serve(load, "scripted")
