r"""The texts of PS1, PS2, RPS1 and the toolbar: escapes people know from bash, and a few of our own. Pure.

As in bash: `\u \h \H \w \W \$ \j \! \t \T \A \@ \d \D{…} \s \v \V \l \n \r \a \e \nnn \\ \[ \]`. Besides: `\?` the last
exit status, `\m` the default model, `\p` live processes, `\k` tokens per second, `\L` the live line of the toolbar.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from llmos_shell import __version__
from llmos_shell.shell.command import SHOWN_CONTROLS

DEFAULT_PS1 = r"llmos:\w$ "
DEFAULT_PS2 = "> "
DEFAULT_TOOLBAR = r" \L"

_ESCAPE = re.compile(r"\\(?:D\{([^}]*)\}|([0-7]{3})|(.))|\\\Z", re.DOTALL)
_ACTIVE = re.compile(r"[\\$`]")
_TITLE = re.compile("\x1b\\].*?(?:\x07|\x1b\\\\)", re.DOTALL)
_SEQUENCE = re.compile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|\\].*?(?:\x07|\x1b\\\\)|[@-Z\\\\^_])|[\x01\x02]", re.DOTALL)
_PLAIN = {"a": "\a", "e": "\x1b", "n": "\n", "r": "\r", "\\": "\\", "[": "", "]": ""}
_TIMES = {"d": "%a %b %d", "t": "%H:%M:%S", "T": "%I:%M:%S", "@": "%I:%M %p", "A": "%H:%M"}


@dataclass(frozen=True)
class Facts:
    """What a prompt can show."""

    folder: str = ""
    home: str = ""
    user: str = ""
    host: str = ""
    terminal: str = ""
    status: int = 0
    jobs: int = 0
    number: int = 1  # of the next entry of the history
    root: bool = False
    model: str = ""
    processes: int = 0
    tokens_per_second: float = 0.0
    live: str = ""
    now: datetime = field(default_factory=datetime.now)


def render(template: str, facts: Facts, expand: Callable[[str], str] | None = None) -> str:
    """The text of a prompt. `expand` does the shell's expansions of what the template itself says: `$(…)` and `$x`.

    What the escapes stand for is never expanded, and control characters in it are shown, not obeyed.
    """
    pieces, done = [], 0
    for found in _ESCAPE.finditer(template):
        value = _value(found, facts)
        quoted = _ACTIVE.sub(r"\\\g<0>", value) if expand is not None else value
        pieces += [template[done : found.start()], quoted]
        done = found.end()
    text = "".join([*pieces, template[done:]])
    return expand(text) if expand is not None and _ACTIVE.search(text) else text


def _value(found: re.Match[str], facts: Facts) -> str:
    form, octal, letter = found.groups()
    if form is not None:
        return facts.now.strftime(form or "%X")
    if octal is not None:
        return chr(int(octal, 8) & 0xFF)
    if letter in _PLAIN:
        return _PLAIN[letter]
    if letter in _TIMES:
        return facts.now.strftime(_TIMES[letter])
    known = _VALUES.get(letter or "")
    return found.group() if known is None else known(facts).translate(SHOWN_CONTROLS)


def short_folder(folder: str, home: str) -> str:
    """The folder, with `~` for the user's home."""
    home = home.rstrip("/")
    if home and (folder == home or folder.startswith(home + "/")):
        return "~" + folder[len(home) :]
    return folder


def _last_part(facts: Facts) -> str:
    short = short_folder(facts.folder, facts.home)
    return short if short in ("~", "/") else short.rpartition("/")[2]


_VALUES: dict[str, Callable[[Facts], str]] = {
    "u": lambda facts: facts.user,
    "h": lambda facts: facts.host.partition(".")[0],
    "H": lambda facts: facts.host,
    "w": lambda facts: short_folder(facts.folder, facts.home),
    "W": _last_part,
    "$": lambda facts: "#" if facts.root else "$",
    "?": lambda facts: str(facts.status),
    "j": lambda facts: str(facts.jobs),
    "!": lambda facts: str(facts.number),
    "#": lambda facts: str(facts.number),
    "l": lambda facts: facts.terminal.rpartition("/")[2],
    "s": lambda facts: "llmos",
    "v": lambda facts: ".".join(__version__.split(".")[:2]),
    "V": lambda facts: __version__,
    "m": lambda facts: facts.model,
    "p": lambda facts: str(facts.processes),
    "k": lambda facts: f"{facts.tokens_per_second:.1f}",
    "L": lambda facts: facts.live,
}


ESCAPES = ("D", *_PLAIN, *_TIMES, *_VALUES)
"""All letters and signs that mean something after a backslash."""


def is_coloured(text: str) -> bool:
    """Whether the text says itself how it wants to look."""
    return "\x1b[" in text


def mark_titles(text: str) -> str:
    """The text with sequences that print nothing (a window's title) marked as such, the way prompt_toolkit wants it."""
    return _TITLE.sub("\x01\\g<0>\x02", text)


def without_sequences(text: str) -> str:
    """The text for a terminal that knows no colours."""
    return _SEQUENCE.sub("", text)
