"""Prompts and themes."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos_shell import paths
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.shell import topics
from llmos_shell.shell.interactive import prompt
from llmos_shell.shell.interactive.prompt import Facts, mark_titles, render, short_folder, without_sequences
from llmos_shell.shell.interactive.themes import CLASSES, THEMES, find_theme, style_rules, theme_names

FACTS = Facts(
    folder="/home/me/a b",
    home="/home/me",
    user="me",
    host="box.example.org",
    terminal="/dev/pts/3",
    status=7,
    jobs=2,
    number=41,
    model="tiny",
    processes=3,
    tokens_per_second=12.34,
    live="3 running",
    now=datetime(2026, 1, 2, 15, 4, 5),
)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (r"\u@\h:\w\$ ", "me@box:~/a b$ "),
        (r"\H \W \l \s", "box.example.org a b pts/3 llmos".replace("pts/3", "3")),
        (r"[\?] \j \! \#", "[7] 2 41 41"),
        (r"\t \T \A \@ \d \D{%Y}", "15:04:05 03:04:05 15:04 03:04 PM Fri Jan 02 2026"),
        (r"\m \p \k \L", "tiny 3 12.3 3 running"),
        (r"\[\e[1m\]\033x\n\a\\w", "\x1b[1m\x1bx\n\a\\w"),
        ("\\q \\", "\\q \\"),
        ("", ""),
    ],
)
def test_escapes(template: str, text: str) -> None:
    assert render(template, FACTS) == text


def test_only_what_the_template_says_is_expanded() -> None:
    facts = Facts(folder="/$(x)/`y`\\/\x1b[31m")
    seen: list[str] = []

    def expand(text: str) -> str:
        seen.append(text)
        return text

    render(r"$(date) \w\$", facts, expand)
    assert seen == ["$(date) /\\$(x)/\\`y\\`\\\\/␛[31m\\$"]


@given(st.text(alphabet="\\wu$[]D{%e0127n '`", max_size=12))
def test_any_template_gives_a_text(template: str) -> None:
    render(template, FACTS)
    render(template, FACTS, lambda text: text)


@pytest.mark.parametrize(
    ("folder", "home", "text"),
    [
        ("/home/x/a", "/home/x", "~/a"),
        ("/home/x", "/home/x/", "~"),
        ("/home/xy", "/home/x", "/home/xy"),
        ("/", "/", "/"),
    ],
)
def test_the_home_folder_is_a_tilde(folder: str, home: str, text: str) -> None:
    assert short_folder(folder, home) == text


def test_sequences() -> None:
    title = "\x1b]0;title\x07"
    assert mark_titles(f"{title}\x1b[1mx") == f"\x01{title}\x02\x1b[1mx"
    assert without_sequences(f"{title}\x1b[1;31mx\x1b[0m\x01\x02 $") == "x $"


def test_every_theme_says_how_all_looks() -> None:
    for theme in THEMES.values():
        assert set(theme) == set(CLASSES)
        style_rules(theme)


def test_own_themes(llmos_home: Path) -> None:
    folder = Path(paths.config_dir(), "themes")
    folder.mkdir()
    (folder / "own.toml").write_text('base = "light"\nunknown = "bold #ff0000"\n')
    assert find_theme("own") == {**THEMES["light"], "unknown": "bold #ff0000"}
    assert theme_names()[-1] == "own"
    for text, part in (
        ('unknown = "nocolour"', "unknown: wrong color"),
        ("unknown = 3", "a style is a text"),
        ('other = "bold"', "nothing is called `other`"),
        ('base = "x"', "base `x`"),
        ("[", "bad.toml"),
    ):
        (folder / "bad.toml").write_text(text)
        with pytest.raises(LlmosError, match=re.escape(part)) as error:
            find_theme("bad")
        assert error.value.code is Code.EINVAL
    with pytest.raises(LlmosError, match=re.escape("no theme `../own`")):
        find_theme("../own")


def test_the_page_names_everything() -> None:
    page = topics.load("prompt").text
    for name in (*CLASSES, *THEMES):
        assert re.search(rf"[` \n]{re.escape(name)}[` \n]", page), name
    for escape in prompt.ESCAPES:
        assert f"\\{escape}" in page, escape
