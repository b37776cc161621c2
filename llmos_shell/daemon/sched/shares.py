"""Two levels of fair share: groups by their weights, and the processes of a group by theirs. Pure.

Each group has a virtual runtime: device seconds by its weight. Both levels are also folded into one rate per process,
for policies that look at processes alone: with L the sum of the weights of the processes that want to run and W that
of the groups they are in, a process of weight w in a group of weight g with load l uses
`(1024 / w) * (l / g) / (L / W)` virtual seconds per device second. With a single group that is 1024 / w.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmos_shell.daemon.policies import NICE_0_WEIGHT, Entity, Share


class Shares:
    """Sums over the entities that run or wait. Whoever changes such an entity's weight or group takes it out first."""

    def __init__(self) -> None:
        self._groups: dict[str, Share] = {}
        self._past: dict[str, float] = {}  # vruntimes of groups without anybody
        self._weights: dict[str, float] = {}  # that differ from 1
        self.load = 0.0  # weights of all that want to run
        self._weight = 0.0
        self._least = 0.0  # vruntime of a group: none is below
        self._sum = 0.0  # of weight * mean vruntime of the groups

    def set_weight(self, group: str, weight: float) -> None:
        """The weight of a group; 1 is what every group has at first."""
        self._weights[group] = weight
        found = self._groups.get(group)
        if found is not None:
            self._weight += weight - found.weight
            self._sum += (weight - found.weight) * found.moment / found.load
            found.weight = weight

    def join(self, entity: Entity) -> None:
        """It wants to run."""
        group = self._groups.get(entity.group)
        if group is None:
            start = min((one.vruntime for one in self._groups.values()), default=0.0)
            start = max(start, self._past.pop(entity.group, 0.0))
            group = self._groups[entity.group] = Share(self._weights.get(entity.group, 1.0), start)
            self._weight += group.weight
        else:
            self._sum -= group.weight * group.moment / group.load
        entity.share = group
        self._least = min(self._least, group.vruntime)
        group.count += 1
        group.load += entity.weight
        group.moment += entity.weight * entity.vruntime
        self.load += entity.weight
        self._sum += group.weight * group.moment / group.load

    def leave(self, entity: Entity) -> None:
        """It no longer does."""
        group = self._groups[entity.group]
        entity.share = None
        self._sum -= group.weight * group.moment / group.load
        group.count -= 1
        group.load -= entity.weight
        group.moment -= entity.weight * entity.vruntime
        self.load -= entity.weight
        if group.count:
            self._sum += group.weight * group.moment / group.load
        else:
            self._weight -= group.weight
            del self._groups[entity.group]
            self._note_past(entity.group, group.vruntime)
        if not self._groups:  # and with them what rounding has left
            self.load = self._weight = self._sum = 0.0

    def advance(self, entity: Entity, virtual: float) -> None:
        """Adds to its virtual runtime."""
        entity.vruntime += virtual
        group = self._groups[entity.group]
        moment = entity.weight * virtual
        group.moment += moment
        self._sum += group.weight * moment / group.load

    def use(self, used: Sequence[tuple[Entity, float]], most_lag: float) -> list[float]:
        """Each of these, all of whom want to run, used the device for so many seconds; returns their rates.

        No group is ever further behind than what it can make use of.
        """
        several = len(self._groups) > 1
        scale = self._weight / self.load if several else 1.0
        rates: list[float] = []
        for entity, seconds in used:
            group = self._groups[entity.group]
            rate = NICE_0_WEIGHT / entity.weight
            if several:
                rate = rate * (group.load / group.weight) * scale
            rates.append(rate)
            entity.vruntime += seconds * rate
            moment = entity.weight * (seconds * rate)
            group.moment += moment
            self._sum += group.weight * moment / group.load
            group.vruntime += seconds / group.weight
            if several and group.vruntime - most_lag > self._least:
                self._raise(group.vruntime - most_lag)
        return rates

    def _raise(self, least: float) -> None:
        """Forgives groups what they are further behind."""
        for group in self._groups.values():
            group.vruntime = max(group.vruntime, least)
        self._least = min(group.vruntime for group in self._groups.values())

    def _note_past(self, name: str, vruntime: float) -> None:
        self._past[name] = vruntime
        if len(self._past) > 256 or not self._groups:
            least = min((one.vruntime for one in self._groups.values()), default=0.0)
            self._past = {name: past for name, past in self._past.items() if past > least} if self._groups else {}

    def rate(self, entity: Entity) -> float:
        """Virtual seconds per device second; of one that does not want to run, by its own weight alone."""
        rate = NICE_0_WEIGHT / entity.weight
        group = self._groups.get(entity.group)
        if group is None or len(self._groups) == 1:
            return rate
        return rate * (group.load / group.weight) * (self._weight / self.load)

    def fair(self) -> float | None:
        """The virtual runtime of one that had exactly its share: the weighted mean; None when nobody wants to run."""
        return self._sum / self._weight if self._groups else None
