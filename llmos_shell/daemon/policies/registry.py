"""Policies by name: the built-in ones, and those installed in the entry-point group `llmos.policies`.

A third party's module is imported only when its policy is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.daemon.policies.base import Parameter, Policy
from llmos_shell.daemon.policies.fair import Fair
from llmos_shell.daemon.policies.orders import Deadline, Fifo, Priority, RoundRobin

ENTRY_POINTS = "llmos.policies"

POLICIES: dict[str, Callable[[], Policy]] = {
    policy.name: policy for policy in (Fair, Fifo, RoundRobin, Priority, Deadline)
}
"""Built-in policies by name."""


@cache
def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def names() -> tuple[str, ...]:
    """All policies to choose from; imports none."""
    return (*POLICIES, *(name for name in _installed() if name not in POLICIES))


def policy_named(name: str) -> Policy:
    """A fresh policy. Raises ENOENT for an unknown name, ENOEXEC for one that cannot be made."""
    if name in POLICIES:
        return POLICIES[name]()
    point = _installed().get(name)
    if point is None:
        raise LlmosError(Code.ENOENT, f"no scheduling policy {name!r}", hint=f"choose one of {', '.join(names())}")
    try:
        policy: Policy = point.load()()
        missing = [part for part in ("strict", "rank", "should_preempt") if not hasattr(policy, part)]
        if missing:
            raise TypeError(f"it has no `{missing[0]}`")
        policy.name = name
    except Exception as error:
        raise LlmosError(Code.ENOEXEC, f"policy {name} cannot be used: {type(error).__name__}: {error}") from error
    return policy


def configured(name: str, settings: Mapping[str, float]) -> Policy:
    """A fresh policy with these parameters. Raises EINVAL for one it does not have, or that is out of range."""
    policy = policy_named(name)
    known = {one.name: one for one in getattr(policy, "parameters", ())}
    for key, value in settings.items():
        parameter = known.get(key)
        if parameter is None:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise LlmosError(Code.EINVAL, f"policy {name} has no parameter {key!r}", hint=has)
        if not parameter.low <= value <= parameter.high:
            hint = f"use {parameter.low:g} to {parameter.high:g}"
            raise LlmosError(Code.EINVAL, f"{key} {value:g} is out of range", hint=hint)
        setattr(policy, key, value)
    return policy


def parameters_of(policy: Policy) -> dict[str, tuple[Parameter, float]]:
    """A policy's parameters, with the values in force."""
    found: tuple[Parameter, ...] = getattr(policy, "parameters", ())
    return {one.name: (one, float(getattr(policy, one.name))) for one in found}
