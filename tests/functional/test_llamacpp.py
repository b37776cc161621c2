"""The main job on the real kernel: llama.cpp workers, real weights, the command `llmos`."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from llmos_shell.abi.syscalls import (
    MODEL_RESIZE,
    MODEL_TOKENIZE,
    PROC_INFO,
    PROC_LIST,
    PROC_SPAWN,
    PROC_TRANSCRIPT,
    SYS_STATUS,
    List,
    Nothing,
    Pid,
    ResizePool,
    Spawn,
    Tokenize,
)
from llmos_shell.ipc.client import Client
from llmos_shell.testing.clients import run, say, spawn, text_of, wait, wait_for_tokens
from llmos_shell.testing.daemon import DaemonProcess
from llmos_shell.testing.random_gguf import Shape, write_random_model

ROOT = Path(__file__).resolve().parents[2]
STORIES = ROOT.parent / "shared" / "data" / "stories260K.gguf"
BUILTIN = ROOT / "llmos_shell" / "models" / "builtin" / "tiny.gguf"
GREEDY = {"sampling": {"temperature": 0.0, "max_tokens": 40, "ignore_eos": True}}


@pytest.fixture
def llmos_home(llmos_home: Path) -> Path:
    """The home of the plugin, with a model for llama.cpp as default instead of the scripted one."""
    write_random_model(llmos_home / "config" / "random.gguf", Shape(context=512), seed=3)
    (llmos_home / "config" / "models.toml").write_text('default = "random"\n[models.random]\npath = "random.gguf"\n')
    return llmos_home


def prompts(count: int) -> list[str]:
    return [f"{number} " + "abcdefghij"[number % 10] * (5 + number) for number in range(count)]


def test_32_at_once_say_what_they_say_alone(client: Client) -> None:
    alone = [run(client, prompt, **GREEDY) for prompt in prompts(32)]
    pids = [spawn(client, prompt, **GREEDY) for prompt in prompts(32)]
    assert len(client.call(SYS_STATUS, Nothing()).workers) == 1
    assert [wait(client, pid).code for pid in pids] == [0] * 32
    assert [text_of(client, pid) for pid in pids] == alone


def test_a_killed_worker_costs_nobody_a_token(client: Client) -> None:
    options = {"sampling": {"temperature": 0.0, "max_tokens": 300, "ignore_eos": True}}
    alone = [run(client, prompt, **options) for prompt in prompts(4)]
    pids = [spawn(client, prompt, **options) for prompt in prompts(4)]
    wait_for_tokens(client, pids[-1], 20)
    os.kill(client.call(SYS_STATUS, Nothing()).workers[0].pid, signal.SIGKILL)
    assert [wait(client, pid).code for pid in pids] == [0] * 4
    assert [text_of(client, pid) for pid in pids] == alone


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_weights_named_by_path_outlive_the_daemon(daemon: DaemonProcess, tmp_path: Path, how: str) -> None:
    path = tmp_path / "elsewhere.gguf"
    write_random_model(path, Shape(context=512), seed=4)
    with daemon.connect() as client:
        options = {"model": str(path), "sampling": {"temperature": 0.0, "max_tokens": 10, "ignore_eos": True}}
        pid = spawn(client, chat=True, **options)
        again = spawn(client, chat=True, **{**options, "model": "elsewhere"})
        assert say(client, pid, "one") == say(client, again, "one")
    getattr(daemon, how)()
    daemon.start()
    with daemon.connect() as client:
        assert say(client, pid, "two") == say(client, again, "two")


@pytest.mark.skipif(not STORIES.exists(), reason="the public test weights are not here")
def test_published_weights_give_their_published_text(llmos) -> None:
    published = STORIES.with_suffix("").with_suffix(".greedy.txt").read_text()
    whole = llmos("run", str(STORIES), "-n", "252", "-t", "0", "Once upon a time")
    assert (whole.stdout, whole.returncode) == (published, 0)
    part = llmos("run", str(STORIES), "-n", "230", "-t", "0", "Once upon a time")
    assert part.stdout == published[:528]


def test_broken_weights_are_one_line_and_cost_nothing_else(llmos, llmos_home: Path, client: Client) -> None:
    whole = (llmos_home / "config" / "random.gguf").read_bytes()
    running = spawn(client, "x", sampling={"temperature": 0.0, "max_tokens": 400, "ignore_eos": True})
    damaged = {
        "empty": b"",
        "magic": b"GGUX" + whole[4:],
        "version": whole[:4] + b"\xff\xff\0\0" + whole[8:],
        "tensors": whole[:8] + b"\xff" * 8 + whole[16:],
        "metadata": whole[:16] + b"\xff" * 8 + whole[24:],
        **{f"cut{n}": whole[: len(whole) * n // 9] for n in range(1, 9)},
    }
    for name, content in damaged.items():
        path = llmos_home / f"{name}.gguf"
        path.write_bytes(content)
        result = llmos("run", str(path), "-n", "1", "hello")
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith("llmos: run: ") and result.stderr.count("\n") == 1, result.stderr
    assert wait(client, running).code == 0
    assert len(client.call(SYS_STATUS, Nothing()).workers) == 1
    assert not [row for row in client.call(PROC_LIST, List()) if row.model != "" and row.state != "S"]


def test_json_schema_and_grammar(llmos) -> None:
    schema = llmos("run", "--no-echo", "--schema", "schema.json", "-n", "200", "x")
    assert schema.returncode == 1 and "schema.json" in schema.stderr
    yes = llmos("-c", """printf 'root ::= "yes" | "no"' > g; run --no-echo --grammar g -n 20 x""")
    assert yes.stdout.strip() in ("yes", "no")


def test_a_model_without_a_template_does_not_speak_for_the_user(client: Client) -> None:
    sampling = {"grammar": 'root ::= "fine" "\\nUser: and you?"', "seed": 1}
    pid = client.call(PROC_SPAWN, Spawn(chat=True, sampling=sampling)).pid
    assert [say(client, pid, "how are you") for _ in range(2)] == ["fine", "fine"]
    turns = client.call(PROC_TRANSCRIPT, Pid(pid)).turns
    assert [turn.text for turn in turns] == ["how are you", "fine"] * 2
    assert client.call(PROC_INFO, Pid(pid)).sampling.stop == ()
    whole = "User: how are you\nAssistant: fine\nUser: how are you\nAssistant:"
    rendered = client.call(MODEL_TOKENIZE, Tokenize(whole)).tokens
    assert client.call(PROC_INFO, Pid(pid)).context_tokens == 1 + len(rendered) + len("fine\nUser:")  # 1: BOS


def quantised(source: Path, target: Path) -> None:
    """The same model with coarser weights, which mostly says the same."""
    from llmos_kernel_llamacpp.native import lib

    params = lib.llama_model_quantize_default_params()
    params.ftype = 7  # Q8_0
    assert lib.llama_model_quantize(bytes(source), bytes(target), params) == 0


def test_a_draft_changes_nothing_but_the_number_of_steps(llmos_home: Path, client: Client) -> None:
    config = llmos_home / "config"
    quantised(config / "random.gguf", config / "small.gguf")
    with (config / "models.toml").open("a") as file:
        for name, draft in (("plain", ""), ("drafted", 'draft = "small.gguf"\n')):
            file.write(f'[models.{name}]\npath = "random.gguf"\n{draft}options = {{ deterministic = true }}\n')
    sampling = {"temperature": 0.9, "seed": 3, "max_tokens": 400, "ignore_eos": True}
    said = {name: run(client, "once", model=name, sampling=sampling) for name in ("plain", "drafted")}
    assert said["plain"] == said["drafted"]
    workers = {worker.model: worker for worker in client.call(SYS_STATUS, Nothing()).workers}
    assert workers["drafted"].guessed_tokens >= workers["drafted"].right_tokens > 0


def test_a_draft_with_other_tokens_is_refused(llmos, llmos_home: Path) -> None:
    config = llmos_home / "config"
    with (config / "models.toml").open("a") as file:
        file.write(f'[models.odd]\npath = "random.gguf"\ndraft = "{BUILTIN}"\n')
        file.write('[models.gone]\npath = "random.gguf"\ndraft = "gone.gguf"\n')
    odd, gone = llmos("run", "-m", "odd", "x"), llmos("run", "-m", "gone", "x")
    assert (odd.returncode, gone.returncode) == (1, 1)
    assert "the draft model" in odd.stderr and "has other tokens: 3 is" in odd.stderr and odd.stderr.count("\n") == 1
    assert f"the draft model of gone: no such file: {config / 'gone.gguf'}" in gone.stderr


def test_another_pool_costs_nobody_a_token(client: Client) -> None:
    options = {"sampling": {"temperature": 0.0, "max_tokens": 300, "ignore_eos": True}}
    alone = [run(client, prompt, **options) for prompt in prompts(4)]
    pids = [spawn(client, prompt, private=True, **options) for prompt in prompts(4)]
    wait_for_tokens(client, pids[-1], 20)
    for slots, layout in ((8, "split"), (8, "shared"), (4, "split")):
        shape = ResizePool("random", slots=slots, pool_tokens=slots * 512, layout=layout)
        status = client.call(MODEL_RESIZE, shape)
        assert (status.slots, status.layout, status.context) == (slots, layout, 512)
    assert [text_of(client, pid) for pid in pids] == alone
    assert sum(row.recomputed_tokens for row in client.call(PROC_LIST, List(all=True))) == 0
