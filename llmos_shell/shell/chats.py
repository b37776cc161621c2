"""Conversations saved under a name: files of the user's, which outlive the journal and move between machines.

A plain name is a file in the folder `chats` of the state; anything with a slash or a dot is a path. One that does not
end in .json gets readable text, which cannot be loaded again.
"""

from __future__ import annotations

import os
import re
import time
from typing import Any

import msgspec
from msgspec import Struct

from llmos_shell import paths
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import Turn

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class SavedChat(Struct, frozen=True, omit_defaults=True):
    """A conversation; `settings` are fields of `Sampling`."""

    model: str
    turns: tuple[Turn, ...]
    settings: dict[str, Any] = {}
    saved: float = 0.0


def path_of(name: str) -> str:
    """The file of a name. Raises EINVAL for one that is neither a plain name nor a path."""
    if "/" in name or "." in name:
        return os.path.expanduser(name)
    if not _NAME.fullmatch(name):
        text = f"`{name}` is no name for a chat"
        raise LlmosError(Code.EINVAL, text, hint="use letters, digits, _ and -, or a path such as talk.txt")
    return os.path.join(_folder(), f"{name}.json")


def save(name: str, model: str, turns: tuple[Turn, ...], settings: dict[str, Any]) -> str:
    """Writes a conversation, and returns the file's path. Raises EIO; a file there before is then as it was."""
    path = path_of(name)
    if path.endswith(".json"):
        from llmos_shell.shell.tables import to_json

        text = to_json(SavedChat(model, turns, settings, time.time()))
    else:
        from llmos_shell.shell.transcripts import render_transcript

        text = render_transcript(turns) + "\n"
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        if os.path.dirname(path) == _folder():
            os.makedirs(_folder(), mode=0o700, exist_ok=True)
        with open(temporary, "w", encoding="utf-8", opener=_private) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise LlmosError(Code.EIO, f"{path}: {(error.strerror or str(error)).lower()}") from None
    return path


def load(name: str) -> SavedChat:
    """A saved conversation. Raises ENOENT, with those there are, and EINVAL for a file that is none."""
    path = path_of(name)
    try:
        with open(path, "rb") as file:
            saved = msgspec.json.decode(file.read(), type=SavedChat)
    except FileNotFoundError:
        raise LlmosError(Code.ENOENT, f"no saved chat {name}", hint=_known(name)) from None
    except OSError as error:
        raise LlmosError(Code.EIO, f"{path}: {(error.strerror or str(error)).lower()}") from None
    except msgspec.MsgspecError as error:
        raise LlmosError(Code.EINVAL, f"{path} is no saved chat: {str(error).lower()}") from None
    if any(turn.role not in ("system", "user", "assistant") for turn in saved.turns):
        raise LlmosError(Code.EINVAL, f"{path} holds a raw text, no conversation", hint="`run` can continue it")
    return saved


def names() -> list[str]:
    """The names of all that were saved by name, newest first."""
    try:
        found = [entry for entry in os.scandir(_folder()) if entry.name.endswith(".json")]
    except OSError:
        return []
    return [entry.name.removesuffix(".json") for entry in sorted(found, key=_age, reverse=True)]


def _age(entry: os.DirEntry[str]) -> float:
    try:
        return entry.stat().st_mtime
    except OSError:
        return 0.0


def _known(name: str) -> str:
    from difflib import get_close_matches

    known = names()
    close = get_close_matches(name, known, 1)
    if close:
        return f"did you mean {close[0]}?"
    return f"there are {', '.join(known[:8])}" if known else "`/save NAME` saves one"


def _folder() -> str:
    return os.path.join(paths.state_dir(), "chats")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
