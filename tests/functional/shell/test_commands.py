"""`llmos COMMAND …` against a real daemon with the scripted engine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmos_shell.abi.syscalls import PROC_LIST, List
from llmos_shell.abi.types import State
from llmos_shell.testing.hurry import begin_to_hurry, hurry
from llmos_shell.testing.retry import retry_until

ENDLESS = {"scripted": {"end_after": 1_000_000, "step_seconds": 0.002, "pages": 4096}}


def test_a_first_command_starts_the_daemon(llmos: Any) -> None:
    assert llmos("status").returncode == 3
    first = llmos("ps")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.split() == ["PID", "PPID", "STATE", "KV", "NI", "CTX", "TOKENS", "TIME", "MODEL", "NAME"]
    assert json.loads(llmos("status", "--json").stdout)["auto_started"] is True
    assert llmos("daemon", "stop").returncode == 0
    assert llmos("daemon", "stop").stdout == "the daemon is not running\n"
    assert llmos("daemon", "status").returncode == 3


def test_a_home_given_by_a_relative_path(llmos: Any, llmos_home: Path, tmp_path: Path) -> None:
    home = os.path.relpath(llmos_home, tmp_path / "work")
    assert llmos("-c", "cd /; ps -s", LLMOS_HOME=home).returncode == 0
    assert json.loads(llmos("status", "--json").stdout)["home"] == str(llmos_home)


def test_run_and_what_is_left_of_it(daemon: Any, llmos: Any) -> None:
    done = llmos("run", "-n", "5", "-t", "0", "Once")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Once") and len(done.stdout) > 4
    again = llmos("run", "-n", "5", "-t", "0", "-o", "json", stdin="Once")
    result = json.loads(again.stdout)
    assert result["prompt"] + result["text"] == done.stdout
    assert (result["usage"]["generated_tokens"], result["reason"]) == (5, "length")
    assert llmos("log", str(result["pid"])).stdout == done.stdout
    assert llmos("attach", str(result["pid"])).stdout == done.stdout
    assert llmos("ps", "-q").stdout == ""
    assert str(result["pid"]) in llmos("ps", "-a", "-q").stdout.split()


def test_swapping_compressed(daemon: Any, llmos: Any) -> None:
    size = json.loads(llmos("swapon", "-s", "3M", "--json").stdout)["limit"]
    assert ", compressed" not in llmos("swapon").stdout
    said = llmos("swapon", "--compress")
    assert (said.returncode, said.stderr) == (0, "") and ", compressed: " in said.stdout
    again = json.loads(llmos("swapon", "--json").stdout)
    assert (again["compress"], again["limit"], again["packed"]) == (True, size, 0), "what was chosen holds"
    assert ", compressed" not in llmos("swapon", "--no-compress").stdout
    both = llmos("swapon", "--compress", "--no-compress")
    assert both.returncode == 2 and "exclude each other" in both.stderr


def test_every_listing_has_json(daemon: Any, llmos: Any) -> None:
    for words in ("ps -a", "pstree", "models", "kernels", "free", "status", "sched", "ulimit", "top"):
        done = llmos(*words.split(), "--json")
        assert done.returncode == 0, done.stderr
        json.loads(done.stdout)
    for line in llmos("dmesg", "--json", "-l", "debug").stdout.splitlines():
        assert json.loads(line)["level"]


@pytest.mark.llmos(shared=True)
def test_text_listings(daemon: Any, llmos: Any) -> None:
    for words in ("ps -a", "pstree", "models", "kernels", "free", "status", "sched", "ulimit", "top", "dmesg", "help"):
        done = llmos(*words.split())
        assert (done.returncode, done.stderr) == (0, "") and done.stdout
        assert "\x1b" not in done.stdout
        assert not any(line.endswith(" ") for line in done.stdout.splitlines())


@pytest.mark.llmos(shared=True)
@pytest.mark.parametrize(
    ("words", "status", "pattern"),
    [
        (["pss"], 127, r"llmos: pss: no such command or file: did you mean `ps`\?"),
        (["ps", "--nope"], 2, r"llmos: ps: unknown option --nope: .*"),
        (["--nope"], 2, r"llmos: unknown option --nope: .*"),
        (["-c"], 2, r"llmos: -c needs a SCRIPT: .*"),
        (["kill", "99"], 1, r"llmos: kill: .*99.*"),
        (["log", "99"], 1, r"llmos: log: .*99.*"),
        (["attach", "x"], 2, r"llmos: attach: PID: `x` is not a PID .*"),
        (["run", "-m", "nosuch", "x"], 1, r"llmos: run: .*nosuch.*"),
        (["run", "/no/such.gguf", "x"], 1, r"llmos: run: /no/such.gguf: no such file: .*"),
        (["-c", "mkdir d.gguf && run d.gguf x"], 1, r"llmos: run: d.gguf: is a folder, not a weights file: .*"),
        (["load", "nosuch"], 1, r"llmos: load: .*nosuch.*"),
        (["sched", "set", "nosuch"], 1, r"llmos: sched: .*nosuch.*"),
        (["help", "pss"], 1, r"llmos: help: pss: .*did you mean `ps`\?"),
        (["."], 126, r"llmos: \.: is a folder: .*"),
    ],
)
def test_a_mistake_is_one_line(daemon: Any, llmos: Any, words: list[str], status: int, pattern: str) -> None:
    done = llmos(*words)
    assert done.returncode == status, done
    assert re.fullmatch(pattern + r"\n", done.stderr), done.stderr
    assert done.stdout == ""


@pytest.mark.llmos(shared=True)
def test_bytes_that_are_no_text(daemon: Any, llmos: Any) -> None:
    done = llmos("run", stdin=b"\xff\xfe")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == "llmos: run: standard input is not UTF-8 (byte 0 is 0xff): convert it with iconv\n"


def test_help_and_version(llmos: Any) -> None:
    assert llmos("--version").stdout == llmos("version").stdout
    assert llmos("--help").stdout.startswith("usage: llmos")
    assert llmos("help", "ps").stdout == llmos("ps", "--help").stdout
    assert llmos("status").returncode == 3, "none of these needs a daemon"


HEAVY = (
    "asyncio argparse dataclasses json numpy prompt_toolkit rich subprocess torch difflib llmos_shell.lang "
    "llmos_shell.shell.interpreter.shell llmos_shell.shell.manpage"
)


@pytest.mark.llmos(shared=True)
@pytest.mark.parametrize(
    "words", [["ps"], ["ps", "-a", "--sort", "memory"], ["run", "-n", "2", "x"], ["free"], ["kill", "1"]]
)
def test_a_one_shot_command_imports_little(daemon: Any, words: list[str]) -> None:
    script = (
        "import sys; before = set(sys.modules); from llmos_shell.main import main; main(sys.argv[1:]); "
        "print(*sorted(set(sys.modules) - before), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    loaded = done.stderr.splitlines()[-1].split()
    assert "msgspec" in loaded
    assert not set(HEAVY.split()) & set(loaded)


@pytest.mark.llmos(models=ENDLESS)
def test_ctrl_c_ends_the_process_and_keeps_its_text(daemon: Any, client: Any) -> None:
    argv = [sys.executable, "-m", "llmos_shell", "run", "Once"]
    running = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout is not None and running.stdout.read(20)[:4] == b"Once"
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (130, b"")
    (process,) = client.call(PROC_LIST, List(all=True, sessions=False))
    assert process.exit.reason == "interrupt"


@pytest.mark.llmos(models=ENDLESS)
def test_a_process_ends_with_its_reader(daemon: Any, client: Any) -> None:
    argv = [sys.executable, "-m", "llmos_shell", "run", "Once"]
    running = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout is not None and running.stderr is not None
    running.stdout.read(20)
    running.stdout.close()
    assert running.wait(60) == 141
    assert running.stderr.read() == b""
    running.stderr.close()
    (process,) = client.call(PROC_LIST, List(all=True, sessions=False))
    assert process.exit.reason == "term"


@pytest.mark.llmos(models={"scripted": {"end_after": 400, "step_seconds": 0.005}})
def test_a_killed_daemon_costs_a_running_command_nothing(daemon: Any, llmos: Any) -> None:
    with hurry():
        expected = llmos("run", "-t", "0", "Once").stdout
    argv = [sys.executable, "-m", "llmos_shell", "run", "-t", "0", "Once"]
    pipe = subprocess.PIPE
    running = subprocess.Popen(argv, bufsize=0, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)
    assert running.stdout is not None
    begun = b""
    while len(begun) < 100:
        begun += running.stdout.read(100)  # without a buffer, whose rest `communicate` would know nothing of
    daemon.kill()
    begin_to_hurry()
    rest, err = running.communicate(timeout=100)
    assert (running.returncode, err) == (0, b"")
    assert (begun + rest).decode() == expected
    assert llmos("daemon", "stop").returncode == 0


def test_a_daemon_of_another_protocol_can_be_stopped(daemon: Any, llmos_home: Path) -> None:
    newer = "import llmos_shell.abi as a; a.PROTOCOL += 1; from llmos_shell.main import main; raise SystemExit(main())"

    def llmos(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-c", newer, *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    refused = llmos("ps")
    assert refused.returncode == 1 and "`llmos daemon stop` stops it" in refused.stderr
    stopped = llmos("daemon", "stop")
    assert (stopped.returncode, stopped.stdout, stopped.stderr) == (0, "", "")
    assert daemon.process.wait(timeout=30) == 0


def test_a_full_disk_is_one_line(daemon: Any, llmos_home: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "llmos_shell", "ps"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1 and done.stderr.endswith(b": no space left on device\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["run -n 3 hello", "ps"])
def test_a_full_disk_is_one_line_in_a_script_too(daemon: Any, llmos: Any, command: str) -> None:
    done = llmos("-c", f"{command} > /dev/full; echo $?")
    assert done.stdout == "1\n"
    assert done.stderr.count("\n") == 1 and done.stderr.endswith(": no space left on device\n"), done.stderr


# -- conversations ---


def test_chat_over_a_pipe_is_one_process(daemon: Any, llmos: Any) -> None:
    done = llmos("chat", "-n", "4", stdin="one\ntwo\n/show\n")
    assert done.returncode == 0, done.stderr
    assert "context" in done.stdout
    (process,) = json.loads(llmos("ps", "-a", "--json").stdout)
    assert (process["exit"]["reason"], process["generated_tokens"]) == ("end", 8)
    assert process["reused_tokens"] > 0 or process["prompt_tokens"] > 0
    turns = json.loads(llmos("log", "--json", str(process["pid"])).stdout)["turns"]
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 2


def test_bad_bytes_end_a_chat_and_leave_nothing_behind(daemon: Any, llmos: Any) -> None:
    done = llmos("chat", "-n", "2", stdin=b"one\n\xff\n")
    assert (done.returncode, done.stderr.count("UTF-8")) == (1, 1)
    assert llmos("ps", "-q").stdout == ""


def test_a_detached_chat_can_be_attached_forked_and_resumed(daemon: Any, llmos: Any) -> None:
    pid = llmos("chat", "-d", "-n", "4").stdout.strip()
    assert llmos("ps", "-q").stdout.split() == [pid]
    assert llmos("attach", pid, stdin="hello\n").stdout
    child = llmos("fork", pid).stdout.strip()
    assert llmos("attach", child, stdin="other\n/bye\n").returncode == 0
    assert llmos("ps", "-q").stdout.split() == [pid]
    assert len(json.loads(llmos("log", "--json", child).stdout)["turns"]) == 4
    assert llmos("kill", pid).returncode == 0
    retry_until(lambda: llmos("ps", "-q").stdout == "")
    resumed = llmos("chat", "--resume", pid, stdin="again\n")
    assert resumed.returncode == 0 and resumed.stdout


@pytest.mark.llmos(models=ENDLESS)
def test_stop_cont_renice_ulimit_and_kill(daemon: Any, client: Any, llmos: Any) -> None:
    pid = llmos("run", "-d", "Once").stdout.strip()

    def state() -> str:
        return json.loads(llmos("ps", "--json", pid).stdout)[0]["state"]

    assert llmos("stop", pid).returncode == 0
    retry_until(lambda: state() == State.STOPPED)
    assert llmos("renice", "-5", pid).returncode == 0
    assert llmos("cont", pid).returncode == 0
    retry_until(lambda: state() == State.RUNNING)
    assert json.loads(llmos("ps", "--json", pid).stdout)[0]["nice"] == -5
    assert llmos("ulimit", "-n", "1000000", pid).returncode == 0
    assert "1000000" in llmos("ulimit", pid).stdout
    assert llmos("kill", "-KILL", pid).returncode == 0
    done = llmos("attach", pid)
    assert done.returncode == 137


def test_nice_nohup_and_time(daemon: Any, llmos: Any) -> None:
    done = llmos("time", "nice", "-n", "5", "nohup", "run", "-n", "3", "x")
    assert done.returncode == 0
    assert re.search(r"real +\d.*\ndevice .*\ntokens +3 generated", done.stderr)
    (process,) = json.loads(llmos("ps", "-a", "--json").stdout)
    assert process["nice"] == 5


def test_time_in_a_script(daemon: Any, llmos: Any) -> None:
    script = llmos("-c", "time nice -n 5 run -n 3 x")
    assert script.returncode == 0
    assert re.search(r"\Areal .*\nuser .*\nsys .*\ndevice .*\ntokens +3 generated, .*\nfirst .*\n\Z", script.stderr), (
        script.stderr
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_bug(daemon: Any, closed: str) -> None:
    command = f'"{sys.executable}" -m llmos_shell run -n 2 x {closed}'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert (done.returncode, done.stderr) == (0, "")
