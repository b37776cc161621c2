"""Writes models with random weights: real files that engines load, without a download. For tests and benchmarks.

The text they generate means nothing, but it is deterministic. Needs the `gguf` package (extra `train`).
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import replace


class Shape(Struct, frozen=True):
    """Dimensions of a Llama-family model; `context` is what it claims to be trained for, in tokens."""

    embedding: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 128
    vocabulary: int = 512
    context: int = 256


def write_random_model(
    path: Path,
    shape: Shape,
    *,
    seed: int = 0,
    quantisation: str = "f32",
    template: str = "",
    damping: float = 1.0,
    kept: int | None = None,
) -> None:
    """Writes a GGUF file. `quantisation` is `f32` or `q8_0`; `template` a chat template, none if empty.

    What layers after the first add is multiplied by `damping`. With `kept`, only so many layers of the model are
    written: a draft of it, which agrees with it the more often the smaller the damping is.
    """
    layers = shape.layers if kept is None else kept
    writer = gguf.GGUFWriter(path, "llama")
    _write_metadata(writer, replace(shape, layers=layers), template)
    _write_vocabulary(writer, shape.vocabulary)
    kind = gguf.GGMLQuantizationType[quantisation.upper()]
    for name, tensor in _tensors(shape, np.random.default_rng(seed)):
        layer = int(name.split(".")[1]) if name.startswith("blk.") else 0
        if layer >= layers:
            continue
        if layer and name.split(".")[2] in ("attn_output", "ffn_down"):
            tensor = tensor * np.float32(damping)
        if tensor.ndim == 2 and kind != gguf.GGMLQuantizationType.F32:
            writer.add_tensor(name, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_metadata(writer: gguf.GGUFWriter, shape: Shape, template: str) -> None:
    writer.add_name("random")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.embedding)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.embedding // shape.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(shape.vocabulary)
    if template:
        writer.add_chat_template(template)


def _write_vocabulary(writer: gguf.GGUFWriter, size: int) -> None:
    """`<unk> <s> </s>`, the 256 bytes, printable ASCII, then ideographs from U+4E00 on: one token a character."""
    pieces = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL, *[gguf.TokenType.BYTE] * 256]
    characters = ["▁", *map(chr, range(0x21, 0x7F)), *map(chr, range(0x4E00, 0x9FFF)), *map(chr, range(0xAC00, 0xD7A0))]
    pieces += [character.encode() for character in characters[: size - len(pieces)]]
    kinds += [gguf.TokenType.NORMAL] * (len(pieces) - len(kinds))
    if len(pieces) != size:
        raise ValueError(f"a vocabulary has between 300 and {259 + len(characters)} tokens, not {size}")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_scores([0.0] * size)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)


def _tensors(shape: Shape, rng: np.random.Generator) -> list[tuple[str, npt.NDArray[np.float32]]]:
    width, kv_width = shape.embedding, shape.embedding * shape.kv_heads // shape.heads

    def matrix(rows: int, columns: int) -> npt.NDArray[np.float32]:
        return np.asarray(rng.standard_normal((rows, columns)) * columns**-0.5, np.float32)

    ones = np.ones(width, np.float32)
    tensors = [("token_embd.weight", matrix(shape.vocabulary, width))]
    for layer in range(shape.layers):
        sizes = {
            "attn_q": (width, width),
            "attn_k": (kv_width, width),
            "attn_v": (kv_width, width),
            "attn_output": (width, width),
            "ffn_gate": (shape.feed_forward, width),
            "ffn_up": (shape.feed_forward, width),
            "ffn_down": (width, shape.feed_forward),
        }
        tensors += [(f"blk.{layer}.{name}.weight", matrix(*size)) for name, size in sizes.items()]
        tensors += [(f"blk.{layer}.{name}.weight", ones) for name in ("attn_norm", "ffn_norm")]
    return [*tensors, ("output_norm.weight", ones), ("output.weight", matrix(shape.vocabulary, width))]
