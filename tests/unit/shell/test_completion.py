"""Completion, the place of the cursor, and colours."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos_shell.abi.types import Kind, KvState, ModelEntry, ModelStatus, ProcessInfo, State
from llmos_shell.shell.interactive.completion import complete
from llmos_shell.shell.interactive.cursor import find_place, quote_word
from llmos_shell.shell.interactive.highlight import spans
from llmos_shell.shell.interactive.themes import CLASSES


class World:
    """A world with little in it."""

    def builtins(self) -> Mapping[str, str]:
        return dict.fromkeys(["ps", "pstree", "kill", "run", "nice", "help"], "a command")

    def functions(self) -> Sequence[str]:
        return ["myfunc"]

    def aliases(self) -> Mapping[str, str]:
        return {"ll": "ls -l"}

    def programs(self) -> Sequence[str]:
        return ["psql", "python"]

    def variables(self) -> Mapping[str, str]:
        return {"HOME": "/home/me", "HOST": "here", "x": "1\n2", "D": os.getcwd()}

    def home(self, user: str) -> str | None:
        return os.getcwd() if user == "" else None

    def jobs(self) -> Sequence[tuple[str, str]]:
        return [("%1", "stopped · run a story")]

    def processes(self) -> Sequence[ProcessInfo]:
        return [
            ProcessInfo(pid, 1, Kind.MODEL, State.RUNNING, KvState.RESIDENT, "run a", "tiny", 0, 0.0, 2)
            for pid in (12, 13, 7)
        ]

    def models(self) -> Sequence[ModelStatus]:
        return [ModelStatus(ModelEntry(name, "/x"), name == "tiny", 1) for name in ("tiny", "big model")]

    def policies(self) -> Sequence[str]:
        return ["fair", "fifo"]


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
        ("echo $(date) fi", ("echo", ""), "fi"),
        ("echo ${x:-a b} fi", ("echo", "${x:-a b}"), "fi"),
        ('echo "a $(ps -', ("ps",), "-"),
        ('echo "a $(ps) b', ("echo",), "a  b"),
        ("echo `ps -", ("ps",), "-"),
        ("( cd x; ls", (), "ls"),
        ("(cd x) && l", (), "l"),
        ("f() { l", (), "l"),
        ("a=(x y", ("=(", "x"), "y"),
        ("diff <(sort a) <(sort b", ("sort",), "b"),
        ("for f in a; do l", (), "l"),
        ("for f in a", ("for", "f", "in"), "a"),
        ("cat <<< a > b c", ("cat",), "c"),
        ("a # b; ls", ("a",), ""),
        ("a # b\nls x", ("ls",), "x"),
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
    for start, end, kind in spans(line, Words()):
        assert 0 <= start <= end <= len(line)
        assert kind == "plain" or kind in CLASSES


@given(st.text(alphabet="ab \"'\\$(){}|<>&;*?~!", min_size=1, max_size=12))
def test_quoted_words_read_back(word: str) -> None:
    place = find_place("cmd " + quote_word(word))
    assert place.word == word
    for quote in "'\"":
        inside = find_place("cmd " + quote + quote_word(word, quote))
        assert inside.word == word
        assert inside.quote == quote


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
    assert texts('run -m "b') == ['"big model"']
    assert texts("kill -s K") == ["KILL"]
    assert texts("kill -K") == ["KILL"]
    assert "--sort" not in texts("ps --sort memory --")
    assert texts("sched fi") == ["fifo"]
    assert "-A" in texts("declare -") and "-n" in texts("echo -")
    assert texts("declare -x HOM") == texts("read HOM") == ["HOME"]
    assert texts("type pst") == texts("command pst") == texts("trap pst") == ["pstree"]
    assert texts("unset -f my") == ["myfunc"]
    assert texts("set -o v") == ["verbose", "vi"]
    assert texts("LLMOS_THEME=li") == ["light"]


def test_pids_and_jobs_are_described() -> None:
    assert texts("kill 1") == ["12", "13"]
    assert texts("kill %") == ["%1"]
    about = [candidate.about for candidate in complete("kill 7", World())]
    assert about == ["running · tiny · run a"]


def test_variables() -> None:
    assert texts("echo $HO") == ["$HOME", "$HOST"]
    assert texts("echo ${HOM") == ["${HOME}"]
    assert texts('echo "a $HOM') == ["$HOME"]
    assert texts("echo ${#HOM") == ["${#HOME}"]
    assert texts("echo '$HOM") == texts("echo \\$HOM") == []
    assert texts("unset HOM") == ["HOME"]
    assert next(complete("echo $x", World())).about == "1⏎2"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a few files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a folder" / "x.gguf").touch()
    (tmp_path / "a folder" / "y z").touch()
    for name in ("notes.txt", "more.gguf", ".hidden", "it's $5", "Äpfel", "line\nend"):
        (tmp_path / name).touch()
    return tmp_path


def test_files(folder: Path) -> None:
    assert texts("run < no") == ["notes.txt"]
    assert texts("run a") == ["a\\ folder/"]
    assert texts("run a\\ folder/x") == ["x.gguf"]
    assert texts("load m") == ["more.gguf"]
    assert texts("load n") == []
    assert ".hidden" not in texts("run < ") and texts("run < .h") == [".hidden"]
    assert texts(f"run < {folder}/no") == ["notes.txt"]
    assert texts("run ") == ["a\\ folder/", "it\\'s\\ \\$5", "$'line\\012end'", "more.gguf", "notes.txt", "Äpfel"]
    assert texts("cd ") == ["a\\ folder/"]
    assert texts("run NOT") == ["notes.txt"]
    assert texts("x=no") == texts("dd if=no") == texts("P=/a:no") == ["notes.txt"]


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("cat ~/no", "cat ~/notes.txt"),
        ("cat $D/no", "cat $D/notes.txt"),
        ('cat "$D/a f', 'cat "$D/a folder/'),
        ('cat "a folder/y', 'cat "a folder/y z"'),
        ("cat 'a folder/y", "cat 'a folder/y z'"),
        ("cat 'a folder'/y", "cat 'a folder'/y\\ z"),
        ("cat a\\ folder/y", "cat a\\ folder/y\\ z"),
        ("cat \"it's", 'cat "it\'s \\$5"'),
        ("cat 'it", "cat 'it'\\''s $5'"),
        ("cat 'a fol'der/y", "cat 'a fol'der/y\\ z"),
        ("cat 'a folder/'y", "cat a\\ folder/y\\ z"),
        ('cat "a folder/y" "no', 'cat "a folder/y" "notes.txt"'),
        ("cat <no", "cat <notes.txt"),
        ("run -m ./m", "run -m ./more.gguf"),
    ],
)
def test_what_was_typed_before_the_last_slash_stays(folder: Path, line: str, completed: str) -> None:
    (found,) = complete(line, World())
    assert line[: len(line) - found.typed] + found.text == completed


def test_commands_are_looked_for_where_one_stands() -> None:
    for before in (
        "",
        "a | ",
        "a && ",
        "$(",
        "if x; then ",
        "while ",
        "X=1 Y=2 ",
        "sudo -n ",
        "nice -n 3 ",
        "! ",
        "{ ",
        "f() { ",
    ):
        assert "pstree" in texts(before + "pst"), before
    assert {found.text: found.about for found in complete("", World())}["ll"] == "alias for ls -l"
    assert texts("whil") == ["while"]
    assert texts("for q") == [] and texts("for x i") == ["in"]
    assert texts("# pst") == texts("cat << pst") == []


class Words:
    """A few words mean something."""

    def kind(self, word: str) -> str:
        return {"ps": "builtin", "run": "builtin", "ls": "program", "ll": "alias"}.get(word, "")

    def is_model(self, word: str) -> bool:
        return word == "tiny"

    def is_path(self, word: str) -> bool:
        return word in ("a.txt", "~/x")


def kinds(line: str) -> list[tuple[str, str]]:
    """Pieces of one colour, as they are seen."""
    styles = [""] * len(line)
    for start, end, kind in spans(line, Words()):
        styles[start:end] = [kind.removeprefix("plain")] * (end - start)
    pieces = [
        (kind, "".join(char for _, char in group))
        for kind, group in groupby(zip(styles, line, strict=True), itemgetter(0))
    ]
    return [(text, kind) for kind, text in pieces if kind]


B, K, O, S, V = "command.builtin", "keyword", "operator", "string", "variable"  # noqa: E741
P, F = "command.program", "command.function"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ps -a | foo", [("ps", B), ("-a", "option"), ("|", O), ("foo", "unknown")]),
        ('run "a b" $x', [("run", B), ('"a b"', S), ("$x", V)]),
        ('run "a $x b"', [("run", B), ('"a ', S), ("$x", V), (' b"', S)]),
        ("if ps; then run x; fi", [("if", K), ("ps", B), (";", O), ("then", K), ("run", B), (";", O), ("fi", K)]),
        ("x=1 ps", [("x", V), ("ps", B)]),
        ("? how", [("? how", "question")]),
        ("> f ps", [(">", O), ("ps", B)]),
        ("ps # all", [("ps", B), ("# all", "comment")]),
        (
            "ls a.txt ~/x b > a.txt",
            [("ls", P), ("a.txt", "path"), ("~/x", "path"), (">", O), ("a.txt", "path")],
        ),
        (
            "run -m tiny; ls tiny",
            [("run", B), ("-m", "option"), ("tiny", "model"), (";", O), ("ls", P)],
        ),
        ("ps --sort=x", [("ps", B), ("--sort", "option")]),
        ("ll `ps`", [("ll", "command.alias"), ("`", V), ("ps", B), ("`", V)]),
        ("ls $(ps $(no))", [("ls", P), ("$(", V), ("ps", B), ("$(", V), ("no", "unknown"), ("))", V)]),
        ("f() { ps; }", [("f", "command.function"), ("()", O), ("{", K), ("ps", B), (";", O), ("}", K)]),
        (
            "for f in ps a; do ps; done",
            [("for", K), ("f", V), ("in", K), (";", O), ("do", K), ("ps", B), (";", O), ("done", K)],
        ),
        (
            "case x in a|b) ps;; *) no;; esac",
            [
                *(("case", K), ("in", K), ("a", S), ("|", O), ("b", S), (")", O), ("ps", B), (";;", O)),
                *(("*", S), (")", O), ("no", "unknown"), (";;", O), ("esac", K)),
            ],
        ),
        (
            "[[ -f a.txt && x < y ]] && ps",
            [("[[", K), ("-f", "option"), ("&&", O), ("<", O), ("]]", K), ("&&", O), ("ps", B)],
        ),
        ("((x=1+2)) && ps", [("((x=1+2))", V), ("&&", O), ("ps", B)]),
        (
            "for ((i=0; i<3; i++)); do ps; done",
            [("for", K), ("((i=0; i<3; i++))", V), (";", O), ("do", K), ("ps", B), (";", O), ("done", K)],
        ),
        ("a=(1 'b') ps", [("a", V), ("(", O), ("'b'", S), (")", O), ("ps", B)]),
        ("run x=(ps); ps", [("run", B), ("(", O), (");", O), ("ps", B)]),
        ("ls <(ps) >(no)", [("ls", P), ("<(", V), ("ps", B), (")", V), (">(", V), ("no", "unknown"), (")", V)]),
        (
            "f() { ps; }; f",
            [("f", F), ("()", O), ("{", K), ("ps", B), (";", O), ("}", K), (";", O), ("f", F)],
        ),
        (
            "function g { ps; }; g",
            [("function", K), ("g", F), ("{", K), ("ps", B), (";", O), ("}", K), (";", O), ("g", F)],
        ),
        ("ps |& ls", [("ps", B), ("|&", O), ("ls", P)]),
        (
            "select x in a; do ps; done",
            [("select", K), ("x", V), ("in", K), (";", O), ("do", K), ("ps", B), (";", O), ("done", K)],
        ),
        ("ps <<E\na $x\nE\nps", [("ps", B), ("<<", O), ("a $x\nE\n", S), ("ps", B)]),
        # not finished
        ('run "abc', [("run", B), ('"abc', "unfinished")]),
        ("run 'abc", [("run", B), ("'abc", "unfinished")]),
        ("run $(ps -a", [("run", B), ("$(", V), ("ps", B), ("-a", "option")]),
        ('run "a $(ps "b', [("run", B), ('"a ', "unfinished"), ("$(", V), ("ps", B), ('"b', "unfinished")]),
        ("run ${x", [("run", B), ("${x", V)]),
        ("run `ps", [("run", B), ("`", V), ("ps", B)]),
        ("if ps", [("if", K), ("ps", B)]),
        ("ps <<E\nrun", [("ps", B), ("<<", O), ("run", S)]),
    ],
)
def test_colours_come_from_the_lexer(line: str, expected: list[tuple[str, str]]) -> None:
    assert kinds(line) == expected


def test_long_and_deep_texts_are_coloured_soon_or_not_at_all() -> None:
    spans("$(" * 5000, Words())
    spans("((" * 5000, Words())
    assert spans("ps " * 100_000, Words()) == []
    assert len(spans("ps -a; " * 1400, Words())) == 3 * 1400
