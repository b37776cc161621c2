"""Counts the KV cells of a shared pool: those that copies share count once. Pure.

A cell is known by a generation and its position. A slot that is filled anew or cut gets a fresh generation for what it
computes from there on, so two slots have a cell in common exactly when both hold the same (generation, position).
"""

from __future__ import annotations


class Cells:
    """Which cells every slot uses, as runs [generation, first position] that end where the next begins."""

    def __init__(self, slots: int) -> None:
        self.lengths = [0] * slots  # tokens per slot; the owner adds what it computes
        self._runs: list[list[tuple[int, int]]] = [[] for _ in range(slots)]
        self._generation = 0

    def fill(self, slot: int, tokens: int) -> None:
        """An empty slot got `tokens` cells of its own."""
        self.cut(slot, 0)
        self.lengths[slot] = tokens

    def share(self, source: int, target: int, tokens: int) -> None:
        """An empty slot uses the first `tokens` cells of another one."""
        self._ensure(source)
        self._runs[target] = self._below(source, tokens)
        self.lengths[target] = tokens
        self._fresh(target)

    def cut(self, slot: int, tokens: int) -> None:
        """A slot keeps its first `tokens` cells."""
        self._runs[slot] = self._below(slot, tokens)
        self.lengths[slot] = tokens
        self._fresh(slot)

    def used(self) -> int:
        """Cells used by any slot."""
        ends: dict[tuple[int, int], int] = {}
        for slot, length in enumerate(self.lengths):
            if length:
                self._ensure(slot)
                runs = self._runs[slot]
                for index, run in enumerate(runs):
                    end = runs[index + 1][1] if index + 1 < len(runs) else length
                    ends[run] = max(ends.get(run, 0), end)
        return sum(end - first for (_, first), end in ends.items())

    def _ensure(self, slot: int) -> None:
        if not self._runs[slot]:
            self._fresh(slot)

    def _below(self, slot: int, tokens: int) -> list[tuple[int, int]]:
        return [run for run in self._runs[slot] if run[1] < tokens]

    def _fresh(self, slot: int) -> None:
        self._generation += 1
        self._runs[slot].append((self._generation, self.lengths[slot] if self._runs[slot] else 0))
