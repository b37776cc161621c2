"""The GGUF reader on sound, truncated and hostile files."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.models.gguf import read_gguf
from llmos_shell.models.gguf_types import BLOCKS, TENSOR_TYPES

STORIES = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "stories260K.gguf"
U32, U64, STRING, ARRAY = 4, 10, 8, 9


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(key: str, kind: int, data: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + data


def number(key: str, value: int) -> bytes:
    return entry(key, U32, struct.pack("<I", value))


def tensor(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


ARCHITECTURE = entry("general.architecture", STRING, text("llama"))


def built(
    entries: tuple[bytes, ...] = (ARCHITECTURE,),
    tensors: tuple[bytes, ...] = (tensor("w", (4,)),),
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    counts: tuple[int | None, int | None] = (None, None),
    data: int = 16,
    alignment: int = 32,
) -> bytes:
    """A file made by hand, so that anything can be wrong with it. `counts`: claimed tensors and entries."""
    claimed = [len(real) if claim is None else claim for claim, real in zip(counts, (tensors, entries), strict=True)]
    head = magic + struct.pack("<IQQ", version, *claimed) + b"".join(entries) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + bytes(data)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model written by the reference implementation."""
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("sample")
    writer.add_block_count(2)
    writer.add_context_length(512)
    writer.add_embedding_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_float32("llama.rope.freq_base", 1e4)
    writer.add_bool("tokenizer.ggml.add_bos_token", True)
    writer.add_token_list([f"token{number}" for number in range(300)])
    writer.add_token_scores([0.5] * 300)
    writer.add_chat_template("{{ messages }}")
    writer.add_tensor("a.weight", np.ones((3, 64), np.float32))
    writer.add_tensor("b.weight", np.ones((5, 7), np.float16))
    quantised = gguf.quantize(np.ones((4, 64), np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("c.weight", quantised, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def reason(file: Path, data: bytes) -> str:
    """Why a file is refused; empty when it is not."""
    file.write_bytes(data)
    try:
        read_gguf(str(file))
    except LlmosError as error:
        assert error.code is Code.ENOEXEC
        assert "\n" not in str(error)
        assert str(file) in str(error)
        return str(error)
    return ""


class TestSound:
    def test_agrees_with_the_reference_implementation(self, model: Path) -> None:
        info, reference = read_gguf(str(model)), gguf.GGUFReader(model)
        assert info.parameters == sum(int(one.n_elements) for one in reference.tensors) == 3 * 64 + 35 + 4 * 64
        assert info.tensors == len(reference.tensors)
        assert (info.architecture, info.name, info.file_type) == ("llama", "sample", "Q8_0")
        assert (info.context, info.layers, info.embedding, info.heads) == (512, 2, 64, 4)
        assert (info.kv_heads, info.key_length, info.value_length) == ((2, 2), 16, 16)
        assert (info.vocabulary, info.chat_template) == (300, "{{ messages }}")
        assert info.size == model.stat().st_size

    def test_the_tables_agree_with_the_reference_implementation(self) -> None:
        reference = {one.value: one.name for one in gguf.GGMLQuantizationType}
        assert TENSOR_TYPES.items() <= reference.items()
        for name, sizes in BLOCKS.items():
            assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]] == sizes

    def test_kv_bytes(self, model: Path) -> None:
        info = read_gguf(str(model))
        assert info.kv_bytes_per_token() == 2 * 2 * (2 * 16) * 2
        assert info.kv_bytes_per_token("F32") == 2 * info.kv_bytes_per_token("f16")
        assert info.kv_bytes_per_token("q8_0") == 2 * 2 * 34
        with pytest.raises(LlmosError) as caught:
            info.kv_bytes_per_token("q9")
        assert caught.value.code is Code.EINVAL

    @pytest.mark.skipif(not STORIES.exists(), reason="no test weights here")
    def test_real_weights(self) -> None:
        info = read_gguf(str(STORIES))
        assert (info.architecture, info.layers, info.embedding, info.heads) == ("llama", 5, 64, 8)
        assert (info.kv_heads, info.vocabulary, info.context, info.file_type) == ((4,) * 5, 512, 2048, "F32")
        assert info.kv_bytes_per_token() == 5 * 2 * 4 * 8 * 2

    def test_the_least_there_can_be(self, file: Path) -> None:
        assert reason(file, built()) == ""
        info = read_gguf(str(file))
        assert (info.parameters, info.layers, info.kv_heads, info.file_type) == (4, 0, (), "F32")

    def test_heads_that_differ_between_layers(self, file: Path) -> None:
        heads = entry("llama.attention.head_count_kv", ARRAY, struct.pack("<IQ2I", U32, 2, 2, 0))
        entries = (ARCHITECTURE, number("llama.block_count", 2), number("llama.attention.key_length", 8), heads)
        assert reason(file, built((*entries, number("llama.attention.value_length", 4)))) == ""
        info = read_gguf(str(file))
        assert info.kv_heads == (2, 0)
        assert info.kv_bytes_per_token("f32") == 2 * 8 * 4 + 2 * 4 * 4

    def test_another_alignment(self, file: Path) -> None:
        entries = (ARCHITECTURE, number("general.alignment", 256))
        tensors = (tensor("a", (4,)), tensor("b", (4,), offset=256))
        assert reason(file, built(entries, tensors, alignment=256, data=272)) == ""
        assert "truncated" in reason(file, built(entries, tensors, alignment=256, data=271))

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(LlmosError) as caught:
            read_gguf(str(tmp_path / "none.gguf"))
        assert caught.value.code is Code.ENOENT

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(LlmosError) as caught:
            read_gguf(str(tmp_path))
        assert caught.value.code is Code.ENOEXEC


WRONG: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "truncated"),
    "text": (b"hello, this is no model at all", "begins with"),
    "version 1": (built(version=1), "version is 1"),
    "version 4": (built(version=4), "version is 4"),
    "big-endian": (built(version=3 << 24), "big-endian"),
    "no architecture": (built(()), "architecture"),
    "architecture a number": (built((number("general.architecture", 1),)), "no text"),
    "no tensors": (built(tensors=()), "no tensors"),
    "absurd tensors": (built(counts=(2**60, None)), "more than"),
    "too many tensors": (built(counts=(50_000, None)), "truncated"),
    "absurd entries": (built(counts=(None, 2**63)), "more than"),
    "too many entries": (built(counts=(None, 90_000)), "truncated"),
    "key twice": (built((ARCHITECTURE, ARCHITECTURE)), "twice"),
    "huge key": (built((struct.pack("<Q", 2**62),)), "bytes long"),
    "huge text": (built((text("general.name") + struct.pack("<IQ", STRING, 2**64 - 1),)), "bytes long"),
    "unknown type": (built((ARCHITECTURE, entry("x", 99, b""))), "unknown type 99"),
    "array of arrays": (built((ARCHITECTURE, entry("x", ARRAY, struct.pack("<IQ", ARRAY, 1)))), "array of the unknown"),
    "huge array": (built((ARCHITECTURE, entry("x", ARRAY, struct.pack("<IQ", U64, 2**61)))), "more than"),
    "long array": (built((ARCHITECTURE, entry("x", ARRAY, struct.pack("<IQ", U64, 100)))), "truncated"),
    "strings": (built((ARCHITECTURE, entry("x", ARRAY, struct.pack("<IQQ", STRING, 2, 2**63)))), "truncated"),
    "alignment 0": (built((ARCHITECTURE, number("general.alignment", 0))), "alignment"),
    "alignment 48": (built((ARCHITECTURE, number("general.alignment", 48))), "alignment"),
    "alignment text": (built((ARCHITECTURE, entry("general.alignment", STRING, text("x")))), "alignment"),
    "layers text": (built((ARCHITECTURE, entry("llama.block_count", STRING, text("x")))), "block_count"),
    "absurd layers": (built((ARCHITECTURE, number("llama.block_count", 2**31))), "block_count"),
    "absurd heads": (
        built((ARCHITECTURE, number("llama.block_count", 1), entry("llama.attention.head_count", U64, b"\xff" * 8))),
        "head_count",
    ),
    "heads of other layers": (
        built(
            (
                ARCHITECTURE,
                number("llama.block_count", 1),
                entry("llama.attention.head_count_kv", ARRAY, struct.pack("<IQ2I", U32, 2, 2, 0)),
            )
        ),
        "head_count_kv",
    ),
    "no dimensions": (built(tensors=(tensor("w", ()),)), "0 dimensions"),
    "five dimensions": (built(tensors=(tensor("w", (1,) * 5),)), "5 dimensions"),
    "overflowing shape": (built(tensors=(tensor("w", (2**32, 2**32)),)), "impossible shape"),
    "empty shape": (built(tensors=(tensor("w", (4, 0)),)), "impossible shape"),
    "unknown tensor type": (built(tensors=(tensor("w", (4,), 4),)), "unknown type 4"),
    "half a block": (built(tensors=(tensor("w", (33,), 8),)), "no multiple of 32"),
    "long name": (built(tensors=(tensor("w" * 64, (4,)),)), "64 bytes long"),
    "name twice": (built(tensors=(tensor("w", (4,)), tensor("w", (4,), offset=32))), "twice"),
    "misaligned": (built(tensors=(tensor("v", (4,)), tensor("w", (4,), offset=16)), data=99), "expected at 32"),
    "overlap": (built(tensors=(tensor("v", (4,)), tensor("w", (4,))), data=99), "expected at 32"),
    "offset beyond": (built(tensors=(tensor("w", (4,), offset=2**63),)), "expected at 0"),
    "data beyond": (built(tensors=(tensor("w", (5,)),)), "truncated"),
}


class TestUnsound:
    @pytest.mark.parametrize("name", WRONG)
    def test_says_what_is_wrong(self, name: str, file: Path) -> None:
        data, why = WRONG[name]
        assert why in reason(file, data)

    @pytest.mark.parametrize("part", range(60))
    def test_truncated_anywhere(self, part: int, model: Path, file: Path) -> None:
        data = model.read_bytes()
        padding = -(4 * 64 // 32 * 34) % 32  # after the last tensor
        assert "truncated" in reason(file, data[: (len(data) - padding) * part // 60])

    def test_a_single_byte_missing(self, model: Path, file: Path) -> None:
        padding = -(4 * 64 // 32 * 34) % 32
        data = model.read_bytes()
        assert reason(file, data[: len(data) - padding]) == ""
        assert "truncated" in reason(file, data[: len(data) - padding - 1])

    @given(data=st.data())
    @settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    def test_mutated_files_never_do_worse_than_be_refused(self, data: st.DataObject, model: Path, file: Path) -> None:
        content = bytearray(model.read_bytes())
        header = content.find(b"c.weight") + 60
        for _ in range(data.draw(st.integers(1, 3))):
            position = data.draw(st.integers(0, header))
            patch = data.draw(st.binary(min_size=1, max_size=8))
            content[position : position + len(patch)] = patch
        reason(file, bytes(content))

    @given(noise=st.binary(max_size=200))
    @settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    def test_noise_after_the_header(self, noise: bytes, file: Path) -> None:
        assert reason(file, b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + noise)

    def test_memory_is_not_taken_on_trust(self, file: Path) -> None:
        hostile: tuple[Any, ...] = tuple(data for data, _ in WRONG.values())
        tracemalloc.start()
        try:
            for data in hostile:
                reason(file, data)
            assert tracemalloc.get_traced_memory()[1] < 2_000_000
        finally:
            tracemalloc.stop()


def test_where_the_bytes_of_a_model_are(tmp_path: Path) -> None:
    from llmos_shell.testing.random_gguf import Shape, write_random_model

    write_random_model(tmp_path / "m.gguf", Shape(embedding=64, layers=3, feed_forward=128, vocabulary=512))
    info = read_gguf(str(tmp_path / "m.gguf"))
    block = 4 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128 + 2 * 64)
    assert info.block_bytes == (block,) * 3
    assert info.output_bytes == 4 * (512 * 64 + 64)
    assert (info.largest_bytes, info.feed_forward) == (4 * 64 * 128, 128)


def test_a_token_passes_all_experts_that_are_used_for_it(file: Path) -> None:
    entries = [ARCHITECTURE, number("llama.expert_used_count", 4), number("llama.expert_feed_forward_length", 100)]
    file.write_bytes(built((*entries, number("llama.feed_forward_length", 300))))
    assert read_gguf(str(file)).feed_forward == 400
