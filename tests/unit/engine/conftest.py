"""A loop on a scripted engine, driven without a process."""

from __future__ import annotations

from typing import Any

import pytest

from llmos_shell.abi import PROTOCOL
from llmos_shell.abi import worker as abi
from llmos_shell.abi.types import Sampling
from llmos_shell.engine.loop import Loop
from llmos_shell.testing.scripted import BOS, ScriptedEngine, load

GREEDY = Sampling(temperature=0)


def opened(answer: abi.ToDaemon) -> tuple[int, int, str]:
    """What it says but for how long it took."""
    assert isinstance(answer, abi.Opened)
    return answer.seq, answer.reused, answer.note


class Bench:
    """A loop and everything it said."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self.engine = engine
        self.loop = Loop(engine)
        self.steps: list[abi.Step] = []
        self.others: list[abi.ToDaemon] = []
        self.text: dict[int, str] = {}
        self.tokens: dict[int, list[int]] = {}
        self.reasons: dict[int, str] = {}

    def open(self, seq: int, prompt: str | tuple[int, ...], sampling: Sampling = GREEDY, **more: Any) -> abi.ToDaemon:
        tokens = (BOS, *prompt.encode()) if isinstance(prompt, str) else prompt
        self.tokens[seq] = list(tokens)
        (answer,) = self.loop.handle(abi.Open(seq, tokens, more.pop("turn", len(tokens)), sampling, **more))
        return answer

    def feed(self, seq: int, text: str, sampling: Sampling = GREEDY, keep: int | None = None) -> list[abi.ToDaemon]:
        answers = self.loop.handle(abi.Feed(seq, tuple(text.encode()), sampling, keep))
        if not answers:
            del self.tokens[seq][len(self.tokens[seq]) if keep is None else keep :]
            self.tokens[seq] += text.encode()
            self.text[seq] = ""
        return answers

    def run(self, *grants: tuple[int, int], budget: int = 64, steps: int = 10_000) -> list[abi.Step]:
        """Grants, and steps until nothing can run (or so often); returns these steps."""
        if grants:
            self.loop.handle(abi.Run(tuple(abi.Grant(*grant) for grant in grants), budget))
        done: list[abi.Step] = []
        while self.loop.ready and len(done) < steps:
            for message in self.loop.step():
                if isinstance(message, abi.Step):
                    done.append(message)
                    self._note(message)
                else:
                    self.others.append(message)
        self.steps += done
        return done

    def free(self, seq: int) -> None:
        assert self.loop.handle(abi.Free(seq)) == []

    def _note(self, step: abi.Step) -> None:
        for row in step.rows:
            self.tokens[row.seq].append(row.token)
            self.text[row.seq] = self.text.get(row.seq, "") + row.text
        for finished in step.finished:
            self.text[finished.seq] = self.text.get(finished.seq, "") + finished.text
            self.reasons[finished.seq] = finished.reason


class BenchMaker:
    """Makes benches with options of the scripted engine."""

    def __call__(self, **options: Any) -> Bench:
        return self.of(load(abi.Load(PROTOCOL, "scripted:", options=options)))

    def of(self, engine: ScriptedEngine) -> Bench:
        return Bench(engine)


@pytest.fixture(scope="session")
def bench() -> BenchMaker:
    return BenchMaker()
