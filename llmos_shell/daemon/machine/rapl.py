"""What CPUs say of their energy: the counters of Linux's powercap, which Intel's and AMD's processors have (RAPL).

Usually only root may read them; whoever may not gets no figure. A counter starts anew when it has reached its range.
"""

from __future__ import annotations

import glob
import os

POWERCAP = "/sys/class/powercap"
MICROJOULES = 1e6


class Rapl:
    """All packages of the machine together."""

    def __init__(self, folder: str = POWERCAP) -> None:
        self._folder = folder
        self._zones: dict[str, _Zone] = {}

    def joules(self) -> float | None:
        """What they have used since the machine was started, as far as counters have not started anew unseen.

        None unless every package tells.
        """
        paths = self._packages()
        self._zones = {path: self._zones.get(path) or _Zone(path) for path in paths}
        found = [zone.microjoules() for zone in self._zones.values()]
        known = [value for value in found if value is not None]
        return sum(known) / MICROJOULES if known and len(known) == len(found) else None

    def _packages(self) -> list[str]:
        """Their zones; not those within them, those of the same packages by another way, and that of the platform."""
        zones = glob.glob(os.path.join(glob.escape(self._folder), "intel-rapl:*"))
        return [
            zone
            for zone in sorted(zones)
            if os.path.basename(zone).count(":") == 1 and _name(zone).startswith("package")
        ]


class _Zone:
    """One counter."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._last = 0
        self._passed = 0  # in rounds it has completed

    def microjoules(self) -> int | None:
        try:
            now = _number(os.path.join(self._path, "energy_uj"))
            if now < self._last:
                self._passed += _number(os.path.join(self._path, "max_energy_range_uj"))
        except (OSError, ValueError):
            return None
        self._last = now
        return self._passed + now


def _name(zone: str) -> str:
    try:
        with open(os.path.join(zone, "name"), encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _number(path: str) -> int:
    with open(path, encoding="ascii") as file:
        return int(file.read())
