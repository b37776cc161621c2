"""Measures a GGUF file of `tiny` with llama.cpp through the whole pipeline: slots out, constrained greedy completion,
slots back in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_cpp import Llama
from llama_cpp.llama_grammar import LlamaGrammar

from llmos_shell.shell.assistant import MAX_TOKENS, Prepared, Proposal, finish, prepare
from llmos_shell.shell.assistant_forms import ANSWERS
from llmos_shell.training.data import Fresh
from llmos_shell.training.pairs import Pair


@dataclass(frozen=True)
class Wrong:
    """A question that was not answered right."""

    question: str
    right: str
    got: str


@dataclass(frozen=True)
class Score:
    """How many of `asked` questions were answered exactly right."""

    asked: int
    wrong: tuple[Wrong, ...]

    @property
    def percent(self) -> float:
        """Exactly right, in percent, to one decimal."""
        return round(100 * (self.asked - len(self.wrong)) / self.asked, 1)


class Assistant:
    """The model of a GGUF file, asked as the shell asks it."""

    def __init__(self, path: Path, threads: int = 2) -> None:
        self.llama = Llama(str(path), n_ctx=256, n_batch=256, n_threads=threads, n_threads_batch=threads, verbose=False)

    def complete(self, prepared: Prepared) -> str:
        """The completion at temperature 0 under the grammar."""
        grammar = LlamaGrammar.from_string(prepared.grammar or "", verbose=False)
        made = self.llama.create_completion(prepared.prompt, max_tokens=MAX_TOKENS, temperature=0.0, grammar=grammar)
        assert isinstance(made, dict)  # not streamed
        return made["choices"][0]["text"]

    def propose(self, prepared: Prepared) -> Proposal:
        """What the shell would show."""
        return finish(prepared, self.complete(prepared))


def score_pairs(assistant: Assistant, pairs: Sequence[Pair]) -> Score:
    """Exact matches on generated pairs."""
    wrong = []
    for pair in pairs:
        got = assistant.propose(pair.prepared)
        if got.text != pair.right:
            wrong.append(Wrong(pair.question, pair.right, got.text))
    return Score(len(pairs), tuple(wrong))


def score_fresh(assistant: Assistant, fresh: Fresh) -> Score:
    """Exact matches on the hand-written questions, where any of the right values counts."""
    wrong = []
    for question, values in fresh.questions.items():
        got = assistant.propose(prepare(question, fresh.models))
        if got.text not in [right_text(value) for value in values]:
            wrong.append(Wrong(question, " or ".join(values), got.text))
    return Score(len(fresh.questions), tuple(wrong))


def right_text(value: str) -> str:
    """The text of a value of fresh.toml."""
    return ANSWERS[value.removeprefix("say:")] if value.startswith("say:") or value == "unknown" else value
