"""The one command line that `?` proposes to the REPL, on its way from the command to the edit buffer.

It is never run by itself: the user sees it, may change it, and presses Enter or not.
"""

from __future__ import annotations

_proposed = ""


def propose(line: str) -> None:
    """Leaves a command line for the next prompt."""
    global _proposed
    _proposed = line


def take_proposal() -> str:
    """The command line left for this prompt, once; else an empty text."""
    global _proposed
    line, _proposed = _proposed, ""
    return line
