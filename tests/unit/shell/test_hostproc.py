"""Starting programs of the host."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from llmos_shell.shell.interpreter.hostproc import StartError, exit_status, start_stoppable
from llmos_shell.shell.interpreter.redirect import Files


def start(path: str, *, group: int | None = None, files: Files | None = None) -> int:
    def fail(error: StartError) -> int:
        os.write(2, str(error).encode())
        return error.status

    return start_stoppable(path, [path], {}, files or Files({}), {}, group, fail)


def test_it_leads_a_group_where_the_last_member_of_another_has_ended() -> None:
    leader = start("/bin/true", group=0)
    assert os.getpgid(leader) == leader
    follower = start("/bin/true", group=leader)
    assert os.getpgid(follower) == leader
    for pid in leader, follower:
        assert os.waitpid(pid, 0)[1] == 0
    late = start("/bin/true", group=leader)
    assert os.getpgid(late) == late
    assert os.waitpid(late, 0)[1] == 0


class StopsInTheNewProcess(dict[int, int | None]):
    """The descriptors of a program; when they are put into place, the process stops, as Ctrl-Z may make it."""

    def items(self):  # type: ignore[no-untyped-def]
        os.kill(os.getpid(), signal.SIGSTOP)
        return super().items()


def test_a_stop_before_the_program_is_executed_stops_nobody_else() -> None:
    files = Files()
    files.table = StopsInTheNewProcess()
    pid = start("/bin/true", files=files)
    assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
    os.kill(pid, signal.SIGCONT)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_script_without_interpreter_is_run_by_sh(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("exit 7\n")
    (tmp_path / "script").chmod(0o700)
    assert exit_status(os.waitpid(start(str(tmp_path / "script")), 0)[1]) == 7


@pytest.mark.parametrize(("path", "status"), [("/no/such/program", 127), ("/bin", 126)])
def test_what_cannot_be_started_says_so_itself(path: str, status: int, capfd: pytest.CaptureFixture[str]) -> None:
    assert exit_status(os.waitpid(start(path), 0)[1]) == status
    assert path in capfd.readouterr().err
