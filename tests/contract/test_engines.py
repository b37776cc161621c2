"""Every engine passes the conformance suite, in every layout and with every KV type."""

from __future__ import annotations

from typing import Any

import pytest
from llmos_kernel_llamacpp.engine import load as load_llama

from llmos_shell.abi import PROTOCOL
from llmos_shell.abi.engine import Chunk, Engine
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.worker import Load
from llmos_shell.engine.conformance import EngineConformance
from llmos_shell.testing.scripted import load as load_scripted


@pytest.mark.parametrize("layout", ["shared", "split"])
class TestScripted(EngineConformance):
    tolerance = 0.0

    @pytest.fixture(autouse=True)
    def _configure(self, layout: str) -> None:
        self.layout: Any = layout

    def load(self, **spec: Any) -> Engine:
        options = {"most_guesses": 8, "can_resize": True}
        return load_scripted(
            Load(PROTOCOL, "scripted:", layout=self.layout, slots=5, pool_tokens=960, options=options, **spec)
        )


@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "q4_0"])
@pytest.mark.parametrize("layout", ["shared", "split"])
class TestLlama(EngineConformance):
    @pytest.fixture(autouse=True)
    def _configure(self, layout: str, kv_type: str, tiny_model: str) -> None:
        options = {"speculation": True}
        self.spec: dict[str, Any] = {"path": tiny_model, "layout": layout, "kv_type": kv_type, "options": options}
        self.tolerance = {"f16": 1e-2, "q8_0": 0.1, "q4_0": 0.5}[kv_type]

    def load(self, **spec: Any) -> Engine:
        return load_llama(Load(PROTOCOL, slots=5, pool_tokens=1280, threads=1, **self.spec, **spec))


@pytest.mark.parametrize("kv_type", ["f16", "q8_0"])
class TestLlamaDeterministic(EngineConformance):
    tolerance = 0.0

    @pytest.fixture(autouse=True)
    def _configure(self, kv_type: str, tiny_model: str) -> None:
        self.spec: dict[str, Any] = {"path": tiny_model, "kv_type": kv_type, "options": {"deterministic": True}}

    def load(self, **spec: Any) -> Engine:
        return load_llama(Load(PROTOCOL, slots=5, pool_tokens=1280, threads=2, **self.spec, **spec))

    @pytest.mark.parametrize("slots", [2, 5, 16])
    def test_a_pool_of_whole_contexts_is_enough_for_so_many_slots(self, slots: int) -> None:
        """Cells for made-up tokens come on top: nobody who resizes knows of them."""
        with self._engine() as engine:
            context = engine.info.context
            engine.resize(slots * context, slots, "split")
            assert (engine.info.slots, engine.info.context) == (slots, context)
            engine.step([Chunk(slots - 1, 0, [1] * (context - 1), 1)])


@pytest.mark.parametrize(("layout", "factor"), [("shared", 1), ("split", 3)])
def test_a_refused_pool_says_how_large_it_must_be(tiny_model: str, layout: Any, factor: int) -> None:
    engine = load_llama(Load(PROTOCOL, tiny_model, slots=2, context=512, pool_tokens=1024, threads=1, layout="split"))
    try:
        with pytest.raises(LlmosError) as caught:
            engine.resize(64, 3, layout)
        assert caught.value.code == Code.EINVAL and f"use {factor * 512} or more" in str(caught.value)
        engine.resize(factor * 512, 3, layout)
    finally:
        engine.close()
