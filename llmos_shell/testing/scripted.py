"""A real engine with scripted logits: no weights, no dependencies, everything deterministic.

The vocabulary is the 256 bytes, BOS (256) and the end of a turn (257, written `<|end|>` in special text). A slot's KV
is one cell per token, holding the token and a hash of all tokens up to it; the next token's logits are a function of
the last cell. So a wrong copy, truncation or restore shows in the text. Without further options a sequence babbles
printable text for ever. Messages are rendered `<user>text<|end|>…<assistant>`.

`Load.path` may be any existing file, or begin with `scripted:`. `Load.options` (all optional; they win over the fields
of `Load` of the same name):

    pages           pages in the pool (64)
    page_tokens     tokens per page (16)
    slots           sequences open at once (8)
    context         longest sequence, in tokens (what the pool, or in the split layout a slot, can hold)
    layout          `shared` (copies share cells; default) or `split`
    max_batch       most tokens per step (512)
    most_guesses    logits beyond one per chunk (0)
    reply           this text, then the end of the turn, is what follows the last `>` of the context
    end_after       n ≥ 1: the turn ends after n tokens since the last `>` of the context (since BOS where there is
                    none); p < 1: it ends after a token with probability p (a function of the context)
    step_seconds    every step takes at least so long, unless tests `hurry`
    token_seconds   … and so much longer per token computed
    crowd           a file: while another engine with this option makes a step, steps take five times as long
    crash_at_token  the process exits with status 70 as soon as a slot would hold so many tokens
    hang_at_token   the step never returns as soon as a slot would hold so many tokens
    marker          file that is created by the first crash or hang; while it exists there is no other
    fail_load       loading fails with this message (ENOEXEC)
    hang_load       true: loading never returns
    trap            a file: a load that finds it takes it away and fails (EIO)
    load_seconds    loading takes so long
    memory_bytes    what the model pretends to need, for the daemon's budget
    can_shift       false: KV cannot be moved
    can_resize      true: the pool can be changed
    most_pages      a pool of more pages than this is refused by `resize` (ENOMEM)
    resize_seconds  `resize` takes so long
    mixes           false: steps are of prompts or of decoding rows
    gpu             true: it says that it computes on a GPU
    knows_gpus      false: it says that it was built without support for them
    most_layers     it has no memory for more layers than this on GPUs (ENOMEM)
    lost_gpu        once `marker` exists, loading fails where CUDA_VISIBLE_DEVICES shows this GPU (EIO)
    told            file to which every load appends one line of JSON: the layers and the split that `Load` gives, and
                    the GPUs that CUDA_VISIBLE_DEVICES shows
    counter         file to which every step appends one line per row, see `computed`
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Literal, NamedTuple, TextIO

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from llmos_shell.abi.engine import Chunk, Constraint, Room, Usage, no_matter, nowhere
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import Message
from llmos_shell.abi.worker import Load, ModelInfo
from llmos_shell.testing.hurry import is_hurried

BOS, END, VOCABULARY = 256, 257, 258
END_TEXT = "<|end|>"
KV_BYTES_PER_TOKEN = 16
WEIGHTS_BYTES = 1 << 20
OPTIONS = (
    "pages", "page_tokens", "slots", "context", "layout", "max_batch", "most_guesses", "reply", "end_after",
    "step_seconds", "token_seconds", "crowd", "crash_at_token", "hang_at_token", "marker", "fail_load", "hang_load",
    "trap", "load_seconds", "memory_bytes", "counter", "can_shift", "can_resize", "most_pages", "resize_seconds",
    "mixes", "gpu", "knows_gpus", "most_layers", "lost_gpu", "told",
)  # fmt: skip

_PATIENCE_SECONDS = 0.01  # after which a step under way begins to hurry
_LETTERS = np.frombuffer(b"eeeetttaaaooiinnsshhrrdlucmwfgypbvk", dtype=np.uint8).astype(np.intp)
_MASK = (1 << 64) - 1
_FACTORS = (np.arange(VOCABULARY, dtype=np.uint64) * np.uint64(2) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
_CELL = np.dtype([("token", "<u8"), ("digest", "<u8")])


class Computed(NamedTuple):
    """One row of one step, as written to the `counter` file."""

    position: int  # of the first token computed
    tokens: int
    digest: int  # of all tokens up to the last one computed: equal digests, equal contexts


class Cell(NamedTuple):
    """KV of one token."""

    token: int
    digest: int


def computed(counter: str) -> list[Computed]:
    """Every row computed by all engines that wrote to this file, in order."""
    try:
        with open(counter, encoding="ascii") as file:
            return [Computed(*map(int, line.split())) for line in file]
    except FileNotFoundError:
        return []


def load(spec: Load, progress: Callable[[int, int], bool] = no_matter) -> ScriptedEngine:
    """Loads the engine, as any kernel's `LoadEngine`."""
    options = spec.options
    _check(options)
    _tell(spec)
    if options.get("hang_load"):
        _hang()
    _read_weights(float(options.get("load_seconds", 0)), int(options.get("memory_bytes", WEIGHTS_BYTES)), progress)
    if "fail_load" in options:
        raise LlmosError(Code.ENOEXEC, str(options["fail_load"]))
    if "trap" in options and os.path.exists(trap := str(options["trap"])):
        os.unlink(trap)
        raise LlmosError(Code.EIO, "the trap was there")
    lost, marker = options.get("lost_gpu", ""), str(options.get("marker", ""))
    if lost and lost in os.environ.get("CUDA_VISIBLE_DEVICES", "") and os.path.exists(marker):
        raise LlmosError(Code.EIO, f"{lost} is lost")
    if spec.gpu_layers > int(options.get("most_layers", spec.gpu_layers)):
        raise LlmosError(Code.ENOMEM, f"no memory for {spec.gpu_layers} layers")
    if not spec.path.startswith("scripted:") and not os.path.exists(spec.path):
        raise LlmosError(Code.ENOEXEC, f"cannot load {spec.path}: no such file")
    return ScriptedEngine(spec)


class ScriptedEngine:
    """Implements `abi.engine.Engine`."""

    def __init__(self, spec: Load) -> None:
        self._options = options = spec.options
        self.info = _info(spec)
        self._empty()
        self._interrupted = threading.Event()
        self._counter = _open_counter(options.get("counter"))
        self.is_end = END.__eq__

    def _empty(self) -> None:
        self._split = self.info.layout == "split"
        self._capacity = self.info.pages * self.info.page_tokens
        self._slots: list[list[Cell]] = [[] for _ in range(self.info.slots)]
        self._cells: list[list[int]] = [[] for _ in range(self.info.slots)]  # numbers of the cells, shared or not
        self._users: dict[int, int] = {}  # cell number → slots that use it
        self._next_cell = 0

    def tokenize(self, text: str, special: bool) -> list[int]:
        """Bytes; with `special` after BOS, and with `<|end|>` recognised."""
        if not special:
            return list(text.encode())
        parts = (part.encode() for part in text.split(END_TEXT))
        return [BOS, *chain(next(parts), *((END, *part) for part in parts))]

    def piece(self, token: int) -> bytes:
        """The byte itself."""
        return bytes((token,)) if token < BOS else b""

    def render(self, messages: Sequence[Message], generate: bool) -> str:
        """`<role>text<|end|>` for every message."""
        text = "".join(f"<{message.role}>{message.content}{END_TEXT}" for message in messages)
        return text + "<assistant>" if generate else text

    def step(self, chunks: Sequence[Chunk]) -> npt.NDArray[np.float32]:
        """Appends the tokens to the slots."""
        count = sum(len(chunk.tokens) for chunk in chunks)
        if count > self.info.max_batch:
            raise LlmosError(Code.EIO, f"a batch of {count} tokens exceeds {self.info.max_batch}")
        for chunk in chunks:
            if chunk.position != len(self._slots[chunk.slot]):
                raise LlmosError(Code.EIO, f"slot {chunk.slot} does not end at {chunk.position}")
        self._check_room(chunks, count)
        self._misbehave(chunks)
        self._spend(float(self._options.get("step_seconds", 0)) + float(self._options.get("token_seconds", 0)) * count)
        wanted: list[npt.NDArray[np.float32]] = []
        for chunk in chunks:
            quiet = len(chunk.tokens) - chunk.logits
            self._extend(chunk.slot, chunk.tokens[:quiet])
            for token in chunk.tokens[quiet:]:
                self._extend(chunk.slot, (token,))
                wanted.append(self._logits(self._slots[chunk.slot]))
        if self._counter is not None:
            for chunk in chunks:
                digest = self._slots[chunk.slot][-1].digest
                self._counter.write(f"{chunk.position} {len(chunk.tokens)} {digest}\n")
            self._counter.flush()
        return np.stack(wanted) if wanted else np.empty((0, VOCABULARY), dtype=np.float32)

    def interrupt(self) -> None:
        """Ends the time that a step takes."""
        self._interrupted.set()

    def _spend(self, seconds: float) -> None:
        self._interrupted.clear()
        with _crowd(self._options.get("crowd")) as factor:
            until = time.monotonic() + seconds * factor
            while seconds and (left := until - time.monotonic()) > 0 and not is_hurried():
                if self._interrupted.wait(min(left, _PATIENCE_SECONDS)):
                    raise LlmosError(Code.EINTR, "the step was interrupted")

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Shares cells in the shared layout, else takes new ones."""
        self._check_empty(target)
        self._slots[target] = self._slots[source][:tokens]
        self._cells[target] = [] if self._split else self._cells[source][:tokens]
        if self._split:
            self._take(target, tokens)
        else:
            for cell in self._cells[target]:
                self._users[cell] += 1

    def truncate(self, slot: int, tokens: int) -> None:
        """Drops cells from the end."""
        for cell in self._cells[slot][tokens:]:
            self._users[cell] -= 1
            if not self._users[cell]:
                del self._users[cell]
        del self._cells[slot][tokens:], self._slots[slot][tokens:]

    def shift(self, slot: int, keep: int, discard: int) -> None:
        """Cells keep their digests, of tokens that are forgotten too: moved KV is not computed KV."""
        cells = self._slots[slot]
        rest = cells[:keep] + cells[keep + discard :]
        self.truncate(slot, 0)
        self._slots[slot] = rest
        self._take(slot, len(rest))

    def export(self, slot: int, room: Room = nowhere) -> bytes | memoryview:
        """The cells as they are."""
        cells = np.array(self._slots[slot], dtype=_CELL).tobytes()
        blob = room(len(cells))
        if blob is None:
            return cells
        blob[:] = cells
        return blob

    def restore(self, slot: int, blob: bytes | memoryview, tokens: int) -> None:
        """Takes the cells as they are: damage that nobody noticed changes the text."""
        self._check_empty(slot)
        if len(blob) != tokens * _CELL.itemsize:
            raise LlmosError(Code.EIO, f"{len(blob)} bytes are not the KV of {tokens} tokens")
        self._check_room([Chunk(slot, 0, range(tokens), False)], tokens)
        self._slots[slot] = [Cell(*cell) for cell in np.frombuffer(blob, dtype=_CELL).tolist()]
        self._take(slot, tokens)

    def free(self, slot: int) -> None:
        """Empties a slot."""
        self.truncate(slot, 0)

    def resize(self, pool_tokens: int, slots: int, layout: Literal["shared", "split"]) -> None:
        """As many whole pages as the tokens make."""
        info, pages = self.info, pool_tokens // self.info.page_tokens
        if pages * info.page_tokens < info.context * (slots if layout == "split" else 1):
            raise LlmosError(Code.EINVAL, f"{pool_tokens} tokens in {slots} slots are too few")
        time.sleep(float(self._options.get("resize_seconds", 0)))
        if pages > int(self._options.get("most_pages", pages)):
            raise LlmosError(Code.ENOMEM, f"no memory for {pages} pages")
        self.info = replace(info, pages=pages, slots=slots, layout=layout)
        self._empty()

    def constraint(self, kind: Literal["gbnf", "json-schema"], text: str) -> Constraint:
        """There are none."""
        raise LlmosError(Code.ENOSYS, "the scripted engine cannot follow a grammar")

    def set_threads(self, threads: int) -> None:
        """Has no effect."""

    def usage(self) -> Usage:
        """Cells in use; shared ones count once."""
        return Usage(len(self._users), self._capacity)

    def close(self) -> None:
        """Closes the counter file."""
        if self._counter is not None:
            self._counter.close()

    def _check_empty(self, slot: int) -> None:
        if self._slots[slot]:
            raise LlmosError(Code.EIO, f"slot {slot} is not empty")

    def _check_room(self, chunks: Sequence[Chunk], count: int) -> None:
        if len(self._users) + count > self._capacity:
            raise LlmosError(Code.ENOMEM, f"the pool holds {self._capacity} tokens, {len(self._users)} are in use")
        if self._split:
            each = self._capacity // self.info.slots
            if any(len(self._slots[chunk.slot]) + len(chunk.tokens) > each for chunk in chunks):
                raise LlmosError(Code.ENOMEM, f"a slot holds {each} tokens")

    def _extend(self, slot: int, tokens: Sequence[int]) -> None:
        cells = self._slots[slot]
        digest = cells[-1].digest if cells else 0
        for token in tokens:
            digest = _mix(digest ^ (token + 1))
            cells.append(Cell(token, digest))
        self._take(slot, len(tokens))

    def _take(self, slot: int, count: int) -> None:
        numbers = range(self._next_cell, self._next_cell + count)
        self._next_cell += count
        self._cells[slot].extend(numbers)
        self._users.update(dict.fromkeys(numbers, 1))

    def _logits(self, cells: list[Cell]) -> npt.NDArray[np.float32]:
        digest = cells[-1].digest
        noise = (_FACTORS * np.uint64(digest)) >> np.uint64(40)
        logits = np.full(VOCABULARY, -40.0, dtype=np.float32)
        logits[_LETTERS] = noise[_LETTERS].astype(np.float32) * np.float32(6 / (1 << 24))
        if cells[-1].token != 32:
            logits[32] = np.float32(noise[32]) * np.float32(7 / (1 << 24))
        forced = self._forced(cells)
        if forced is not None:
            logits[forced] = 40.0
        return logits

    def _forced(self, cells: list[Cell]) -> int | None:
        """The token that must come next, if the options say so."""
        reply, end = self._options.get("reply"), self._options.get("end_after")
        if reply is None and end is None:
            return None
        if reply is None and isinstance(end, float) and end < 1:
            return END if (cells[-1].digest >> 11) * 2.0**-53 < end else None
        since = next((n for n, cell in enumerate(reversed(cells)) if cell.token == 62), len(cells) - 1)
        if reply is None:
            return END if since >= int(end or 0) else None
        data = str(reply).encode()
        return data[since] if since < len(data) else END

    def _misbehave(self, chunks: Sequence[Chunk]) -> None:
        most = max((chunk.position + len(chunk.tokens) for chunk in chunks), default=0)
        for option in ("crash_at_token", "hang_at_token"):
            at, marker = self._options.get(option), self._options.get("marker")
            if at is None or most < at or (marker and os.path.exists(marker)):
                continue
            if marker:
                open(marker, "w").close()
            if option == "crash_at_token":
                os._exit(70)
            _hang()


def _read_weights(seconds: float, size: int, progress: Callable[[int, int], bool]) -> None:
    """Takes so long, and tells of bytes as if there were any."""
    begun = time.monotonic()
    while (elapsed := time.monotonic() - begun) < seconds:
        if not progress(int(size * elapsed / seconds), size):
            raise LlmosError(Code.EINTR, "nobody wants the model any more")
        time.sleep(min(0.01, seconds - elapsed))
    progress(size, size)


def _open_counter(path: str | None) -> TextIO | None:
    return open(path, "a", encoding="ascii") if path else None


@contextmanager
def _crowd(path: str | None) -> Iterator[int]:
    """Marks a step as under way; how many times as long as alone it takes."""
    if path is None:
        yield 1
        return
    with open(path, "ab") as mine, open(path, "ab") as others:
        try:
            fcntl.flock(others, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(others, fcntl.LOCK_UN)
            alone = True
        except BlockingIOError:
            alone = False
        fcntl.flock(mine, fcntl.LOCK_SH)
        yield 1 if alone else 5


def _tell(spec: Load) -> None:
    if "told" in spec.options:
        told = {"layers": spec.gpu_layers, "split": spec.gpu_split, "gpus": os.environ.get("CUDA_VISIBLE_DEVICES")}
        with open(str(spec.options["told"]), "a", encoding="ascii") as file:
            file.write(json.dumps(told) + "\n")


def _hang() -> None:
    while True:
        time.sleep(3600)


def _check(options: dict[str, Any]) -> None:
    for name in options:
        if name not in OPTIONS:
            raise LlmosError(Code.EINVAL, f"the kernel has no option `{name}`", hint=f"known: {', '.join(OPTIONS)}")


def _info(spec: Load) -> ModelInfo:
    options = spec.options
    page_tokens = int(options.get("page_tokens", 16))
    pages = int(options.get("pages", 64 if spec.pool_tokens is None else spec.pool_tokens // page_tokens))
    slots = int(options.get("slots", spec.slots or 8))
    layout: Any = options.get("layout", "shared" if spec.layout == "auto" else spec.layout)
    longest = pages * page_tokens // (slots if layout == "split" else 1)
    context = min(longest, int(options.get("context", spec.context or longest)))
    return ModelInfo(
        fingerprint=f"scripted:{options.get('reply')}:{options.get('end_after')}:{spec.kv_type}",
        weights=f"scripted:{options.get('reply')}:{options.get('end_after')}",
        context=context,
        trained_context=longest,
        vocabulary=VOCABULARY,
        page_tokens=page_tokens,
        pages=pages,
        slots=slots,
        layout=layout,
        mixes=bool(options.get("mixes", True)),
        kv_bytes_per_token=KV_BYTES_PER_TOKEN,
        max_batch=int(options.get("max_batch", 512)),
        threads=1,
        has_chat_template=True,
        most_guesses=int(options.get("most_guesses", 0)),
        can_shift=bool(options.get("can_shift", True)),
        can_resize=bool(options.get("can_resize", False)),
        any_layout=True,
        can_interrupt=True,
        gpu=bool(options.get("gpu", False)),
        knows_gpus=bool(options.get("knows_gpus", True)),
        longest_piece_bytes=len(END_TEXT),
        description="scripted engine for tests",
    )


def _mix(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
