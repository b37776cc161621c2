"""Completion, the place of the cursor, and colours."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos_shell.abi.types import Kind, KvState, ModelEntry, ModelStatus, ProcessInfo, State
from llmos_shell.shell.interactive.completion import complete
from llmos_shell.shell.interactive.cursor import find_place, quote_word
from llmos_shell.shell.interactive.highlight import spans


class World:
    """A world with little in it."""

    def command_names(self) -> Sequence[str]:
        return ["ps", "pstree", "kill", "run", "nice", "myfunc", "help"]

    def programs(self) -> Sequence[str]:
        return ["psql", "python"]

    def variable_names(self) -> Sequence[str]:
        return ["HOME", "HOST", "x"]

    def jobs(self) -> Sequence[tuple[str, str]]:
        return [("%1", "run a story")]

    def processes(self) -> Sequence[ProcessInfo]:
        return [
            ProcessInfo(pid, 1, Kind.MODEL, State.RUNNING, KvState.RESIDENT, "run a", "tiny", 0, 0.0, 2)
            for pid in (12, 13, 7)
        ]

    def models(self) -> Sequence[ModelStatus]:
        return [ModelStatus(ModelEntry(name, "/x"), name == "tiny", 1) for name in ("tiny", "big model")]


def texts(line: str) -> list[str]:
    return [candidate.text for candidate in complete(line, World())]


@pytest.mark.parametrize(
    ("line", "words", "word"),
    [
        ("", (), ""),
        ("ps -", ("ps",), "-"),
        ("a | b c", ("b",), "c"),
        ("x=1 ps ", ("ps",), ""),
        ("if ps; then ki", (), "ki"),
        ('run "a b', ("run",), "a b"),
        ("run 'a b' c\\ d", ("run", "a b"), "c d"),
        ("echo $(ps -", ("ps",), "-"),
        ("ps > f", ("ps",), "f"),
        ("ps > f ", ("ps",), ""),
        ("run 2> f x", ("run",), "x"),
    ],
)
def test_places(line: str, words: tuple[str, ...], word: str) -> None:
    place = find_place(line)
    assert (place.words, place.word) == (words, word)


@given(st.text(alphabet="ab \"'\\$(){}|<>&;\n=~", max_size=20))
def test_any_line_has_a_place_and_candidates(line: str) -> None:
    place = find_place(line)
    assert 0 <= place.typed <= len(line)
    list(complete(line, World()))
    for start, end, _ in spans(line, lambda word: True):
        assert 0 <= start <= end <= len(line)


@given(st.text(alphabet="ab \"'\\$(){}|<>&;*?~!", min_size=1, max_size=12))
def test_quoted_words_read_back(word: str) -> None:
    place = find_place("cmd " + quote_word(word))
    assert place.word == word
    for quote in "'\"":
        inside = find_place("cmd " + quote_word(word, quote))
        assert inside.word == word or (quote == "'" and "'" in word)


def test_commands() -> None:
    assert texts("ps") == ["ps", "pstree", "psql"]
    assert texts("my") == ["myfunc"]
    assert texts("nice -n 5 k") == ["kill"]
    assert texts("help pst") == ["pstree"]


def test_options_and_their_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "--sort" in texts("ps --s")
    assert texts("ps --sort mem") == ["memory"]
    assert texts("ps --sort=mem") == ["memory"]
    assert texts("nice -n 5 ps --sort mem") == ["memory"]
    assert texts("run -m t") == ["tiny"]
    assert texts("run -m b") == ["big\\ model"]
    assert texts('run -m "b') == ['"big model']
    assert texts("kill -s K") == ["KILL"]


def test_pids_and_jobs_are_described() -> None:
    assert texts("kill 1") == ["12", "13"]
    assert texts("kill %") == ["%1"]
    about = [candidate.about for candidate in complete("kill 7", World())]
    assert about == ["r tiny run a"]


def test_variables() -> None:
    assert texts("echo $HO") == ["$HOME", "$HOST"]
    assert texts("echo ${HOM") == ["${HOME}"]


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a folder" / "x.gguf").touch()
    for name in ("notes.txt", "more.gguf", ".hidden"):
        (tmp_path / name).touch()
    assert texts("run < no") == ["notes.txt"]
    assert texts("run a") == ["a\\ folder/"]
    assert texts("run a\\ folder/") == ["a\\ folder/x.gguf"]
    assert texts("load m") == ["more.gguf"]
    assert texts("load n") == []
    assert ".hidden" not in texts("run < ") and texts("run < .h") == [".hidden"]
    assert texts(f"run < {tmp_path}/no") == [f"{tmp_path}/notes.txt"]
    assert os.listdir(tmp_path)


def kinds(line: str) -> list[tuple[str, str]]:
    return [(line[start:end], kind) for start, end, kind in spans(line, lambda word: word in ("ps", "run"))]


def test_colours_come_from_the_lexer() -> None:
    assert kinds("ps -a | foo") == [("ps", "command"), ("-a", "option"), ("|", "operator"), ("foo", "unknown")]
    assert kinds('run "a b" $x') == [("run", "command"), ('"a b"', "string"), ("$x", "variable")]
    assert kinds("if ps; then run x; fi")[:2] == [("if", "keyword"), ("ps", "command")]
    assert kinds("x=1 ps") == [("ps", "command")]
    assert kinds("? how") == [("? how", "question")]
    assert kinds("> f ps") == [(">", "operator"), ("ps", "command")]


def test_an_unfinished_string_is_a_string() -> None:
    assert kinds('run "abc') == [("run", "command"), ('"abc', "string")]
