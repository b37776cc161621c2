"""Pages of one KV pool: which are free, and how many sequences reference each. Owns the counts, knows no tokens.

A reference is *live* when it belongs to an open sequence, *settled* when it belongs to a retired one (a cached prefix).
"""

from __future__ import annotations


class Pages:
    """Reference counts of `total` pages, with the sums kept up to date. Every operation is O(1)."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.cached = 0  # pages with settled references only
        self.shared = 0  # pages with two or more live references
        self._free = list(range(total - 1, -1, -1))
        self._references = [0] * total
        self._live = [0] * total

    @property
    def free(self) -> int:
        """Pages nobody references."""
        return len(self._free)

    def references(self, page: int) -> int:
        """How many sequences reference the page."""
        return self._references[page]

    def live(self, page: int) -> int:
        """How many open sequences reference the page."""
        return self._live[page]

    def take(self) -> int:
        """A free page, now with one live reference. IndexError when none is free."""
        page = self._free.pop()
        self._references[page] = self._live[page] = 1
        return page

    def share(self, page: int) -> None:
        """One more live reference to a page in use."""
        self._references[page] += 1
        live = self._live[page]
        self._live[page] = live + 1
        if live == 0:
            self.cached -= 1
        elif live == 1:
            self.shared += 1

    def settle(self, page: int) -> None:
        """A live reference becomes a settled one."""
        live = self._live[page] - 1
        self._live[page] = live
        if live == 0:
            self.cached += 1
        elif live == 1:
            self.shared -= 1

    def revive(self, page: int) -> None:
        """A settled reference becomes a live one."""
        self._references[page] -= 1
        self.share(page)

    def drop(self, page: int, live: bool) -> None:
        """One live (or settled) reference less; a page without any is free again."""
        if live:
            self.settle(page)
        self._references[page] -= 1
        if self._references[page] == 0:
            self.cached -= 1
            self._free.append(page)
