"""GGUF's types, and a reader of values from an untrusted file. Constants: ggml's `ggml.h`, `gguf.h` and `llama.h`."""

from __future__ import annotations

import struct
from typing import BinaryIO

from msgspec import Struct

MAX_KEY = 65_535
"""Bytes of a metadata key, as the format has it."""

MAX_TEXT = 4 * 1024 * 1024
"""Bytes of a text that is kept, such as a chat template."""

MAX_KEPT = 10_000
"""Elements of an array that are kept; of a longer one only the count is."""

BLOCKS: dict[str, tuple[int, int]] = {
    "F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "F64": (1, 8),
    "I8": (1, 1), "I16": (1, 2), "I32": (1, 4), "I64": (1, 8),
    "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24), "Q8_0": (32, 34), "Q8_1": (32, 40),
    "Q2_K": (256, 84), "Q3_K": (256, 110), "Q4_K": (256, 144), "Q5_K": (256, 176), "Q6_K": (256, 210),
    "Q8_K": (256, 292), "IQ2_XXS": (256, 66), "IQ2_XS": (256, 74), "IQ3_XXS": (256, 98), "IQ1_S": (256, 50),
    "IQ4_NL": (32, 18), "IQ3_S": (256, 110), "IQ2_S": (256, 82), "IQ4_XS": (256, 136), "IQ1_M": (256, 56),
    "TQ1_0": (256, 54), "TQ2_0": (256, 66), "MXFP4": (32, 17), "NVFP4": (64, 36), "Q1_0": (128, 18),
}  # fmt: skip
"""Tensor type → (elements, bytes) of a block."""

TENSOR_TYPES: dict[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0",
}  # fmt: skip

FILE_TYPES: dict[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4", 39: "NVFP4", 40: "Q1_0",
}  # fmt: skip
"""`general.file_type` → the name people use."""

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9


class Unsound(ValueError):
    """The file is not what it should be; the text says how."""


class Array(Struct, frozen=True):
    """A metadata array: how long it is, and its elements when they are few numbers."""

    count: int
    values: tuple[int | float, ...] = ()


Value = int | float | bool | str | Array


class Reader:
    """Reads forward through a file of `size` bytes; a length is believed only when so many bytes are left."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self.size = size
        self.position = 0

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return self.size - self.position

    def number(self, code: str, what: str) -> int | float:
        """One number, by its `struct` code."""
        size = struct.calcsize(code)
        return struct.unpack(code, self._bytes(size, what))[0]  # type: ignore[no-any-return]

    def count(self, what: str, least: int, most: int) -> int:
        """A 64-bit count of things of at least `least` bytes each, which the file must still have."""
        value = int(self.number("<Q", what))
        if value > most:
            raise Unsound(f"it claims {value} {what}, more than {most}")
        if value * least > self.left:
            raise Unsound(f"it is truncated: {value} {what} do not fit into the {self.left} bytes left")
        return value

    def text(self, what: str, most: int) -> str:
        """A string: 64-bit length, then UTF-8 (undecodable bytes are replaced)."""
        length = int(self.number("<Q", what))
        if length > most:
            raise Unsound(f"{what} is {length} bytes long, more than {most}")
        return self._bytes(length, what).decode(errors="replace")

    def value(self, key: str) -> Value:
        """A metadata value with its type before it."""
        kind = int(self.number("<I", key))
        if kind in _SCALARS:
            return self.number(_SCALARS[kind], key)
        if kind == _STRING:
            return self.text(key, MAX_TEXT)
        if kind == _ARRAY:
            return self._array(key)
        raise Unsound(f"{key} has the unknown type {kind}")

    def _array(self, key: str) -> Array:
        kind = int(self.number("<I", key))
        if kind == _STRING:
            count = self.count(f"strings of {key}", 8, self.size)
            for _ in range(count):
                self._skip(int.from_bytes(self._bytes(8, key), "little"), key)
            return Array(count)
        if kind not in _SCALARS:
            raise Unsound(f"{key} is an array of the unknown type {kind}")
        code = _SCALARS[kind]
        count = self.count(f"elements of {key}", struct.calcsize(code), self.size)
        data = count * struct.calcsize(code)
        if count > MAX_KEPT:
            self._skip(data, key)
            return Array(count)
        return Array(count, tuple(one[0] for one in struct.iter_unpack(code, self._bytes(data, key))))

    def _bytes(self, length: int, what: str) -> bytes:
        data = self._file.read(length) if length <= self.left else b""
        if len(data) != length:
            raise Unsound(f"it is truncated in {what}, at byte {self.position} of {self.size}")
        self.position += length
        return data

    def _skip(self, length: int, what: str) -> None:
        if length <= 4096:
            self._bytes(length, what)
            return
        if length > self.left:
            raise Unsound(f"it is truncated in {what}, at byte {self.position} of {self.size}")
        self.position += length
        self._file.seek(self.position)
