"""What is particular to the llama.cpp kernel: planning the KV cache, loading, fingerprints, mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llmos_kernel_llamacpp.engine import load
from llmos_kernel_llamacpp.planning import KvPlan, plan_kv

from llmos_shell.abi import PROTOCOL
from llmos_shell.abi.engine import Chunk
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import Message
from llmos_shell.abi.worker import Load
from llmos_shell.engine.conformance import interrupted, interrupting
from llmos_shell.testing.random_gguf import Shape, write_random_model

GIB = 1 << 30


def _spec(path: str = "x.gguf", **fields: Any) -> Load:
    return Load(PROTOCOL, path, **fields)


@pytest.mark.parametrize(
    ("spec", "trained", "per_token", "available", "plan"),
    [
        (_spec(), 2048, 640, 16 * GIB, KvPlan("split", 32, 2048, 65536)),
        (_spec(context=300), 2048, 640, 16 * GIB, KvPlan("split", 32, 300, 32 * 512)),
        (_spec(), 131072, 131072, 64 * GIB, KvPlan("shared", 32, 32768, 32768)),
        (_spec(), 4096, 131072, 8 * GIB, KvPlan("shared", 32, 4096, 16384)),
        (_spec(context=65536), 131072, 65536, 8 * GIB, KvPlan("shared", 32, 65536, 65536)),
        (_spec(layout="shared", pool_tokens=1000), 2048, 640, GIB, KvPlan("shared", 32, 1024, 1024)),
        (_spec(layout="split", slots=4, pool_tokens=2000), 2048, 640, GIB, KvPlan("split", 4, 500, 2048)),
        (_spec(slots=2, pool_tokens=4096), 2048, 640, GIB, KvPlan("split", 2, 2048, 4096)),
        (_spec(slots=3, pool_tokens=4096), 2048, 640, GIB, KvPlan("shared", 3, 2048, 4096)),
    ],
)
def test_plans(spec: Load, trained: int, per_token: int, available: int, plan: KvPlan) -> None:
    assert plan_kv(spec, trained, per_token, available) == plan


@pytest.mark.parametrize(("fields", "code"), [({"slots": 257}, Code.EINVAL), ({"context": 1 << 20}, Code.ENOMEM)])
def test_impossible_plans_are_refused(fields: dict[str, Any], code: Code) -> None:
    with pytest.raises(LlmosError) as caught:
        plan_kv(_spec(**fields), 2048, 131072, GIB)
    assert caught.value.code == code


@pytest.mark.parametrize("kv_type", ["f32", "f16", "bf16", "q8_0", "q4_0"])
def test_bytes_per_token_are_what_a_token_costs(tiny_model: str, kv_type: str) -> None:
    engine = load(_spec(tiny_model, slots=4, kv_type=kv_type, threads=1))
    sizes = []
    for position in range(2):
        engine.step([Chunk(0, position, [5], False)])
        sizes.append(len(engine.export(0)))
    engine.close()
    overhead = 12  # llama.cpp's description of a cell
    assert sizes[1] - sizes[0] == engine.info.kv_bytes_per_token + overhead


def test_fingerprints_tell_apart_what_cannot_be_exchanged(tiny_model: str, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    write_random_model(other, Shape(), seed=7)
    fingerprints = set()
    for spec in (
        _spec(tiny_model),
        _spec(tiny_model, kv_type="q8_0"),
        _spec(tiny_model, options={"deterministic": True}),
        _spec(tiny_model, options={"flash_attention": 0}),
        _spec(tiny_model, options={"flash_attention": 1}),
        _spec(str(other)),
    ):
        engine = load(spec)
        fingerprints.add(engine.info.fingerprint)
        engine.close()
    assert len(fingerprints) == 6 - (_attention(tiny_model) in (0, 1))


def _attention(model: str) -> int:
    """The kind that is chosen by itself."""
    engine = load(_spec(model))
    engine.close()
    return engine._flash


def test_images_are_good_in_any_layout_with_any_number_of_slots(tiny_model: str) -> None:
    blobs, logits = [], []
    for layout, slots in (("split", 4), ("split", 2), ("shared", 4)):
        engine = load(_spec(tiny_model, layout=layout, slots=slots, options={"flash_attention": 1}))
        engine.step([Chunk(1, 0, range(5, 45), 0)])
        blobs.append((engine.info.fingerprint, bytes(engine.export(1))))
        engine.free(1)
        for fingerprint, blob in blobs:
            assert fingerprint == engine.info.fingerprint
            engine.restore(0, blob, 40)
            logits.append(engine.step([Chunk(0, 40, [7], 1)])[0].copy())
            engine.free(0)
        for damaged in (b"", blobs[0][1][:9], blobs[0][1][:12] + b"\0" * 100):
            with pytest.raises(LlmosError):
                engine.restore(0, damaged, 40)
        engine.close()
    assert all(np.allclose(one, logits[0], atol=1e-2) for one in logits)


def test_files_that_are_no_models(tmp_path: Path, tiny_model: str) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(Path(tiny_model).read_bytes()[:-1000])
    text = tmp_path / "text.gguf"
    text.write_text("hello")
    for path, code in ((cut, Code.ENOEXEC), (text, Code.ENOEXEC), (tmp_path / "none", Code.ENOENT)):
        with pytest.raises(LlmosError) as caught:
            load(_spec(str(path)))
        assert caught.value.code == code and "\n" not in str(caught.value)


def test_wrong_kv_types(tiny_model: str, tmp_path: Path) -> None:
    small_heads = tmp_path / "small.gguf"
    write_random_model(small_heads, Shape(embedding=32, heads=4, kv_heads=4))
    for path, kv_type in ((tiny_model, "q99"), (str(small_heads), "q8_0")):
        with pytest.raises(LlmosError) as caught:
            load(_spec(path, kv_type=kv_type))
        assert caught.value.code == Code.EINVAL


def test_models_without_template_talk_plainly(tmp_path: Path) -> None:
    path = tmp_path / "base.gguf"
    write_random_model(path, Shape())
    engine = load(_spec(str(path), slots=2))
    assert not engine.info.has_chat_template
    assert engine.render([Message("user", "hi")], True) == "User: hi\nAssistant:"
    engine.close()


def test_template_gives_bos_once(tiny_model: str) -> None:
    engine = load(_spec(tiny_model, slots=2))
    tokens = engine.tokenize(engine.render([Message("user", "hi")], True), True)
    engine.close()
    assert tokens.count(1) == 1 and tokens[0] == 1


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        ("gbnf", "root ::= (", "expecting ')' at the end"),
        ("gbnf", 'other ::= "a"', "root"),
        ("gbnf", "root ::= missing", "Undefined rule identifier 'missing'"),
        ("gbnf", 'root ::= root "a"', "left recursion"),
        ("json-schema", '{"type": ', "line 1 column 10"),
        ("json-schema", "[]", "must be an object"),
        ("json-schema", '{"type": "odd"}', "odd"),
    ],
)
def test_mistakes_in_grammars_are_explained(tiny_model: str, kind: Any, text: str, says: str) -> None:
    engine = load(_spec(tiny_model, slots=2))
    with pytest.raises(LlmosError) as caught:
        engine.constraint(kind, text)
    engine.close()
    assert caught.value.code == Code.EINVAL and says in str(caught.value)


def test_tokens_that_do_not_fit_a_grammar_are_an_error_not_a_crash(tiny_model: str) -> None:
    engine = load(_spec(tiny_model, slots=2))
    constraint = engine.constraint("gbnf", 'root ::= "yes"')
    (token,) = engine.tokenize("n", False)[-1:]
    assert not constraint.allows(token)
    with pytest.raises(LlmosError):
        constraint.accept(token)
    masked = constraint.mask(np.zeros(engine.info.vocabulary, np.float32))
    assert masked[token] == -np.inf and np.isfinite(masked).any()
    constraint.close()
    constraint.close()
    engine.close()


def test_split_slots_are_computed_together_in_any_order(tiny_model: str) -> None:
    """llama.cpp would compute each of them alone unless they came in ascending order; it shows in the last bits."""
    engine = load(_spec(tiny_model, slots=6, layout="split", threads=1))
    rows = []
    for order in (range(6), (5, 2, 0, 4, 1, 3)):
        engine.step([Chunk(slot, 0, range(slot, slot + 9), False) for slot in order])
        logits = engine.step([Chunk(slot, 9, [slot], slot != 2) for slot in order])
        wanted = [slot for slot in order if slot != 2]
        rows.append(logits[[wanted.index(slot) for slot in (0, 1, 3, 4, 5)]].copy())
        for slot in order:
            engine.free(slot)
    engine.close()
    assert np.array_equal(*rows)


def test_weights_can_be_read_without_mapping_or_repacking(tiny_model: str) -> None:
    rows = []
    for options in ({}, {"mmap": False}, {"repack": False}):
        engine = load(_spec(tiny_model, slots=2, threads=1, options=options))
        rows.append(engine.step([Chunk(0, 0, [1, 5, 6], True)])[0].copy())
        engine.close()
    assert all(np.allclose(row, rows[0], atol=1e-3) for row in rows)


@pytest.mark.parametrize("options", [{"n_bacth": 5}, {"n_batch": 0}, {"mmap": "no"}, {"flash_attention": 2}])
def test_wrong_options_are_refused(tiny_model: str, options: dict[str, Any]) -> None:
    with pytest.raises(LlmosError, match="option") as caught:
        load(_spec(tiny_model, options=options))
    assert caught.value.code == Code.EINVAL


def test_no_text_has_fewer_tokens_than_the_longest_piece_allows(tiny_model: str) -> None:
    engine = load(_spec(tiny_model, slots=4, threads=1))
    longest = engine.info.longest_piece_bytes
    assert 0 < longest <= 16
    for text in ("a" * 1000, " " * 1000, "日本" * 500, "</s>" * 200):
        assert len(engine.tokenize(text, True)) * longest >= len(text.encode())
    engine.close()


def test_a_load_that_nobody_wants_any_more_ends(tiny_model: str) -> None:
    read: list[int] = []

    def progress(done: int, total: int) -> bool:
        read.append(done)
        return done < total / 2

    with pytest.raises(LlmosError) as caught:
        load(_spec(tiny_model), progress)
    assert caught.value.code == Code.EINTR
    assert read == sorted(read) and len(read) > 1


@pytest.mark.parametrize("fields", [{"layout": "split"}, {"layout": "shared"}, {"options": {"deterministic": True}}])
def test_steps_are_interrupted_also_between_micro_batches(tmp_path: Path, fields: dict[str, Any]) -> None:
    path = tmp_path / "model.gguf"
    write_random_model(path, Shape(embedding=128, layers=4, context=1024), seed=1)
    options = {"n_ubatch": 64, **fields.pop("options", {})}
    engine = load(_spec(str(path), slots=2, threads=2, options=options, **fields))
    prompts = [[(n * 7 + slot) % 500 for n in range(400)] for slot in range(2)]
    chunks = [Chunk(slot, 0, prompt, True) for slot, prompt in enumerate(prompts)]
    expected = engine.step(chunks).copy()
    for slot in range(2):
        engine.free(slot)
    with interrupting(engine):
        assert interrupted(lambda: engine.step(chunks))
    assert engine.usage().used_tokens == 0
    assert np.array_equal(engine.step(chunks), expected)
    engine.close()


BUFFERS = """
import json, re, sys, llama_cpp
from llmos_kernel_llamacpp import loading, native, planning
from llmos_shell.abi.kernel import Shape
from llmos_shell.abi.worker import Load
lines = []
log = native.lib.llama_log_callback(lambda level, text, _: lines.append(text.decode()))
native.lib.llama_log_set(log, None)
path, (embedding, feed_forward, heads, vocabulary) = sys.argv[1], map(int, sys.argv[2].split(","))
for settings in json.loads(sys.argv[3]):
    spec = Load(0, path, **settings)
    model = loading.load_model(spec, lambda *_: True)
    plan = planning.plan_kv(spec, 256, loading.kv_bytes_per_token(model, "f16"), 1 << 40)
    lines.clear()
    flash = int(spec.options.get("flash_attention", 1))
    context, _ = loading.new_context(model, spec, plan, 1, flash)
    logged = sum(map(float, re.findall(r"compute buffer size *= *([0-9.]+) MiB", "".join(lines))))
    shape = Shape(embedding, feed_forward, heads, vocabulary)
    print(logged, planning.compute_bytes(spec, shape, plan.cells, 1) / 2**20)
    native.lib.llama_free(context)
    native.lib.llama_model_free(model)
"""


@pytest.mark.parametrize("dimensions", [(512, 1536, 8, 8192), (256, 2048, 4, 512), (512, 1024, 16, 16000)])
def test_buffers_of_computation_are_no_larger_than_planned(tmp_path: Path, dimensions: tuple[int, ...]) -> None:
    embedding, feed_forward, heads, vocabulary = dimensions
    path = tmp_path / "m.gguf"
    shape = Shape(
        embedding, heads=heads, kv_heads=heads // 2, feed_forward=feed_forward, vocabulary=vocabulary, context=256
    )
    write_random_model(path, shape, quantisation="q8_0")
    settings = [
        {"layout": layout, "slots": slots, "context": 2048, "pool_tokens": slots * 2048, "options": options}
        for layout in ("shared", "split")
        for slots in (2, 16)
        for options in ({}, {"flash_attention": 0}, {"n_ubatch": 128}, {"n_ubatch": 1024})
    ]
    words = [sys.executable, "-c", BUFFERS, str(path), ",".join(map(str, dimensions)), json.dumps(settings)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found = [tuple(map(float, line.split())) for line in done.stdout.splitlines()]
    assert len(found) == len(settings)
    for (logged, planned), setting in zip(found, settings, strict=True):
        assert 0 < logged <= planned * 1.01 + 0.1, setting
        assert planned <= 2.5 * logged, setting
