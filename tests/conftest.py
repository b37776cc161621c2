"""What holds for all tests."""

from __future__ import annotations

import signal

# Whoever starts the suite in the background may have it ignore SIGINT, and every program it starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
