"""What it costs to keep a process's KV outside the pool, against computing it again: measured speeds. Pure."""

from __future__ import annotations

from enum import Enum

SMOOTHING = 0.3
MEASURED_BYTES = 256 << 10
"""Smaller images say more of the fixed cost of a file than of a bandwidth."""

MARGIN = 2.0
"""An image is kept unless computing again takes less than this part of moving it: computing holds up others as well."""


class Path(Enum):
    """A way that KV takes; the value is the bandwidth in bytes per second assumed before it was measured."""

    EXPORT = ("pool to RAM", 2e9)
    RESTORE = ("RAM to pool", 2e9)
    WRITE = ("RAM to disk", 4e8)  # compression included, in bytes of the image
    READ = ("disk to RAM", 4e8)  # … likewise


class Costs:
    """Smoothed bandwidths, in bytes per second."""

    def __init__(self) -> None:
        self._rates: dict[Path, float] = {}

    def note(self, path: Path, size: int, seconds: float) -> None:
        """So many bytes took so long."""
        if size >= MEASURED_BYTES and seconds > 0:
            rate, old = size / seconds, self._rates.get(path)
            self._rates[path] = rate if old is None else old + (rate - old) * SMOOTHING

    def forget(self, *paths: Path) -> None:
        """These ways are others from now on."""
        for path in paths:
            self._rates.pop(path, None)

    def rate(self, path: Path) -> float:
        """Bytes per second."""
        return self._rates.get(path, path.value[1])

    def measured(self, path: Path) -> float:
        """The same; 0 when nothing was measured yet."""
        return self._rates.get(path, 0.0)

    def keeps(self, size: int, tokens: int, prefill_rate: float, *, disk: bool) -> bool:
        """Whether an image of `size` bytes pays, that spares computing `tokens` at so many per second (0: not known).

        With `disk` the price is that of the way there and back, else of the way into RAM and back into the pool.
        """
        if not prefill_rate:
            return True
        ways = (Path.READ, Path.RESTORE) if disk else (Path.EXPORT, Path.RESTORE)
        return sum(size / self.rate(way) for way in ways) < MARGIN * tokens / prefill_rate
