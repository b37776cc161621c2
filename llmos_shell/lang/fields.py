"""Field splitting: pieces of expanded text to fields, by the characters of IFS."""

from __future__ import annotations

import re

DEFAULT_IFS = " \t\n"


class Fields:
    """Fields being built: each a list of (text, quoted) pieces."""

    __slots__ = ("_current", "_done", "_ifs")

    def __init__(self, ifs: str) -> None:
        self._ifs = ifs
        self._done: list[list[tuple[str, bool]]] = []
        self._current: list[tuple[str, bool]] | None = None

    def add(self, text: str, quoted: bool) -> None:
        """Adds to the field being built, which begins with it if there is none."""
        if self._current is None:
            self._current = [(text, quoted)]
        else:
            self._current.append((text, quoted))

    def end(self, *, force: bool) -> None:
        """Ends the field being built; with `force` an empty one if there is none."""
        if self._current is not None:
            self._done.append(self._current)
            self._current = None
        elif force:
            self._done.append([("", True)])

    def split(self, text: str) -> None:
        """Adds the result of an expansion, splitting it at the characters of IFS."""
        at = 0
        for match in _delimiter(self._ifs).finditer(text):
            if match.start() > at:
                self.add(text[at : match.start()], False)
            self.end(force=match.lastgroup is not None)
            at = match.end()
        if at < len(text):
            self.add(text[at:], False)

    def close(self) -> list[list[tuple[str, bool]]]:
        """All fields."""
        self.end(force=False)
        return self._done


_delimiters: dict[str, re.Pattern[str]] = {}


def _delimiter(ifs: str) -> re.Pattern[str]:
    """Matches what separates fields; the group `hard` takes part when it is more than white space."""
    pattern = _delimiters.get(ifs)
    if pattern is None:
        white = "".join(char for char in ifs if char in DEFAULT_IFS)
        hard = re.escape("".join(char for char in ifs if char not in DEFAULT_IFS))
        choices = []
        if hard:
            choices.append(f"[{white}]*(?P<hard>[{hard}])[{white}]*" if white else f"(?P<hard>[{hard}])")
        if white:
            choices.append(f"[{white}]+")
        pattern = _delimiters[ifs] = re.compile("|".join(choices) or "(?!)")
    return pattern
