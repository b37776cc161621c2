"""The menu of `select`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmos_shell.shell.interpreter.builtins_read import read_line
from llmos_shell.shell.interpreter.redirect import write_all

if TYPE_CHECKING:
    from llmos_shell.shell.interpreter.shell import Shell


def choose(shell: Shell, values: list[str]) -> Iterator[str]:
    """What the user chooses, again and again until the input ends; empty for what is not in the menu."""
    if not values:
        return
    width = len(str(len(values)))
    menu = "".join(f"{number:{width}d}) {value}\n" for number, value in enumerate(values, 1))
    shown = False
    while True:
        prompt = shell.lookup("PS3")
        text = ("" if shown else menu) + ("#? " if prompt is None else prompt)
        write_all(shell.files.get(2), text.encode("utf-8", "surrogateescape"))
        line, complete = read_line(shell.files.get(0), b"\n", raw=False)
        if not line and not complete:
            write_all(shell.files.get(1), b"\n")
            return
        answer = line.strip()
        shell.assign("REPLY", line)
        shown = bool(answer)
        if answer:
            chosen = int(answer) if answer.isascii() and answer.isdigit() and len(answer) < 10 else 0
            yield values[chosen - 1] if 0 < chosen <= len(values) else ""
