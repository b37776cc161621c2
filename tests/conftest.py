"""What holds for all tests."""

from __future__ import annotations

import os
import signal
import sys

from hypothesis import settings

# Whoever starts the suite in the background may have it ignore SIGINT, and every program it starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests start thousands of processes: whatever the environment says, a module is compiled once and not in each of them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# What a run says depends on the code alone; `make fuzz` looks for what these examples miss.
settings.register_profile("steady", derandomize=True)
if "LLMOS_FUZZ" not in os.environ:
    settings.load_profile("steady")
