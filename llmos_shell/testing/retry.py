"""Waiting for something to become true, instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.1


def retry_until(predicate: Callable[[], T], seconds: float = 20.0) -> T:
    """Calls `predicate` until it returns something true, and returns that. Raises TimeoutError after `seconds`."""
    deadline = time.monotonic() + seconds
    pause = _FIRST_PAUSE
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"not true within {seconds:g} s; last value {value!r}")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
