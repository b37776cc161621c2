"""The shipped model: size, metadata, tokenizer and the figures of its card."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import gguf
import jinja2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos_shell.shell.assistant import ASK, DO, MAX_TOKENS, prepare
from llmos_shell.shell.assistant_forms import ANSWERS
from llmos_shell.training import card, data, phrases
from llmos_shell.training.measure import Assistant, score_fresh, score_pairs
from llmos_shell.training.tokens import BOS, EOS, SPACE, SPECIAL, Tokenizer

FOLDER = Path(str(files("llmos_shell.models").joinpath("builtin")))
MODEL = FOLDER / "tiny.gguf"


@pytest.fixture(scope="module")
def assistant() -> Assistant:
    return Assistant(MODEL, threads=1)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    field = gguf.GGUFReader(MODEL).fields["tokenizer.ggml.tokens"]
    return Tokenizer(field.contents(), 3 + len(SPECIAL) + 256)


def test_file_is_small_and_says_what_it_is() -> None:
    fields = gguf.GGUFReader(MODEL).fields
    assert MODEL.stat().st_size <= 8_000_000
    assert fields["general.license"].contents() == "MIT"
    assert fields["general.architecture"].contents() == "llama"
    assert "<ask>" in fields["tokenizer.chat_template"].contents()


def test_card_states_what_was_measured() -> None:
    facts = json.loads((FOLDER / "evaluation.json").read_text(encoding="utf-8"))
    for name in ("seen", "held_out", "fresh"):
        facts[name] = card.Figure(**facts[name])
    assert (FOLDER / "CARD.md").read_text(encoding="utf-8") == card.text(card.Facts(**facts))
    assert facts["bytes"] == MODEL.stat().st_size
    assert facts["held_out"].percent >= 85
    assert facts["parameters"] <= 6_000_000


def test_held_out_phrasings_are_understood(assistant: Assistant) -> None:
    """A fixed third of the questions behind the card's figure."""
    pairs = data.held_out_pairs(phrases.load(), 4)[::3]
    assert score_pairs(assistant, pairs).percent >= 85


def test_fresh_questions_score_as_the_card_says(assistant: Assistant) -> None:
    stated = json.loads((FOLDER / "evaluation.json").read_text(encoding="utf-8"))["fresh"]["right"]
    score = score_fresh(assistant, data.fresh())
    assert abs(score.asked - len(score.wrong) - stated) <= 2  # kernels for other CPUs round differently


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("which process uses the most memory", "ps --sort memory"),
        ("how do I pause a process", ANSWERS["stop"]),
        ("kill process 42", "kill 42"),
        ("list processes by memory", "ps --sort memory"),
    ],
)
def test_promised_questions(assistant: Assistant, question: str, text: str) -> None:
    assert assistant.propose(prepare(question, [])).text == text


@pytest.mark.parametrize(
    "text",
    [
        " which process uses the most memory",
        f"{ASK} kill process<n1>{DO}$ kill<n1>",
        f"{ASK}<n1><s1> x<m1>{DO} " + ANSWERS["run"],
        "  two  spaces ",
        "naïve Straße 日本語 🎉 \u200b\n\ttab",
        "",
        " ",
        "<n4> <unknown> <ask",
    ],
)
def test_tokenizer_equals_llama_cpp(assistant: Assistant, tokenizer: Tokenizer, text: str) -> None:
    assert [BOS, *tokenizer.encode(text)] == assistant.llama.tokenize(text.encode(), add_bos=True, special=True)


@settings(max_examples=300, deadline=None)
@given(text=st.text())
def test_tokenizer_equals_llama_cpp_on_any_text(assistant: Assistant, tokenizer: Tokenizer, text: str) -> None:
    theirs = assistant.llama.tokenize(text.replace("\0", "").encode(), add_bos=True, special=True)
    assert [BOS, *tokenizer.encode(text.replace("\0", ""))] == theirs


def test_llama_cpp_says_what_torch_says(assistant: Assistant, tokenizer: Tokenizer) -> None:
    """Greedy completions of every third fresh question, from the file's own weights, without a grammar."""
    pytest.importorskip("torch")
    network = _network_of(gguf.GGUFReader(MODEL), len(tokenizer))
    questions = list(data.fresh().questions)[::3]
    same = 0
    for question in questions:
        prompt = prepare(question, data.fresh().models).prompt
        made = assistant.llama.create_completion(prompt, max_tokens=MAX_TOKENS, temperature=0.0)
        assert isinstance(made, dict)
        same += made["choices"][0]["text"] == _greedy(network, tokenizer, prompt)
    assert same >= len(questions) - 2  # activations are rounded to 8 bits in llama.cpp


def _greedy(network: Any, tokenizer: Tokenizer, prompt: str) -> str:
    import torch

    question = [BOS, *tokenizer.encode(prompt)]
    said: list[int] = []
    with torch.no_grad():
        while len(said) < MAX_TOKENS:
            token = int(network(torch.tensor([question + said]))[0, -1].argmax())
            if token == EOS:
                break
            said.append(token)
    return "".join(tokenizer.tokens[token] for token in said).replace(SPACE, " ")


def _network_of(reader: gguf.GGUFReader, vocabulary: int) -> Any:
    """The torch network with the weights of a GGUF file."""
    import torch

    from llmos_shell.training.network import Network, Shape

    named = {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}
    network = Network(Shape(vocabulary)).eval()
    weights = {"embedding.weight": named["token_embd.weight"], "norm.weight": named["output_norm.weight"]}
    for number in range(network.shape.layers):
        part = {name.split(".", 2)[2]: value for name, value in named.items() if name.startswith(f"blk.{number}.")}
        layer = {
            "attention_norm": part["attn_norm.weight"],
            "qkv": np.concatenate([part[f"attn_{name}.weight"] for name in "qkv"]),
            "output": part["attn_output.weight"],
            "hidden_norm": part["ffn_norm.weight"],
            "gate_up": np.concatenate([part["ffn_gate.weight"], part["ffn_up.weight"]]),
            "down": part["ffn_down.weight"],
        }
        weights |= {f"layers.{number}.{name}.weight": value for name, value in layer.items()}
    network.load_state_dict({name: torch.tensor(np.array(value)) for name, value in weights.items()})
    return network


def test_chat_template_asks_as_the_shell_does() -> None:
    template = jinja2.Environment().from_string(gguf.GGUFReader(MODEL).fields["tokenizer.chat_template"].contents())
    question = "How do I pause a process?"
    rendered = template.render(messages=[{"role": "system", "content": "x"}, {"role": "user", "content": question}])
    assert rendered == prepare(question, []).prompt
