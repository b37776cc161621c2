"""Prompts from words, files, templates and variables, as the daemon gets them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmos_shell.abi.errors import LlmosError
from llmos_shell.abi.syscalls import Output, Spawned
from llmos_shell.abi.types import ExitInfo, Message, ModelEntry, ModelStatus, Reason
from llmos_shell.shell.templates import fill


@pytest.fixture
def asked(fake_daemon: Any, bench: Any) -> Any:
    """Runs a command and returns what it spawned."""
    fake_daemon.handlers |= {
        "proc.spawn": lambda args: Spawned(7, 3),
        "proc.follow": lambda args: [Output(0, "{}"), Output(2, exit=ExitInfo(7, 0, Reason.EOS))],
        "model.list": lambda args: (
            ModelStatus(ModelEntry("tiny", "/tiny.gguf", role="assistant"), True, 1),
            ModelStatus(ModelEntry("other", "/other.gguf"), False, 1),
        ),
    }

    def ask(*words: str, stdin: bytes | None = None, **variables: str) -> Any:
        bench.shell._variables = variables
        assert bench.run(*words, stdin=stdin) == 0, bench.err.getvalue()
        return fake_daemon.asked("proc.spawn")[-1]

    return ask


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.md").write_text("alpha\n")
    (folder / "b.md").write_bytes(b"\xef\xbb\xbfbeta")
    (folder / "translate").write_text("Into {{lang}}:\n{{stdin}}\n")
    (folder / "all").write_text("{{ files }}\n---\n{{prompt}}?\n")
    (folder / "schema.json").write_text('{"type": "object"}')
    monkeypatch.chdir(folder)
    return folder


# -- attachments ---


def test_files_come_first_with_their_names(asked: Any, files: Path) -> None:
    text = '<file name="a.md">\nalpha\n</file>\n<file name="b.md">\nbeta\n</file>\nCompare'
    assert asked("run", "-a", "a.md", "-a", "b.md", "Compare").prompt == text
    assert asked("run", "-a", "a.md").prompt == text.partition('\n<file name="b')[0]


def test_standard_input_is_one_of_the_files(asked: Any, files: Path) -> None:
    both = '<file name="a.md">\nalpha\n</file>\n<file name="stdin">\npiped\n</file>\nWhy'
    assert asked("run", "-a", "a.md", "Why", stdin=b"piped\n").prompt == both
    assert asked("run", "-a", "a.md", "-a", "-", "Why", stdin=b"piped").prompt == both
    assert asked("run", "-a", "-", stdin=b"x").prompt == '<file name="stdin">\nx\n</file>'
    assert asked("run", "Why", stdin=b"piped\n").prompt == "Why\npiped\n"


def test_a_model_may_come_before_nothing_but_files(asked: Any, files: Path) -> None:
    spawn = asked("run", "other", "-a", "a.md")
    assert (spawn.model, spawn.prompt) == ("other", '<file name="a.md">\nalpha\n</file>')


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x89PNG\r\n\0", "x is binary: only text can be attached"),
        (b"caf\xe9", "x is not UTF-8 (byte 3 is 0xe9): convert it with iconv"),
    ],
)
def test_what_is_no_text_is_refused(bench: Any, files: Path, data: bytes, message: str) -> None:
    (files / "x").write_bytes(data)
    assert bench.run("run", "-m", "m", "-a", "x", "Why") == 1
    assert bench.err.getvalue() == f"llmos: run: {message}\n"


def test_missing_files_and_folders(bench: Any, files: Path) -> None:
    assert bench.run("run", "-m", "m", "-a", "none", "Why") == 1
    assert bench.run("run", "-m", "m", "-a", ".", "Why") == 1
    assert bench.err.getvalue() == "llmos: run: none: no such file or directory\nllmos: run: .: is a directory\n"


# -- templates ---


def test_a_template_is_filled_from_input_and_variables(asked: Any, files: Path) -> None:
    assert asked("run", "-f", "translate", stdin=b"hello\n", lang="French").prompt == "Into French:\nhello"


def test_a_template_says_where_files_and_words_go(asked: Any, files: Path) -> None:
    spawn = asked("run", "-f", "all", "-a", "a.md", "Why", stdin=b"x")
    assert spawn.prompt == '<file name="a.md">\nalpha\n</file>\n<file name="stdin">\nx\n</file>\n---\nWhy?'


def test_what_a_template_does_not_name_is_added(asked: Any, files: Path) -> None:
    (files / "plain").write_text("Sum up.\n\n")
    assert asked("run", "-f", "plain", "Briefly.", stdin=b"text\n").prompt == "Sum up.\nBriefly.\ntext\n"


@pytest.mark.parametrize(
    ("words", "stdin", "message"),
    [
        (["-f", "translate"], b"x", "translate: line 1: nothing is known as {{lang}}: set a shell variable"),
        (["-f", "all"], None, "the template wants a {{prompt}}: give one as words"),
        (["-f", "near"], b"x", "near: line 2: nothing is known as {{stdni}}: did you mean {{stdin}}?"),
        (["-f", "none"], b"x", "none: no such file or directory"),
    ],
)
def test_templates_that_cannot_be_filled(bench: Any, files: Path, words: list[str], stdin: Any, message: str) -> None:
    (files / "near").write_text("\n{{stdni}}")
    assert bench.run("run", *words, stdin=stdin) == 1
    assert bench.err.getvalue().startswith(f"llmos: run: {message}")


def test_filling() -> None:
    values = {"a": "{{b}}", "b": "B", "empty": ""}
    template = r"{{a}} \{{a}} {{ b }} {{1}} {{a b}} {x} [{{empty}}]"
    assert fill(template, "t", values.get) == "{{b}} {{a}} B {{1}} {{a b}} {x} []"
    with pytest.raises(LlmosError, match="nothing is known as"):
        fill("{{c}}", "t", values.get)


def test_a_system_prompt_from_a_file(asked: Any, files: Path) -> None:
    (files / "system").write_text("You speak {{lang}}.\n")
    messages = (Message("system", "You speak Latin."), Message("user", "Hi"))
    for command in ("run", "ask"):
        assert asked(command, "-S", "system", "-m", "other", "Hi", lang="Latin").messages == messages
    assert asked("ask", "-m", "other", "Hi", LLMOS_SYSTEM_FILE="system", lang="Latin").messages == messages


# -- variables ---


def test_variables_stand_in_for_options(asked: Any, files: Path) -> None:
    variables = {
        "LLMOS_TEMPERATURE": "0.5",
        "LLMOS_TOP_K": "7",
        "LLMOS_STOP": "a\nb",
        "LLMOS_TOKENS": "9",
        "LLMOS_SCHEMA": "schema.json",
        "LLMOS_MODEL": "other",
        "LLMOS_SEED": "",
    }
    spawn = asked("run", "-n", "3", "Hi", **variables)
    assert spawn.model == "other" and spawn.prompt == "Hi"
    schema = '{"type": "object"}'
    wanted = {"temperature": 0.5, "top_k": 7, "stop": ["a", "b"], "max_tokens": 3, "json_schema": schema}
    assert spawn.sampling == wanted
    assert asked("run", "-m", "mine", "Hi", **variables).model == "mine"
    assert asked("run", "tiny", "Hi", **variables).model == "tiny"


def test_an_option_wins_over_a_variable_that_it_excludes(asked: Any, files: Path) -> None:
    sampling = asked("run", "--schema", '{"type": "array"}', "x", LLMOS_GRAMMAR="nowhere").sampling
    assert sampling == {"json_schema": '{"type": "array"}'}


def test_a_system_prompt_of_a_variable_makes_no_message_of_a_raw_prompt(asked: Any) -> None:
    assert asked("run", "Hi", LLMOS_SYSTEM="Be brief.").prompt == "Hi"
    assert asked("run", "-c", "Hi", LLMOS_SYSTEM="Be brief.").messages[0] == Message("system", "Be brief.")


def test_a_wrong_variable_is_named(bench: Any) -> None:
    bench.shell.set("LLMOS_TEMPERATURE", "warm")
    assert bench.run("run", "x") == 2
    assert bench.err.getvalue() == "llmos: run: LLMOS_TEMPERATURE: `warm` is not a number: try `run --help`\n"


# -- structured output ---


@pytest.mark.parametrize("schema", ["{no json", "list.json"])
def test_a_schema_that_is_none(bench: Any, files: Path, schema: str) -> None:
    (files / "list.json").write_text("[]")
    assert bench.run("run", "--schema", schema, "x") == 1
    assert "no JSON schema" in bench.err.getvalue()


def test_structured_output_is_printed_alone(asked: Any, bench: Any) -> None:
    asked("run", "--schema", "{}", "Describe")
    assert bench.out.getvalue() == "{}"


def test_the_assistant_is_not_asked_for_more_than_command_lines(asked: Any, files: Path) -> None:
    assert asked("ask", "--schema", "{}", "x").messages == (Message("user", "x"),)
    assert asked("ask", "-a", "a.md", "x").messages[0].content.endswith("x")


def test_text_that_was_cut_is_no_json(fake_daemon: Any, asked: Any, bench: Any) -> None:
    fake_daemon.handlers["proc.follow"] = lambda args: [
        Output(0, '{"a'), Output(3, exit=ExitInfo(7, 0, Reason.LENGTH))
    ]  # fmt: skip
    assert bench.run("run", "--schema", "{}", "x") == 1
    assert "cut at the token limit: allow more with -n" in bench.err.getvalue()
