"""The limits that `ulimit` sets for the processes a shell starts; they are variables, so subshells inherit them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmos_shell.abi.types import Limits

if TYPE_CHECKING:
    from llmos_shell.shell.command import ShellLike

VARIABLES = {
    "tokens": "LLMOS_LIMIT_TOKENS",
    "seconds": "LLMOS_LIMIT_SECONDS",
    "kv_tokens": "LLMOS_LIMIT_CONTEXT",
}
"""The variable behind each field of `Limits`."""


def shell_limits(shell: ShellLike) -> Limits:
    """The limits in force; a variable that is no number is no limit."""
    values = {field: _number(shell.get(variable)) for field, variable in VARIABLES.items()}
    tokens, seconds, kv_tokens = values["tokens"], values["seconds"], values["kv_tokens"]
    return Limits(
        tokens=None if tokens is None else int(tokens),
        seconds=seconds,
        kv_tokens=None if kv_tokens is None else int(kv_tokens),
    )


def set_shell_limits(shell: ShellLike, limits: Limits) -> None:
    """Sets them for what the shell starts from now on."""
    for field, variable in VARIABLES.items():
        value = getattr(limits, field)
        shell.set(variable, "" if value is None else f"{value:g}" if isinstance(value, float) else str(value))


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
