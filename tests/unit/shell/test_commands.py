"""Built-in commands against a scripted daemon: what they ask it, what they print, how they fail."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.syscalls import Kill, Nice, Output, SetLimits, Spawn, Spawned, Transcript
from llmos_shell.abi.types import (
    ExitInfo,
    Kind,
    KvState,
    Limits,
    Message,
    ModelEntry,
    ModelStatus,
    ProcessInfo,
    Reason,
    Sampling,
    Signal,
    State,
    Turn,
)


def process(pid: int, ppid: int = 1, name: str = "run x", **fields: Any) -> ProcessInfo:
    fields = {"kind": Kind.MODEL, "model": "tiny", **fields}
    return ProcessInfo(
        pid,
        ppid,
        state=State.RUNNING,
        kv=KvState.RESIDENT,
        name=name,
        nice=0,
        started=0.0,
        session=0,
        **fields,
    )


@pytest.fixture
def generating(fake_daemon: Any) -> Any:
    """A daemon in which every process says ` there was` and ends."""
    fake_daemon.handlers |= {
        "proc.spawn": lambda args: Spawned(7, 3),
        "proc.follow": lambda args: [
            Output(0, " there"),
            Output(6, " was"),
            Output(10, exit=ExitInfo(7, 0, Reason.EOS)),
        ],
        "proc.info": lambda args: process(
            args.pid, generated_tokens=2, prompt_tokens=3, reused_tokens=1, sampling=Sampling(seed=5)
        ),
        "model.list": lambda args: (
            ModelStatus(ModelEntry("tiny", "/tiny.gguf", role="assistant"), True, 1),
            ModelStatus(ModelEntry("other", "/other.gguf"), False, 1),
        ),
    }
    return fake_daemon


# -- run ---


def test_run_prints_prompt_and_continuation_and_nothing_else(generating: Any, bench: Any) -> None:
    assert bench.run("run", "-n", "5", "-t", "0", "--stop", "x", "Once", "upon") == 0
    assert bench.out.getvalue() == "Once upon there was"
    assert bench.err.getvalue() == ""
    spawn: Spawn = generating.asked("proc.spawn")[0]
    assert (spawn.prompt, spawn.model) == ("Once upon", "")
    assert spawn.sampling == {"max_tokens": 5, "temperature": 0.0, "stop": ["x"]}
    assert bench.tracked == [7]


def test_an_interrupt_too_late_to_keep_a_process_from_starting_ends_it(generating: Any, bench: Any) -> None:
    def start(args: Spawn) -> Spawned:
        os.kill(os.getpid(), signal.SIGINT)
        return Spawned(7, 3)

    generating.handlers |= {"proc.spawn": start, "proc.kill": lambda args: None}
    assert bench.run("run", "Once") == 130
    assert bench.tracked == [7]
    assert generating.asked("proc.kill") == [Kill(7, Signal.INT)]


def test_run_takes_a_model_as_first_word(generating: Any, bench: Any, tmp_path: Path) -> None:
    weights = tmp_path / "w.gguf"
    weights.touch()
    bench.run("run", "other", "Once")
    bench.run("run", str(weights), "Once")
    bench.run("run", "other")
    bench.run("run", "-m", "x", "other", "Once")
    asked = [(spawn.model, spawn.prompt) for spawn in generating.asked("proc.spawn")]
    assert asked == [("other", "Once"), (str(weights), "Once"), ("", "other"), ("x", "other Once")]


def test_run_reads_standard_input(generating: Any, bench: Any) -> None:
    bench.run("run", stdin=b"from a pipe\n")
    bench.run("run", "other", stdin=b"text")
    bench.run("run", "Sum up:", stdin=b"text")
    asked = [(spawn.model, spawn.prompt) for spawn in generating.asked("proc.spawn")]
    assert asked == [("", "from a pipe\n"), ("other", "text"), ("", "Sum up:\ntext")]


def test_run_with_a_system_prompt_is_a_message_and_not_echoed(generating: Any, bench: Any) -> None:
    assert bench.run("run", "-s", "Be brief.", "Hi") == 0
    assert bench.out.getvalue() == " there was"
    spawn = generating.asked("proc.spawn")[0]
    assert spawn.messages == (Message("system", "Be brief."), Message("user", "Hi")) and spawn.prompt is None


def test_run_json(generating: Any, bench: Any) -> None:
    assert bench.run("run", "-o", "json", "Once") == 0
    result = json.loads(bench.out.getvalue())
    assert (result["prompt"], result["text"], result["model"], result["pid"]) == ("Once", " there was", "tiny", 7)
    usage = result["usage"]
    assert (usage["prompt_tokens"], usage["cached_tokens"], usage["generated_tokens"]) == (3, 1, 2)
    assert (result["seed"], result["reason"], result["code"]) == (5, "eos", 0)


def test_the_exit_status_is_the_process_s(generating: Any, bench: Any) -> None:
    end = ExitInfo(7, 124, Reason.LIMIT, "the limit of 5 s ran out")
    generating.handlers["proc.follow"] = lambda args: [Output(0, exit=end)]
    assert bench.run("run", "Once") == 124
    assert bench.err.getvalue() == "llmos: run: process 7: the limit of 5 s ran out\n"


@pytest.mark.parametrize(
    ("words", "stdin", "status", "message"),
    [
        (["run"], None, 2, "llmos: run: PROMPT is missing: give a text, or pipe one in\n"),
        (["run"], b"a\xffb", 1, "llmos: run: standard input is not UTF-8 (byte 1 is 0xff): convert it with iconv\n"),
        (["run", "--top-p", "2", "x"], None, 2, "llmos: run: --top-p 2.0: must be from 0 to 1\n"),
        (["run", "--logprobs", "2", "x"], None, 2, "llmos: run: --logprobs needs `-o json` or `-o jsonl`\n"),
        (["run", "--grammar", "/no/file", "x"], None, 1, "llmos: run: /no/file: no such file or directory\n"),
        (["run", "\udcff"], None, 1, "llmos: run: the prompt is not UTF-8 (character 0): convert it\n"),
        (["nosuch"], None, 127, "llmos: nosuch: no such command or file: `llmos help` lists the commands\n"),
        (
            ["kill", "%1"],
            None,
            1,
            "llmos: kill: %1: no such job: jobs belong to a running `llmos` shell; use PIDs\n",
        ),
        (
            ["renice", "20", "1"],
            None,
            2,
            "llmos: renice: N: 20 is not from -20 (most urgent) to 19: usage: renice N PID…\n",
        ),
    ],
)
def test_mistakes(
    generating: Any, bench: Any, words: list[str], stdin: bytes | None, status: int, message: str
) -> None:
    assert bench.run(*words, stdin=stdin) == status
    assert (bench.err.getvalue(), bench.out.getvalue()) == (message, "")


def test_a_gone_reader_is_silent(generating: Any, bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(text: str) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(bench.out, "write", broken)
    assert bench.run("models") == 141
    assert bench.err.getvalue() == ""


# -- listings ---


def test_ps(fake_daemon: Any, bench: Any) -> None:
    session = process(2, name="llmos", kind=Kind.SESSION)
    listed = (process(9, 2, generated_tokens=5), process(3, 9, generated_tokens=8), session)
    fake_daemon.handlers["proc.list"] = lambda args: listed
    assert bench.run("ps", "--sort", "tokens", "-q") == 0
    assert bench.out.getvalue() == "3\n9\n"
    assert bench.run("ps", "--json", "-s") == 0
    assert [row["pid"] for row in json.loads(bench.out.getvalue()[4:])] == [2, 3, 9]
    bench.run("pstree")
    assert bench.out.getvalue().endswith(
        "2 llmos [tiny] r\n└─ 9 run x [tiny] r\n   └─ 3 run x [tiny] r\n"
    )  # fmt: skip


def test_ps_takes_weights_by_name_and_by_path(fake_daemon: Any, bench: Any) -> None:
    fake_daemon.handlers["proc.list"] = lambda args: (process(9), process(10, model="/some/where/big.gguf"))
    for name in ("big", "big.gguf", "/some/where/big.gguf"):
        bench.out.truncate(bench.out.seek(0))
        assert bench.run("ps", "-q", "-m", name) == 0
        assert bench.out.getvalue() == "10\n"


def test_ps_of_pids_says_by_its_status_whether_there_are_any(fake_daemon: Any, bench: Any) -> None:
    fake_daemon.handlers["proc.list"] = lambda args: (process(9), process(10))
    assert bench.run("ps", "-q", "9") == 0
    assert bench.run("ps", "11") == 1
    assert bench.out.getvalue().splitlines()[0] == "9"


# -- acting on processes ---


def test_kill_goes_on_after_a_failure(fake_daemon: Any, bench: Any) -> None:
    def kill(args: Kill) -> None:
        if args.pid == 2:
            raise LlmosError(Code.ESRCH, "no process 2")

    fake_daemon.handlers["proc.kill"] = kill
    assert bench.run("kill", "-9", "1", "2", "3") == 1
    assert fake_daemon.asked("proc.kill") == [Kill(pid, Signal.KILL) for pid in (1, 2, 3)]
    assert bench.err.getvalue() == "llmos: kill: no process 2\n"


def test_stop_cont_renice(fake_daemon: Any, bench: Any) -> None:
    fake_daemon.handlers |= {"proc.kill": lambda args: None, "proc.nice": lambda args: None}
    assert [bench.run("stop", "5"), bench.run("cont", "-t", "5"), bench.run("renice", "-10", "5")] == [0, 0, 0]
    assert fake_daemon.asked("proc.kill") == [Kill(5, Signal.STOP), Kill(5, Signal.CONT, True)]
    assert fake_daemon.asked("proc.nice") == [Nice(5, -10)]


def test_ulimit_keeps_the_other_limits(fake_daemon: Any, bench: Any) -> None:
    fake_daemon.handlers |= {
        "proc.info": lambda args: process(args.pid, limits=Limits(tokens=10, seconds=5.0)),
        "proc.limits": lambda args: None,
    }
    assert bench.run("ulimit", "-t", "1m", "5") == 0
    assert bench.run("ulimit", "-n", "unlimited", "5") == 0
    assert fake_daemon.asked("proc.limits") == [
        SetLimits(5, Limits(tokens=10, seconds=60.0)),
        SetLimits(5, Limits(seconds=5.0)),
    ]


def test_ulimit_of_the_shell_applies_to_what_it_starts(generating: Any, bench: Any) -> None:
    bench.run("ulimit", "-n", "500", "-t", "90")
    bench.run("run", "--time-limit", "1m", "x")
    assert generating.asked("proc.spawn")[0].limits == Limits(tokens=500, seconds=60.0)


def test_nice_nohup_and_time_pass_on_what_they_mean(generating: Any, bench: Any) -> None:
    generating.handlers["proc.info"] = lambda args: process(7, generated_tokens=2, device_seconds=1.5)
    assert bench.run("time", "nice", "-n", "3", "nice", "-n", "2", "nohup", "run", "-n", "5", "x") == 0
    spawn = generating.asked("proc.spawn")[0]
    assert (spawn.nice, spawn.detached, spawn.sampling) == (5, True, {"max_tokens": 5})
    assert "device  1.50 s\ntokens  2 generated" in bench.err.getvalue()
    assert bench.tracked == [7]


# -- conversations ---


@pytest.fixture
def chatting(fake_daemon: Any) -> Any:
    """A daemon with one chat that answers every message in capitals."""
    said: list[str] = []

    def give(args: Any) -> Any:
        from llmos_shell.abi.syscalls import InputTaken

        if not args.end:
            said.append(args.text.upper())
        return InputTaken(sum(map(len, said[:-1])))

    fake_daemon.handlers |= {
        "proc.spawn": lambda args: Spawned(7),
        "proc.input": give,
        "proc.follow": lambda args: [
            Output(args.offset, said[-1]),
            Output(args.offset + len(said[-1]), turn=Reason.EOS),
        ],
        "proc.wait": lambda args: ExitInfo(7, 0, Reason.END),
        "proc.detach": lambda args: None,
        "proc.info": lambda args: process(args.pid, chat=True, sampling=Sampling()),
        "proc.fork": lambda args: __import__("llmos_shell.abi.syscalls").abi.syscalls.Forked((8,)),
        "proc.transcript": lambda args: Transcript(7, "tiny", (Turn("user", "a"), Turn("assistant", "A")), 5),
    }
    return fake_daemon


def test_chat_from_a_pipe(chatting: Any, bench: Any) -> None:
    assert bench.run("chat", "-s", "Shout.", stdin=b"hello\n\nyou\n") == 0
    assert bench.out.getvalue() == "HELLO\nYOU\n"
    spawn = chatting.asked("proc.spawn")[0]
    assert spawn.chat and spawn.messages == (Message("system", "Shout."),)
    assert [(args.text, args.end) for args in chatting.asked("proc.input")] == [
        ("hello", False),
        ("you", False),
        ("", True),
    ]


def test_chat_commands(chatting: Any, bench: Any, tmp_path: Path) -> None:
    path = tmp_path / "talk.txt"
    lines = f"/set temperature 0\n/set top_k x\n/nosuch\nhi\n/fork\n/save {path}\n//etc\n/detach\nnever"
    assert bench.run("chat", stdin=lines.encode()) == 1
    asked = chatting.asked("proc.input")
    assert [(args.text, args.sampling) for args in asked] == [("hi", {"temperature": 0.0}), ("/etc", {})]
    assert path.read_text() == "you: a\n\nmodel: A\n"
    errors = bench.err.getvalue()
    assert "/set: `x` does not fit top_k" in errors and "no command /nosuch: try /help" in errors
    assert "forked as process 8" in errors and len(chatting.asked("proc.detach")) == 1


def test_attach_to_a_conversation_leaves_it_alone(chatting: Any, bench: Any) -> None:
    sleeping = ProcessInfo(7, 1, Kind.MODEL, State.SLEEPING, KvState.RESIDENT, "chat", "tiny", 0, 0.0, 0, chat=True)
    chatting.handlers["proc.info"] = lambda args: sleeping
    assert bench.run("attach", "7", stdin=b"again\n") == 0
    assert bench.out.getvalue() == "AGAIN\n"
    assert chatting.asked("proc.detach") == [] and len(chatting.asked("proc.input")) == 1


def test_attach_to_a_generation_shows_all_of_it(generating: Any, bench: Any) -> None:
    generating.handlers |= {
        "proc.info": lambda args: process(7),
        "proc.transcript": lambda args: Transcript(
            7, "tiny", (Turn("prompt", "Once"), Turn("completion", " there")), 5, len(" there")
        ),
    }
    assert bench.run("attach", "7") == 0
    assert bench.out.getvalue() == "Once there was"


def test_log(chatting: Any, bench: Any) -> None:
    assert bench.run("log", "7") == 0
    assert bench.out.getvalue() == "you: a\n\nmodel: A"


# -- questions ---


def test_ask_puts_a_message_to_other_models(generating: Any, bench: Any) -> None:
    assert bench.run("ask", "-m", "other", "Why?") == 0
    assert generating.asked("proc.spawn")[0].messages == (Message("user", "Why?"),)
    assert bench.out.getvalue() == " there was\n"


def test_ask_consults_the_assistant(generating: Any, bench: Any) -> None:
    generating.handlers["proc.follow"] = lambda args: [Output(0, "$ ps"), Output(4, exit=ExitInfo(7, 0, Reason.EOS))]
    assert bench.run("ask", stdin=b"list processes") == 0
    assert bench.out.getvalue() == "ps\n"
    spawn = generating.asked("proc.spawn")[0]
    assert (spawn.model, spawn.sampling["temperature"], spawn.messages) == ("tiny", 0.0, None)


def test_an_assistant_s_nonsense_is_no_command(generating: Any, bench: Any) -> None:
    assert bench.run("?", "gibberish") == 1
    assert bench.out.getvalue().strip()


def test_fork(chatting: Any, bench: Any) -> None:
    assert bench.run("fork", "-n", "1", "7") == 0
    assert bench.out.getvalue() == "8\n"
