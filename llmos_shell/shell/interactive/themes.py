"""How the interactive shell looks: the built-in themes, and the user's own.

A theme gives a style to each of `CLASSES`, in prompt_toolkit's words (`bold ansigreen`, `underline #ff8800`). The
user's are files `themes/NAME.toml` of the config folder; what they leave out is as in `default`, or in the built-in
theme that their `base` names. `LLMOS_THEME` chooses.
"""

from __future__ import annotations

import os

from llmos_shell import paths
from llmos_shell.abi.errors import Code, LlmosError

DEFAULT = "default"

_DEFAULT = {
    "prompt": "bold",
    "prompt.failed": "bold ansired",
    "continuation": "ansibrightblack",
    "right-prompt": "ansibrightblack",
    "toolbar": "ansibrightblack",
    "suggestion": "ansibrightblack",
    "command": "ansigreen",
    "command.builtin": "bold ansigreen",
    "command.function": "bold ansigreen",
    "command.alias": "bold ansigreen",
    "command.program": "ansigreen",
    "unknown": "ansired",
    "keyword": "bold ansiblue",
    "operator": "ansimagenta",
    "option": "ansicyan",
    "string": "ansiyellow",
    "unfinished": "ansiyellow underline",
    "variable": "ansimagenta",
    "comment": "italic ansibrightblack",
    "model": "bold ansicyan",
    "path": "underline",
    "question": "italic ansicyan",
    "bracket": "bold underline",
    "menu": "bg:ansibrightblack ansiwhite",
    "menu.chosen": "bg:ansigreen ansiblack",
    "menu.about": "bg:ansiblack ansibrightblack",
    "menu.about.chosen": "bg:ansiblack ansiwhite",
    "error": "ansired",
}
_LIGHT = {
    **_DEFAULT,
    "option": "#005f87",
    "string": "#875f00",
    "model": "bold #005f87",
    "question": "italic #005f87",
    "suggestion": "#9e9e9e",
    "comment": "italic #767676",
    "toolbar": "#767676",
    "continuation": "#767676",
    "right-prompt": "#767676",
    "command": "#005f00",
    "command.builtin": "bold #005f00",
    "command.function": "bold #005f00",
    "command.alias": "bold #005f00",
    "command.program": "#005f00",
    "unknown": "#af0000",
    "menu": "bg:#dadada #000000",
    "menu.chosen": "bg:#005f00 #ffffff",
    "menu.about": "bg:#eeeeee #585858",
    "menu.about.chosen": "bg:#eeeeee #000000",
}
_MONO = {
    **dict.fromkeys(_DEFAULT, ""),
    "prompt": "bold",
    "prompt.failed": "bold underline",
    "command": "bold",
    "keyword": "bold",
    "comment": "italic",
    "suggestion": "italic",
    "question": "italic",
    "path": "underline",
    "unfinished": "underline",
    "bracket": "bold underline",
    "menu": "reverse",
    "menu.chosen": "noreverse bold underline",
    "menu.about": "reverse",
    "menu.about.chosen": "reverse bold",
    "error": "bold",
}
_HIGH_CONTRAST = {
    **_DEFAULT,
    "prompt": "bold ansibrightwhite",
    "prompt.failed": "bold ansibrightred",
    "continuation": "ansibrightwhite",
    "right-prompt": "ansibrightwhite",
    "toolbar": "bold ansibrightwhite",
    "suggestion": "italic ansiwhite",
    "command": "bold ansibrightgreen",
    "command.builtin": "bold ansibrightgreen",
    "command.function": "bold ansibrightgreen",
    "command.alias": "bold ansibrightgreen",
    "command.program": "bold ansibrightgreen",
    "unknown": "bold underline ansibrightred",
    "keyword": "bold ansibrightblue",
    "operator": "bold ansibrightmagenta",
    "option": "bold ansibrightcyan",
    "string": "bold ansibrightyellow",
    "variable": "bold ansibrightmagenta",
    "comment": "ansiwhite",
    "model": "bold ansibrightcyan",
    "question": "bold ansibrightcyan",
    "menu": "bg:ansiblack ansibrightwhite",
    "menu.chosen": "bg:ansibrightwhite ansiblack bold",
    "menu.about": "bg:ansiblack ansibrightwhite",
    "menu.about.chosen": "bg:ansibrightwhite ansiblack",
    "error": "bold ansibrightred",
}

THEMES: dict[str, dict[str, str]] = {
    DEFAULT: _DEFAULT,
    "light": _LIGHT,
    "mono": _MONO,
    "high-contrast": _HIGH_CONTRAST,
}
"""The built-in ones."""

CLASSES = tuple(_DEFAULT)
"""What a theme gives styles to."""

_ELSEWHERE = {
    "right-prompt": ("rprompt",),
    "suggestion": ("auto-suggestion",),
    "bracket": ("matching-bracket.cursor", "matching-bracket.other"),
    "menu": ("completion-menu.completion",),
    "menu.chosen": ("completion-menu.completion.current",),
    "menu.about": ("completion-menu.meta.completion",),
    "menu.about.chosen": ("completion-menu.meta.completion.current",),
    "error": ("validation-toolbar",),
}
"""What prompt_toolkit calls some of them."""


def theme_names() -> list[str]:
    """The built-in themes and the user's."""
    try:
        found = [name.removesuffix(".toml") for name in os.listdir(_folder()) if name.endswith(".toml")]
    except OSError:
        found = []
    return [*THEMES, *sorted(set(found) - THEMES.keys())]


def find_theme(name: str) -> dict[str, str]:
    """The styles of a theme; the user's come before built-in ones of the same name.

    Raises ENOENT for one that does not exist, EINVAL for a file that is no theme.
    """
    path = os.path.join(_folder(), f"{name}.toml")
    if "/" not in name and os.path.exists(path):
        return _read(path)
    if name in THEMES:
        return THEMES[name]
    raise LlmosError(Code.ENOENT, f"no theme `{name}`", hint=f"there are {', '.join(theme_names())}")


def style_rules(theme: dict[str, str]) -> dict[str, str]:
    """The theme in prompt_toolkit's names."""
    rules = {"bottom-toolbar": "noreverse", "validation-toolbar": "noreverse"}
    for name, style in theme.items():
        for other in _ELSEWHERE.get(name, (name,)):
            rules[other] = f"noinherit {style}" if name.startswith(("menu", "bracket", "error")) else style
    rules["bottom-toolbar.text"] = theme["toolbar"]
    return rules


def _folder() -> str:
    return os.path.join(paths.config_dir(), "themes")


def _read(path: str) -> dict[str, str]:
    import tomllib

    try:
        with open(path, "rb") as file:
            given = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LlmosError(Code.EINVAL, f"{path}: {error}") from None
    base = given.pop("base", DEFAULT)
    if base not in THEMES:
        raise LlmosError(Code.EINVAL, f"{path}: base `{base}` is not one of {', '.join(THEMES)}")
    for name, style in given.items():
        if name not in CLASSES:
            raise LlmosError(Code.EINVAL, f"{path}: nothing is called `{name}`", hint=f"there are {', '.join(CLASSES)}")
        if not isinstance(style, str):
            raise LlmosError(Code.EINVAL, f'{path}: {name}: a style is a text, such as "bold ansigreen"')
        _check_style(path, name, style)
    return {**THEMES[base], **given}


def _check_style(path: str, name: str, style: str) -> None:
    from prompt_toolkit.styles import Style

    try:
        Style.from_dict({"x": style})
    except ValueError as error:
        raise LlmosError(Code.EINVAL, f"{path}: {name}: {str(error).lower()}") from None
