"""How a draft model is loaded beside its model. Light: the daemon plans its memory with it."""

from __future__ import annotations

from msgspec.structs import replace

from llmos_shell.abi.worker import Load

DRAFT_SLOTS = 4
"""Sequences that a draft can serve at once: with more of them, the model's own steps are full."""


def draft_load(spec: Load, context: int, pool_tokens: int) -> Load:
    """What a kernel is told of the draft of a model with such a context and pool, in tokens.

    Its KV takes no more tokens than the model's; longer sequences than its slots have room for get no guesses. It goes
    wholly to the GPU where the model's output is.
    """
    slots = min(DRAFT_SLOTS, spec.slots or DRAFT_SLOTS)
    pool = min(slots * context, max(pool_tokens, slots))
    return replace(
        spec, path=spec.draft, draft="", context=context, kv_type="f16", layout="split", slots=slots, pool_tokens=pool,
        options={}, gpu_layers=-1 if spec.gpu_layers else 0, gpu_split=_last(spec.gpu_split), room=None,
    )  # fmt: skip


def _last(split: tuple[int, ...]) -> tuple[int, ...]:
    """The last GPU of a split that has layers, alone."""
    used = [place for place, layers in enumerate(split) if layers]
    return tuple(int(place == used[-1]) for place in range(used[-1] + 1)) if used else ()
