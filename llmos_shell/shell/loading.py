"""What a terminal shows while a model is being loaded: a bar with bytes, or what it waits for."""

from __future__ import annotations

from collections.abc import Callable

from llmos_shell.abi.errors import LlmosError
from llmos_shell.abi.syscalls import MODEL_PROGRESS, Awaited, ModelLoad
from llmos_shell.shell.command import Context
from llmos_shell.shell.tables import size

CELLS = 20
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def load_watch(context: Context, awaited: Awaited) -> Callable[[], str]:
    """A function that tells how far the load of a model is; "" while it is not being loaded. For `Progress`."""
    gone = False

    def describe() -> str:
        nonlocal gone
        if gone:
            return ""
        try:
            load: ModelLoad | None = context.client.call(MODEL_PROGRESS, awaited)
        except LlmosError:  # whoever waits for the model hears of it
            gone = True
            return ""
        return describe_load(load) if load is not None else ""

    return describe


def describe_load(load: ModelLoad) -> str:
    """One line."""
    if load.waits_for:
        return f"{load.model} waits for memory that {', '.join(load.waits_for)} has in use"
    if not load.total:
        return f"loading {load.model}"
    if load.read >= load.total:
        return f"{load.model} is read ({size(load.total)}): its KV pool is being made"
    share = load.read / load.total
    return f"loading {load.model} {bar(share, CELLS)} {size(load.read)} of {size(load.total)} ({share:.0%})"


def bar(share: float, cells: int) -> str:
    """So many character cells, filled from the left."""
    eighths = int(share * cells * 8)
    full, rest = divmod(eighths, 8)
    return f"▕{('█' * full + (_EIGHTHS[rest] if rest else '')).ljust(cells)}▏"
