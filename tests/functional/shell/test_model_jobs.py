"""Job control of model processes: `&`, `$!`, Ctrl-C, Ctrl-Z, `fg`, `bg`, `wait` and `kill`, alone and in pipelines."""

import os
import re
import sys

import pexpect
import pytest

from llmos_shell.abi.syscalls import PROC_INFO, PROC_LIST, PROC_TRANSCRIPT, List, Pid
from llmos_shell.abi.types import State
from llmos_shell.testing.hurry import begin_to_hurry
from llmos_shell.testing.retry import retry_until

pytestmark = pytest.mark.llmos(
    models={
        "scripted": {"end_after": 20},
        "slow": {"end_after": 900, "step_seconds": 0.01},
        "endless": {"step_seconds": 0.01, "pages": 4096},
    }
)


@pytest.fixture
def shell(daemon, open_shell):
    return open_shell(dict(os.environ))


def processes(client):
    return [each for each in client.call(PROC_LIST, List(all=True)) if each.kind == "model"]


def wait_for(client, state):
    """The one model process, once it is in that state."""

    def found():
        return [each for each in processes(client) if each.state is state]

    return retry_until(found)[-1]


def text_of(client, pid):
    return client.call(PROC_TRANSCRIPT, Pid(pid)).turns[-1].text


def test_background_gives_its_pid(shell, client):
    output = shell.run("run -m slow hello > out & echo pid $!")
    pid = int(re.match(r"\[1\] (\d+)\npid \1\Z", output).group(1))
    assert pid in [each.pid for each in processes(client)]
    begin_to_hurry()
    assert shell.run("wait $!; echo $?").endswith("0")
    assert shell.run("cat out; echo").startswith("hello")


def test_scripts_wait_for_model_processes(shell, tmp_path):
    (tmp_path / "script").write_text("run -n 3 a > a & p=$!\nrun -n 3 b > b &\nwait $p; echo $?; wait; cat a b\n")
    output = shell.run(f"{sys.executable} -P -m llmos_shell ./script; echo")
    assert re.match(r"0\na.*b", output, re.DOTALL)


def test_interrupt(shell, client):
    shell.sendline("run --no-echo -m endless x; echo not here")
    wait_for(client, State.RUNNING)
    shell.sendintr()
    shell.expect_prompt()
    assert "not here" not in shell.seen.replace("echo not here", "")
    assert shell.run("echo $?") == "130"


def test_stop_and_continue_in_the_foreground(shell, client):
    shell.sendline("run --no-echo -m slow x")
    pid = wait_for(client, State.RUNNING).pid
    retry_until(lambda: client.call(PROC_INFO, Pid(pid)).generated_tokens > 5)
    shell.sendcontrol("z")
    shell.expect(r"\r\n\[1\]\+  Stopped +run --no-echo -m slow x")
    before = shell.seen.replace("run --no-echo -m slow x\r\n", "")
    shell.expect_prompt()
    assert wait_for(client, State.STOPPED).pid == pid
    assert "Stopped" in shell.run("jobs")
    begin_to_hurry()
    shell.sendline("fg")
    shell.expect("run --no-echo -m slow x\r\n")
    shell.expect_prompt()
    assert before + shell.seen.split("\r\n")[0] == text_of(client, pid)
    assert shell.run("jobs; echo $?") == "0"


def test_stop_and_continue_in_the_background(shell, client):
    shell.sendline("run --no-echo -m slow x > out")
    wait_for(client, State.RUNNING)
    shell.sendcontrol("z")
    shell.expect("Stopped")
    shell.expect_prompt()
    begin_to_hurry()
    assert "run --no-echo -m slow x > out &" in shell.run("bg")
    assert shell.run("wait %1; echo $?").endswith("0")


def test_kill_by_job(shell, client):
    shell.run("run -m endless x > out &")
    assert shell.run("kill %1; wait %1; echo $?").endswith("143")


def test_stopped_job_can_be_killed(shell, client):
    shell.sendline("run -m endless x > out")
    wait_for(client, State.RUNNING)
    shell.sendcontrol("z")
    shell.expect("Stopped")
    shell.expect_prompt()
    assert shell.run("kill %1; wait %1; echo $?").endswith("143")


@pytest.mark.parametrize("line", ["run --no-echo -m endless x | cat", "/bin/echo x | run -m endless | cat"])
def test_interrupt_of_a_pipeline(shell, client, line):
    shell.sendline(line)
    pid = wait_for(client, State.RUNNING).pid
    shell.sendintr()
    shell.expect_prompt()
    assert retry_until(lambda: client.call(PROC_INFO, Pid(pid)).exit) is not None
    assert shell.run("echo alive") == "alive"


def test_stop_and_continue_of_a_pipeline(shell, client):
    shell.sendline("/bin/echo x | run --no-echo -m slow | cat")
    pid = wait_for(client, State.RUNNING).pid
    shell.sendcontrol("z")
    shell.expect("Stopped")
    shell.expect_prompt()
    assert wait_for(client, State.STOPPED).pid == pid
    begin_to_hurry()
    shell.sendline("fg")
    shell.expect("cat\r\n")
    shell.expect_prompt()
    assert client.call(PROC_INFO, Pid(pid)).exit.code == 0


def test_processes_go_with_the_shell(shell, client):
    shell.run("run -m endless x > out &")
    assert "running jobs" in shell.run("exit")
    shell.sendline("exit")
    shell.expect(pexpect.EOF)
    retry_until(lambda: all(each.exit is not None for each in processes(client)))


def test_disowned_processes_stay(shell, client):
    shell.run("run -m endless x > out &")
    shell.run("disown %1")
    shell.sendline("exit")
    shell.expect(pexpect.EOF)
    assert [each.session for each in processes(client) if each.exit is None] == [0]


@pytest.mark.parametrize(
    "line", ["run -m slow hello > out", "run -m slow hello | cat > out", "nice run -m slow hello > out"]
)
def test_disowned_output_is_written_to_its_end(shell, client, tmp_path, line):
    shell.run(f"{line} &")
    process = wait_for(client, State.RUNNING)
    retry_until(lambda: len((tmp_path / "out").read_text()) > len("hello"))
    shell.run("disown")
    shell.sendline("exit")
    retry_until(lambda: not shell.isalive())  # while `cat` may still have the terminal
    begin_to_hurry()
    retry_until(lambda: wait_for_end(client, process.pid))
    retry_until(lambda: (tmp_path / "out").read_text() == "hello" + text_of(client, process.pid))


@pytest.mark.parametrize(
    "line", ["{ run -m endless a; run b; } > out", "run -o json -m endless a > out", "while :; do :; done"]
)
def test_what_the_shell_itself_runs_cannot_be_disowned(shell, client, line):
    shell.run(f"{line} &")
    output = shell.run("disown; echo $?")
    assert "is run by this shell, and would end with it" in output and output.endswith("1")
    assert "Running" in shell.run("jobs")
    shell.run("kill %1")


def test_disowned_right_away(shell, client, tmp_path):
    shell.run("run -m slow hello > out & disown")
    process = wait_for(client, State.RUNNING)
    shell.close(force=True)
    begin_to_hurry()
    retry_until(lambda: wait_for_end(client, process.pid))
    retry_until(lambda: (tmp_path / "out").read_text() == "hello" + text_of(client, process.pid))


def test_nohup_output_outlives_the_terminal(shell, client, tmp_path):
    shell.run("nohup run -m slow hello > out &")
    process = wait_for(client, State.RUNNING)
    retry_until(lambda: len((tmp_path / "out").read_text()) > len("hello"))
    shell.close(force=True)
    begin_to_hurry()
    retry_until(lambda: wait_for_end(client, process.pid))
    retry_until(lambda: (tmp_path / "out").read_text() == "hello" + text_of(client, process.pid))


def wait_for_end(client, pid):
    return client.call(PROC_INFO, Pid(pid)).exit is not None
