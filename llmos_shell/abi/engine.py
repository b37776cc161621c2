"""What an engine must do. Step loop, sampling, images and text decoding are shared and live in `llmos_shell.engine`.

An engine is used by one thread. A `slot` is an int in `range(info.slots)`. The engine keeps, per slot, the KV of
positions 0…n-1; only `step`, `copy`, `truncate`, `shift`, `restore`, `free` and `resize` change it. A failed call
raises `LlmosError` and leaves every slot as it was, unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol

from msgspec import Struct

from llmos_shell.abi.types import Message
from llmos_shell.abi.worker import Load, ModelInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt


class Chunk(Struct, frozen=True):
    """Tokens of one slot to compute in a step, beginning at `position`, which equals the slot's KV length."""

    slot: int
    position: int
    tokens: Sequence[int]
    logits: int  # of how many of its last tokens the logits are wanted


Room = Callable[[int], "memoryview | None"]
"""Gives a writable buffer of so many bytes, or None."""


def nowhere(size: int) -> memoryview | None:
    """No place is prepared."""
    return None


class Usage(Struct, frozen=True):
    """KV cells in use, and in all."""

    used_tokens: int
    total_tokens: int


class Constraint(Protocol):
    """State of one grammar over one turn."""

    def allows(self, token: int) -> bool:
        """Whether this token may come next."""

    def mask(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A copy of `logits` [vocabulary] with -inf for every token that may not come next."""

    def accept(self, token: int) -> None:
        """Advance by a token that was chosen."""

    def close(self) -> None:
        """Release it."""


class Engine(Protocol):
    """One loaded model. One thread calls it; others may call `tokenize`, `render`, `interrupt`, during a `step` too."""

    info: ModelInfo

    def tokenize(self, text: str, special: bool) -> list[int]:
        """Token ids; with `special`, BOS as the model wants it and special tokens in the text are recognised."""

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for; control tokens give b''."""

    def is_end(self, token: int) -> bool:
        """Whether the token ends a turn."""

    def render(self, messages: Sequence[Message], generate: bool) -> str:
        """The conversation as text by the model's own chat template; with `generate`, up to where the assistant speaks.

        Raises EINVAL when the template refuses the messages, ENOSYS when there is none and no fallback fits.
        """

    def step(self, chunks: Sequence[Chunk]) -> npt.NDArray[np.float32]:
        """Computes all chunks in one batch (at most `info.max_batch` tokens).

        Returns logits of shape [sum of `logits` over the chunks, vocabulary], in the order of the chunks, valid until
        the next call; more than one of a chunk is asked for within `info.most_guesses` only. Raises ENOMEM when the
        pool has no room and EINTR when it was interrupted (nothing changed), EIO when the engine failed.
        """

    def interrupt(self) -> None:
        """Has the step that is under way end soon, as if it had not begun; later ones are not concerned.

        Only called with `can_interrupt`.
        """

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Makes the empty slot `target` hold the first `tokens` tokens of `source`, sharing cells where it can."""

    def truncate(self, slot: int, tokens: int) -> None:
        """Keeps the first `tokens` tokens."""

    def shift(self, slot: int, keep: int, discard: int) -> None:
        """Forgets the `discard` tokens after the first `keep`; the KV of what follows moves up to their positions.

        No other slot changes, whatever they share. ENOSYS without `can_shift`. On another failure the slot is empty.
        `export` may raise ENOSYS until the slot took part in a step again.
        """

    def export(self, slot: int, room: Room = nowhere) -> bytes | memoryview:
        """The slot's KV as bytes, for `restore` of an engine with the same fingerprint. ENOSYS without `can_export`.

        An engine that can write them anywhere asks `room` for a place, uses it if there is one, and returns just that.
        """

    def restore(self, slot: int, blob: bytes | memoryview, tokens: int) -> None:
        """Fills an empty slot from `export`ed bytes that hold `tokens` tokens. They were verified by the caller.

        On failure raises and leaves the slot empty.
        """

    def free(self, slot: int) -> None:
        """Empties a slot."""

    def resize(self, pool_tokens: int, slots: int, layout: Literal["shared", "split"]) -> None:
        """Gives the engine another KV pool, for sequences of the same length; `info` tells of it. Slots are empty then.

        ENOSYS without `can_resize`, EINVAL where a sequence of that length would not fit, ENOMEM when there is no
        memory: then nothing has changed, but that slots are empty. With an equal `fingerprint` images are good as ever.
        """

    def constraint(self, kind: Literal["gbnf", "json-schema"], text: str) -> Constraint:
        """A fresh grammar state. Raises EINVAL with the position of a mistake; ENOSYS without `can_constrain`."""

    def set_threads(self, threads: int) -> None:
        """Changes the number of compute threads, from the next step on."""

    def usage(self) -> Usage:
        """Present use of the pool."""

    def close(self) -> None:
        """Releases everything. The engine is not used afterwards."""


def no_matter(read_bytes: int, total_bytes: int) -> bool:
    """The progress of a load that nobody watches."""
    return True


class LoadEngine(Protocol):
    """What a kernel's worker module hands to the shared worker main."""

    def __call__(self, spec: Load, progress: Callable[[int, int], bool] = no_matter) -> Engine:
        """Loads the model. Raises ENOEXEC for a bad file, ENOMEM when it does not fit.

        Meanwhile it calls `progress` with the bytes of the weights that have been read, and with how many there are,
        as often as it likes. When that returns false, nobody wants the model any more: it raises EINTR, soon.
        """
