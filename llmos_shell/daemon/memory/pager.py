"""Where the KV of one worker's processes is: opening, parking, restoring, dropping, and making room.

Owns the ledger and the binding of processes to the worker's sequences. Every method sends the messages that make the
worker agree, in order. Whom to take memory from: cached prefixes, then sleeping processes, then the least deserving.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING

from msgspec import structs

from llmos_shell.abi import worker as abi
from llmos_shell.abi.types import KvState, Sampling
from llmos_shell.daemon.memory.costs import Path
from llmos_shell.daemon.memory.ledger import Ledger, PoolFull
from llmos_shell.daemon.memory.park import TEMPORARY, remove_file
from llmos_shell.daemon.memory.tiers import Place
from llmos_shell.daemon.processes.process import NO_LIMIT, Phase, Process

if TYPE_CHECKING:
    from llmos_shell.daemon.models.conductor import Conductor

AHEAD_PAGES = 4
"""Pages granted beyond the present length, so that the worker does not wait for the daemon at a page's end."""


class Pager:
    """Memory of one worker, from its start to its end."""

    def __init__(self, conductor: Conductor, info: abi.ModelInfo, first_seq: int = 0) -> None:
        """Handles of sequences count up from `first_seq`: a worker never sees one twice."""
        self._conductor = conductor
        self._core = conductor.core
        self.info = info
        self.ledger = Ledger(info.pages, info.page_tokens, info.slots, info.layout == "split")
        self.context = min(info.context, self.ledger.quota * info.page_tokens)
        self.bound: dict[int, Process] = {}  # also those being exported
        self._expected: dict[int, tuple[int, bool]] = {}  # opened, not yet confirmed: tokens shared, from an image
        self._snapshots: dict[str, asyncio.Future[str]] = {}  # by path: what went wrong
        self.next_seq = first_seq
        self.short_pages = self.short_slots = 0  # times that somebody who wants to run lacked these
        self.frozen = False  # nothing is opened: the pool is about to change

    # -- opening -------------------------------------------------------------------------------------------------------

    def make_resident(self, process: Process, reserved: Collection[int]) -> bool:
        """Gives a process a sequence and room for one more token, taking memory from all but the `reserved` processes.

        False when there is no room; then nothing changed.
        """
        if process.leaving:
            return False
        if process.seq is not None:
            return self._room_to_grow(process, reserved)
        return self._open(process, reserved, idle=False)

    def on_its_way(self, process: Process) -> bool:
        """Whether its KV is just being read from the disk."""
        tiers = self._core.swap.tiers
        return tiers.place(process.pid) is Place.DISK and tiers.moving(process.pid)

    def open_idle(self, process: Process) -> None:
        """Makes a sleeping process resident if that costs nobody anything."""
        if process.seq is None and not process.leaving and self.ledger.free_slots:
            needed = len(process.tokens) // self.ledger.page_tokens + 1
            if self.ledger.free_pages >= needed:
                self._open(process, (), idle=True, evict=False)

    def _open(self, process: Process, reserved: Collection[int], *, idle: bool, evict: bool = True) -> bool:
        if self.frozen:
            return False
        ledger, tokens = self.ledger, process.tokens
        source, shared = self._best_prefix(process)
        image = process.image if process.image and process.computed > shared else ""
        if image and self._core.swap.coming(process):
            return False
        if image:
            source, shared = None, 0
        pages = len(tokens) // ledger.page_tokens + 1
        seq = self.next_seq
        try:
            ledger.open(seq, tokens, source, shared, process.scope)
        except PoolFull as full:
            if not evict or full.code == "ENOMEM":
                return False
            keep = () if source is None else (source,)
            if not self._make_room(full.needed_pages, 1, reserved, keep):
                if source is None or not self._make_room(pages, 1, reserved, ()):
                    return False
                source, shared = None, 0
            ledger.open(seq, tokens, source, shared, process.scope)
        self.next_seq += 1
        self._bind(process, seq)
        self._expected[seq] = (shared, bool(image))
        origin: abi.ImageFile | abi.CopyOf | None = abi.ImageFile(image) if image else None
        if source is not None and shared:
            origin = abi.CopyOf(source, shared)
        turn = len(tokens) if idle else self._turn(process)
        self._conductor.send(abi.Open(seq, tuple(tokens), turn, self._sampling(process), origin, idle))
        return True

    def _best_prefix(self, process: Process) -> tuple[int | None, int]:
        """The sequence that holds the most of its tokens, and how many."""
        if not self.info.can_fork:
            return None, 0
        origin, held = self._of_parent(process)
        if held and held >= len(process.tokens) - 1:  # nobody has more
            return origin, held
        match = self.ledger.match(process.tokens, process.scope)
        return (match.seq, match.tokens) if match is not None and match.tokens >= held else (origin, held)

    def _of_parent(self, process: Process) -> tuple[int | None, int]:
        """The sequence of the process it was forked from, and how many of its tokens that holds."""
        ledger, tokens, origin = self.ledger, process.tokens, process.origin
        if origin is None or origin not in ledger or origin not in self.bound:
            return None, 0
        held = min(ledger.length(origin), len(tokens) - (process.phase is Phase.READY))  # its next token needs logits
        parent = self.bound[origin]
        allowed = ledger.scope_of(origin) == parent.scope == process.scope
        return (origin, held) if held and allowed and parent.tokens[:held] == tokens[:held] else (None, 0)

    def opened(self, message: abi.Opened) -> None:
        """The worker says how much it could reuse."""
        shared, from_image = self._expected.pop(message.seq, (0, False))
        process = self.bound.get(message.seq)
        if process is None or message.seq not in self.ledger:
            return
        reused = message.reused
        if from_image:
            self.ledger.computed(message.seq, process.tokens[:reused])
        elif reused < shared:
            self.ledger.truncate(message.seq, reused)
        if from_image:
            self._restored(process, reused, message.seconds)
        self._core.swap.discard(process)
        process.computed = reused
        if process.phase is Phase.READY:
            process.held = message.held
        again = process.known_computed
        if again:
            process.recomputed_tokens += max(0, again - reused)
            self._core.counts.recomputed_tokens += max(0, again - reused)
        else:
            self._core.counts.reused_tokens += reused
            process.reused_tokens += reused
        process.known_computed = max(again, reused)
        if message.note:
            self._core.events.info("memory", message.note, process.pid)

    @staticmethod
    def _turn(process: Process) -> int:
        """Where its answer begins, or what is left of it."""
        return max(process.turn_start, process.sinks if process.turn_start < process.sinks else 0)

    def _sampling(self, process: Process) -> Sampling:
        """What its user asked for; a conversation also stops where the model would begin to speak for the user."""
        sampling, most = process.sampling, process.sampling.max_tokens
        gone = self._turn(process) - process.turn_start  # of the answer, forgotten
        if most is not None and gone and process.phase is Phase.READY:
            sampling = structs.replace(sampling, max_tokens=max(1, most - gone))
        extra = () if process.raw else self.info.chat_stop
        return structs.replace(sampling, stop=(*sampling.stop, *extra)) if extra else sampling

    def _bind(self, process: Process, seq: int) -> None:
        process.seq = seq
        process.kv = KvState.RESIDENT
        process.limit = 0
        process.topup_at = 0
        self.bound[seq] = process

    def computed(self, process: Process, count: int) -> None:
        """The KV of its first `count` tokens exists now."""
        before = process.computed
        if count > before and not process.leaving and process.seq is not None:
            self.ledger.computed(process.seq, process.tokens[before:count])
            process.computed = count
            if count > process.known_computed:
                process.known_computed = count

    def most(self, process: Process) -> int:
        """The longest context the process may have."""
        return min(process.cap, self.context)

    # -- growing -------------------------------------------------------------------------------------------------------

    def grant(self, process: Process, ahead: int = AHEAD_PAGES) -> int:
        """Leave to run up to so many tokens, a few pages ahead if there are any."""
        ledger, seq = self.ledger, process.seq
        assert seq is not None
        length = len(process.tokens)
        if length >= process.topup_at or length >= process.limit:
            want = min(length + ahead * ledger.page_tokens, self.context)
            room = min(ledger.grant(seq, want), self.context)
            process.limit = min(room, process.cap)
            process.topup_at = room - ledger.page_tokens if room < self.context else NO_LIMIT
        return process.limit

    def _room_to_grow(self, process: Process, reserved: Collection[int]) -> bool:
        ledger, seq = self.ledger, process.seq
        assert seq is not None
        wanted = len(process.tokens) + 1
        if ledger.limit(seq) >= wanted or ledger.grant(seq, wanted) >= wanted:
            return True
        missing = max(1, -(-(wanted - ledger.limit(seq)) // ledger.page_tokens))
        if not self._make_room(missing, 0, {*reserved, process.pid}, ()):
            return False
        return ledger.grant(seq, wanted) >= wanted

    def feed(self, process: Process, keep: int) -> None:
        """Tells the worker of the present turn's input: `tokens[keep:]`."""
        seq = process.seq
        assert seq is not None
        if keep < self.ledger.length(seq):
            self.ledger.truncate(seq, keep)
            process.computed = min(process.computed, keep)
            process.known_computed = min(process.known_computed, keep)
        process.topup_at = process.limit = 0
        self._conductor.send(abi.Feed(seq, tuple(process.tokens[keep:]), self._sampling(process), keep))

    def shift(self, process: Process, keep: int, discard: int) -> None:
        """Forgets KV in the middle of a context, before the process's tokens change."""
        seq, ledger = process.seq, self.ledger
        process.topup_at = process.limit = 0
        if seq is None or process.leaving:
            process.computed = min(process.computed, keep)
            process.known_computed = max(0, process.known_computed - discard)
            return
        held = ledger.length(seq)
        moves = self.info.can_shift and held > keep + discard
        if seq in self._expected or (moves and not ledger.shift(seq, keep, discard)):
            self.drop(process)
        else:
            if not moves:
                ledger.truncate(seq, min(held, keep))
            self._expected[seq] = (ledger.length(seq), False)
            process.computed = ledger.length(seq)
            self._conductor.send(abi.Shift(seq, keep, discard))
            self._conductor.planner.resend()
        process.known_computed = max(0, min(process.known_computed, held) - discard)

    def replaced(self, process: Process, keep: int) -> None:
        """Forgets the KV of a context that is about to be another one after its first `keep` tokens.

        What others, or an image, have of its beginning is found when it is opened again.
        """
        process.topup_at = process.limit = 0
        self.drop(process)
        process.computed = min(process.computed, keep)
        process.known_computed = min(process.known_computed, keep)

    # -- making room ---------------------------------------------------------------------------------------------------

    def _make_room(self, pages: int, slots: int, reserved: Collection[int], keep: Collection[int]) -> bool:
        """Frees pages and slots, if that can be done without touching the reserved processes."""
        ledger = self.ledger
        if not self._feasible(pages, slots, reserved, keep):
            self._note_short(slots)
            return False
        for seq in ledger.reclaim(pages, slots, keep):
            self._conductor.send(abi.Free(seq))
        for process in self._victims(reserved, keep):
            if ledger.free_pages >= pages and ledger.free_slots >= slots:
                break
            if process.wants_to_run:
                self._note_short(slots)
            self.park(process)
        return ledger.free_pages >= pages and ledger.free_slots >= slots

    def _note_short(self, slots: int) -> None:
        if self.ledger.free_slots < slots:
            self.short_slots += 1
        else:
            self.short_pages += 1

    def _feasible(self, pages: int, slots: int, reserved: Collection[int], keep: Collection[int]) -> bool:
        ledger = self.ledger
        if ledger.free_pages >= pages and ledger.free_slots >= slots:
            return True
        held = [p.seq for p in self.bound.values() if p.pid in reserved and p.seq is not None and p.seq in ledger]
        held += [seq for seq in keep if seq in ledger and seq not in held]
        return ledger.slots - len(held) >= slots and ledger.pages - ledger.pages_held(held) >= pages

    def _victims(self, reserved: Collection[int], keep: Collection[int]) -> list[Process]:
        """Whom to take memory from, in this order."""
        spared = {*keep, None}
        candidates = [p for p in self.residents() if p.seq not in spared and p.pid not in reserved]
        sleeping = [p for p in candidates if p.phase is not Phase.READY or p.stopped]
        waiting = {p.pid: p for p in candidates if p.phase is Phase.READY and not p.stopped}
        sleeping.sort(key=lambda p: p.rate_since)
        order = self._conductor.scheduler.victims(waiting, self._core.now())
        return [*sleeping, *(waiting[pid] for pid in order)]

    def starved(self, process: Process, running: Collection[int]) -> None:
        """The worker has no cells for a process although there are pages: makes some room all the same."""
        if not self._make_room(self.ledger.free_pages + 1, 0, running, ()):
            others = [pid for pid in running if pid != process.pid and self._conductor.members[pid].resident]
            for pid in self._conductor.scheduler.victims(others, self._core.now())[:1]:
                self.park(self._conductor.members[pid])

    # -- leaving -------------------------------------------------------------------------------------------------------

    def park(self, process: Process) -> None:
        """Takes the KV out of the worker: to an image where that can be done and pays, else it is dropped."""
        seq = process.seq
        assert seq is not None
        unconfirmed = seq in self._expected  # the worker may be further than is known here
        held = len(process.tokens) if unconfirmed else self.ledger.length(seq)
        self.ledger.release(seq)
        if held and self.info.can_export and self._image_pays(process, held):
            process.leaving, process.leaving_to = True, self._core.swap.new_path(process)
            self._conductor.send(abi.Export(seq, process.leaving_to))
            self._conductor.send(abi.Free(seq))
            process.kv = KvState.PARKED
        else:
            self._conductor.send(abi.Free(seq))
            self._unbind(process)
            if held and not unconfirmed:
                self._core.counts.dropped += 1
                self._core.counts.dropped_tokens += held

    def clear(self) -> int:
        """Parks everybody and forgets all cached prefixes; returns how many. Nothing is opened while it is `frozen`."""
        self.frozen = True
        residents = self.residents()
        for process in residents:
            self.park(process)
        for seq in self.ledger.reclaim(self.ledger.pages, self.ledger.slots, ()):
            self._conductor.send(abi.Free(seq))
        return len(residents)

    def _image_pays(self, process: Process, held: int) -> bool:
        """Whether an image of so many tokens is worth it and has room; a former one stays until it is there."""
        size = held * self.info.kv_bytes_per_token
        if not self._core.costs.keeps(size, held, self._conductor.planner.prefill_rate, disk=False):
            return False
        return bool(process.image) or self._core.swap.tiers.reserve(process.pid, size)

    def snapshot(self, process: Process) -> asyncio.Future[str] | None:
        """Has the worker write the process's KV to `process.leaving_to` and go on; None where it cannot.

        The future tells what went wrong.
        """
        if process.seq is None or process.leaving or not self.info.can_export:
            return None
        path = process.leaving_to = self._core.swap.new_path(process)
        future: asyncio.Future[str] = self._core.loop.create_future()
        self._snapshots[path] = future
        self._conductor.send(abi.Export(process.seq, path))
        return future

    def drop(self, process: Process) -> None:
        """Forgets the KV of a process; its tokens are computed again when they are needed."""
        if process.resident and process.seq is not None:
            self.ledger.release(process.seq)
            self._conductor.send(abi.Free(process.seq))
            self._unbind(process)

    def failed(self, seq: int) -> Process | None:
        """The worker has given up a sequence; returns whose. What it had of it may lack the present turn."""
        self._expected.pop(seq, None)
        process = self.bound.get(seq)
        if process is not None:
            self.drop(process)
        return process

    def exported(self, message: abi.Exported) -> None:
        """The image is there, or cannot be."""
        snapshot = self._snapshots.pop(message.path, None)
        if snapshot is not None:
            if snapshot.done():
                remove_file(message.path)
            else:
                snapshot.set_result(message.error)
            return
        process = self.bound.get(message.seq)
        if process is None or not process.leaving:
            self.bound.pop(message.seq, None)
            remove_file(message.path)
            return
        self._unbind(process)
        if message.error or message.tokens <= process.computed:
            self._no_image(process, message)
            return
        counts, former = self._core.counts, process.image
        counts.parked += 1
        counts.parked_bytes += message.bytes
        self._core.costs.note(Path.EXPORT, message.bytes, message.seconds)
        self._core.swap.took(process, message.path, message.bytes, message.tokens)
        self._core.save(process)
        if former:
            remove_file(former)

    def _no_image(self, process: Process, message: abi.Exported) -> None:
        """There is none, or it holds no more than what is kept already."""
        if not process.image:
            self._core.swap.tiers.release(process.pid)
        if message.error:
            self._core.events.warning("memory", f"its KV was not parked: {message.error}", process.pid)
        else:
            remove_file(message.path)

    def forget(self, process: Process, *, cache: bool) -> None:
        """A process has ended: its KV stays as a cached prefix, or goes."""
        seq = process.seq
        if seq is not None and not process.leaving:
            cache = cache and self.ledger.scope_of(seq) == process.scope
            if cache and self.info.can_fork and self.ledger.length(seq) >= self.info.page_tokens:
                self.ledger.retire(seq)
                self._conductor.send(abi.Truncate(seq, self.ledger.length(seq)))
            else:
                self.ledger.release(seq)
                self._conductor.send(abi.Free(seq))
        self._unbind(process)
        self._core.swap.discard(process)

    def fell_asleep(self, process: Process) -> None:
        """Gives back what was granted ahead."""
        if process.seq is not None and process.seq in self.ledger:
            self.ledger.trim(process.seq)
            process.topup_at = process.limit = 0

    def lost(self) -> None:
        """The worker has gone, and all that was in it."""
        for future in self._snapshots.values():
            if not future.done():
                future.set_result("the worker ended")
        self._snapshots.clear()
        for process in list(self.bound.values()):
            if process.leaving:  # the image is not there, or perhaps in part
                remove_file(process.leaving_to)
                remove_file(process.leaving_to + TEMPORARY)
                if not process.image:
                    self._core.swap.tiers.release(process.pid)
            self._unbind(process)
        self.bound.clear()
        self._expected.clear()

    def _unbind(self, process: Process) -> None:
        """It has no sequence here. An image that was to be restored, but is not known to have been, stays."""
        if process.seq is not None and self.bound.get(process.seq) is process:  # may be bound to a former worker
            del self.bound[process.seq]
        process.seq = None
        process.leaving = False
        process.kv = self._core.swap.state(process)
        if not process.image:
            process.computed = 0

    def _restored(self, process: Process, tokens: int, seconds: float) -> None:
        """Notes how fast an image came back."""
        counts = self._core.counts
        if tokens:
            counts.restored += 1
            counts.restored_bytes += process.image_bytes
            if self._core.swap.tiers.place(process.pid) is Place.RAM:
                self._core.costs.note(Path.RESTORE, process.image_bytes, seconds)

    def residents(self) -> list[Process]:
        """Processes with a sequence in the worker."""
        return [p for p in self.bound.values() if not p.leaving]
