"""What a GGUF file says of itself, read without trusting it: header, metadata and tensor table; never the weights.

Counts and lengths are checked against what is left of the file before anything is allocated. Format: ggml's
`docs/gguf.md`, versions 2 and 3, little-endian; the checks are at least those of ggml's own loader.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import BinaryIO

from msgspec import Struct

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.models.gguf_types import BLOCKS, FILE_TYPES, MAX_KEY, TENSOR_TYPES, Array, Reader, Unsound, Value

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_ENTRIES = 100_000
"""Metadata entries, and tensors; the largest models have a few thousand."""

MAX_LAYERS = 10_000
MAX_DIMENSIONS = 4
MAX_TENSOR_NAME = 63
"""GGML_MAX_NAME without the terminating 0."""

DEFAULT_ALIGNMENT = 32


class GgufInfo(Struct, frozen=True):
    """A weights file. Lengths are elements, sizes bytes; what the file does not say is 0 or empty."""

    architecture: str
    name: str
    parameters: int
    file_type: str  # e.g. "Q8_0"; where the file does not say, the type of most parameters
    size: int  # of the file
    context: int  # tokens it was trained for
    layers: int
    embedding: int
    heads: int
    kv_heads: tuple[int, ...]  # of each layer
    key_length: int  # of one head
    value_length: int  # of one head
    vocabulary: int
    chat_template: str
    tensors: int
    block_bytes: tuple[int, ...] = ()  # of the weights of each layer
    output_bytes: int = 0  # of those after the last layer; of the embeddings where they serve as output too
    largest_bytes: int = 0  # of the largest tensor in a layer
    feed_forward: int = 0  # values that a token has between a layer's feed-forward matrices

    def kv_bytes_per_token(self, kv_type: str = "f16") -> int:
        """Bytes of KV per token, over all layers. Raises EINVAL for an unknown type.

        An upper bound: sliding windows and layers without attention are not considered.
        """
        elements, stored = BLOCKS.get(kv_type.upper(), (0, 0))
        if not elements:
            raise LlmosError(Code.EINVAL, f"unknown KV type {kv_type!r}", hint="use f16, f32, bf16, q8_0, q4_0, …")
        rows = [heads * length for heads in self.kv_heads for length in (self.key_length, self.value_length)]
        return sum(-(-row // elements) * stored for row in rows)


class _Tensor(Struct, frozen=True):
    name: str
    type: str
    elements: int
    offset: int  # from the start of the data
    bytes: int


def read_gguf(path: str) -> GgufInfo:
    """Reads and checks a weights file. Raises ENOENT when there is none, ENOEXEC with one line when it is unsound."""
    try:
        with open(path, "rb") as file:
            return _parse(file, os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        raise LlmosError(Code.ENOENT, f"no such file: {path}") from None
    except Unsound as error:
        raise LlmosError(Code.ENOEXEC, f"{path} is not a sound GGUF file: {error}") from None
    except OSError as error:
        raise LlmosError(Code.ENOEXEC, f"{path} cannot be read: {error.strerror}") from None


def _parse(file: BinaryIO, size: int) -> GgufInfo:
    reader = Reader(file, size)
    _check_header(reader)
    tensor_count = reader.count("tensors", 0, MAX_ENTRIES)
    entry_count = reader.count("metadata entries", 13, MAX_ENTRIES)
    metadata = _metadata(reader, entry_count)
    tensors = _tensors(reader, tensor_count)
    _check_data(reader, tensors, _alignment(metadata))
    return _info(_Fields(metadata), tensors, size)


def _check_header(reader: Reader) -> None:
    magic = int(reader.number("<I", "the header")).to_bytes(4, "little")
    if magic != MAGIC:
        raise Unsound(f"it begins with {magic!r}, not {MAGIC!r}")
    version = int(reader.number("<I", "the header"))
    if version & 0xFFFF == 0:
        raise Unsound("it is big-endian")
    if version not in VERSIONS:
        raise Unsound(f"its version is {version}, supported are {' and '.join(map(str, VERSIONS))}")


def _metadata(reader: Reader, count: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    for _ in range(count):
        key = reader.text("a metadata key", MAX_KEY)
        if key in metadata:
            raise Unsound(f"{key!r} is there twice")
        metadata[key] = reader.value(repr(key))
    return metadata


def _tensors(reader: Reader, count: int) -> list[_Tensor]:
    if count == 0:
        raise Unsound("it holds no tensors")
    if count * 24 > reader.left:
        raise Unsound(f"it is truncated: {count} tensors do not fit into the {reader.left} bytes left")
    tensors = [_tensor(reader) for _ in range(count)]
    names = Counter(tensor.name for tensor in tensors)
    if len(names) < count:
        raise Unsound(f"tensor {names.most_common(1)[0][0]!r} is there twice")
    return tensors


def _tensor(reader: Reader) -> _Tensor:
    name = reader.text("a tensor's name", MAX_TENSOR_NAME)
    what = f"tensor {name!r}"
    dimensions = int(reader.number("<I", what))
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise Unsound(f"{what} has {dimensions} dimensions")
    shape = [int(reader.number("<Q", what)) for _ in range(dimensions)]
    kind = int(reader.number("<I", what))
    offset = int(reader.number("<Q", what))
    if kind not in TENSOR_TYPES:
        raise Unsound(f"{what} has the unknown type {kind}")
    elements = _elements(what, shape)
    block, stored = BLOCKS[TENSOR_TYPES[kind]]
    if shape[0] % block:
        raise Unsound(f"{what} has rows of {shape[0]} elements, no multiple of {block}")
    return _Tensor(name, TENSOR_TYPES[kind], elements, offset, elements // block * stored)


def _elements(what: str, shape: list[int]) -> int:
    elements = 1
    for length in shape:
        elements *= length
        if not 0 < elements < 2**63:
            raise Unsound(f"{what} has the impossible shape {shape}")
    return elements


def _alignment(metadata: dict[str, Value]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise Unsound(f"its alignment {alignment!r} is no power of two")
    return alignment


def _check_data(reader: Reader, tensors: list[_Tensor], alignment: int) -> None:
    """Tensors lie one after the other, each aligned, all within the file."""
    start = _aligned(reader.position, alignment)
    expected = 0
    for tensor in tensors:
        if tensor.offset != expected:
            raise Unsound(f"the data of tensor {tensor.name!r} are at {tensor.offset}, expected at {expected}")
        end = start + tensor.offset + tensor.bytes
        if end > reader.size:
            raise Unsound(f"it is truncated: tensor {tensor.name!r} ends at byte {end} of {reader.size}")
        expected = _aligned(tensor.offset + tensor.bytes, alignment)


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


class _Fields:
    """Typed access to the metadata; keys that begin with a dot are the architecture's."""

    def __init__(self, metadata: dict[str, Value]) -> None:
        self._metadata = metadata
        self.architecture = self.text("general.architecture")
        if not self.architecture:
            raise Unsound("it does not name its architecture")

    def text(self, key: str) -> str:
        value = self._metadata.get(key, "")
        if not isinstance(value, str):
            raise Unsound(f"{key} is no text")
        return value

    def natural(self, key: str, default: int = 0, most: int = 2**32) -> int:
        key = self._full(key)
        value = self._metadata.get(key, default)
        if not isinstance(value, int) or not 0 <= value <= most:
            raise Unsound(f"{key} is {value!r}, not a number from 0 to {most}")
        return int(value)

    def naturals(self, key: str, count: int, default: int) -> tuple[int, ...]:
        """A number for each of `count` layers, or one for all of them."""
        value = self._metadata.get(self._full(key))
        if not isinstance(value, Array):
            return (self.natural(key, default),) * count
        if value.count != count or not all(isinstance(one, int) and 0 <= one <= 2**32 for one in value.values):
            raise Unsound(f"{self._full(key)} is not {count} numbers")
        return tuple(map(int, value.values))

    def length(self, key: str) -> int:
        value = self._metadata.get(key)
        return value.count if isinstance(value, Array) else 0

    def _full(self, key: str) -> str:
        return self.architecture + key if key.startswith(".") else key


def _info(fields: _Fields, tensors: list[_Tensor], size: int) -> GgufInfo:
    layers = fields.natural(".block_count", most=MAX_LAYERS)
    embedding = fields.natural(".embedding_length")
    heads = max(fields.naturals(".attention.head_count", layers, 0), default=0)
    head = embedding // heads if heads else 0
    return GgufInfo(
        architecture=fields.architecture,
        name=fields.text("general.name"),
        parameters=sum(tensor.elements for tensor in tensors),
        file_type=_file_type(fields, tensors),
        size=size,
        context=fields.natural(".context_length"),
        layers=layers,
        embedding=embedding,
        heads=heads,
        kv_heads=fields.naturals(".attention.head_count_kv", layers, heads),
        key_length=fields.natural(".attention.key_length", head),
        value_length=fields.natural(".attention.value_length", head),
        vocabulary=fields.length("tokenizer.ggml.tokens") or fields.natural(".vocab_size"),
        chat_template=fields.text("tokenizer.chat_template"),
        tensors=len(tensors),
        block_bytes=tuple(_bytes_of(tensors, f"blk.{layer}.") for layer in range(layers)),
        output_bytes=_bytes_of(tensors, "output_norm.")
        + (_bytes_of(tensors, "output.") or _bytes_of(tensors, "token_embd.")),
        largest_bytes=max((tensor.bytes for tensor in tensors if tensor.name.startswith("blk.")), default=0),
        feed_forward=max(
            max(fields.naturals(".feed_forward_length", layers, 0), default=0),
            fields.natural(".expert_used_count") * fields.natural(".expert_feed_forward_length"),
        ),
    )


def _bytes_of(tensors: list[_Tensor], prefix: str) -> int:
    return sum(tensor.bytes for tensor in tensors if tensor.name.startswith(prefix))


def _file_type(fields: _Fields, tensors: list[_Tensor]) -> str:
    number = fields.natural("general.file_type", 2**32)
    if number in FILE_TYPES:
        return FILE_TYPES[number]
    parameters: Counter[str] = Counter()
    for tensor in tensors:
        parameters[tensor.type] += tensor.elements
    return parameters.most_common(1)[0][0]
