"""The shell's history file: entries of one or more lines, in the format that prompt_toolkit writes.

Each entry is a comment line with its time, then its lines, each with a `+` before it. Shells append to the one file.
"""

from __future__ import annotations

import os
import tempfile


def read_history(path: str) -> list[str]:
    """All entries, oldest first; none when there is no file."""
    entries: list[list[str]] = []
    fresh = True
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("+"):
                    if fresh:
                        entries.append([])
                    entries[-1].append(line[1:].rstrip("\n"))
                fresh = not line.startswith("+")
    except FileNotFoundError:
        return []
    return ["\n".join(lines) for lines in entries]


def clear_history(path: str) -> None:
    """Replaces the file by an empty one."""
    if not os.path.exists(path):
        return
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
    os.close(handle)
    os.replace(temporary, path)
