"""Slow engines that become quick: what a test has to see happens while they are slow, and all else takes no time.

A file in LLMOS_HOME tells scripted engines to hurry, whoever started them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def begin_to_hurry() -> None:
    """From now on steps of scripted engines take no longer than they need."""
    open(_path(), "w").close()


@contextmanager
def hurry() -> Iterator[None]:
    """The same for a while."""
    begin_to_hurry()
    yield
    os.remove(_path())


def is_hurried() -> bool:
    """Whether engines should hurry."""
    return os.path.exists(_path())


def _path() -> str:
    return os.path.join(os.environ.get("LLMOS_HOME", ""), "hurry")
