"""The prefix index of one pool: which sequences hold the KV of which token prefix, in whole pages.

A page's key is `hash(key of the page before, tokens of the page)`; the key before the first page stands for the scope.
Keys only suggest: the caller compares the tokens themselves, so a hash collision costs time and leaks nothing.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable

TOKEN_BYTES = array("i").itemsize

PageHash = Callable[[int, bytes], int]
"""(previous key, the page's tokens as native int32) → key."""


def page_hash(previous: int, page: bytes) -> int:
    """Python's keyed hash (SipHash) of the chain so far and one page."""
    return hash((previous, page))


class PrefixIndex:
    """Keys of full pages → the sequences that hold them, oldest first."""

    def __init__(self, page_tokens: int, hasher: PageHash = page_hash) -> None:
        self._page_tokens = page_tokens
        self._page_bytes = page_tokens * TOKEN_BYTES
        self._hash = hasher
        self._holders: dict[int, dict[int, None]] = {}

    def root(self, scope: str) -> int:
        """The key before the first page."""
        return self._hash(0, scope.encode())

    def extend(self, seq: int, keys: list[int], scope: str, tokens: array[int]) -> None:
        """Enters the full pages of `tokens` that `keys` does not cover yet, appending their keys to `keys`."""
        size = self._page_tokens
        key = keys[-1] if keys else self.root(scope)
        for start in range(len(keys) * size, len(tokens) - size + 1, size):
            key = self._hash(key, tokens[start : start + size].tobytes())
            keys.append(key)
            self._holders.setdefault(key, {})[seq] = None

    def adopt(self, seq: int, keys: list[int], known: list[int]) -> None:
        """Enters full pages whose keys another sequence has already, for one that has entered none."""
        keys += known
        for key in known:
            self._holders.setdefault(key, {})[seq] = None

    def shrink(self, seq: int, keys: list[int], pages: int) -> None:
        """Forgets that `seq` holds more than its first `pages` pages."""
        for key in keys[pages:]:
            holders = self._holders.get(key, {})
            holders.pop(seq, None)
            if not holders:
                self._holders.pop(key, None)
        del keys[pages:]

    def candidates(self, scope: str, tokens: array[int], pages: int) -> Iterable[tuple[int, int]]:
        """(sequence, pages) whose keys equal those of the first `pages` pages of `tokens`, longest and newest first."""
        chain = self._chain(scope, tokens, pages)
        for depth in range(len(chain), 0, -1):
            for seq in reversed(self._holders[chain[depth - 1]]):
                yield seq, depth

    def __len__(self) -> int:
        return sum(len(holders) for holders in self._holders.values())

    def _chain(self, scope: str, tokens: array[int], pages: int) -> list[int]:
        """The keys of the leading pages of `tokens` that somebody holds."""
        data, size = tokens.tobytes(), self._page_bytes
        key, chain = self.root(scope), []
        for start in range(0, pages * size, size):
            key = self._hash(key, data[start : start + size])
            if key not in self._holders:
                break
            chain.append(key)
        return chain
