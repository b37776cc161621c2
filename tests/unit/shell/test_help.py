"""Help pages and their generator."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmos_shell.shell import commands, helpdoc
from llmos_shell.shell.arguments import parse_args
from llmos_shell.shell.helptext import WIDTH, render_help


def test_every_page_renders_within_its_width() -> None:
    for name in commands.names():
        command = commands.find(name)
        assert command is not None
        page = render_help(command)
        assert page.startswith("usage: ") and max(map(len, page.splitlines())) <= WIDTH + 4


def test_every_example_parses() -> None:
    """As far as its first command goes, which is the one the example is of."""
    import shlex

    for name in commands.names():
        command = commands.find(name)
        assert command is not None
        for example in command.examples:
            line = example.line
            words = shlex.split(line.split("|")[-1].split(">")[0].split("<")[0].rstrip("& "))
            if words[0] == name and "$(" not in line:
                parse_args(command, words[1:])


def test_every_word_of_the_language_has_help() -> None:
    from llmos_shell.shell.assistant_forms import HELP_TOPICS
    from llmos_shell.shell.commands.session import overview
    from llmos_shell.shell.interpreter.builtins import BUILTINS
    from llmos_shell.shell.interpreter.language_help import LANGUAGE

    assert set(BUILTINS) <= {*LANGUAGE, *commands.names()}
    assert set(HELP_TOPICS) <= {*LANGUAGE, *commands.names(), "ls", "cat"}
    assert max(map(len, overview().splitlines())) <= WIDTH


def test_the_generator_notices_a_stale_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "commands.md"
    assert helpdoc.main(["--check", str(page)]) == 1
    assert helpdoc.main([str(page)]) == 0
    assert helpdoc.main(["--check", str(page)]) == 0
    page.write_text(page.read_text() + "x")
    assert helpdoc.main(["--check", str(page)]) == 1
    assert "out of date" in capsys.readouterr().err
