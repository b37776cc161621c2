"""The recipe in small: tokenizer, training and export fit together and are reproducible."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")

from llmos_shell.shell.assistant import finish  # noqa: E402
from llmos_shell.training import data, export, fit, measure, phrases, tokens  # noqa: E402
from llmos_shell.training.network import Network, Shape  # noqa: E402


def small_network(said: list[str]) -> tuple[Network, tokens.Tokenizer]:
    pairs = [(p.prepared.prompt, p.target or "") for p in data.training_pairs(phrases.load(), 600, frozenset())]
    tokenizer = tokens.learn((text for pair in pairs for text in pair), 500)
    shape = Shape(len(tokenizer), width=32, layers=1, heads=2, hidden=64)
    torch.set_num_threads(1)
    return fit.fit(tokenizer, shape, pairs, fit.Plan(epochs=6, batch=32), said.append), tokenizer


@pytest.fixture(scope="module")
def trained() -> tuple[Network, tokens.Tokenizer, list[str]]:
    said: list[str] = []
    return *small_network(said), said


def test_loss_falls(trained: tuple[Network, tokens.Tokenizer, list[str]]) -> None:
    report = trained[2]
    assert report and report[-1].startswith("step 100/114 loss ")
    assert float(report[-1].split()[3]) < 6


def test_training_is_reproducible(trained: tuple[Network, tokens.Tokenizer, list[str]]) -> None:
    again, tokenizer = small_network([])
    assert tokenizer.tokens == trained[1].tokens
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), trained[0].parameters(), strict=True))


def test_exported_file_runs_under_the_grammar(
    trained: tuple[Network, tokens.Tokenizer, list[str]], tmp_path: Path
) -> None:
    export.write(tmp_path / "small.gguf", trained[0], trained[1])
    assistant = measure.Assistant(tmp_path / "small.gguf", threads=1)
    for pair in data.held_out_pairs(phrases.load(), 1)[::20]:
        completion = assistant.complete(pair.prepared)
        proposal = finish(pair.prepared, completion)
        assert proposal.kind != "unknown" or completion.strip() == proposal.text
