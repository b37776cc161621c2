"""How much memory of each GPU models may have, by what the driver tells and what they were promised. Pure.

A model that is being loaded has been promised memory which the driver still calls free. A figure that nobody can tell
is missing, never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct


class Tenant(Struct, frozen=True):
    """A model with a worker, or on its way: bytes of GPUs by name, as it was promised and as the driver tells."""

    key: str
    claimed: dict[str, int] = {}
    measured: dict[str, int] = {}
    loaded: bool = False

    def held(self, gpu: str) -> int:
        """What it must be taken to have, or to be about to."""
        return max(self.claimed.get(gpu, 0), self.measured.get(gpu, 0))

    def present(self, gpu: str) -> int:
        """What of it the driver no longer calls free."""
        return self.measured.get(gpu, self.claimed.get(gpu, 0) if self.loaded else 0)

    @property
    def gpus(self) -> dict[str, int]:
        """What it holds of all GPUs."""
        return {gpu: self.held(gpu) for gpu in {*self.claimed, *self.measured}}


def budgets(free: Mapping[str, int | None], tenants: Iterable[Tenant]) -> dict[str, int]:
    """What all models together may have of each GPU; of one that does not tell nothing is said."""
    known = list(tenants)
    return {gpu: size + sum(one.present(gpu) for one in known) for gpu, size in free.items() if size is not None}


def left(free: Mapping[str, int | None], tenants: Iterable[Tenant]) -> dict[str, int]:
    """What of each GPU is free besides what these models hold, or were promised."""
    known = list(tenants)
    return {gpu: max(0, size - sum(one.held(gpu) for one in known)) for gpu, size in budgets(free, known).items()}
