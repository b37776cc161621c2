"""Steps whose results do not depend on what else runs: how the option `deterministic` lays out batches. Pure.

llama.cpp's last bits depend on the shape of the micro-batch a token is computed in: matrix products have other kernels
for 1 row (f32, f16 and bf16 weights), 4 (repacked Q4_K) and 8 (K-quants); flash attention has others for 1 row over 512
cells, which it cuts by threads, and for 64 rows of a sequence. So here every micro-batch has at least `least` rows, as
many of them with logits where any are wanted, and at most `MOST_ROWS` of one sequence. What is missing are made-up
tokens after the last one, cut off again after the step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from llmos_shell.abi.engine import Chunk

LEAST_ROWS = 8  # enough for every type of weights
LEAST_ROWS_UNIFORM = 2  # enough where all products have kernels for one row and for several, or one kernel only
MOST_ROWS = 63
SPARE_CELLS = LEAST_ROWS  # a slot needs for made-up tokens


class Piece(Struct, frozen=True):
    """Tokens of one slot in one call. The last `outputs` of them have logits; the first `real` are no make-believe."""

    slot: int
    position: int
    tokens: Sequence[int]
    real: int
    outputs: int
    chunk: int  # index of the chunk whose logits are those of the last real tokens; -1: nobody wants them
    wanted: int = 1  # of so many of them

    @property
    def end(self) -> int:
        """KV length of the slot after the step."""
        return self.position + self.real

    @property
    def rows(self) -> slice:
        """Which of the outputs are those of the last real tokens."""
        end = self.outputs - (len(self.tokens) - self.real)
        return slice(end - self.wanted, end)


def calls(chunks: Sequence[Chunk], least: int) -> Iterator[list[Piece]]:
    """The calls of `llama_decode` that make up a step, each of one micro-batch."""
    singles = sorted((chunk.slot, index) for index, chunk in enumerate(chunks) if len(chunk.tokens) == 1)
    run: list[int] = []
    for slot, index in singles:
        if run and chunks[run[-1]].slot + 1 != slot:  # llama.cpp puts only neighbours into one micro-batch
            yield _together(chunks, run, least)
            run = []
        run.append(index)
    if run:
        yield _together(chunks, run, least)
    for index, chunk in enumerate(chunks):
        if len(chunk.tokens) > 1:
            yield from _in_pieces(chunk, index, least)


def _together(chunks: Sequence[Chunk], run: list[int], least: int) -> list[Piece]:
    length = -(-least // len(run))
    pieces = []
    for index in run:
        chunk = chunks[index]
        owner = index if chunk.logits else -1
        pieces.append(Piece(chunk.slot, chunk.position, list(chunk.tokens) * length, 1, length, owner))
    return pieces


def _in_pieces(chunk: Chunk, index: int, least: int) -> Iterator[list[Piece]]:
    """Pieces of about equal size, so that none is too small. Logits are wanted within the last one only."""
    size = len(chunk.tokens)
    count = -(-size // MOST_ROWS)
    for piece in range(count):
        start, end = size * piece // count, size * (piece + 1) // count
        tokens = list(chunk.tokens[start:end])
        missing = max(0, least - len(tokens))
        tokens += tokens[-1:] * missing
        wanted = chunk.logits if end == size else 0
        outputs, owner = (max(least, wanted + missing), index) if wanted else (0, -1)
        yield [Piece(chunk.slot, chunk.position + start, tokens, end - start, outputs, owner, wanted)]
