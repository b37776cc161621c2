"""Groups: who shares the device with whom, and what a group may use. Pure but for the clock that is handed in.

A process belongs to the group it names; else to that of its terminal, else of its session, else to `detached`. All
have the weight 1 and no limits until somebody sets them. Tokens and device time are metered by buckets: a group that
has overdrawn one pauses until it is refilled. The scheduler owns the shares, the table the processes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import GroupSettings

BURST_SECONDS = 1.0
"""A bucket holds what flows into it in so long: what may be used at once after a pause."""

SETTLE_SECONDS = 0.25
"""A group that has overdrawn pauses at least so long, so that it does not stop and go at every token."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Meter:
    """A bucket that `rate` units per second flow into; `what` says so in words."""

    def __init__(self, rate: float, what: str) -> None:
        self.rate, self.what = rate, what
        self._level = rate * BURST_SECONDS
        self._at: float | None = None

    def take(self, amount: float, now: float) -> None:
        """Uses some; the level may fall below 0."""
        if self._at is not None and now > self._at:
            self._level = min(self._level + (now - self._at) * self.rate, self.rate * BURST_SECONDS)
        self._at = now
        self._level -= amount

    def pause(self, now: float) -> float:
        """Seconds until there is something in it again; 0 when there is."""
        self.take(0.0, now)
        return max(SETTLE_SECONDS, -self._level / self.rate) if self._level <= 0 else 0.0


class Group:
    """One group: its settings, and what it has used since the daemon began."""

    def __init__(self, name: str, settings: GroupSettings | None = None) -> None:
        self.name = name
        self.device_seconds = 0.0
        self.joules: float | None = None  # None: no device has told
        self.tokens = 0
        self.paused_until = 0.0  # monotonic
        self.reason = ""  # why it is paused
        self.configure(settings or GroupSettings())

    def configure(self, settings: GroupSettings) -> None:
        """Puts settings in force."""
        self.settings = settings
        rate, share = settings.tokens_per_second, settings.device_share
        self._tokens = Meter(rate, f"{rate:g} tokens per second") if rate else None
        self._device = Meter(share, f"{100 * share:g} % of the device's time") if share else None
        self.paused_until, self.reason = 0.0, ""

    def paused(self, now: float) -> bool:
        """Whether its processes may not run at present."""
        return now < self.paused_until

    def use(self, tokens: int, device_seconds: float, now: float) -> bool:
        """Notes what it used; returns whether it has to pause from now on."""
        self.tokens += tokens
        self.device_seconds += device_seconds
        before = self.paused_until
        for meter, amount in ((self._tokens, tokens), (self._device, device_seconds)):
            if meter is not None:
                meter.take(amount, now)
                if now + meter.pause(now) > max(now, self.paused_until):
                    self.paused_until = now + meter.pause(now)
                    self.reason = f"the limit of group {self.name}, {meter.what}, is reached"
        return before <= now < self.paused_until


class Groups:
    """Groups by name; those without settings of their own come and go with their processes."""

    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}

    def get(self, name: str) -> Group:
        """The group of that name, made on first use."""
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = Group(name)
        return group

    def find(self, name: str) -> Group | None:
        """The group of that name, if there is one."""
        return self._groups.get(name)

    def drop_unused(self, used: set[str]) -> None:
        """Forgets groups that have neither processes nor settings."""
        for name in [name for name in self._groups if name not in used]:
            self.drop(name)

    def drop(self, name: str) -> None:
        """Forgets a group without processes, unless it has settings."""
        if name in self._groups and self._groups[name].settings == GroupSettings():
            del self._groups[name]

    def __iter__(self) -> Iterator[Group]:
        return iter(sorted(self._groups.values(), key=lambda group: group.name))


def check_name(name: str) -> None:
    """Raises EINVAL for what cannot be the name of a group."""
    if not _NAME.fullmatch(name):
        hint = "use up to 64 letters, digits, `.`, `_` and `-`"
        raise LlmosError(Code.EINVAL, f"{name!r} cannot be the name of a group", hint=hint)


def check_settings(settings: GroupSettings) -> None:
    """Raises EINVAL for a weight or a limit that makes no sense."""
    ranges = (
        ("weight", settings.weight, 0.01, 1000.0),
        ("processes", settings.processes, 1, 1 << 20),
        ("tokens per second", settings.tokens_per_second, 0.01, 1e9),
        ("KV tokens", settings.kv_tokens, 1, 1 << 40),
        ("device share", settings.device_share, 0.001, 1.0),
    )
    for name, value, low, high in ranges:
        if value is not None and not low <= value <= high:
            raise LlmosError(Code.EINVAL, f"{name} {value:g} is out of range", hint=f"use {low:g} to {high:g}")
