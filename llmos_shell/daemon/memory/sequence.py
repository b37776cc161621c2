"""What the ledger knows of one sequence, and what it answers with. Data only."""

from __future__ import annotations

from array import array

from msgspec import Struct

from llmos_shell.abi.errors import Code, LlmosError


class Match(Struct, frozen=True):
    """The KV of the first `tokens` tokens is held by `seq`."""

    seq: int
    tokens: int


class PoolFull(LlmosError):
    """No room. ENOMEM when it would not even fit into the empty pool (or slot), else EAGAIN. Nothing was changed."""

    def __init__(self, needed_pages: int, free_pages: int, free_slots: int, *, never: bool = False) -> None:
        code = Code.ENOMEM if never else Code.EAGAIN
        numbers = f"{needed_pages} pages needed, {free_pages} pages and {free_slots} slots free"
        super().__init__(code, f"the KV pool is full: {numbers}")
        self.needed_pages = needed_pages
        self.free_pages = free_pages
        self.free_slots = free_slots


class Holding:
    """What one sequence holds. `limit`: tokens there is room for; `stop`: the length at which a page ends."""

    __slots__ = ("keys", "limit", "pages", "retired", "scope", "stop", "tokens")

    def __init__(self, scope: str, tokens: array[int], pages: list[int]) -> None:
        self.scope = scope
        self.tokens = tokens  # whose KV is computed
        self.pages = pages
        self.keys: list[int] = []  # of the full pages, in the prefix index
        self.limit = 0
        self.stop = 0
        self.retired = False
