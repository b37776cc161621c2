"""A worker process as the daemon sees it: handshake, steps, failures, end of file. Both kernels."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from llmos_kernel_llamacpp.manifest import MANIFEST as LLAMACPP
from msgspec import Struct, msgpack

from llmos_shell.abi import PROTOCOL
from llmos_shell.abi import worker as abi
from llmos_shell.abi.framing import Splitter, encode
from llmos_shell.abi.kernel import KernelManifest
from llmos_shell.abi.types import Sampling
from llmos_shell.testing.scripted import computed
from llmos_shell.testing.scripted_manifest import MANIFEST as SCRIPTED

T = TypeVar("T")


class Worker:
    """A worker process and the daemon's end of its socket."""

    def __init__(self, manifest: KernelManifest) -> None:
        self.socket, theirs = socket.socketpair()
        with theirs:
            argv = [part.format(python=sys.executable) for part in manifest.argv]
            self.process = subprocess.Popen([*argv, str(theirs.fileno())], pass_fds=[theirs.fileno()])
        self._splitter = Splitter()
        self._decoder: msgpack.Decoder[abi.ToDaemon] = msgpack.Decoder(abi.ToDaemon)
        self._messages = self._read()

    def send(self, *messages: Struct) -> None:
        self.socket.sendall(b"".join(map(encode, messages)))

    def expect(self, kind: type[T]) -> T:
        """The next message of a kind; others are passed over."""
        return next(message for message in self._messages if isinstance(message, kind))

    def load(self, path: str, **spec: Any) -> abi.ModelInfo:
        self.expect(abi.Hello)
        self.send(abi.Load(PROTOCOL, path, **spec))
        return self.expect(abi.Ready).info

    def close(self) -> None:
        self.socket.close()
        self.process.kill()
        self.process.wait()

    def _read(self) -> Iterator[abi.ToDaemon]:
        while data := self.socket.recv(1 << 16):
            yield from map(self._decoder.decode, self._splitter.feed(data))


@pytest.fixture
def scripted() -> Iterator[Worker]:
    worker = Worker(SCRIPTED)
    yield worker
    worker.close()


@pytest.fixture
def llama() -> Iterator[Worker]:
    worker = Worker(LLAMACPP)
    yield worker
    worker.close()


def _turn(worker: Worker, seq: int) -> tuple[str, str]:
    """Text and reason of a turn."""
    text = ""
    while True:
        step = worker.expect(abi.Step)
        text += "".join(row.text for row in step.rows if row.seq == seq)
        for finished in step.finished:
            if finished.seq == seq:
                return text + finished.text, finished.reason


def test_scripted_worker_answers(scripted: Worker) -> None:
    scripted.load("scripted:", options={"reply": "héllo"})
    scripted.send(abi.Tokenize(7, text="say>"))
    tokens = scripted.expect(abi.Tokens)
    assert tokens.id == 7
    scripted.send(abi.Open(1, tokens.tokens, len(tokens.tokens), Sampling(seed=1)), abi.Run((abi.Grant(1, 100),), 16))
    assert _turn(scripted, 1) == ("héllo", "eos")
    scripted.send(abi.Close())
    assert scripted.process.wait() == 0


def test_an_interrupt_before_the_first_step_is_none(scripted: Worker) -> None:
    scripted.expect(abi.Hello)
    scripted.send(abi.Load(PROTOCOL, "scripted:", options={"reply": "héllo"}), abi.Interrupt())
    scripted.expect(abi.Ready)
    scripted.send(abi.Open(1, tuple(b"say>"), 4, Sampling(seed=1)), abi.Run((abi.Grant(1, 100),), 16))
    assert _turn(scripted, 1) == ("héllo", "eos")


def test_llama_worker_answers(llama: Worker, tiny_model: str) -> None:
    info = llama.load(tiny_model, slots=4)
    assert info.has_chat_template and info.slots == 4
    llama.send(abi.Tokenize(1, text="hello"))
    tokens = llama.expect(abi.Tokens).tokens
    sampling = Sampling(temperature=0, max_tokens=10, ignore_eos=True)
    llama.send(abi.Open(1, tokens, len(tokens), sampling), abi.Run((abi.Grant(1, 100),), 16))
    assert _turn(llama, 1)[1] == "length"
    llama.send(abi.Close())
    assert llama.process.wait() == 0


def test_end_of_file_ends_a_busy_worker(scripted: Worker) -> None:
    scripted.load("scripted:")
    scripted.send(abi.Open(1, (1, 2), 2, Sampling(seed=1)), abi.Run((abi.Grant(1, 1000),), 16))
    scripted.expect(abi.Step)
    scripted.socket.close()
    assert scripted.process.wait() == 0


def test_interrupts_of_the_terminal_do_not_reach_it(scripted: Worker) -> None:
    scripted.load("scripted:")
    os.kill(scripted.process.pid, signal.SIGINT)
    scripted.send(abi.Tokenize(1, text="x"))
    assert scripted.expect(abi.Tokens).id == 1


def test_a_text_is_read_while_a_step_is_under_way(scripted: Worker) -> None:
    scripted.load("scripted:", options={"hang_at_token": 4})
    scripted.send(abi.Open(1, (256, 97), 2, Sampling(seed=1)), abi.Run((abi.Grant(1, 1000),), 16), abi.Fence(1))
    scripted.expect(abi.Fenced)
    scripted.send(abi.Tokenize(2, text="hi"))
    assert scripted.expect(abi.Tokens) == abi.Tokens(2, (256, 104, 105))


def test_failed_load_is_told(scripted: Worker, llama: Worker, tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF but not really")
    scripted.expect(abi.Hello)
    scripted.send(abi.Load(PROTOCOL, "scripted:", options={"fail_load": "no luck"}))
    assert scripted.expect(abi.Failed) == abi.Failed(None, "ENOEXEC", "no luck")
    assert scripted.process.wait() == 1
    llama.expect(abi.Hello)
    llama.send(abi.Load(PROTOCOL, str(bad)))
    failed = llama.expect(abi.Failed)
    assert failed.code == "ENOEXEC" and "\n" not in failed.message
    assert llama.process.wait() == 1


def test_another_protocol_is_refused(scripted: Worker) -> None:
    scripted.expect(abi.Hello)
    scripted.send(abi.Load(PROTOCOL + 1, "scripted:"))
    assert scripted.expect(abi.Failed).code == "EPROTO"
    assert scripted.process.wait() == 1


def test_crash_happens_once_and_nothing_is_computed_twice(tmp_path: Path) -> None:
    options = {"crash_at_token": 20, "marker": str(tmp_path / "crashed"), "counter": str(tmp_path / "computed")}
    texts: list[str] = []
    known: list[int] = [256, 104, 105]
    image = str(tmp_path / "image")
    for attempt in range(2):
        worker = Worker(SCRIPTED)
        worker.load("scripted:", options=options)
        sampling = Sampling(temperature=0, max_tokens=30)
        source = abi.ImageFile(image) if attempt else None
        worker.send(abi.Open(1, tuple(known), 3, sampling, source), abi.Run((abi.Grant(1, 12),), 16))
        assert worker.expect(abi.Opened).reused == (11 if attempt else 0)
        if not attempt:
            while len(known) < 12:
                known += [row.token for row in worker.expect(abi.Step).rows]
            worker.send(abi.Export(1, image))
            worker.expect(abi.Exported)
            worker.send(abi.Run((abi.Grant(1, 100),), 16))
            assert worker.process.wait() == 70
        else:
            worker.send(abi.Run((abi.Grant(1, 100),), 16))
            texts.append(_turn(worker, 1)[0])
        worker.close()
    rows = computed(options["counter"])
    after_crash = [row for row in rows if row.position >= 11]
    assert len(texts[0]) == 33 - 12
    assert len({row.digest for row in rows}) < len(rows) and after_crash[0].position == 11
    assert len([row for row in rows if row.position < 11]) == 9


def test_a_load_tells_of_its_progress_and_ends_with_the_daemon(scripted: Worker) -> None:
    scripted.expect(abi.Hello)
    scripted.send(abi.Load(PROTOCOL, "scripted:", options={"load_seconds": 60.0}))
    told = scripted.expect(abi.LoadProgress)
    assert 0 <= told.read_bytes < told.total_bytes
    scripted.socket.close()
    assert scripted.process.wait(20) == 0


def test_the_progress_of_llama_is_that_of_its_file(llama: Worker, tiny_model: str) -> None:
    llama.expect(abi.Hello)
    llama.send(abi.Load(PROTOCOL, tiny_model))
    told = llama.expect(abi.LoadProgress)
    size = os.path.getsize(tiny_model)
    assert told.total_bytes == size and 0 <= told.read_bytes <= size
    llama.expect(abi.Ready)
