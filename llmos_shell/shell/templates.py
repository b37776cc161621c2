"""Prompt templates: texts with `{{NAME}}`, filled from what the command was given and from shell variables.

`\\{{NAME}}` stays as it is, without the backslash; braces around anything but a name are no placeholder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.shell.textfiles import read_text_file

_PLACEHOLDER = re.compile(r"(\\?)\{\{[ \t]*([A-Za-z_][A-Za-z0-9_]*)[ \t]*\}\}")

Given = Mapping[str, Callable[[], str]]
"""What a placeholder of the command's own stands for; called only when it is used, and may raise `LlmosError`."""


def fill_file(path: str, variable: Callable[[str], str | None], given: Given | None = None) -> str:
    """The text of a template, without line ends at its end. Raises EINVAL for a placeholder that nothing fills."""
    return fill(read_text_file(path).rstrip("\n"), path, variable, given)


def names_in(template: str) -> set[str]:
    """The names of its placeholders."""
    return {match[2] for match in _PLACEHOLDER.finditer(template) if not match[1]}


def fill(template: str, source: str, variable: Callable[[str], str | None], given: Given | None = None) -> str:
    """The template with its placeholders replaced, once: what is put in is not looked at again."""
    own = given or {}

    def replace(match: re.Match[str]) -> str:
        if match[1]:
            return match[0][1:]
        name = match[2]
        if name in own:
            return own[name]()
        value = variable(name)
        if value is None:
            line = template.count("\n", 0, match.start()) + 1
            raise LlmosError(
                Code.EINVAL, f"{source}: line {line}: nothing is known as {{{{{name}}}}}", hint=_hint(name, own)
            )
        return value

    return _PLACEHOLDER.sub(replace, template)


def _hint(name: str, own: Given) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, own, 1)
    if close:
        return f"did you mean {{{{{close[0]}}}}}?"
    return f"set a shell variable, as in `{name}=… run …`, or write \\{{{{{name}}}}} for the braces themselves"
