"""Models for contract tests: random weights that are written on the spot, and real ones where they are at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmos_shell.testing.random_gguf import Shape, write_random_model

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<{{ message.role }}>{{ message.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
DATA = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with random weights, a chat template, and heads that fit quantised KV."""
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    write_random_model(path, Shape(embedding=64, heads=2, kv_heads=2, context=512), template=TEMPLATE)
    return str(path)


@pytest.fixture(scope="session")
def stories() -> Path:
    """The folder with real weights; skips where it is absent."""
    if not (DATA / "stories260K.gguf").exists():
        pytest.skip("no real test weights here")
    return DATA
