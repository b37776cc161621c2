"""Arrays: elements by number, or by key."""

from __future__ import annotations

from typing import Any

Elements = list[tuple[str | None, str, bool]]
"""Index (None: the next one), value, and whether it is appended to the one there."""


class Array:
    """The elements of one array, `items` in the order of their numbers, or in that in which keys were added."""

    __slots__ = ("associative", "items")

    def __init__(self, associative: bool = False, items: dict[Any, str] | None = None) -> None:
        self.associative = associative
        self.items: dict[Any, str] = items if items is not None else {}

    def copy(self) -> Array:
        """One that can be changed on its own."""
        return Array(self.associative, self.items.copy())

    @property
    def first(self) -> str | None:
        """What the name of the array alone stands for."""
        return self.items.get("0" if self.associative else 0)

    def next_number(self) -> int:
        """The number behind the last one."""
        return next(reversed(self.items)) + 1 if self.items else 0

    def set(self, key: int | str, value: str) -> None:
        """Sets an element."""
        items = self.items
        if self.associative or key in items or not items or key > next(reversed(items)):
            items[key] = value
        else:
            items[key] = value
            self.items = dict(sorted(items.items()))


class ArrayArgument(str):
    """An argument `name=(…)` of `declare` and its like: the text up to the parenthesis, and the elements."""

    __slots__ = ("elements",)
    elements: Elements

    @classmethod
    def of(cls, prefix: str, elements: Elements) -> ArrayArgument:
        """One with these elements."""
        self = cls(prefix)
        self.elements = elements
        return self
