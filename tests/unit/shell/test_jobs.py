"""Signals of jobs, and what their threads start while those are sent."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from llmos_shell.lang import ast
from llmos_shell.shell.interpreter.jobs import Job, ThreadMember

MODEL = 7


@pytest.fixture
def sent() -> list[tuple[int, str]]:
    """Signals that were sent to model processes."""
    return []


@pytest.fixture
def job(sent: list[tuple[int, str]]) -> Iterator[Job]:
    """A job whose one thread waits for `go`."""
    job = Job(ast.Simple([], [], []), group=None, signal_model=lambda pid, name: sent.append((pid, name)))
    go = threading.Event()
    member = ThreadMember(lambda _: int(not go.wait()), "test")
    job.members.append(member)
    member.start()
    yield job
    go.set()
    member.join()


def thread_of(job: Job) -> ThreadMember:
    (member,) = job.members
    assert isinstance(member, ThreadMember)
    return member


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGTERM, "TERM"), (signal.SIGSTOP, "STOP"), (signal.SIGINT, "INT")]
)
def test_a_model_process_that_starts_later_gets_the_signal_too(
    job: Job, sent: list[tuple[int, str]], number: int, name: str
) -> None:
    job.signal(number)
    assert sent == []
    job.adopt_model(MODEL, thread_of(job))
    assert sent == [(MODEL, name)]
    job.signal(signal.SIGCONT)
    assert sent == [(MODEL, name), (MODEL, "CONT")]


def test_model_processes_of_pipelines_inside_of_a_job_belong_to_it(job: Job, sent: list[tuple[int, str]]) -> None:
    inner = ThreadMember(lambda _: 0, "inside")
    job.adopt_model(MODEL, inner)
    assert sent == []
    job.signal(signal.SIGTERM)
    assert sent == [(MODEL, "TERM")]


class ContinuedJustThen(threading.Event):
    """Asked whether its job goes on, it has another thread continue it at the same time."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.other = threading.Thread(target=job.signal, args=(signal.SIGCONT,))

    def is_set(self) -> bool:
        answer = super().is_set()
        self.other.start()
        self.other.join(0.1)  # it waits, or has come first
        return answer


def test_a_program_that_starts_while_its_job_is_continued_goes_on(job: Job) -> None:
    job.going = going = ContinuedJustThen(job)
    reader, writer = os.pipe()
    pid = os.posix_spawn("/bin/cat", ["cat"], {}, file_actions=[(os.POSIX_SPAWN_DUP2, reader, 0)])
    job.adopt(pid)
    going.other.join()
    os.close(reader)
    os.close(writer)
    assert os.WIFEXITED(os.waitpid(pid, os.WUNTRACED)[1]), "it was left stopped"


def test_what_is_stopped_can_be_killed(job: Job) -> None:
    job.signal(signal.SIGSTOP)
    assert job.stopped and not job.going.is_set()
    job.signal(signal.SIGKILL)
    assert not job.stopped and job.going.is_set()
