"""Files that go along with a prompt: text, wrapped with its name so that a model can tell one from another."""

from __future__ import annotations

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.shell.textfiles import decode

_SNIFFED = 8192
"""Bytes in which a zero byte gives a binary file away."""


def attachment(path: str) -> str:
    """A file as a prompt shows it. Raises EINVAL unless it is text in UTF-8."""
    with open(path, "rb") as file:
        return wrapped(text_of(file.read(), path), path)


def text_of(data: bytes, source: str) -> str:
    """The text of a file. Raises EINVAL for anything else."""
    if b"\0" in data[:_SNIFFED]:
        raise LlmosError(Code.EINVAL, f"{source} is binary", hint="only text can be attached")
    return decode(data, source).removeprefix("\ufeff")


def wrapped(text: str, name: str) -> str:
    """The text between tags with its name."""
    shown = "".join(char if char.isprintable() and char != '"' else "?" for char in name)
    return f'<file name="{shown}">\n{text}' + ("" if text.endswith("\n") else "\n") + "</file>"
