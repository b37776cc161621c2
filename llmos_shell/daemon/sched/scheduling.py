"""Scheduling across models: the policy in force for all of them, groups, the turns of models that share a device.

Each model has a scheduler of its own, which this one makes and keeps in step with the others. What was set here is in
the journal and comes back after a restart.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec
from msgspec import MsgspecError, Struct

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import DeviceSharing, GroupInfo, GroupSettings
from llmos_shell.daemon.policies import configured
from llmos_shell.daemon.processes.process import Process
from llmos_shell.daemon.sched.arbiter import WINDOW, Arbiter
from llmos_shell.daemon.sched.groups import Group, Groups, check_name, check_settings
from llmos_shell.daemon.sched.scheduler import Scheduler
from llmos_shell.daemon.sched.trace import Tracer

if TYPE_CHECKING:
    from llmos_shell.daemon.core import Core
    from llmos_shell.daemon.models.conductor import Conductor

FALLBACK = "fair"
QUEUE_LIMIT = 2048
"""Processes of one model that may want to run at once: beyond that waiting is no service."""

_GROUP = "group."


class _Saved(Struct):
    """The policy as the journal keeps it."""

    policy: str
    parameters: dict[str, float] = {}
    gang: str = "auto"


WINDOW_SECONDS = float(os.environ.get("LLMOS_GANG_SECONDS", WINDOW))
"""How long the models of a device compute side by side, or in turns, in one measurement."""


class Scheduling:
    """What all schedulers of the daemon have in common."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.policy = FALLBACK
        self.parameters: dict[str, float] = {}
        self.quarantined: dict[str, str] = {}
        self.gang = "auto"
        self.groups = Groups()
        self.tracer = Tracer()
        self._arbiters: dict[str, Arbiter] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def restore(self) -> None:
        """Puts in force what was set before the daemon was restarted."""
        settings = self._core.journal.settings()
        for key, value in settings.items():
            try:
                if key.startswith(_GROUP):
                    name = key.removeprefix(_GROUP)
                    self.groups.get(name).configure(msgspec.msgpack.decode(value, type=GroupSettings))
                elif key == "sched":
                    saved = msgspec.msgpack.decode(value, type=_Saved)
                    self.gang = saved.gang
                    configured(saved.policy, saved.parameters)
                    self.policy, self.parameters = saved.policy, saved.parameters
            except (MsgspecError, LlmosError) as error:
                self._core.events.warning("sched", f"the setting {key} cannot be used: {error}")

    # -- the policy ----------------------------------------------------------------------------------------------------

    def make_scheduler(self) -> Scheduler:
        """A scheduler for one more model."""
        scheduler = Scheduler(self.policy, self._policy_failed, self.parameters, self._missed)
        for group in self.groups:
            scheduler.set_group_weight(group.name, group.settings.weight)
        return scheduler

    def set_policy(self, name: str, parameters: Mapping[str, float]) -> None:
        """Puts a policy in force for all models. Raises ENOENT, EINVAL, ENOEXEC, and then changes nothing."""
        configured(name, parameters)
        self.quarantined.pop(name, None)
        self.policy, self.parameters = name, dict(parameters)
        self._apply_policy()
        self._save()

    def set_gang(self, mode: str) -> None:
        """Whether models that share a device take turns."""
        self.gang = mode
        for device, arbiter in self._arbiters.items():
            arbiter.setting = mode
            self._decide(device)
        self._save()

    def _policy_failed(self, text: str) -> None:
        """A policy raised: nobody uses it any more until somebody asks for it again."""
        self._core.events.error("sched", f"{text}; policy {self.policy} is quarantined, {FALLBACK} takes over")
        self.quarantined[self.policy] = text
        self.policy, self.parameters = FALLBACK, {}
        self._core.loop.call_soon(self._apply_policy)

    def _apply_policy(self) -> None:
        for conductor in self._core.residency.all():
            conductor.scheduler.set_policy(self.policy, self.parameters)
            conductor.planner.replan()

    def _save(self) -> None:
        saved = _Saved(self.policy, self.parameters, self.gang)
        self._core.journal.put_setting("sched", msgspec.msgpack.encode(saved))

    def _missed(self, pid: int, seconds: float) -> None:
        process = self._core.table.find(pid)
        if process is not None and process.alive and not process.missed_deadline:
            process.missed_deadline = True
            self._core.events.warning("sched", f"{process.name}: missed its deadline", pid)
            self._core.save(process)

    # -- bounds --------------------------------------------------------------------------------------------------------

    def require_room(self, model: str, group: str, count: int = 1) -> None:
        """Raises EAGAIN when a model's queue or a group has no room for so many more processes."""
        limit = self._group_limit(group)
        if limit is not None:
            exist = sum(p.group == group for p in self._core.table.live_models())
            if exist + count > limit:
                text = f"group {group} has {exist} processes, and {limit} are its limit"
                raise LlmosError(Code.EAGAIN, text, hint="end some, wait for them, or `group set` another limit")
        conductor = self._core.residency.find(model)
        if conductor is None:
            return
        waiting = conductor.scheduler.runnable
        if waiting + count > QUEUE_LIMIT:
            rate = conductor.scheduler.admission_rate(self._core.now())
            when = f"in about {math.ceil((waiting + count - QUEUE_LIMIT) / rate)} s" if rate else "later"
            text = f"{waiting} processes wait for {conductor.entry.name}, and {QUEUE_LIMIT} are the limit"
            raise LlmosError(Code.EAGAIN, text, hint=f"try again {when}")

    def _group_limit(self, group: str) -> int | None:
        found = self.groups.find(group)
        return found.settings.processes if found is not None else None

    def kv_limit(self, process: Process) -> int | None:
        """The longest context its own limits and its group's allow."""
        group = self.groups.find(process.group)
        limits = (process.limits.kv_tokens, group.settings.kv_tokens if group is not None else None)
        return min((limit for limit in limits if limit is not None), default=None)

    # -- groups --------------------------------------------------------------------------------------------------------

    def set_group(self, name: str, changes: Mapping[str, object], *, reset: bool) -> Group:
        """Changes a group's settings. Raises EINVAL."""
        check_name(name)
        unknown = sorted(set(changes) - set(GroupSettings.__struct_fields__))
        if unknown:
            raise LlmosError(Code.EINVAL, f"a group has no setting {unknown[0]!r}")
        group = self.groups.find(name)
        base = GroupSettings() if reset or group is None else group.settings
        try:
            settings = msgspec.convert({**msgspec.structs.asdict(base), **changes}, GroupSettings)
        except msgspec.ValidationError as error:
            raise LlmosError(Code.EINVAL, f"group: {error}") from None
        check_settings(settings)
        group = self.groups.get(name)
        group.configure(settings)
        value = b"" if settings == GroupSettings() else msgspec.msgpack.encode(settings)
        self._core.journal.put_setting(_GROUP + name, value)
        for conductor in self._core.residency.all():
            conductor.scheduler.set_group_weight(name, settings.weight)
        self._group_changed(name)
        return group

    def group_rows(self) -> list[GroupInfo]:
        """The rows of `group`."""
        members: dict[str, list[Process]] = {}
        for process in self._core.table.live_models():
            members.setdefault(process.group, []).append(process)
        self.groups.drop_unused(set(members))
        for name in members:
            self.groups.get(name)
        return [self.describe(group, members.get(group.name, [])) for group in self.groups]

    def describe(self, group: Group, members: list[Process]) -> GroupInfo:
        """One of these rows."""
        running = [process for process in members if process.running]
        paused = group.reason if group.paused(self._core.now()) else ""
        return GroupInfo(
            group.name, group.settings, len(members), len(running),
            sum(p.answering and not p.running for p in members), group.tokens, group.device_seconds,
            sum(len(process.tokens) for process in running), paused, group.joules,
        )  # fmt: skip

    def may_run(self, process: Process) -> bool:
        """Whether its group has not used up what it may."""
        group = self.groups.find(process.group)
        return group is None or not group.paused(self._core.now())

    def left(self, name: str) -> None:
        """Somebody has left a group: without processes and settings it is forgotten."""
        if not any(process.group == name for process in self._core.table.live_models()):
            self.groups.drop(name)

    def _group_changed(self, name: str) -> None:
        for conductor in self._core.residency.all():
            for process in list(conductor.members.values()):
                if process.group == name:
                    conductor.changed(process)

    # -- what was computed ---------------------------------------------------------------------------------------------

    def charged(self, conductor: Conductor, computed: Mapping[int, int], seconds: float) -> None:
        """A step of `seconds` computed so many tokens of each process."""
        total = sum(computed.values())
        now = self._core.now()
        each = seconds / total
        used: dict[str, tuple[int, float]] = {}
        metering = self._core.metering if self._core.metering.wanted else None
        for pid, tokens in computed.items():
            process = conductor.members.get(pid)
            if process is not None:
                process.device_seconds += each * tokens
                if metering is not None:
                    metering.note(conductor, pid, each * tokens)
                generated = process.generated_tokens - process.metered_tokens
                process.metered_tokens = process.generated_tokens
                before = used.get(process.group, (0, 0.0))
                used[process.group] = (before[0] + generated, before[1] + each * tokens)
        for name, (generated, device_seconds) in used.items():
            group = self.groups.get(name)
            if group.use(generated, device_seconds, now):
                self._pause(group, now)
        arbiter = self._arbiters.get(conductor.device)
        if arbiter is not None:
            arbiter.charge(conductor.key, seconds, total)
        if self.tracer.on:
            self.tracer.note("step", 0, conductor.entry.name, seconds=seconds, tokens=total, rows=len(computed))

    def _pause(self, group: Group, now: float) -> None:
        self._group_changed(group.name)
        self._core.loop.call_later(group.paused_until - now + 0.001, self._go_on, group)

    def _go_on(self, group: Group) -> None:
        """Ends a pause, unless late news of a step have prolonged it."""
        now = self._core.now()
        if group.paused(now):
            self._core.loop.call_later(group.paused_until - now + 0.001, self._go_on, group)
        else:
            self._group_changed(group.name)

    # -- the turns of models -------------------------------------------------------------------------------------------

    def may_compute(self, conductor: Conductor) -> bool:
        """Whether it is this model's turn on its device."""
        arbiter = self._arbiters.get(conductor.device)
        return arbiter is None or arbiter.allowed(conductor.key)

    def note_wants(self, conductor: Conductor) -> None:
        """What a model's processes want of the device may be something else now."""
        scheduler = conductor.scheduler
        arbiter = self._arbiters.get(conductor.device)
        if arbiter is None:
            arbiter = self._arbiters[conductor.device] = Arbiter(self.gang, WINDOW_SECONDS)
        if arbiter.wants(conductor.key, scheduler.demand, scheduler.pressing):
            self._decide(conductor.device)

    def dropped(self, conductor: Conductor) -> None:
        """A model was unloaded."""
        arbiter = self._arbiters.get(conductor.device)
        if arbiter is not None:
            arbiter.remove(conductor.key)
            self._decide(conductor.device)

    def _decide(self, device: str) -> None:
        arbiter, core = self._arbiters[device], self._core
        timer = self._timers.pop(device, None)
        if timer is not None:
            timer.cancel()
        before = (arbiter.gang, arbiter.holder)
        again = arbiter.decide(core.now())
        if again < math.inf:
            self._timers[device] = core.loop.call_later(max(0.001, again - core.now()), self._decide, device)
        if (arbiter.gang, arbiter.holder) != before:
            if self.tracer.on:
                self.tracer.note("decision", 0, f"{device}: {arbiter.holder or 'all'}", gang=arbiter.gang)
            for conductor in core.residency.all():
                if conductor.device == device:
                    conductor.planner.replan()

    def devices(self) -> tuple[DeviceSharing, ...]:
        """How each device is shared."""
        rows = []
        for device, arbiter in sorted(self._arbiters.items()):
            competing = arbiter.competing
            mode = "alone" if len(competing) < 2 else ("gang" if arbiter.gang else "free")
            rows.append(
                DeviceSharing(
                    device, tuple(self._named(key) for key in competing), arbiter.setting, mode,
                    self._named(arbiter.holder), arbiter.measuring, arbiter.quantum,
                    arbiter.rates[False], arbiter.rates[True],
                )
            )  # fmt: skip
        return tuple(rows)

    def _named(self, key: str) -> str:
        return key.rpartition("/")[2]
