"""The llama.cpp engine: `abi.engine.Engine` on the low-level interface, one context with many sequences.

What stays the same when a sequence is parked, replayed or run beside others (measured on a CPU with llama-cpp-python
0.3.36, stories260K with f32 weights; in brackets random weights of 512 dimensions, Q4_K_M):

- `export` and `restore` are exact: the bytes come back, whatever lies around them, and so do the next logits, bit for
  bit, as long as the cells keep the order of the positions and the batch has the same shape.
- In the layout `shared` new tokens go to the first free cells. Once others were freed they may lie before older ones,
  and attention adds up in the order of cells, with f16 accumulators for an f16 KV: |dlogit| 2e-3 to 1.1e-2, with bf16
  or without flash attention 5e-6 in that step. In the layout `split` cells are always in order: 0.
- One row instead of several: 3e-6 in that step, but some values of the KV round to their other neighbour, so after 200
  tokens 2e-3 to 6e-3 [1e-1 at 8 rows; 0 for Q8_0 at any number].
- Prefill instead of decoding, as in a replay: from 64 rows on 5e-3 to 1.4e-2 [1e-1], below as above.
- Number of threads: 0, but 1.1e-2 when a single row attends to 512 cells of f16 or more.

Greedy stories took another turn where the best two tokens were 1e-3 to 5e-3 apart; below 1e-2 are some 0.5 % of all.
With `options = {deterministic = true}` all of these are 0: see `steady`, and `planning` for the price.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from llmos_kernel_llamacpp import loading, planning, steady
from llmos_kernel_llamacpp.batch import Batch, LogitsView
from llmos_kernel_llamacpp.cells import Cells
from llmos_kernel_llamacpp.flag import AbortFlag
from llmos_kernel_llamacpp.grammar import GrammarConstraint
from llmos_kernel_llamacpp.native import decode, lib, take_errors
from llmos_kernel_llamacpp.streams import with_streams
from llmos_kernel_llamacpp.vocabulary import Vocabulary
from llmos_shell.abi.engine import Chunk, Constraint, Room, Usage, no_matter, nowhere
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import Message
from llmos_shell.abi.worker import Load, ModelInfo
from llmos_shell.engine.templates import ChatTemplate, render_plain

_ABORTED = 2  # what `llama_decode` returns, as in llama.h


def load(spec: Load, progress: Callable[[int, int], bool] = no_matter) -> LlamaEngine:
    """Loads a model, as `abi.engine.LoadEngine`."""
    loading.kv_type(spec.kv_type)
    planning.options_of(spec)
    if not lib.llama_supports_gpu_offload():
        spec = replace(spec, gpu_layers=0, gpu_split=())
    before = min(loading.available_memory(), sys.maxsize if spec.room is None else spec.room)
    model = loading.load_model(spec, progress)
    try:
        return LlamaEngine(model, spec, max(0, before - os.path.getsize(spec.path)))
    except BaseException:
        lib.llama_model_free(model)
        raise


class LlamaEngine:
    """One model and one context. A slot is a llama.cpp sequence id."""

    def __init__(self, model: Any, spec: Load, left_bytes: int) -> None:
        """`left_bytes` of memory are there besides the weights."""
        self._model, self._spec = model, spec
        per_token = loading.kv_bytes_per_token(model, spec.kv_type)
        trained = int(lib.llama_model_n_ctx_train(model))
        plan = planning.plan_kv(spec, trained, per_token, left_bytes)
        threads = loading.threads_for(spec)
        self._vocabulary = Vocabulary(model)
        self._template = self._load_template()
        self._flash = loading.flash_attention(model, spec, plan)
        self._portable = not lib.llama_model_n_swa(model)  # its state can be told for any number of streams
        self._cuttable = not (lib.llama_model_is_recurrent(model) or lib.llama_model_is_hybrid(model))
        self._deterministic = planning.options_of(spec).deterministic
        if self._deterministic and not self._cuttable:
            raise LlmosError(Code.ENOSYS, "`deterministic` needs a model whose state can be cut; this one is recurrent")
        self._least_rows = loading.least_rows(int(lib.llama_model_ftype(model)))
        max_batch = self._take(plan, threads)
        self.piece = self._vocabulary.piece
        self.is_end = self._vocabulary.is_end
        self.info = ModelInfo(
            fingerprint=self._fingerprint(plan),
            context=plan.context,
            trained_context=trained,
            vocabulary=self._vocabulary.size,
            page_tokens=loading.PAGE_TOKENS,
            pages=self._total_cells // loading.PAGE_TOKENS,
            slots=plan.slots,
            layout=plan.layout,
            kv_bytes_per_token=per_token,
            max_batch=max_batch,
            threads=threads,
            has_chat_template=self._template is not None,
            can_constrain=True,
            gpu=spec.gpu_layers != 0,
            knows_gpus=loading.knows_gpus(),
            most_guesses=planning.MOST_GUESSES if self._can_guess(spec) else 0,
            can_shift=self._can_shift(spec),
            can_interrupt=self._cuttable and spec.gpu_layers == 0,
            mixes=spec.gpu_layers != 0,  # on a CPU see `step`
            can_resize=True,
            any_layout=self._portable and self._cuttable and not self._deterministic,
            longest_piece_bytes=self._vocabulary.longest_piece(),
            description=_description(model),
            weights=f"gguf:{loading.weights_digest(spec.path)}",
        )

    def _take(self, plan: planning.KvPlan, threads: int) -> int:
        """Makes a context of this plan, with all slots empty; returns the most tokens of a step."""
        self._context, max_batch = loading.new_context(self._model, self._spec, plan, threads, self._flash)
        self._plan = plan
        self._memory = lib.llama_get_memory(self._context)
        self._abort = AbortFlag(self._context)
        self._split = plan.layout == "split"
        self._total_cells = int(lib.llama_n_ctx(self._context))
        self._cells = Cells(plan.slots)
        self._unturned: set[int] = set()  # slots whose KV was moved since the last step
        self._batch = Batch(max_batch + steady.LEAST_ROWS)
        self._logits = LogitsView(self._vocabulary.size)
        return max_batch

    def _take_back(self, plan: planning.KvPlan) -> None:
        try:
            self._take(plan, self.info.threads)
        except LlmosError as error:
            raise LlmosError(Code.EIO, f"the former KV pool cannot be had again: {error}") from None

    def _fingerprint(self, plan: planning.KvPlan) -> str:
        streams = 0 if self._portable and self._cuttable else loading.streams_of(plan)
        return loading.fingerprint(self._spec, self._flash, streams)

    def _can_guess(self, spec: Load) -> bool:
        """Where several rows give the bits of one, guesses are free to come; else somebody must have asked for them."""
        wanted = planning.options_of(spec).speculation
        return self._cuttable and (bool(spec.draft) or self._deterministic if wanted is None else wanted)

    def tokenize(self, text: str, special: bool) -> list[int]:
        """Token ids of text."""
        return self._vocabulary.tokenize(text, special)

    def render(self, messages: Sequence[Message], generate: bool) -> str:
        """By the file's template, or in the plain form where it has none."""
        if self._template is None:
            return render_plain(messages, generate)
        return self._template.render(messages, generate)

    def step(self, chunks: Sequence[Chunk]) -> npt.NDArray[np.float32]:
        """One `llama_decode`, or with the option `deterministic` one per micro-batch.

        In the split layout llama.cpp computes neighbouring slots together when they come in ascending order, and one
        after another when they do not; rows of one token and longer chunks it computes apart. In the shared layout on a
        CPU, from 64 rows on, tiles of attention go through all cells that any of their rows attends to: 16 decoding
        rows beside a chunk of 64 took 280 ms, apart 39 and 82 (110 M parameters, 4,096 cells). So prompts go apart.
        """
        self._abort.clear()
        if self._deterministic:
            return self._steady_step(chunks)
        if not self._split:
            return self._plain_step(chunks)
        order = sorted(range(len(chunks)), key=lambda index: chunks[index].slot)
        logits = self._plain_step([chunks[index] for index in order])
        wanted = [index for index in order for _ in range(chunks[index].logits)]
        if all(left <= right for left, right in pairwise(wanted)):
            return logits
        return logits[np.argsort(wanted, kind="stable")]

    def _plain_step(self, chunks: Sequence[Chunk]) -> npt.NDArray[np.float32]:
        rows = self._batch.fill(chunks)
        self._decode(chunks)
        lengths = self._cells.lengths
        for chunk in chunks:
            lengths[chunk.slot] = chunk.position + len(chunk.tokens)
        return self._logits.get(self._context, rows)

    def _steady_step(self, chunks: Sequence[Chunk]) -> npt.NDArray[np.float32]:
        room = self._total_cells // self.info.slots - steady.SPARE_CELLS
        if any(chunk.position + len(chunk.tokens) > room for chunk in chunks):
            raise LlmosError(Code.ENOMEM, f"no room for a step in the KV of a slot, which has {room} tokens")
        found: dict[int, npt.NDArray[np.float32]] = {}
        for pieces in steady.calls(chunks, self._least_rows):
            rows = self._batch.fill_pieces(pieces)
            self._decode(chunks)
            logits, first = self._logits.get(self._context, rows), 0
            for piece in pieces:
                if piece.chunk >= 0:
                    found[piece.chunk] = logits[first : first + piece.outputs][piece.rows].copy()
                first += piece.outputs
                if len(piece.tokens) > piece.real:
                    lib.llama_memory_seq_rm(self._memory, piece.slot, piece.end, -1)
                self._cells.lengths[piece.slot] = piece.end
        if not found:
            return self._logits.get(self._context, 0)
        return np.concatenate([found[index] for index in sorted(found)])

    def interrupt(self) -> None:
        """Ends the present `llama_decode` after the operation it is at."""
        self._abort.set()

    def _decode(self, chunks: Sequence[Chunk]) -> None:
        """Computes the batch, which is a part of a step's `chunks`."""
        status = decode(self._context, self._batch.native, self._abort.is_set)
        if status == _ABORTED:
            for chunk in chunks:  # micro-batches that were finished stay otherwise
                lib.llama_memory_seq_rm(self._memory, chunk.slot, chunk.position, -1)
                self._cells.cut(chunk.slot, min(chunk.position, self._cells.lengths[chunk.slot]))
            raise LlmosError(Code.EINTR, "the step was interrupted")
        if status == 1:
            raise LlmosError(Code.ENOMEM, f"no room for a step in the KV pool of {self._total_cells} tokens")
        if status:
            raise LlmosError(Code.EIO, f"llama.cpp failed with status {status}: {take_errors() or 'no reason given'}")
        self._unturned.clear()

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Shares cells in the shared layout.

        In the split layout `seq_cp` would be carried out at the next step only, and copy the whole stream; writing the
        state out and in again copies what is used, at once.
        """
        self._check_empty(target)
        length = self._cells.lengths[source]
        if tokens < length and not self._cuttable:
            raise LlmosError(Code.ENOSYS, "this model's state cannot be cut")
        if self._split:
            self.restore(target, self.export(source), length)
            self.truncate(target, tokens)
            return
        lib.llama_memory_seq_cp(self._memory, source, target, 0, tokens)
        self._cells.share(source, target, tokens)

    def truncate(self, slot: int, tokens: int) -> None:
        """Raises ENOSYS for models whose state cannot be cut (recurrent ones), and changes nothing then."""
        if tokens >= self._cells.lengths[slot]:
            return
        if not lib.llama_memory_seq_rm(self._memory, slot, tokens, -1):
            raise LlmosError(Code.ENOSYS, "this model's state cannot be cut")
        self._cells.cut(slot, tokens)

    def shift(self, slot: int, keep: int, discard: int) -> None:
        """The positions change at once, the keys are turned by the next step.

        In the shared layout a cell's position is that of all who share it, so the slot gets cells of its own first.
        """
        if not self.info.can_shift:
            raise LlmosError(Code.ENOSYS, "this model's KV cannot be moved")
        length = self._cells.lengths[slot]
        if not self._split:
            blob = self.export(slot)
            self.free(slot)
            self.restore(slot, blob, length)
        lib.llama_memory_seq_rm(self._memory, slot, keep, keep + discard)
        lib.llama_memory_seq_add(self._memory, slot, keep + discard, -1, -discard)
        self._cells.cut(slot, length - discard)
        self._unturned.add(slot)

    def export(self, slot: int, room: Room = nowhere) -> memoryview:
        """The state of the sequence, as llama.cpp writes it."""
        if slot in self._unturned:
            raise LlmosError(Code.ENOSYS, "the KV was moved and is not written out before the next step")
        size = lib.llama_state_seq_get_size(self._context, slot)
        blob = room(size)
        if blob is None:
            blob = np.empty(size, dtype=np.uint8).data
        data = np.frombuffer(blob, dtype=np.uint8)
        pointer = ctypes.cast(data.ctypes.data, ctypes.POINTER(ctypes.c_uint8))
        written = lib.llama_state_seq_get_data(self._context, pointer, size, slot)
        if written != size:
            raise LlmosError(Code.EIO, f"llama.cpp exported {written} of {size} bytes: {take_errors()}")
        return blob

    def restore(self, slot: int, blob: bytes | memoryview, tokens: int) -> None:
        """The opposite of `export`."""
        self._check_empty(slot)
        if self._portable and self._cuttable:
            blob = with_streams(blob, loading.streams_of(self._plan))
        data = np.frombuffer(blob, dtype=np.uint8)
        pointer = ctypes.cast(data.ctypes.data, ctypes.POINTER(ctypes.c_uint8))
        read = lib.llama_state_seq_set_data(self._context, pointer, len(data), slot)
        held = lib.llama_memory_seq_pos_max(self._memory, slot) + 1
        if read != len(data) or held != tokens:
            lib.llama_memory_seq_rm(self._memory, slot, -1, -1)
            if not read:
                raise LlmosError(Code.ENOMEM, f"no room for {tokens} tokens in the KV pool: {take_errors()}")
            raise LlmosError(Code.EINVAL, f"the image holds {held} tokens, not {tokens}")
        self._cells.fill(slot, tokens)

    def free(self, slot: int) -> None:
        """Empties a slot."""
        lib.llama_memory_seq_rm(self._memory, slot, -1, -1)
        self._cells.cut(slot, 0)
        self._unturned.discard(slot)

    def resize(self, pool_tokens: int, slots: int, layout: Literal["shared", "split"]) -> None:
        """Another context on the same weights, with the same kind of attention, so that its KV is read as before."""
        before, info = self._plan, self.info
        spare = slots * steady.SPARE_CELLS if self._deterministic else 0  # is not for sequences
        spec = replace(self._spec, context=info.context, pool_tokens=pool_tokens + spare, slots=slots, layout=layout)
        per_token = info.kv_bytes_per_token
        available = loading.available_memory() + before.cells * per_token
        plan = planning.plan_kv(spec, info.trained_context, per_token, available)
        if plan.context < info.context:
            text = f"{pool_tokens} tokens in {slots} slots leave {plan.context} for a sequence, not {info.context}"
            least = slots * info.context if layout == "split" else info.context
            raise LlmosError(Code.EINVAL, text, hint=f"use {least} or more" + ", or fewer slots" * (layout == "split"))
        lib.llama_free(self._context)
        try:
            max_batch = self._take(plan, info.threads)
        except LlmosError:
            self._take_back(before)
            raise
        self.info = replace(
            info, slots=plan.slots, layout=plan.layout, max_batch=max_batch, fingerprint=self._fingerprint(plan),
            pages=self._total_cells // loading.PAGE_TOKENS,
        )  # fmt: skip

    def constraint(self, kind: Literal["gbnf", "json-schema"], text: str) -> Constraint:
        """A grammar sampler of llama.cpp."""
        return GrammarConstraint(self._vocabulary.native, self._vocabulary.size, kind, text)

    def set_threads(self, threads: int) -> None:
        """For decoding and prefill alike."""
        lib.llama_set_n_threads(self._context, threads, threads)

    def usage(self) -> Usage:
        """Cells in use."""
        used = sum(self._cells.lengths) if self._split else self._cells.used()
        return Usage(used, self._total_cells)

    def close(self) -> None:
        """Frees context and weights."""
        lib.llama_free(self._context)
        lib.llama_model_free(self._model)

    def _can_shift(self, spec: Load) -> bool:
        """llama.cpp crashes when it turns quantised or bf16 keys on a CPU (llama-cpp-python 0.3.36)."""
        able = self._cuttable and not self._deterministic and spec.kv_type in ("f16", "f32")
        return able and bool(lib.llama_memory_can_shift(self._memory))

    def _check_empty(self, slot: int) -> None:
        if self._cells.lengths[slot]:
            raise LlmosError(Code.EIO, f"slot {slot} is not empty")

    def _load_template(self) -> ChatTemplate | None:
        source = lib.llama_model_chat_template(self._model, None)
        if not source:
            return None
        words = self._vocabulary
        with contextlib.suppress(LlmosError):  # a template nobody can compile counts as none
            return ChatTemplate(source.decode("utf-8", "replace"), words.bos_text, words.eos_text, words.adds_bos)
        return None


def _description(model: Any) -> str:
    buffer = ctypes.create_string_buffer(256)
    lib.llama_model_desc(model, buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace")
