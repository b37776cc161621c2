"""`fc`: lists, edits and repeats what was typed. The history is that of interactive shells; a script may use it too."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from llmos_shell.shell.interpreter.builtins import usage, write

if TYPE_CHECKING:
    from llmos_shell.shell.interactive.history import History
    from llmos_shell.shell.interpreter.shell import Shell

_USAGE = "usage: fc [-r] [-e EDITOR] [FIRST [LAST]], fc -l [-nr] [FIRST [LAST]] or fc -s [OLD=NEW] [FIRST]"
_LISTED = 16
"""How many entries `fc -l` shows."""


class _NoEntry(Exception):
    """The history has no such entry."""


def fc(shell: Shell, words: list[str]) -> int:
    """`fc [-r] [-e EDITOR] [FIRST [LAST]]`, `fc -l [-nr] [FIRST [LAST]]`, `fc -s [OLD=NEW] [FIRST]`."""
    arguments, letters, editor = words[1:], set[str](), ""
    while arguments and arguments[0][:1] == "-" and arguments[0][1:2].isalpha():
        option = arguments.pop(0)[1:]
        letters |= set(option)
        if "e" in option:
            if not option.endswith("e") or not arguments:
                return usage(shell, words, "-e needs an EDITOR")
            editor = arguments.pop(0)
    if arguments[:1] == ["--"]:
        arguments.pop(0)
    if not letters <= set("elnrs") or len(arguments) > 2:
        return usage(
            shell,
            words,
            "usage: fc [-r] [-e EDITOR] [FIRST [LAST]], fc -l [-nr] [FIRST [LAST]] or fc -s [OLD=NEW] [FIRST]",
        )
    from llmos_shell.shell.interactive.history import open_history

    history = open_history(shell.get("HISTSIZE"))
    entries = list(history.entries)
    if shell.interactive and entries and entries[-1].split(None, 1)[:1] == ["fc"]:
        entries.pop()  # this very command
    try:
        if "s" in letters or editor == "-":
            return _repeat(shell, history, entries, arguments)
        if "l" in letters:
            return _list(shell, entries, arguments, letters)
        return _edit(shell, history, entries, arguments, letters, editor)
    except _NoEntry as error:
        return shell.complain(f"fc: {error}: no such entry: `fc -l` shows them", 1)


def _find(entries: list[str], what: str) -> int:
    """The index of an entry: by number, by number from the end, or by how it begins."""
    if what.lstrip("+-").isdigit():
        number = int(what)
        index = len(entries) + number if number < 0 else number - 1
        if not entries or (number > 0 and index >= len(entries)):
            raise _NoEntry(what)
        return max(index, 0)
    for index in range(len(entries) - 1, -1, -1):
        if entries[index].startswith(what):
            return index
    raise _NoEntry(what)


def _range(entries: list[str], arguments: list[str], first: int, last: int) -> list[int]:
    """The indices of entries from the first to the last; in the order they were given in."""
    if not entries:
        raise _NoEntry(arguments[0] if arguments else "the last one")
    start = _find(entries, arguments[0]) if arguments else max(len(entries) + first, 0)
    end = _find(entries, arguments[1]) if len(arguments) > 1 else start if last else len(entries) - 1
    return list(range(start, end + 1)) if start <= end else list(range(start, end - 1, -1))


def _list(shell: Shell, entries: list[str], arguments: list[str], letters: set[str]) -> int:
    chosen = _range(entries, arguments, -_LISTED, 0) if entries or arguments else []
    lines: list[str] = []
    for index in reversed(chosen) if "r" in letters else chosen:
        text = entries[index].replace("\n", "\n\t")
        lines.append(f"\t{text}\n" if "n" in letters else f"{index + 1}\t{text}\n")
    return write(shell, "".join(lines))


def _repeat(shell: Shell, history: History, entries: list[str], arguments: list[str]) -> int:
    old = new = ""
    if arguments and "=" in arguments[0]:
        old, _, new = arguments.pop(0).partition("=")
    if not entries:
        raise _NoEntry("the last one")
    text = entries[_find(entries, arguments[0])] if arguments else entries[-1]
    return _run(shell, history, text.replace(old, new, 1) if old else text)


def _run(shell: Shell, history: History, text: str) -> int:
    shell.say(text)
    if shell.interactive:
        history.append(text)
    shell.enter_call()
    try:
        return shell.run_program(text, "fc")
    finally:
        shell.leave_call()


def _edit(
    shell: Shell, history: History, entries: list[str], arguments: list[str], letters: set[str], editor: str
) -> int:
    chosen = _range(entries, arguments, -1, 1)
    texts = [entries[index] for index in (reversed(chosen) if "r" in letters else chosen)]
    words = (editor or shell.get("FCEDIT") or shell.get("EDITOR") or _present_editor()).split()
    handle, path = tempfile.mkstemp(prefix="llmos-fc-", suffix=".llmsh")
    try:
        with open(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines(f"{text}\n" for text in texts)
        status = shell.run_command([*words, path])
        if status:
            return shell.complain(f"fc: {words[0]}: exit status {status}: nothing is run", status)
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read().rstrip("\n")
    finally:
        os.unlink(path)
    return _run(shell, history, text) if text.strip() else 0


def _present_editor() -> str:
    from shutil import which

    from llmos_shell.shell.interactive.editor import FALLBACKS

    return next(filter(which, FALLBACKS), "vi")
