"""Manuals, topics, the search in them, and the pages generated from them."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from llmos_shell.shell import commands, helpdoc, slash, topics
from llmos_shell.shell.command import Command, Manual
from llmos_shell.shell.commands.manual import overview
from llmos_shell.shell.document import Code, parse_markdown, to_markdown, to_text
from llmos_shell.shell.interpreter.language_help import LANGUAGE
from llmos_shell.shell.manpage import WIDTH, man_blocks, man_page, render_help
from llmos_shell.shell.manuals import FAMILIES, all_manuals, find_topic, has_page, search
from llmos_shell.shell.slash_names import SLASH_COMMANDS
from llmos_shell.shell.tables import Style

ROOT = Path(__file__).resolve().parents[3]
MANUALS = [pytest.param(manual, id=manual.name) for manual in all_manuals()]


@pytest.mark.parametrize("manual", MANUALS)
def test_a_manual_is_complete(manual: Manual) -> None:
    assert re.match(r"[a-z]", manual.summary) and not manual.summary.endswith(".")
    assert manual.examples, "every command has an example"
    assert manual.see_also and all(map(has_page, manual.see_also)), manual.see_also
    assert manual.name not in manual.see_also or manual.name in topics.NAMES
    assert not isinstance(manual, Command) or manual.family in FAMILIES
    for option in manual.options:
        assert option.help, option.flags
    for operand in manual.operands:
        assert operand.help, operand.name


@pytest.mark.parametrize("manual", MANUALS)
def test_pages_fit_their_width(manual: Manual) -> None:
    verbatim = {
        line.strip() for block in man_blocks(manual) if isinstance(block, Code) for line in block.text.splitlines()
    }
    verbatim |= {example.line for example in manual.examples}
    for page in (man_page(manual, Style()), render_help(manual)):
        for line in page.splitlines():
            assert len(line) <= WIDTH or line.strip() in verbatim or line.startswith("usage: "), line
    assert render_help(manual).startswith("usage: ")


def test_colours_change_no_word() -> None:
    for manual in all_manuals():
        plain = man_page(manual, Style(60))
        painted = re.sub(r"\x1b\[[0-9;]*m", "", man_page(manual, Style(60, colours=True)))
        assert painted.replace("`", "").split() == plain.replace("`", "").split()


def test_every_word_of_the_language_has_a_manual() -> None:
    from llmos_shell.shell.assistant_forms import HELP_TOPICS
    from llmos_shell.shell.interpreter.builtins import BUILTINS

    assert set(BUILTINS) <= {*LANGUAGE, *commands.names()}
    assert set(LANGUAGE) <= set(BUILTINS), "a manual of something that is not there"
    assert set(HELP_TOPICS) <= {*LANGUAGE, *commands.names(), "ls", "cat"}
    assert max(map(len, overview().splitlines())) <= 80


# -- the commands ---


def test_every_command_that_is_declared_can_be_used() -> None:
    declared = {
        command.name: module
        for module in commands.MODULES
        for command in import_module(f"{commands.__name__}.{module}").COMMANDS
    }
    assert declared == {name: module for module, listed in commands.MODULES.items() for name in listed}


def test_help_shows_commands_topics_and_both(bench: Any) -> None:
    assert bench.run("help", "ps") == 0
    assert bench.out.getvalue() == render_help(commands.find("ps"))  # type: ignore[arg-type]
    bench.out.truncate(0)
    assert bench.run("help", "jobs", "if") == 0
    shown = bench.out.getvalue()
    assert "usage: jobs" in shown and "jobs: programs and processes" in shown and "language: what" in shown


@pytest.mark.parametrize("command", ["help", "whatis"])
def test_what_is_not_there_is_one_line(bench: Any, command: str) -> None:
    assert bench.run(command, "psx") == 1
    assert bench.err.getvalue() == f"llmos: {command}: psx: there is no such command or topic: did you mean `ps`?\n"


def test_man_prints_all_sections_off_a_terminal(bench: Any) -> None:
    assert bench.run("man", "kill", "scheduling") == 0
    shown = bench.out.getvalue()
    headings = [line for line in shown.splitlines() if line.isupper() and not line.startswith(" ")]
    assert headings[:4] == ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS"]
    assert {"OPERANDS", "EXAMPLES", "EXIT STATUS", "SEE ALSO", "NICE", "POLICIES"} <= set(headings)
    assert "\x1b" not in shown


def test_man_leaves_the_rest_to_the_host(bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    host = tmp_path / "bin" / "man"
    host.parent.mkdir()
    host.write_text(f'#!/bin/sh\nprintf "<%s>" "$@" > "{tmp_path}/asked"\nexit 16\n')
    host.chmod(0o755)
    monkeypatch.setenv("PATH", f"{host.parent}:/usr/bin:/bin")
    for words in (["3", "printf"], ["-a", "ps"], ["ps", "no-such"]):
        assert bench.run("man", *words) == 16
        assert (tmp_path / "asked").read_text() == "".join(f"<{word}>" for word in words)
    host.unlink()
    monkeypatch.setenv("PATH", str(host.parent))
    assert bench.run("man", "no-such") == 1
    assert bench.err.getvalue().startswith("llmos: man: no-such: there is no such command or topic: ")


def test_man_searches_as_apropos_does(bench: Any) -> None:
    assert bench.run("apropos", "pause") == 0
    found = bench.out.getvalue()
    assert bench.run("man", "-k", "pause") == 0
    assert bench.out.getvalue() == found * 2
    assert bench.run("man", "-f", "fork") == 0
    assert bench.out.getvalue().endswith("fork  copy a process with all it has in mind\n")


def test_apropos_as_json_and_without_a_hit(bench: Any) -> None:
    assert bench.run("apropos", "--json", "pausing") == 0
    hits = json.loads(bench.out.getvalue())
    assert hits[0] == {"name": "stop", "kind": "command", "summary": hits[0]["summary"], "score": hits[0]["score"]}
    assert bench.run("apropos", "xyzzy") == 1
    assert bench.err.getvalue().startswith("llmos: apropos: xyzzy: nothing is said about that: ")
    assert bench.run("apropos") == 2
    assert bench.run("man", "-k") == 2


@pytest.mark.parametrize(
    ("words", "best"),
    [
        (["pause", "process"], "stop"),
        (["stopped"], "cont"),
        (["priority"], "nice"),
        (["copy"], "fork"),
        (["folder"], "cd"),
        (["transcript"], "log"),
        (["--json"], "ps"),
        (["fork"], "fork"),
    ],
)
def test_the_search_finds_what_was_meant(words: list[str], best: str) -> None:
    names = [hit.name for hit in search(words)]
    assert best in names[:5], names


def test_more_words_narrow_the_search() -> None:
    assert len(search(["process", "pause"])) < len(search(["process"]))
    assert search(["process", "xyzzy"]) == search(["process"])


def test_every_environment_variable_is_documented() -> None:
    found = set()
    for source in (*ROOT.glob("llmos_shell/**/*.py"), *ROOT.glob("kernels/**/*.py")):
        found |= set(re.findall(r"\bLLMOS_[A-Z_]*[A-Z]\b", source.read_text()))
    pages = topics.load("configuration").text + " ".join(name for each in all_manuals() for name, _ in each.environment)
    assert {name for name in found if name not in pages} == set()


# -- documents ---


def test_a_document_survives_being_written_and_read() -> None:
    for topic in map(topics.load, topics.NAMES):
        assert topic.summary and "<!--" not in topic.text
        blocks = topics.topic_blocks(topic)
        assert parse_markdown(to_markdown(blocks)) == [
            Code(block.text) if isinstance(block, Code) and not block.language else block for block in blocks
        ]


def test_text_is_set_within_its_width() -> None:
    for topic in map(topics.load, topics.NAMES):
        code = {
            line.strip()
            for block in topics.topic_blocks(topic)
            if isinstance(block, Code)
            for line in block.text.split("\n")
        }
        for line in topics.topic_page(topic, Style(72)).splitlines():
            assert len(line) <= 72 or line.strip() in code, line


def test_bars_in_tables_are_kept() -> None:
    (table,) = parse_markdown("| a | b |\n|---|---|\n| `x \\| y` | or |")
    assert to_text([table], 60, Style()).splitlines()[1].split() == ["x", "|", "y", "or"]
    assert parse_markdown(to_markdown([table])) == [table]


def test_keywords_are_explained_by_the_topic_on_the_language() -> None:
    topic = find_topic("while")
    assert topic is not None and topic.name == "language"


# -- generated pages ---


def test_the_generator_notices_stale_and_stray_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = tmp_path / "docs" / "commands.md"
    assert helpdoc.main(["--check", str(index)]) == 1
    assert helpdoc.main([str(index)]) == 0
    assert helpdoc.main(["--check", str(index)]) == 0
    page = index.parent / "commands" / "processes.md"
    page.write_text(page.read_text() + "x")
    stray = index.parent / "topics" / "weather.md"
    stray.write_text("")
    capsys.readouterr()
    assert helpdoc.main(["--check", str(index)]) == 1
    assert [line.split(" is ")[0] for line in capsys.readouterr().err.splitlines()] == [str(page), str(stray)]
    assert helpdoc.main([str(index)]) == 0
    assert helpdoc.main(["--check", str(index)]) == 0 and not stray.exists()


def _documents() -> list[Path]:
    return [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("examples/*.md"))]


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in _documents()])
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, place = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        if place:
            assert place in _anchors(file), f"{page.name}: {target}"


def _anchors(page: Path) -> set[str]:
    text = page.read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)">', text))


def test_the_page_of_chat_lists_the_commands_that_begin_with_a_slash() -> None:
    command = commands.find("chat")
    assert command is not None
    page = man_page(command, Style())
    assert set(SLASH_COMMANDS) == set(slash._COMMANDS)
    for name in SLASH_COMMANDS:
        assert re.search(rf"^ *• {name}\b", page, re.MULTILINE), name
