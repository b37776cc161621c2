"""Job control on a real terminal, with programs of the host: what users of any shell expect."""

import os
import re
import signal
import sys

import pexpect
import pytest

from llmos_shell.testing.retry import retry_until


@pytest.fixture
def shell(open_shell, tmp_path):
    return open_shell({"PATH": os.environ["PATH"], "LLMOS_HOME": str(tmp_path / "home")}, timeout=20)


def test_programs_have_the_terminal(shell):
    assert shell.run("test -t 0 && test -t 1 && echo terminal") == "terminal"
    shell.sendline("cat")
    shell.sendline("typed")
    shell.expect("typed")
    shell.sendeof()
    shell.expect_prompt()
    assert shell.run("echo $?") == "0"


def test_each_job_has_a_group_of_its_own(shell):
    own = int(shell.run("echo $$"))
    groups = shell.run("sh -c 'ps -o pgid= -p $$' | cat; sh -c 'ps -o pgid= -p $$'").split()
    assert len(set(groups)) == 2
    assert str(own) not in groups


def test_interrupt_ends_the_program_not_the_shell(shell):
    shell.sendline("sh -c 'echo ready; exec sleep 100'")
    shell.expect("ready\r\n")
    shell.sendintr()
    shell.expect_prompt()
    assert shell.run("echo $?") == "130"


def test_interrupt_ends_a_substitution(shell):
    shell.sendline("x=$(sh -c 'echo ready >&2; exec sleep 100')")
    shell.expect("ready\r\n")
    shell.sendintr()
    shell.expect_prompt()
    assert "error" not in shell.before
    assert shell.run("echo $?") == "130"


def test_interrupt_ends_a_loop(shell):
    shell.sendline("while true; do sh -c 'echo round; exec sleep 100'; done")
    shell.expect("round\r\n")
    shell.sendintr()
    shell.expect_prompt()
    shell.sendline("echo start; while true; do true; done")
    shell.expect("start\r\n")
    shell.sendintr()
    shell.expect_prompt()
    assert shell.run("echo $?") == "130"


def test_stop_and_continue_in_the_foreground(shell):
    shell.sendline("sh -c 'echo ready; exec cat'")
    shell.expect("ready\r\n")
    shell.sendcontrol("z")
    shell.expect(r"\[1\]\+  Stopped +sh -c")
    shell.expect_prompt()
    assert shell.run("echo $?") == "148"
    assert "Stopped" in shell.run("jobs")
    shell.sendline("fg")
    shell.expect("sh -c")
    shell.sendline("again")
    shell.expect("again")
    shell.sendeof()
    shell.expect_prompt()
    assert shell.run("jobs") == ""


def test_stop_and_continue_in_the_background(shell):
    shell.sendline("sleep 100")
    wait_until_foreground(shell, "sleep")
    shell.sendcontrol("z")
    shell.expect("Stopped")
    shell.expect_prompt()
    assert re.search(r"\[1\]\+ sleep 100 &", shell.run("bg"))
    assert "Running" in shell.run("jobs")
    assert shell.run("kill %1; wait %1; echo $?").endswith("143")


def wait_until_foreground(shell, name):
    """Waits until a program of that name has the terminal."""

    def in_foreground():
        group = os.tcgetpgrp(shell.child_fd)
        try:
            with open(f"/proc/{group}/comm") as file:
                return file.read().strip() == name
        except OSError:
            return False

    retry_until(in_foreground)


def test_stopped_pipeline_goes_on_as_a_whole(shell):
    shell.sendline("sh -c 'echo ready >&2; exec cat' | sed s/^/p:/")
    shell.expect("ready\r\n")
    shell.sendcontrol("z")
    shell.expect("Stopped")
    shell.expect_prompt()
    shell.sendline("fg")
    shell.sendline("line")
    shell.sendeof()
    shell.expect("p:line")
    shell.expect_prompt()


def test_background_job_is_announced_and_reported(shell):
    output = shell.run("sh -c 'exit 3' & wait %1; echo $?")
    assert re.match(r"\[1\] \d+\n3\Z", output)
    shell.run("sleep 100 &")
    shell.run("kill -9 %1; wait")
    assert shell.run("jobs") == ""


def test_background_program_does_not_see_interrupts(shell):
    shell.run("sleep 100 &")
    shell.sendline("sh -c 'echo ready; exec sleep 50'")
    shell.expect("ready\r\n")
    shell.sendintr()
    shell.expect_prompt()
    assert "Running" in shell.run("jobs")


def test_built_in_group_in_a_pipeline_is_interrupted(shell):
    shell.sendline("{ echo ready >&2; while true; do sleep 0.01; done; } | cat")
    shell.expect("ready\r\n")
    shell.sendintr()
    shell.expect_prompt()
    assert shell.run("echo alive") == "alive"


def test_interrupt_ends_a_pipeline_of_groups(shell):
    shell.sendline("{ while true; do sh -c 'echo ready >&2; exec sleep 100'; done; } | while read x; do echo $x; done")
    shell.expect("ready\r\n")
    shell.sendintr()
    shell.expect_prompt()
    assert shell.run("echo $?") == "130"


def test_stop_and_continue_a_pipeline_of_groups(shell):
    shell.sendline("{ sh -c 'echo ready >&2; read x; echo got $x'; } | while read x; do echo $x; done")
    shell.expect("ready\r\n")
    shell.sendcontrol("z")
    shell.expect("Stopped")
    shell.expect_prompt()
    shell.sendline("fg")
    shell.sendline("this")
    shell.expect("got this")
    shell.expect_prompt()


def test_stop_and_continue_a_pipeline_inside_of_a_group(shell):
    shell.sendline("{ sh -c 'echo ready >&2; exec cat' | sed s/^/p:/; echo after; } | while read x; do echo $x; done")
    shell.expect("ready\r\n")
    shell.sendcontrol("z")
    shell.expect("Stopped")
    assert "after" not in shell.before
    shell.expect_prompt()
    shell.sendline("fg")
    shell.expect("done\r\n")
    shell.sendline("line")
    shell.sendeof()
    shell.expect("p:line\r\nafter\r\n")
    shell.expect_prompt()


def test_interrupt_ends_a_pipeline_inside_of_a_group(shell):
    line = "sh -c 'echo ready >&2; exec sleep 100' | cat"
    shell.sendline(f"{{ while true; do {line}; done; }} | while read x; do echo $x; done")
    shell.expect("ready\r\n")
    shell.sendintr()
    shell.expect_prompt()
    assert shell.run("echo $?") == "130"


def test_stop_and_interrupt_of_a_substitution_inside_of_a_group(shell):
    line = "x=$(sh -c 'echo ready >&2; exec sleep 100')"
    shell.sendline(f"{{ while true; do {line}; done; }} | while read x; do echo $x; done")
    shell.expect("ready\r\n")
    shell.sendcontrol("z")
    shell.expect("Stopped")
    shell.expect_prompt()
    shell.sendline("fg")
    shell.expect("done\r\n")
    shell.sendintr()
    shell.expect_prompt()
    assert shell.run("echo $?") == "130"


def test_substitutions_cannot_be_stopped(shell):
    """Nobody could continue them: they are no jobs."""
    shell.run(f"{sys.executable} -P -m llmos_shell")  # it has a parent on its terminal; what has none is never stopped
    shell.sendline("x=$(sh -c 'echo ready >&2; read x; echo $x') y=$(sh -c 'echo second >&2; read x; echo $x' | cat)")
    for ready, typed in ("ready", "one"), ("second", "two"):
        shell.expect(f"{ready}\r\n")
        shell.sendcontrol("z")
        shell.sendline(typed)
    shell.expect_prompt()
    assert shell.run("echo $x $y") == "one two"


@pytest.mark.parametrize(
    "line",
    [
        "while :; do /bin/true; done",
        "while :; do /bin/true | /bin/true; done",
        "{ while :; do /bin/true; done; } | { while :; do /bin/true; done; }",
    ],
)
def test_stop_while_programs_are_started(shell, line):
    """It may come before the program is there, too."""
    for _ in range(10):
        shell.sendline(f"echo begun; {line}")
        shell.expect("begun\r\n")
        shell.sendcontrol("z")
        shell.press("c")
        shell.run("kill -9 %1 %2; wait")


def test_a_stop_that_came_earlier_is_none_of_a_pipelines_business(shell):
    shell.sendline("echo begun; while :; do :; done")
    shell.expect("begun\r\n")
    shell.sendcontrol("z")
    shell.press("c")
    shell.sendline("version | sh -c 'cat > /dev/null; read typed < /dev/tty; echo got $typed'")
    shell.sendline("this")
    shell.expect("got this")
    shell.expect_prompt()


def test_wait_waits_for_what_was_continued(shell, tmp_path):
    os.mkfifo(tmp_path / "gate")
    shell.run("sh -c 'read x < gate; exit 3' & kill -STOP %1; until jobs | grep -q Stopped; do :; done")
    assert shell.run("wait %1; echo $?") == "148"
    assert "status 3" in shell.run("kill -CONT %1; : > gate & wait %1; echo status $?")


def test_a_stopped_group_can_be_killed(shell):
    line = "{ while :; do :; done; } & kill -STOP %1; kill -KILL %1; wait %1; echo $?"  # no prompt may forget it before
    assert shell.run(line).endswith("137")


def test_several_jobs_and_their_marks(shell):
    shell.run("sleep 100 &")
    shell.run("sleep 200 &")
    listing = shell.run("jobs")
    assert re.search(r"\[1\]-  Running +sleep 100 &", listing)
    assert re.search(r"\[2\]\+  Running +sleep 200 &", listing)
    shell.run("kill %sleep 2>/dev/null; kill %1 %2")
    assert "Terminated" in shell.run("wait; jobs") or shell.run("jobs") == ""


def test_exit_warns_of_jobs_once(shell):
    shell.run("sleep 100 &")
    assert "running jobs" in shell.run("exit")
    shell.sendline("exit")
    shell.expect(pexpect.EOF)


def test_jobs_are_hung_up_when_the_shell_ends(shell):
    pid = int(shell.run("sleep 100 & echo $!").split()[-1])
    shell.sendline("exit")
    shell.expect_prompt()
    shell.sendline("exit")
    shell.expect(pexpect.EOF)
    retry_until(lambda: has_ended(pid))


def has_ended(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def test_disowned_jobs_live_on(shell):
    """They are told of the shell's end before the other job, or not at all."""
    disowned = int(shell.run("sleep 100 < /dev/null > /dev/null 2>&1 & echo $!").split()[-1])
    shell.run("disown")
    assert shell.run("jobs") == ""
    other = int(shell.run("sleep 100 & echo $!").split()[-1])
    shell.sendline("exit; exit")
    shell.expect(pexpect.EOF)
    retry_until(lambda: has_ended(other))
    assert not has_ended(disowned)
    os.kill(disowned, signal.SIGKILL)


def test_terminal_modes_come_back(shell):
    shell.run("sh -c 'stty -echo raw; kill -9 $$'")
    assert "-icanon" not in shell.run("stty -a")


def test_programs_have_default_signals(shell):
    mask = shell.run("grep SigIgn /proc/self/status").split()[-1]
    assert int(mask, 16) & ((1 << 31) - 1) == 0  # the C library keeps 32 and 33 for itself


def test_a_stopped_program_finds_the_modes_it_had_set(shell):
    shell.sendline("sh -c 'stty -icanon; echo ready; kill -STOP $$; stty -a | tr -s - +; stty sane'")
    shell.expect("Stopped")
    shell.expect_prompt()
    assert "-icanon" not in shell.run("stty -a"), "the shell has its own"
    listing = shell.run("fg")
    assert "+icanon" in listing
    assert "-icanon" not in shell.run("stty -a")
