"""The sequences a worker holds, and what the daemon's messages do to them. Messages in, answers out.

Owns slots, grants and the KV of prefixes taken from copies and images. `loop` computes; `worker` moves the messages.
"""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Callable, Iterator, Set

from llmos_shell.abi import worker as abi
from llmos_shell.abi.engine import Engine
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.engine import images, neighbours
from llmos_shell.engine.ahead import Ahead
from llmos_shell.engine.arenas import Arenas
from llmos_shell.engine.sequence import Sequence, Vocabulary

Later = Callable[[Callable[[], abi.ToDaemon]], None]
"""Does something in its own time, and sends the answer."""

FIRST_MOVE_SECONDS = 1e-9
"""What it takes to move one byte of KV to another slot, before that was measured."""


class Table:
    """All open sequences of one engine, and the run set in force."""

    def __init__(self, engine: Engine, later: Later | None = None) -> None:
        """`later` has files written while steps go on; without it they are written at once."""
        self._engine = engine
        self._later = later
        self._info = engine.info
        self._vocabulary = Vocabulary(engine)
        self._arenas = Arenas()
        self._ahead = Ahead(engine.info.fingerprint, self._arenas)
        self._sequences: dict[int, Sequence] = {}
        self._free_slots = list(range(engine.info.slots))  # in ascending order
        self._awake: list[Sequence] | None = None  # None: to be found again
        self._gathered: Set[int] = set()  # slots of those of whom nobody needs to move
        self._move_seconds = FIRST_MOVE_SECONDS
        self.grants: tuple[abi.Grant, ...] = ()
        self.budget = 0  # prompt tokens per step
        self.spacing = 1  # steps that decode between two that prefill, where those are not mixed
        self.hold_seconds = 0.0
        self._handlers: dict[type, Callable[..., list[abi.ToDaemon]]] = {
            abi.Fence: self._fence,
            abi.Open: self._open,
            abi.Feed: self._feed,
            abi.Run: self._run,
            abi.Export: self._export,
            abi.Free: self._free,
            abi.Truncate: self._truncate,
            abi.Shift: self._shift,
            abi.Resize: self._resize,
        }

    def handle(self, message: abi.ToWorker) -> list[abi.ToDaemon]:
        """Carries out one message. Raises only when the engine itself failed (EIO)."""
        self._awake = None
        return self._handlers[type(message)](message)

    def close(self) -> None:
        """Gives up the files kept for further images."""
        self._ahead.close()
        self._arenas.close()

    def overhear(self, message: abi.Open) -> None:
        """Verifies the image that this message names, which is still to be handled. For another thread."""
        if isinstance(message.source, abi.ImageFile):
            self._ahead.expect(message.source.path)

    def awake(self) -> list[Sequence]:
        """The sequences of the run set that could compute, in order."""
        if self._awake is None:
            found = (self._sequences.get(grant.seq) for grant in self.grants)
            self._awake = [s for s in found if s is not None and not s.idle and not s.starved]
        return self._awake

    def changed(self) -> None:
        """Says that a sequence fell asleep or has no room."""
        self._awake = None

    def gather(self, pass_seconds: float) -> None:
        """Moves a sequence where that makes those that compute next neighbours and pays.

        Only the split layout gains. `pass_seconds` is what a pass over the weights takes, 0 when nobody knows.
        """
        if self._info.layout != "split" or not self._info.can_export:
            return
        active = {sequence.slot: sequence.kv for sequence in self._computing()}
        if active.keys() == self._gathered:
            return
        asleep = {s.slot: s.kv for s in self._sequences.values() if s.slot not in active}
        move = neighbours.next_move(active, asleep, self._info.slots)
        if move is not None:
            source, target, tokens = move
            seconds = tokens * self._info.kv_bytes_per_token * self._move_seconds
            gain = neighbours.PATIENCE_STEPS * (neighbours.runs(active) - 1) * pass_seconds
            if seconds <= gain and self._move(source, target):
                return
        self._gathered = active.keys()

    def _computing(self) -> Iterator[Sequence]:
        """Those of the run set that decode, and the prompts that the budget admits."""
        budget = self.budget
        for sequence in self.awake():
            rest = len(sequence.tokens) - sequence.kv - 1
            if rest <= 0 or budget > 0:
                budget -= max(rest, 0)
                yield sequence

    def _move(self, source: int, target: int) -> bool:
        """Gives a sequence another slot, and who had that one its own; whether that could be done."""
        here = {sequence.slot: sequence for sequence in self._sequences.values() if sequence.slot in (source, target)}
        begun = time.perf_counter()
        try:
            blobs = {slot: self._engine.export(slot) for slot, sequence in here.items() if sequence.kv}
        except LlmosError as error:
            if error.code == Code.EIO:
                raise
            return False
        for slot in blobs:
            self._engine.free(slot)
        if target not in here:
            self._free_slots.remove(target)
            insort(self._free_slots, source)
        for slot, sequence in here.items():
            sequence.slot = source + target - slot
            if slot in blobs:
                self._put(sequence, blobs[slot])
        size = sum(len(blob) for blob in blobs.values())
        if size:
            self._move_seconds += 0.3 * ((time.perf_counter() - begun) / size - self._move_seconds)
        return True

    def _put(self, sequence: Sequence, blob: bytes | memoryview) -> None:
        """Restores what the sequence had in another slot; without it, the tokens are computed again."""
        try:
            self._engine.restore(sequence.slot, blob, sequence.kv)
        except LlmosError as error:
            if error.code == Code.EIO:
                raise
            sequence.kv = 0

    def cut_kv(self, sequence: Sequence, tokens: int) -> None:
        """Keeps the KV of the first `tokens` tokens; of none where the engine cannot cut, and it is computed again."""
        if tokens >= sequence.kv:
            return
        if tokens:
            try:
                self._engine.truncate(sequence.slot, tokens)
            except LlmosError as error:
                if error.code != Code.ENOSYS:
                    raise
                tokens = 0
        if not tokens:
            self._engine.free(sequence.slot)
        sequence.kv = tokens

    def _fence(self, message: abi.Fence) -> list[abi.ToDaemon]:
        if self._later is None:
            return [abi.Fenced(message.id)]
        self._later(lambda: abi.Fenced(message.id))  # files that are being written come before
        return []

    def _open(self, message: abi.Open) -> list[abi.ToDaemon]:
        try:
            return self._opened(message)
        finally:
            if isinstance(message.source, abi.ImageFile):
                self._ahead.forget(message.source.path)

    def _opened(self, message: abi.Open) -> list[abi.ToDaemon]:
        if message.seq in self._sequences:
            return [abi.Failed(message.seq, Code.EINVAL, "a sequence with this handle is open already")]
        if not self._free_slots:
            return [abi.Failed(message.seq, Code.EAGAIN, f"all {self._info.slots} slots of the worker are taken")]
        sequence = Sequence(self._vocabulary, message.seq, self._free_slots[0], list(message.tokens))
        try:
            copyable = self._copyable(message)
            self._check(message.tokens[copyable:], len(message.tokens), message.idle)
            if not 0 <= message.turn <= len(message.tokens):
                raise LlmosError(Code.EINVAL, f"turn {message.turn} lies outside of {len(message.tokens)} tokens")
            sequence.begin(message.turn, message.sampling, self._vocabulary.constraint(message.sampling))
            begun = time.perf_counter()
            note = self._fill(sequence, message.source, copyable)
            seconds = time.perf_counter() - begun
        except Exception as error:
            sequence.release()
            return [failed(sequence, error)]
        del self._free_slots[0]
        sequence.idle = message.idle
        sequence.prompting = message.turn == len(message.tokens) or sequence.kv != len(message.tokens) - 1
        self._sequences[message.seq] = sequence
        self._grant_to(sequence)
        return [abi.Opened(message.seq, sequence.kv, note, sequence.text.held, seconds)]

    def _copyable(self, message: abi.Open) -> int:
        """How many leading tokens another sequence has, and their KV, that it names as its source."""
        source = message.source
        if not isinstance(source, abi.CopyOf) or (origin := self._sequences.get(source.seq)) is None:
            return 0
        wanted = min(source.tokens, origin.kv, len(message.tokens))
        return images.common_prefix(origin.tokens[:wanted], message.tokens[:wanted])

    def _fill(self, sequence: Sequence, source: abi.CopyOf | abi.ImageFile | None, copyable: int) -> str:
        """Takes the KV of a prefix from the source; returns why it could not, if so."""
        try:
            if isinstance(source, abi.CopyOf):
                return self._fill_from_copy(sequence, source, copyable)
            if isinstance(source, abi.ImageFile):
                return self._fill_from_image(sequence, source.path)
        except LlmosError as error:
            if error.code == Code.EIO and isinstance(source, abi.CopyOf):
                raise
            return str(error)
        return ""

    def _fill_from_copy(self, sequence: Sequence, source: abi.CopyOf, usable: int) -> str:
        origin = self._sequences.get(source.seq)
        if origin is None:
            return f"the sequence to copy from ({source.seq}) is not open"
        if not self._info.can_fork:
            return "this kernel cannot copy KV"
        if usable:
            self._engine.copy(origin.slot, sequence.slot, usable)
            sequence.kv = usable
        return "" if usable >= min(source.tokens, len(sequence.tokens)) else f"only {usable} tokens could be copied"

    def _fill_from_image(self, sequence: Sequence, path: str) -> str:
        with self._ahead.image(path) as image:
            held = len(image.header.tokens)
            usable = images.common_prefix(image.header.tokens, sequence.tokens)
            if usable:
                self._engine.restore(sequence.slot, image.blob, held)
                sequence.kv = held
                self.cut_kv(sequence, usable)
                usable = sequence.kv
        return "" if usable == held else f"only {usable} of the image's {held} tokens are those of the sequence"

    def _feed(self, message: abi.Feed) -> list[abi.ToDaemon]:
        sequence = self._sequences.get(message.seq)
        if sequence is None:
            return [abi.Failed(message.seq, Code.ESRCH, "no such sequence is open")]
        keep = len(sequence.tokens) if message.keep is None else message.keep
        try:
            if not 0 <= keep <= len(sequence.tokens):
                raise LlmosError(Code.EINVAL, f"cannot keep {keep} of {len(sequence.tokens)} tokens")
            self._check(message.tokens, keep + len(message.tokens), False)
            constraint = self._vocabulary.constraint(message.sampling)
            self._shorten(sequence, keep)
            sequence.tokens.extend(message.tokens)
            sequence.begin(len(sequence.tokens), message.sampling, constraint)
        except Exception as error:
            return [failed(sequence, error)]
        sequence.idle = False
        self._grant_to(sequence)
        return []

    def _run(self, message: abi.Run) -> list[abi.ToDaemon]:
        before = {grant.seq: grant.limit for grant in self.grants}
        self.grants, self.budget, self.spacing = message.order, message.prefill_budget, message.prefill_spacing
        self.hold_seconds = message.hold_seconds
        for grant in message.order:
            sequence = self._sequences.get(grant.seq)
            if sequence is not None:
                sequence.limit = grant.limit
                if sequence.starved or before.get(grant.seq) != grant.limit:
                    sequence.pressed = sequence.starved = False
        return []

    def _export(self, message: abi.Export) -> list[abi.ToDaemon]:
        sequence = self._sequences.get(message.seq)
        if sequence is None:
            return [abi.Exported(message.seq, message.path, 0, 0, "no such sequence is open")]
        begun = time.perf_counter()
        info, tokens = self._info, tuple(sequence.tokens[: sequence.kv])
        header = images.Header(images.VERSION, info.fingerprint, tokens, info.layout, info.kv_bytes_per_token, 0)
        draft = images.Draft(message.path, header, self._arenas)
        try:
            if not info.can_export:
                raise LlmosError(Code.ENOSYS, "this kernel cannot export KV")
            blob = self._engine.export(sequence.slot, draft.room) if tokens else b""
        except LlmosError as error:
            draft.close()
            return [abi.Exported(message.seq, message.path, 0, 0, str(error))]
        seconds = time.perf_counter() - begun
        if self._later is None:
            return [_written(message, draft, blob, len(tokens), seconds)]
        self._later(lambda: _written(message, draft, blob, len(tokens), seconds))
        return []

    def _free(self, message: abi.Free) -> list[abi.ToDaemon]:
        sequence = self._sequences.pop(message.seq, None)
        if sequence is not None:
            sequence.release()
            self._engine.free(sequence.slot)
            insort(self._free_slots, sequence.slot)
            self._revive()
        return []

    def _truncate(self, message: abi.Truncate) -> list[abi.ToDaemon]:
        sequence = self._sequences.get(message.seq)
        if sequence is not None and 0 <= message.tokens < len(sequence.tokens):
            self._shorten(sequence, message.tokens)
            sequence.turn = min(sequence.turn, message.tokens)
            self._revive()
        return []

    def _shift(self, message: abi.Shift) -> list[abi.ToDaemon]:
        sequence, keep, discard = self._sequences.get(message.seq), message.keep, message.discard
        if sequence is None:
            return [abi.Failed(message.seq, Code.ESRCH, "no such sequence is open")]
        if keep < 0 or discard < 0 or keep + discard >= len(sequence.tokens):
            text = f"cannot forget {discard} after {keep} of {len(sequence.tokens)} tokens"
            return [failed(sequence, LlmosError(Code.EINVAL, text))]
        note, held = "", sequence.kv
        if self._info.can_shift and held > keep + discard:
            try:
                self._engine.shift(sequence.slot, keep, discard)
                sequence.kv = held - discard
            except LlmosError as error:
                if error.code == Code.EIO:
                    raise
                self._engine.free(sequence.slot)
                sequence.kv, note = 0, str(error)
        else:
            self.cut_kv(sequence, min(held, keep))
        sequence.shift(keep, discard)
        sequence.prompting = sequence.kv < len(sequence.tokens) - 1
        sequence.limit, sequence.pressed, sequence.starved = 0, False, False
        self.grants = tuple(grant for grant in self.grants if grant.seq != message.seq)
        self._revive()
        return [abi.Opened(message.seq, sequence.kv, note, sequence.text.held)]

    def _resize(self, message: abi.Resize) -> list[abi.ToDaemon]:
        begun, code, text = time.perf_counter(), "", ""
        for sequence in self._sequences.values():
            sequence.release()
        self._sequences.clear()
        self.grants = ()
        try:
            if not self._info.can_resize:
                raise LlmosError(Code.ENOSYS, "this kernel cannot change the size of its KV pool")
            self._engine.resize(message.pool_tokens, message.slots, message.layout)
        except LlmosError as error:
            if error.code == Code.EIO:
                raise
            code, text = str(error.code), str(error)
        self._info = self._engine.info
        for slot in range(self._info.slots):
            self._engine.free(slot)
        self._free_slots = list(range(self._info.slots))
        self._gathered = set()
        self._ahead.serves(self._info.fingerprint)
        return [abi.Resized(self._info, time.perf_counter() - begun, code, text)]

    def _check(self, tokens: tuple[int, ...], size: int, idle: bool) -> None:
        """Refuses what no engine could compute."""
        context = self._info.context
        if size > context:
            raise LlmosError(Code.E2BIG, f"{size} tokens do not fit the context of {context}")
        if not size and not idle:
            raise LlmosError(Code.EINVAL, "there are no tokens to start from")
        if tokens and (min(tokens) < 0 or max(tokens) >= self._info.vocabulary):
            raise LlmosError(Code.EINVAL, f"a token lies outside of the vocabulary of {self._info.vocabulary}")

    def _shorten(self, sequence: Sequence, tokens: int) -> None:
        del sequence.tokens[tokens:]
        self.cut_kv(sequence, tokens)

    def _grant_to(self, sequence: Sequence) -> None:
        """Applies a grant that came before the sequence could run."""
        sequence.pressed = sequence.starved = False
        for grant in self.grants:
            if grant.seq == sequence.seq:
                sequence.limit = grant.limit

    def _revive(self) -> None:
        """Cells came free: who had no room may try again."""
        for sequence in self._sequences.values():
            if sequence.starved:
                sequence.starved = sequence.pressed = False


def failed(sequence: Sequence, error: Exception) -> abi.Failed:
    """Puts a sequence to sleep that cannot go on. Engine failures concern everyone and are raised on."""
    if isinstance(error, LlmosError):
        if error.code == Code.EIO:
            raise error
        code, text = str(error.code), str(error)
    else:
        code, text = str(Code.EIO), f"{type(error).__name__}: {error}"
    sequence.idle = True
    sequence.ended = None
    sequence.release()
    return abi.Failed(sequence.seq, code, text)


def _written(
    message: abi.Export, draft: images.Draft, blob: bytes | memoryview, tokens: int, seconds: float
) -> abi.Exported:
    """Finishes an image that took so long to export."""
    begun = time.perf_counter()
    try:
        size = draft.finish(blob)
    except Exception as error:
        return abi.Exported(message.seq, message.path, 0, 0, str(error) or type(error).__name__)
    seconds += time.perf_counter() - begun
    return abi.Exported(message.seq, message.path, tokens, size, seconds=seconds)
