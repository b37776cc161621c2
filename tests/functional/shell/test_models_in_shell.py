"""Model commands as parts of the shell: loops, substitutions, `time`, structured output, the best of several."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmos_shell.abi.syscalls import PROC_LIST, List
from llmos_shell.abi.types import Reason
from llmos_shell.testing.retry import retry_until

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "maximum": 9, "minimum": 0}, "s": {"enum": ["a", "b"]}},
    "required": ["n", "s"],
    "additionalProperties": False,
}


@pytest.fixture
def builtin(llmos_home: Path, daemon: Any) -> None:
    """The built-in model is the default."""
    (llmos_home / "config" / "models.toml").unlink()


@pytest.mark.llmos(models={"scripted": {}})
def test_a_loop_over_more_files_than_the_model_has_slots(daemon: Any, llmos: Any, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    for number in range(40):
        (folder / f"{number}.md").write_text(f"text {number}")
    script = 'for f in *.md; do run -n 5 "Summarise" <"$f" >"$f.sum" & done; wait; echo $?'
    done = llmos("-c", script)
    assert (done.stdout, done.stderr) == ("0\n", "")
    for number in range(40):
        said = (folder / f"{number}.md.sum").read_text()
        assert said.startswith(f"Summarise\ntext {number}") and len(said) == len(f"Summarise\ntext {number}") + 5


def test_substitution_and_pipes(daemon: Any, llmos: Any) -> None:
    done = llmos("-c", 'x=$(run -n 4 --no-echo -t 0 hello); echo "${#x}"; run -n 4 -t 0 a | run -n 3 --no-echo | wc -c')
    assert done.stdout.split() == ["4", "3"]


@pytest.mark.llmos(models={"scripted": {"step_seconds": 0.01}})
def test_the_pid_of_a_background_process_is_good_for_everything(client: Any, llmos: Any) -> None:
    script = "run x >out & renice 5 $!; kill -TERM $!; wait $!; echo $?"
    assert llmos("-c", script).stdout.endswith("143\n")
    (process,) = client.call(PROC_LIST, List(all=True, sessions=False))
    assert (process.nice, process.exit.reason) == (5, Reason.TERM)


@pytest.mark.parametrize(
    "line", ["time run -n 6 -t 0 x >out", "time run -n 6 -t 0 x | cat >out", "echo x | time run -n 6"]
)
def test_time_tells_tokens_and_device_time(daemon: Any, llmos: Any, line: str) -> None:
    errors = llmos("-c", line).stderr
    assert re.search(r"^device +\d", errors, re.MULTILINE) and "6 generated" in errors


def test_defaults_of_a_model(llmos_home: Path, daemon: Any, llmos: Any) -> None:
    with open(llmos_home / "config" / "models.toml", "a") as file:
        file.write('[models.brief]\npath = "scripted.model"\nkernel = "scripted"\nsystem = "Be brief."\n')
        file.write("sampling = { temperature = 0.25, max_tokens = 7 }\n")
    done = llmos("-c", "run -m brief -c hello >out; ps -a --json; log $(ps -aq)")
    (process,) = json.loads(done.stdout.partition("system: ")[0])
    assert (process["sampling"]["temperature"], process["generated_tokens"]) == (0.25, 7)
    assert "system: Be brief." in done.stdout
    done = llmos("-c", "LLMOS_TEMPERATURE=0.5; LLMOS_MODEL=brief; run -n 3 -o json hello; ps -a --json $!")
    assert json.loads(done.stdout.partition("}\n[")[0] + "}")["model"] == "brief"


def test_structured_output_of_the_builtin_model(builtin: None, llmos: Any, tmp_path: Path) -> None:
    (tmp_path / "work" / "schema.json").write_text(json.dumps(SCHEMA))
    for seed in range(4):
        done = llmos("run", "-n", "60", "--seed", str(seed), "--schema", "schema.json", "kill the process")
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert set(answer) == {"n", "s"} and answer["s"] in ("a", "b") and 0 <= answer["n"] <= 9
    (tmp_path / "work" / "yes.gbnf").write_text('root ::= "yes" | "no"')
    assert llmos("ask", "--grammar", "yes.gbnf", "Is it?").stdout in ("yes\n", "no\n")


def test_going_on_from_a_process(daemon: Any, llmos: Any, tmp_path: Path) -> None:
    (tmp_path / "work" / "notes.gguf").touch()
    begin = "pid=$(run -d -n 6 -t 0 once); wait $pid"
    line = f"{begin}; run --from $pid -n 4 -t 0 notes.gguf is a word >out & wait; log --json $!"
    turns = json.loads(llmos("-c", line).stdout)["turns"]
    assert [turn["role"] for turn in turns] == ["prompt", "completion", "prompt", "completion"]
    assert turns[2]["text"] == "notes.gguf is a word", "the model is that of the process"
    assert (tmp_path / "work" / "out").read_text() == turns[3]["text"]
    for words in (("--chat", "x"), ("--system", "Sing.", "x")):
        done = llmos("run", "--from", "9", *words)
        assert done.returncode == 2 and "leave --chat and system prompts out" in done.stderr
    assert "there is no process 99" in llmos("run", "--from", "99", "x").stderr


def test_an_engine_without_grammars_says_so(daemon: Any, llmos: Any) -> None:
    done = llmos("run", "--schema", "{}", "x")
    assert done.returncode == 1 and "cannot follow a grammar" in done.stderr and done.stderr.count("\n") == 1


def test_the_best_of_several(daemon: Any, llmos: Any) -> None:
    done = llmos("run", "--best-of", "4", "--seed", "7", "-o", "json", "hello")
    result = json.loads(done.stdout)
    candidates = result["candidates"]
    scores = [candidate["score"] for candidate in candidates]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 4 and result["text"] == candidates[0]["text"]
    assert sorted(candidate["seed"] for candidate in candidates) == [7, 8, 9, 10]
    assert result["usage"]["generated_tokens"] == sum(candidate["generated_tokens"] for candidate in candidates)
    again = llmos("run", "--best-of", "4", "--seed", "7", "hello")
    assert again.stdout == "hello" + result["text"]
    alone = llmos("run", "--no-echo", "--seed", str(candidates[0]["seed"]), "hello")
    assert alone.stdout == result["text"]
    lines = llmos("ask", "--best-of", "3", "-o", "jsonl", "hello").stdout.splitlines()
    assert len(lines) == 3 and json.loads(lines[0])["score"] >= json.loads(lines[1])["score"]


@pytest.mark.llmos(models={"scripted": {"step_seconds": 0.01}})
def test_an_interrupt_ends_all_of_several(client: Any, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "llmos_shell", "run", "--best-of", "5", "x"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as child:
        try:
            retry_until(lambda: len(client.call(PROC_LIST, List(sessions=False))) == 5)
            child.send_signal(signal.SIGINT)
            out, _ = child.communicate(timeout=60)
        finally:
            child.kill()
    assert (child.returncode, out) == (130, b"")
    processes = client.call(PROC_LIST, List(all=True, sessions=False))
    assert [process.exit.reason for process in processes] == [Reason.INTERRUPT] * 5


def test_best_of_what_makes_no_sense(daemon: Any, llmos: Any) -> None:
    for words in (["--best-of", "0"], ["--best-of", "2", "-t", "0"], ["--best-of", "2", "-d"]):
        done = llmos("run", *words, "x")
        assert done.returncode == 2 and done.stderr.count("\n") == 1
