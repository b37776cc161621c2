"""The batch handed to `llama_decode`: llama.cpp's arrays, filled through numpy views."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from llmos_kernel_llamacpp.native import lib
from llmos_kernel_llamacpp.steady import Piece
from llmos_shell.abi.engine import Chunk


class Batch:
    """Room for `capacity` tokens, each of one sequence. Owns the memory that `native` points to."""

    def __init__(self, capacity: int) -> None:
        self._token = np.zeros(capacity, dtype=np.int32)
        self._position = np.zeros(capacity, dtype=np.int32)
        self._slot = np.zeros(capacity, dtype=np.int32)
        self._output = np.zeros(capacity, dtype=np.int8)
        self._ones = np.ones(capacity, dtype=np.int32)
        first = self._slot.ctypes.data
        self._slot_pointers = np.arange(first, first + 4 * capacity, 4, dtype=np.uintp)
        self.native: Any = lib.llama_batch()
        for name, array in (
            ("token", self._token),
            ("pos", self._position),
            ("n_seq_id", self._ones),
            ("seq_id", self._slot_pointers),
            ("logits", self._output),
        ):
            kind = dict(lib.llama_batch._fields_)[name]
            setattr(self.native, name, ctypes.cast(array.ctypes.data, kind))

    def fill(self, chunks: Sequence[Chunk]) -> int:
        """Lays out the chunks one after another; returns how many rows of logits will come of it."""
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        outputs: list[int] = []
        for chunk in chunks:
            position, count = chunk.position, len(chunk.tokens)
            tokens += chunk.tokens
            if count == 1:
                positions.append(position)
                slots.append(chunk.slot)
                outputs.append(chunk.logits)
            else:
                positions += range(position, position + count)
                slots += [chunk.slot] * count
                outputs += [0] * (count - chunk.logits)
                outputs += [1] * chunk.logits
        size = len(tokens)
        self._token[:size] = tokens
        self._position[:size] = positions
        self._slot[:size] = slots
        self._output[:size] = outputs
        self.native.n_tokens = size
        return sum(outputs)

    def fill_pieces(self, pieces: Sequence[Piece]) -> int:
        """Lays out the pieces one after another; returns how many rows of logits will come of it."""
        at = 0
        for piece in pieces:
            end = at + len(piece.tokens)
            self._token[at:end] = piece.tokens
            self._position[at:end] = range(piece.position, piece.position + end - at)
            self._slot[at:end] = piece.slot
            self._output[at : end - piece.outputs] = 0
            self._output[end - piece.outputs : end] = 1
            at = end
        self.native.n_tokens = at
        return sum(piece.outputs for piece in pieces)


class LogitsView:
    """Numpy views of llama.cpp's output buffer, without copying; remembered, because the buffer rarely moves."""

    def __init__(self, vocabulary: int) -> None:
        self._vocabulary = vocabulary
        self._views: dict[tuple[int, int], npt.NDArray[np.float32]] = {}

    def get(self, context: Any, rows: int) -> npt.NDArray[np.float32]:
        """The first `rows` rows of logits of the last decode."""
        if not rows:
            return np.empty((0, self._vocabulary), dtype=np.float32)
        address = ctypes.addressof(lib.llama_get_logits(context).contents)
        view = self._views.get((address, rows))
        if view is None:
            if len(self._views) > 512:
                self._views.clear()
            buffer: Any = (ctypes.c_float * (rows * self._vocabulary)).from_address(address)
            view = np.frombuffer(buffer, dtype=np.float32).reshape(rows, self._vocabulary)
            self._views[address, rows] = view
        return view
