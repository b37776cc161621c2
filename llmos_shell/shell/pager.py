"""Long texts on a terminal: through the user's pager."""

from __future__ import annotations

import re
from shutil import which

from llmos_shell.shell.command import Context

_LESS = "less -Ri"
"""`-R` shows colours; `-i` searches without regard to case unless capitals are typed."""

_PLAIN = re.compile(r"[\w./+-][\w./+ -]*")
"""A program and its options, which `exec` can run. A process of its own for `sh` would stop before the pager does."""

_CANNOT_RUN = (126, 127)


def show(context: Context, text: str) -> None:
    """Shows a text page by page, where there are a terminal and a pager; else writes it as it is."""
    pager = _pager(context)
    able = context.is_terminal() and (context.shell.get("TERM") or "dumb") != "dumb"
    if pager is None or context.background or not able:
        context.out.write(text)
        return
    import tempfile
    from shlex import quote

    context.out.flush()
    with tempfile.NamedTemporaryFile("w", prefix="llmos-", encoding="utf-8", errors="replace") as file:
        file.write(text)
        file.flush()
        command = f"exec {pager}" if _PLAIN.fullmatch(pager) else pager
        status = context.shell.run_host(["sh", "-c", f"{command} < {quote(file.name)}"], context)
    if status in _CANNOT_RUN:
        context.out.write(text)


def _pager(context: Context) -> str | None:
    """The pager's command line."""
    for name in ("MANPAGER", "PAGER"):
        chosen = (context.shell.get(name) or "").strip()
        if chosen:
            return _LESS if chosen == "less" else chosen
    return next((command for command in (_LESS, "more") if which(command.split()[0])), None)
