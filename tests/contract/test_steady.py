"""Steps of the option `deterministic`: how they are laid out, and that results are equal bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from llmos_kernel_llamacpp.engine import LlamaEngine, load
from llmos_kernel_llamacpp.loading import least_rows
from llmos_kernel_llamacpp.native import lib
from llmos_kernel_llamacpp.planning import KvPlan, plan_kv
from llmos_kernel_llamacpp.steady import MOST_ROWS, calls

from llmos_shell.abi import PROTOCOL
from llmos_shell.abi.engine import Chunk
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.worker import Load
from llmos_shell.testing.random_gguf import Shape, write_random_model

Logits = npt.NDArray[np.float32]
SLOTS, CONTEXT, TOKENS = 12, 600, 90
KNOWN = [(7 * index + 3) % 500 + 5 for index in range(TOKENS)]


@pytest.mark.parametrize("least", [2, 8])
@pytest.mark.parametrize("size", [2, 3, 7, 8, 62, 63, 64, 65, 126, 127, 1000])
def test_prompts_are_cut_into_pieces_of_the_right_size(size: int, least: int) -> None:
    laid = list(calls([Chunk(3, 10, list(range(size)), True)], least))
    assert all(least <= len(piece.tokens) <= MOST_ROWS for (piece,) in laid)
    assert [token for (piece,) in laid for token in piece.tokens[: piece.real]] == list(range(size))
    assert [piece.position for (piece,) in laid] == [10, *(piece.end for (piece,) in laid)][:-1]
    assert [piece.outputs for (piece,) in laid] == [0] * (len(laid) - 1) + [least]
    last = laid[-1][0]
    first = len(last.tokens) - last.outputs
    assert (first + last.rows.start, first + last.rows.stop) == (last.real - 1, last.real)


@pytest.mark.parametrize("least", [2, 8])
@pytest.mark.parametrize(("size", "wanted"), [(2, 2), (3, 2), (9, 9), (17, 17), (17, 3)])
def test_logits_of_several_tokens_are_those_of_the_last(size: int, wanted: int, least: int) -> None:
    ((piece,),) = calls([Chunk(3, 10, list(range(size)), wanted)], least)
    assert piece.outputs >= least and piece.real == size
    outputs = piece.tokens[len(piece.tokens) - piece.outputs :]
    assert outputs[piece.rows] == list(range(size))[-wanted:]


@pytest.mark.parametrize("least", [2, 8])
def test_neighbours_are_decoded_together(least: int) -> None:
    chunks = [Chunk(slot, slot, [slot], True) for slot in (5, 1, 2, 7, 3)]
    laid = list(calls(chunks, least))
    assert [[piece.slot for piece in pieces] for pieces in laid] == [[1, 2, 3], [5], [7]]
    for pieces in laid:
        assert least <= sum(len(piece.tokens) for piece in pieces) < least + len(pieces)
        assert len({len(piece.tokens) for piece in pieces}) == 1
        assert all(piece.rows == slice(0, 1) and chunks[piece.chunk].slot == piece.slot for piece in pieces)


def test_plans_leave_room_for_made_up_tokens() -> None:
    def plan(**fields: Any) -> KvPlan:
        return plan_kv(Load(PROTOCOL, "x", options={"deterministic": True}, **fields), 131072, 1024, 16 << 30)

    assert plan(context=512, slots=4) == KvPlan("split", 4, 512, 4 * 768)
    assert plan(pool_tokens=4096, slots=4) == KvPlan("split", 4, 1016, 4096)
    assert plan(slots=32).layout == "split" and plan(slots=32).cells <= (4 << 30) // 1024
    with pytest.raises(LlmosError) as caught:
        plan(layout="shared")
    assert caught.value.code == Code.EINVAL


@pytest.mark.parametrize(("file_type", "least"), [(0, 2), (1, 2), (7, 2), (32, 2), (2, 8), (15, 8), (1024, 8)])
def test_rows_depend_on_the_type_of_the_weights(file_type: int, least: int) -> None:
    assert least_rows(file_type) == least


@pytest.fixture(scope="module", params=[0, 7, 15], ids=["f32", "q8_0", "q4_k_m"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaEngine]:
    folder = tmp_path_factory.mktemp("steady")
    path = folder / "model.gguf"
    shape = Shape(embedding=256, heads=4, kv_heads=2, feed_forward=512, context=2048)
    write_random_model(folder / "unnamed.gguf", shape)
    params = lib.llama_model_quantize_default_params()  # the file then says of what type it is
    params.ftype = request.param
    assert lib.llama_model_quantize(bytes(folder / "unnamed.gguf"), bytes(path), params) == 0
    options = {"deterministic": True}
    engine = load(Load(PROTOCOL, str(path), slots=SLOTS, context=CONTEXT, threads=1, options=options))
    yield engine
    engine.close()


@pytest.fixture
def expected(engine: LlamaEngine) -> Logits:
    """Logits after all of `KNOWN`, decoded alone."""
    for position in range(TOKENS):
        logits = engine.step([Chunk(0, position, KNOWN[position : position + 1], True)])
    result: Logits = logits[0].copy()
    engine.free(0)
    return result


@pytest.mark.parametrize("size", [2, 7, 8, 9, 63, 64, 65, TOKENS])
def test_replay_is_exact(engine: LlamaEngine, expected: Logits, size: int) -> None:
    for at in range(0, TOKENS, size):
        logits = engine.step([Chunk(1, at, KNOWN[at : at + size], True)])
    engine.free(1)
    assert np.array_equal(logits[0], expected)


@pytest.mark.parametrize("count", [2, 5, SLOTS])
def test_company_is_exact(engine: LlamaEngine, expected: Logits, count: int) -> None:
    for position in range(TOKENS):
        engine.set_threads(1 + position % 2)
        logits = engine.step([Chunk(s, position, KNOWN[position : position + 1], True) for s in reversed(range(count))])
    engine.set_threads(1)
    for slot in range(count):
        engine.free(slot)
    assert all(np.array_equal(row, expected) for row in logits)


@pytest.mark.parametrize("guesses", [1, 3, 7, 12, 16])
def test_guesses_are_exact(engine: LlamaEngine, guesses: int) -> None:
    alone = []
    for position in range(TOKENS):
        alone.append(engine.step([Chunk(0, position, KNOWN[position : position + 1], 1)])[0].copy())
    assert engine.info.most_guesses >= guesses
    engine.free(0)
    for at in range(0, TOKENS - guesses - 1, guesses):  # the last guess is taken back each time
        beside = Chunk(2, at, KNOWN[at : at + 1], 1)
        logits = engine.step([Chunk(0, at, KNOWN[at : at + 1 + guesses], 1 + guesses), beside])
        assert np.array_equal(logits, [*alone[at : at + 1 + guesses], alone[at]])
        engine.truncate(0, at + guesses)
        if guesses > 1:
            engine.step([Chunk(2, at + 1, KNOWN[at + 1 : at + guesses], 0)])
    engine.free(0)
    engine.free(2)


def test_threads_are_exact_over_many_cells(engine: LlamaEngine) -> None:
    rows = []
    engine.step([Chunk(0, 0, (KNOWN * 7)[: CONTEXT - 1], False)])
    for threads in (1, 2):
        engine.set_threads(threads)
        engine.truncate(0, CONTEXT - 1)
        rows.append(engine.step([Chunk(0, CONTEXT - 1, [5], True)])[0].copy())
    engine.set_threads(1)
    engine.free(0)
    assert np.array_equal(*rows)


def test_no_room_changes_nothing(engine: LlamaEngine, expected: Logits) -> None:
    engine.step([Chunk(0, 0, KNOWN[:-1], False)])
    engine.step([Chunk(1, 0, (KNOWN * 9)[:760], False)])
    with pytest.raises(LlmosError) as caught:
        engine.step([Chunk(0, TOKENS - 1, KNOWN[-1:], True), Chunk(1, 760, [5], True)])
    assert caught.value.code == Code.ENOMEM
    assert np.array_equal(engine.step([Chunk(0, TOKENS - 1, KNOWN[-1:], True)])[0], expected)
    engine.free(0)
    engine.free(1)


@pytest.mark.parametrize("seed", [1, 2])
def test_any_history_is_exact(engine: LlamaEngine, expected: Logits, seed: int) -> None:
    """Cut, parked, forked, dropped, and computed in any company."""
    random, held = Random(seed), [0] * SLOTS
    reached = 0
    for _ in range(150):
        chunks = []
        for slot in random.sample(range(SLOTS), random.randrange(1, SLOTS)):
            count = min(random.choice([1, 1, 1, 2, 9, 70]), TOKENS - held[slot])
            if count:
                chunks.append(Chunk(slot, held[slot], KNOWN[held[slot] : held[slot] + count], random.random() < 0.8))
                held[slot] += count
        logits = engine.step(chunks)
        for row, chunk in zip(logits, (chunk for chunk in chunks if chunk.logits), strict=True):
            if held[chunk.slot] == TOKENS:
                assert np.array_equal(row, expected)
                reached += 1
        source, target = random.sample(range(SLOTS), 2)
        action = random.choice(["cut", "park", "fork", "drop"])
        if action == "cut":
            held[source] = random.randrange(held[source] + 1)
            engine.truncate(source, held[source])
        elif action == "drop":
            engine.free(source)
            held[source] = 0
        elif held[source]:
            engine.free(target)
            held[target] = held[source]
            if action == "fork":
                engine.copy(source, target, held[source])
            else:
                blob = bytes(engine.export(source))
                engine.free(source)
                held[source] = 0
                engine.restore(target, blob, held[target])
    for slot in range(SLOTS):
        engine.free(slot)
    assert reached > 10
