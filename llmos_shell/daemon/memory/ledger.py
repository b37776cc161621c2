"""The page ledger of one KV pool: who references which pages, what is cached, what may be granted.

Pure accounting, independent of any engine: the caller sends the messages that make a worker's cells agree with it, in
the order of the calls made here. All counts are tokens, or pages of `page_tokens` tokens; a `seq` is the daemon's
handle.

*Shared* layout: sequences share whole pages of a common prefix; a sequence that must write into a page others
reference gets a page of its own first (copy-on-write). *Split* layout: each slot owns `pages // slots` pages, and
nothing is shared.

Two sequences that share a page share all pages before it, so reference counts never rise along a sequence.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.daemon.memory.pages import Pages
from llmos_shell.daemon.memory.prefixes import PageHash, PrefixIndex, page_hash
from llmos_shell.daemon.memory.sequence import Holding, Match, PoolFull

__all__ = ["Ledger", "Match", "PoolFull"]


class Ledger:
    """Pages and slots of one pool."""

    def __init__(self, pages: int, page_tokens: int, slots: int, split: bool, *, hasher: PageHash = page_hash) -> None:
        if pages < 1 or page_tokens < 1 or slots < 1 or (split and pages < slots):
            raise LlmosError(Code.EINVAL, f"no pool has {pages} pages of {page_tokens} tokens in {slots} slots")
        self.page_tokens = page_tokens
        self.slots = slots
        self.split = split
        self.quota = pages // slots if split else pages  # most pages of one sequence
        self._pages = Pages(pages)
        self._index = PrefixIndex(page_tokens, hasher)
        self._sequences: dict[int, Holding] = {}
        self._retired: dict[int, None] = {}  # least recently used first

    # -- sequences ---------------------------------------------------------------------------------------------------

    def match(self, tokens: Sequence[int], scope: str = "") -> Match | None:
        """The sequence holding the most leading pages of `tokens` as computed KV, or None when none holds a page.

        At least the last token is left to compute. Only sequences opened with the same `scope` are looked at.
        """
        wanted = array("i", tokens)
        for seq, pages in self._index.candidates(scope, wanted, (len(wanted) - 1) // self.page_tokens):
            shared, held = pages * self.page_tokens, self._sequences[seq]
            if held.scope == scope and held.tokens[:shared] == wanted[:shared]:
                return Match(seq, shared)
        return None

    def open(
        self, seq: int, tokens: Sequence[int], source: int | None = None, shared: int = 0, scope: str = ""
    ) -> None:
        """Takes a slot, and pages for `tokens` and one more; the KV of the first `shared` comes from `source`.

        Those count as computed at once; call `truncate` when the worker reused fewer. A retired source becomes the most
        recently used. Raises PoolFull; EINVAL for a handle in use or a source that does not hold these tokens; EPERM
        for a source of another scope.
        """
        known = array("i", tokens)
        origin = self._origin(seq, known, source, shared, scope)
        count = self._count(len(known) + 1)
        reused = 0 if self.split or origin is None else shared // self.page_tokens
        if count > self.quota or count - reused > self.free_pages or not self.free_slots:
            raise PoolFull(count - reused, self.free_pages, self.free_slots, never=count > self.quota)
        table = list(origin.pages[:reused]) if origin else []
        for page in table:
            self._pages.share(page)
        table += [self._pages.take() for _ in range(count - reused)]
        sequence = self._sequences[seq] = Holding(scope, known[:shared], table)
        if origin is not None:
            self._index.adopt(seq, sequence.keys, origin.keys[: shared // self.page_tokens])
        self._settle(seq, sequence)
        if source in self._retired:
            self.touch(source)

    def grant(self, seq: int, want_tokens: int) -> int:
        """Adds pages for a context of `want_tokens` as far as there are any; returns the tokens there is room for.

        That is a whole number of pages, so it may exceed `want_tokens`, and it is never less than before.
        """
        sequence = self._open(seq)
        if want_tokens > sequence.limit:
            self._unshare(sequence)
            missing = min(self._count(want_tokens), self.quota) - len(sequence.pages)
            sequence.pages += [self._pages.take() for _ in range(min(missing, self.free_pages))]
            self._settle(seq, sequence)
        return sequence.limit

    def computed(self, seq: int, tokens: Iterable[int]) -> None:
        """Appends tokens whose KV was computed. Ignored for a retired sequence (late news); EPROTO beyond the limit."""
        sequence = self._sequences[seq]
        held = sequence.tokens
        held.extend(tokens)
        if len(held) >= sequence.stop:
            self._page_end(seq, sequence)

    def truncate(self, seq: int, tokens: int) -> None:
        """Keeps the first `tokens` tokens, and only the pages they need."""
        sequence = self._sequence(seq)
        if not 0 <= tokens <= len(sequence.tokens):
            raise LlmosError(Code.EINVAL, f"sequence {seq} has {len(sequence.tokens)} tokens, not {tokens}")
        del sequence.tokens[tokens:]
        self._index.shrink(seq, sequence.keys, tokens // self.page_tokens)
        keep = self._count(tokens)
        for page in sequence.pages[keep:]:
            self._pages.drop(page, not sequence.retired)
        del sequence.pages[keep:]
        self._settle(seq, sequence)

    def shift(self, seq: int, keep: int, discard: int) -> bool:
        """Forgets `discard` tokens after the first `keep`, the KV of the rest having moved up.

        Such KV is not what its tokens alone would give, so from now on nobody else may share the sequence's pages,
        and it shares none. False, and nothing changed, when pages of its own for that are not free.
        """
        sequence = self._open(seq)
        if not (keep >= 0 and discard > 0 and keep + discard <= len(sequence.tokens)):
            raise LlmosError(Code.EINVAL, f"cannot forget {discard} after {keep} of {len(sequence.tokens)} tokens")
        count = self._count(len(sequence.tokens) - discard)
        shared = sum(self._pages.references(page) > 1 for page in sequence.pages)
        if shared:
            if count > self.free_pages:
                return False
            pages = [self._pages.take() for _ in range(count)]
            for page in sequence.pages:
                self._pages.drop(page, True)
            sequence.pages[:] = pages
        else:
            for page in sequence.pages[count:]:
                self._pages.drop(page, True)
            del sequence.pages[count:]
        del sequence.tokens[keep : keep + discard]
        self._index.shrink(seq, sequence.keys, 0)
        sequence.scope = f"\0{seq}"
        self._settle(seq, sequence)
        return True

    def scope_of(self, seq: int) -> str:
        """Who may share its pages: sequences of the same scope."""
        return self._sequence(seq).scope

    def trim(self, seq: int) -> None:
        """Gives back pages beyond the sequence's length, as when it falls asleep."""
        self.truncate(seq, self.length(seq))

    def release(self, seq: int) -> None:
        """Closes a sequence: its slot is free, and so are the pages only it referenced."""
        self.truncate(seq, 0)
        del self._sequences[seq]
        self._retired.pop(seq, None)

    def retire(self, seq: int) -> None:
        """Keeps the sequence only as a cached prefix, in its slot, until `reclaim` picks it."""
        sequence = self._open(seq)
        self.trim(seq)
        for page in sequence.pages:
            self._pages.settle(page)
        sequence.retired = True
        self._retired[seq] = None
        if not sequence.keys:  # nothing to match: the first to go
            self._retired = {seq: None, **self._retired}
        self._settle(seq, sequence)

    def revive(self, seq: int) -> None:
        """Makes a retired sequence an open one again, as it stands."""
        if seq not in self._retired:
            raise LlmosError(Code.EINVAL, f"sequence {seq} is not retired")
        del self._retired[seq]
        sequence = self._sequences[seq]
        sequence.retired = False
        for page in sequence.pages:
            self._pages.revive(page)
        self._settle(seq, sequence)

    def touch(self, seq: int) -> None:
        """Makes a retired sequence the most recently used."""
        self._retired[seq] = self._retired.pop(seq)

    def reclaim(self, pages: int, slots: int = 0, keep: Collection[int] = ()) -> list[int]:
        """Releases retired sequences, least recently used first, until so many pages and slots are free.

        Returns their handles, for the worker to free. Those in `keep` are spared, and so are those whose release would
        bring nothing. When the cache holds too little, all that helps is released: look at the figures afterwards.
        """
        evicted: list[int] = []
        for seq in list(self._retired):
            if self.free_pages >= pages and self.free_slots >= slots:
                break
            helps = self.free_slots < slots or self._holds_cached_page(seq)
            if helps and seq not in keep:
                self.release(seq)
                evicted.append(seq)
        return evicted

    # -- figures -----------------------------------------------------------------------------------------------------

    @property
    def pages(self) -> int:
        """Pages in the pool."""
        return self._pages.total

    @property
    def free_pages(self) -> int:
        """Pages nobody references."""
        return self._pages.free

    @property
    def used_pages(self) -> int:
        """Pages somebody references, cached ones included."""
        return self._pages.total - self._pages.free

    @property
    def cached_pages(self) -> int:
        """Pages only retired sequences reference."""
        return self._pages.cached

    @property
    def shared_pages(self) -> int:
        """Pages two or more open sequences reference, each counted once."""
        return self._pages.shared

    @property
    def free_slots(self) -> int:
        """Slots without a sequence, retired ones included."""
        return self.slots - len(self._sequences)

    @property
    def retired(self) -> tuple[int, ...]:
        """Retired sequences, least recently used first."""
        return tuple(self._retired)

    def __contains__(self, seq: object) -> bool:
        return seq in self._sequences

    def pages_of(self, seq: int) -> tuple[int, int]:
        """(pages the sequence references, of these the ones another open sequence references too)."""
        table = self._sequence(seq).pages
        return len(table), bisect_left(table, True, key=lambda page: self._pages.live(page) < 2)

    def users_of(self, seq: int) -> list[int]:
        """How many open sequences reference each of its pages, in order."""
        return [self._pages.live(page) for page in self._sequence(seq).pages]

    def pages_held(self, seqs: Iterable[int]) -> int:
        """Pages that any of these sequences references, shared ones counted once."""
        return len({page for seq in seqs for page in self._sequence(seq).pages})

    def length(self, seq: int) -> int:
        """Tokens whose KV is computed."""
        return len(self._sequence(seq).tokens)

    def limit(self, seq: int) -> int:
        """Tokens the sequence has room for."""
        return self._sequence(seq).limit

    def tokens_of(self, seq: int) -> array[int]:
        """The tokens whose KV is computed. A copy."""
        return self._sequence(seq).tokens[:]

    def waste(self) -> int:
        """Tokens of room in referenced pages that hold no KV."""
        size = self.page_tokens
        return sum(len(one.pages) * size - len(one.tokens) for one in self._sequences.values())

    # -- private -----------------------------------------------------------------------------------------------------

    def _count(self, tokens: int) -> int:
        return -(-tokens // self.page_tokens)

    def _sequence(self, seq: int) -> Holding:
        try:
            return self._sequences[seq]
        except KeyError:
            raise LlmosError(Code.EINVAL, f"the pool has no sequence {seq}") from None

    def _open(self, seq: int) -> Holding:
        sequence = self._sequence(seq)
        if sequence.retired:
            raise LlmosError(Code.EINVAL, f"sequence {seq} is retired")
        return sequence

    def _origin(self, seq: int, known: array[int], source: int | None, shared: int, scope: str) -> Holding | None:
        """The checked source of the first `shared` tokens."""
        if seq in self._sequences:
            raise LlmosError(Code.EINVAL, f"sequence {seq} is open already")
        if source is None:
            if shared:
                raise LlmosError(Code.EINVAL, f"sequence {seq} shares {shared} tokens with nobody")
            return None
        origin = self._sequence(source)
        if origin.scope != scope:
            raise LlmosError(Code.EPERM, f"sequence {seq} may not read the KV of sequence {source}")
        if not 0 <= shared <= len(known) or origin.tokens[:shared] != known[:shared]:
            raise LlmosError(Code.EINVAL, f"sequence {source} does not hold the first {shared} tokens of {seq}")
        return origin

    def _must_copy(self, sequence: Holding) -> bool:
        """Whether the next token would be written into a page that others reference."""
        page, offset = divmod(len(sequence.tokens), self.page_tokens)
        return offset > 0 and self._pages.references(sequence.pages[page]) > 1

    def _unshare(self, sequence: Holding) -> None:
        """Copy-on-write of the partial last page, when a page is free for it."""
        if self._must_copy(sequence) and self.free_pages:
            self._pages.drop(sequence.pages[-1], live=True)
            sequence.pages[-1] = self._pages.take()

    def _settle(self, seq: int, sequence: Holding) -> None:
        """Brings index, `limit` and `stop` up to date with tokens and pages."""
        self._index.extend(seq, sequence.keys, sequence.scope, sequence.tokens)
        writable = not sequence.retired and not self._must_copy(sequence)
        sequence.limit = len(sequence.pages) * self.page_tokens if writable else len(sequence.tokens)
        sequence.stop = min((len(sequence.keys) + 1) * self.page_tokens, sequence.limit + 1)

    def _page_end(self, seq: int, sequence: Holding) -> None:
        excess = len(sequence.tokens) - sequence.limit
        if excess > 0:
            del sequence.tokens[sequence.limit :]
        self._settle(seq, sequence)
        if excess > 0 and not sequence.retired:
            raise LlmosError(Code.EPROTO, f"sequence {seq} computed {excess} tokens beyond its {sequence.limit}")

    def _holds_cached_page(self, seq: int) -> bool:
        table = self._sequences[seq].pages
        return bool(table) and self._pages.live(table[-1]) == 0
