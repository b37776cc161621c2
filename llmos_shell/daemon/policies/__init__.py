"""Scheduling policies: who deserves to run. Pure decisions over `Entity` records; the scheduler owns those."""

from llmos_shell.daemon.policies.base import (
    MIN_RUN,
    NICE_0_WEIGHT,
    NICE_MAX,
    NICE_MIN,
    Entity,
    GroupedPolicy,
    Keyed,
    KeyedPolicy,
    Parameter,
    Policy,
    Share,
    weight_of,
)
from llmos_shell.daemon.policies.fair import AGEING, LEAD, Fair
from llmos_shell.daemon.policies.registry import POLICIES, configured, names, parameters_of, policy_named

__all__ = [
    "AGEING",
    "LEAD",
    "MIN_RUN",
    "NICE_0_WEIGHT",
    "NICE_MAX",
    "NICE_MIN",
    "POLICIES",
    "Entity",
    "Fair",
    "GroupedPolicy",
    "Keyed",
    "KeyedPolicy",
    "Parameter",
    "Policy",
    "Share",
    "configured",
    "names",
    "parameters_of",
    "policy_named",
    "weight_of",
]
