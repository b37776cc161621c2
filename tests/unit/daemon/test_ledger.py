"""The page ledger against a naive model, and its rules one by one."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.daemon.memory.ledger import Ledger, Match, PoolFull
from llmos_shell.daemon.memory.prefixes import page_hash


def two_bits(previous: int, page: bytes) -> int:
    return page_hash(previous, page) & 3


def filled(ledger: Ledger, seq: int, tokens: list[int], scope: str = "") -> None:
    ledger.open(seq, tokens, scope=scope)
    ledger.computed(seq, tokens)


class TestMatch:
    def test_whole_pages_of_the_longest_prefix(self) -> None:
        ledger = Ledger(64, 4, 8, False)
        filled(ledger, 1, [1, 2, 3, 4, 5, 6, 7, 8])
        filled(ledger, 2, [1, 2, 3, 4, 9, 9, 9, 9, 9])
        assert ledger.match([1, 2, 3, 4, 5, 6, 7, 8, 9]) == Match(1, 8)
        assert ledger.match([1, 2, 3, 4, 9, 9, 9, 9, 1]) == Match(2, 8)
        assert ledger.match([1, 2, 3, 4, 7]) in (Match(1, 4), Match(2, 4))
        assert ledger.match([2, 2, 3, 4, 7]) is None

    @pytest.mark.parametrize("length", range(13))
    def test_leaves_the_last_token_to_compute(self, length: int) -> None:
        ledger = Ledger(64, 4, 8, False)
        filled(ledger, 1, list(range(12)))
        found = ledger.match(list(range(length)))
        assert (found.tokens if found else 0) == max(length - 1, 0) // 4 * 4

    def test_only_what_is_computed_counts(self) -> None:
        ledger = Ledger(64, 4, 8, False)
        ledger.open(1, list(range(12)))
        ledger.computed(1, range(7))
        assert ledger.match(list(range(12))) == Match(1, 4)

    def test_scopes_do_not_see_each_other(self) -> None:
        ledger = Ledger(64, 4, 8, False, hasher=lambda previous, page: 0)
        filled(ledger, 1, list(range(8)), scope="a")
        assert ledger.match(list(range(9))) is None
        assert ledger.match(list(range(9)), "b") is None
        assert ledger.match(list(range(9)), "a") == Match(1, 8)

    def test_a_source_of_another_scope_is_refused(self) -> None:
        ledger = Ledger(64, 4, 8, False)
        filled(ledger, 1, list(range(8)), scope="a")
        with pytest.raises(LlmosError) as caught:
            ledger.open(2, list(range(9)), 1, 8)
        assert caught.value.code is Code.EPERM

    def test_a_truncated_or_released_sequence_is_not_found(self) -> None:
        ledger = Ledger(64, 4, 8, False)
        filled(ledger, 1, list(range(12)))
        ledger.truncate(1, 7)
        assert ledger.match(list(range(12))) == Match(1, 4)
        ledger.release(1)
        assert ledger.match(list(range(12))) is None

    def test_a_collision_of_hashes_leaks_nothing(self) -> None:
        ledger = Ledger(64, 4, 8, False, hasher=lambda previous, page: 0)
        filled(ledger, 1, list(range(8)))
        assert ledger.match([9] * 9) is None
        assert ledger.match([0, 1, 2, 3, 9, 9, 9, 9, 9]) == Match(1, 4)


class TestOpen:
    def test_shares_whole_pages_and_counts_them_once(self) -> None:
        ledger = Ledger(16, 4, 4, False)
        filled(ledger, 1, list(range(10)))
        ledger.open(2, list(range(10)), 1, 10)
        assert (ledger.pages_of(1), ledger.pages_of(2)) == ((3, 2), (3, 2))
        assert (ledger.used_pages, ledger.shared_pages) == (4, 2)
        assert (ledger.pages_held([1, 2]), ledger.pages_held([2]), ledger.pages_held([])) == (4, 3, 0)
        assert ledger.length(2) == 10

    def test_split_shares_nothing_but_knows_the_tokens(self) -> None:
        ledger = Ledger(16, 4, 4, True)
        filled(ledger, 1, list(range(8)))
        ledger.open(2, list(range(9)), 1, 8)
        assert (ledger.used_pages, ledger.shared_pages, ledger.length(2)) == (6, 0, 8)

    def test_a_full_pool_says_the_numbers_and_changes_nothing(self) -> None:
        ledger = Ledger(4, 4, 4, False)
        filled(ledger, 1, list(range(8)))
        with pytest.raises(PoolFull) as caught:
            ledger.open(2, list(range(8)))
        assert (caught.value.needed_pages, caught.value.free_pages, caught.value.free_slots) == (3, 1, 3)
        assert caught.value.code is Code.EAGAIN
        assert (ledger.free_pages, ledger.free_slots) == (1, 3)
        assert 2 not in ledger

    def test_what_can_never_fit_says_so(self) -> None:
        for ledger in (Ledger(4, 4, 1, False), Ledger(16, 4, 4, True)):
            with pytest.raises(PoolFull) as caught:
                ledger.open(1, list(range(16)))
            assert caught.value.code is Code.ENOMEM

    def test_needs_a_slot(self) -> None:
        ledger = Ledger(16, 4, 1, False)
        ledger.open(1, [1])
        with pytest.raises(PoolFull):
            ledger.open(2, [1])

    @pytest.mark.parametrize(
        ("source", "shared"),
        [(None, 3), (7, 3), (1, 9), (1, -1), (1, 6)],
        ids=["no source", "unknown source", "more than there is", "negative", "other tokens"],
    )
    def test_a_wrong_source_is_refused(self, source: int | None, shared: int) -> None:
        ledger = Ledger(16, 4, 4, False)
        filled(ledger, 1, list(range(8)))
        with pytest.raises(LlmosError) as caught:
            ledger.open(2, [0, 1, 2, 3, 4, 9, 9, 9], source, shared)
        assert caught.value.code is Code.EINVAL
        assert ledger.free_slots == 3


class TestGrowth:
    def test_grants_as_far_as_pages_go(self) -> None:
        ledger = Ledger(4, 4, 2, False)
        ledger.open(1, [1])
        assert ledger.grant(1, 5) == 8
        assert ledger.grant(1, 3) == 8
        assert ledger.grant(1, 100) == 16
        ledger.trim(1)
        assert ledger.used_pages == 0

    def test_split_grows_to_its_slot_only(self) -> None:
        ledger = Ledger(9, 4, 2, True)
        ledger.open(1, [1])
        assert ledger.grant(1, 1000) == 16

    def test_copies_a_shared_page_before_it_is_written(self) -> None:
        ledger = Ledger(4, 4, 3, False)
        filled(ledger, 1, list(range(8)))
        ledger.open(2, list(range(8)), 1, 8)
        assert ledger.free_pages == 0
        ledger.truncate(2, 6)
        assert ledger.limit(2) == 6  # nothing may be written yet
        assert ledger.grant(2, 7) == 8  # the page it gave back is its own copy now
        assert (ledger.pages_of(2), ledger.pages_of(1)) == ((2, 1), (3, 1))

    def test_does_not_copy_when_the_other_has_gone(self) -> None:
        ledger = Ledger(5, 4, 3, False)
        filled(ledger, 1, list(range(8)))
        ledger.open(2, list(range(8)), 1, 8)
        ledger.truncate(2, 6)
        ledger.release(1)
        assert ledger.grant(2, 7) == 8
        assert ledger.used_pages == 2

    def test_a_worker_beyond_its_limit_is_caught(self) -> None:
        ledger = Ledger(4, 4, 3, False)
        ledger.open(1, [1, 2])
        ledger.computed(1, [1, 2, 3, 4])
        with pytest.raises(LlmosError) as caught:
            ledger.computed(1, [5])
        assert caught.value.code is Code.EPROTO
        assert ledger.length(1) == 4

    def test_waste_is_room_without_kv(self) -> None:
        ledger = Ledger(8, 4, 3, False)
        ledger.open(1, [1, 2, 3, 4, 5])
        ledger.computed(1, [1, 2])
        assert ledger.waste() == 6


class TestCache:
    def test_least_recently_used_goes_first(self) -> None:
        ledger = Ledger(12, 4, 4, False)
        for seq in (1, 2, 3):
            filled(ledger, seq, [seq] * 8)
            ledger.retire(seq)
        assert (ledger.cached_pages, ledger.free_slots) == (6, 1)
        ledger.open(4, [1] * 9, 1, 8)
        assert ledger.retired == (2, 3, 1)
        assert ledger.reclaim(7) == [2]
        assert ledger.reclaim(100) == [3]  # 1 shares all its pages with 4: releasing it brings none
        assert ledger.reclaim(0, slots=3) == [1]
        assert ledger.pages_of(4) == (3, 0)

    def test_spares_what_is_about_to_be_used(self) -> None:
        ledger = Ledger(12, 4, 2, False)
        for seq in (1, 2):
            filled(ledger, seq, [seq] * 8)
            ledger.retire(seq)
        assert ledger.reclaim(0, slots=1, keep={1}) == [2]

    def test_useless_ones_go_before_useful_ones(self) -> None:
        ledger = Ledger(12, 4, 3, False)
        filled(ledger, 1, [1] * 8)
        filled(ledger, 2, [1])
        ledger.retire(1)
        ledger.retire(2)
        assert ledger.reclaim(0, slots=2) == [2]

    def test_late_news_of_a_retired_sequence_is_ignored(self) -> None:
        ledger = Ledger(12, 4, 3, False)
        filled(ledger, 1, list(range(6)))
        ledger.retire(1)
        ledger.computed(1, [6])
        assert ledger.length(1) == 6
        with pytest.raises(LlmosError):
            ledger.grant(1, 100)

    def test_a_revived_one_can_grow_again(self) -> None:
        ledger = Ledger(12, 4, 1, False)
        filled(ledger, 1, list(range(6)))
        ledger.retire(1)
        ledger.revive(1)
        assert (ledger.cached_pages, ledger.reclaim(100)) == (0, [])
        ledger.computed(1, [6])
        assert ledger.length(1) == 7


def test_a_pool_without_pages_is_refused() -> None:
    for pages, page_tokens, slots, split in ((0, 4, 1, False), (4, 0, 1, False), (4, 4, 0, False), (4, 4, 5, True)):
        with pytest.raises(LlmosError):
            Ledger(pages, page_tokens, slots, split)


PAGE, PAGES, SLOTS = 3, 20, 5
TOKENS = st.one_of(st.integers(0, 16).map(lambda length: [0] * length), st.lists(st.integers(0, 1), max_size=16))
SCOPES = st.sampled_from(["", "private"])


class LedgerMachine(RuleBasedStateMachine):
    """Naive model: the tokens, scope and retirement of each sequence; the ledger's inside is checked by counting."""

    split = False
    hasher = staticmethod(page_hash)

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(PAGES, PAGE, SLOTS, self.split, hasher=self.hasher)
        self.tokens: dict[int, list[int]] = {}
        self.scopes: dict[int, str] = {}
        self.retired: list[int] = []
        self.next = 1

    def pick(self, data: st.DataObject, retired: bool | None = None) -> int:
        known = [seq for seq in self.tokens if retired is None or (seq in self.retired) == retired]
        return data.draw(st.sampled_from(known))

    def forget(self, seq: int) -> None:
        del self.tokens[seq], self.scopes[seq]
        if seq in self.retired:
            self.retired.remove(seq)

    def naive_match(self, tokens: list[int], scope: str) -> int:
        best = 0
        for seq, held in self.tokens.items():
            common = 0
            while common < min(len(held), len(tokens) - 1) and held[common] == tokens[common]:
                common += 1
            if self.scopes[seq] == scope:
                best = max(best, common // PAGE * PAGE)
        return best

    @rule(tokens=TOKENS, scope=SCOPES, prefix=st.booleans(), prefill=st.integers(0, 20))
    def open(self, tokens: list[int], scope: str, prefix: bool, prefill: int) -> None:
        found = self.ledger.match(tokens, scope)
        if found:
            assert 0 < found.tokens < len(tokens)
            assert self.tokens[found.seq][: found.tokens] == tokens[: found.tokens]
            assert self.scopes[found.seq] == scope
        expected = self.naive_match(tokens, scope)
        reached = found.tokens if found else 0
        assert reached == expected if self.hasher is page_hash else reached <= expected
        source, shared = (found.seq, found.tokens) if found and prefix else (None, 0)
        self.attempt(tokens, source, shared, scope, prefill)

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), drop=st.integers(0, 3), more=st.lists(st.integers(0, 1), max_size=3))
    def fork(self, data: st.DataObject, drop: int, more: list[int]) -> None:
        source = self.pick(data)
        held = self.tokens[source]
        shared = max(len(held) - drop, 0)
        self.attempt(held[:shared] + more, source, shared, self.scopes[source], prefill=3)

    def attempt(self, tokens: list[int], source: int | None, shared: int, scope: str, prefill: int) -> None:
        before = self.figures()
        try:
            self.ledger.open(self.next, tokens, source, shared, scope)
        except PoolFull as full:
            assert self.figures() == before
            assert full.needed_pages > full.free_pages or full.free_slots == 0 or full.code is Code.ENOMEM
            return
        assert self.ledger.limit(self.next) > len(tokens)
        self.tokens[self.next], self.scopes[self.next] = tokens[:shared], scope
        if source in self.retired:
            self.retired.remove(source)
            self.retired.append(source)
        new = tokens[shared : shared + prefill]
        self.ledger.computed(self.next, new)
        self.tokens[self.next] += new
        self.next += 1

    @precondition(lambda self: len(self.tokens) > len(self.retired))
    @rule(data=st.data(), count=st.integers(1, 8))
    def compute(self, data: st.DataObject, count: int) -> None:
        seq = self.pick(data, retired=False)
        room = self.ledger.limit(seq) - len(self.tokens[seq])
        new = data.draw(st.lists(st.integers(0, 1), max_size=min(count, room)))
        self.ledger.computed(seq, new)
        self.tokens[seq] += new

    @precondition(lambda self: len(self.tokens) > len(self.retired))
    @rule(data=st.data(), want=st.integers(0, 60))
    def grant(self, data: st.DataObject, want: int) -> None:
        seq = self.pick(data, retired=False)
        before, free = self.ledger.limit(seq), self.ledger.free_pages
        limit = self.ledger.grant(seq, want)
        assert limit >= before
        assert limit >= want or self.ledger.free_pages == 0 or limit == self.ledger.quota * PAGE
        assert free or limit == before or not self.split

    @precondition(lambda self: self.tokens)
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        seq = self.pick(data)
        keep = max(len(self.tokens[seq]) - data.draw(st.integers(0, 5)), 0)
        self.ledger.truncate(seq, keep)
        del self.tokens[seq][keep:]

    @precondition(lambda self: len(self.tokens) > len(self.retired))
    @rule(data=st.data(), keep=st.integers(0, 4), discard=st.integers(1, 6))
    def shift(self, data: st.DataObject, keep: int, discard: int) -> None:
        seq, before = self.pick(data, retired=False), self.figures()
        held = self.tokens[seq]
        if keep + discard > len(held):
            with pytest.raises(LlmosError):
                self.ledger.shift(seq, keep, discard)
        elif self.ledger.shift(seq, keep, discard):
            del held[keep : keep + discard]
            self.scopes[seq] = f"\0{seq}"
            pages = {page for other in self.tokens if other != seq for page in self.ledger._sequences[other].pages}
            assert pages.isdisjoint(self.ledger._sequences[seq].pages), "what was moved is shared"
            return
        assert self.figures() == before

    @precondition(lambda self: self.tokens)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        seq = self.pick(data)
        self.ledger.release(seq)
        self.forget(seq)

    @precondition(lambda self: len(self.tokens) > len(self.retired))
    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        seq = self.pick(data, retired=False)
        self.ledger.retire(seq)
        self.retired.insert(len(self.retired) if len(self.tokens[seq]) >= PAGE else 0, seq)

    @precondition(lambda self: self.retired)
    @rule(data=st.data())
    def revive(self, data: st.DataObject) -> None:
        seq = self.pick(data, retired=True)
        self.ledger.revive(seq)
        self.retired.remove(seq)

    @rule(pages=st.integers(0, PAGES), slots=st.integers(0, 3))
    def reclaim(self, pages: int, slots: int) -> None:
        order = list(self.retired)
        evicted = self.ledger.reclaim(pages, slots)
        assert [seq for seq in order if seq in evicted] == evicted
        for seq in evicted:
            self.forget(seq)
        enough = self.ledger.free_pages >= pages and self.ledger.free_slots >= slots
        assert enough or self.ledger.free_slots >= slots or not self.retired
        assert enough or self.ledger.cached_pages == 0

    def figures(self) -> tuple[int, ...]:
        ledger = self.ledger
        return (ledger.free_pages, ledger.used_pages, ledger.cached_pages, ledger.shared_pages, ledger.free_slots)

    @invariant()
    def tokens_agree(self) -> None:
        for seq, held in self.tokens.items():
            assert list(self.ledger.tokens_of(seq)) == held
        assert self.ledger.retired == tuple(self.retired)

    @invariant()
    def no_page_is_lost_or_counted_twice(self) -> None:
        tables = {seq: self.ledger._sequences[seq].pages for seq in self.tokens}
        live = [page for seq, table in tables.items() if seq not in self.retired for page in table]
        used = {page for table in tables.values() for page in table}
        assert all(len(set(table)) == len(table) for table in tables.values())
        assert sorted(used | set(self.ledger._pages._free)) == list(range(PAGES))
        assert (self.ledger.used_pages, self.ledger.free_pages) == (len(used), PAGES - len(used))
        assert self.ledger.cached_pages == len(used - set(live))
        assert self.ledger.shared_pages == len({page for page in live if live.count(page) > 1})
        assert self.ledger.free_slots == SLOTS - len(self.tokens)
        for seq, table in tables.items():
            if seq not in self.retired:
                shared = sum(live.count(page) > 1 for page in table)
                assert self.ledger.pages_of(seq) == (len(table), shared)

    @invariant()
    def shared_pages_hold_the_same_tokens_and_nobody_may_write_there(self) -> None:
        holders: dict[int, list[tuple[int, int]]] = {}
        for seq in self.tokens:
            for index, page in enumerate(self.ledger._sequences[seq].pages):
                holders.setdefault(page, []).append((seq, index))
        for users in holders.values():
            if len(users) == 1:
                continue
            assert not self.split
            assert len({index for _, index in users}) == 1
            index = users[0][1]
            contents = [self.tokens[seq][index * PAGE : (index + 1) * PAGE] for seq, _ in users]
            longest = max(contents, key=len)
            assert all(longest[: len(one)] == one for one in contents)
            for seq, _ in users:
                length = len(self.tokens[seq])
                assert length >= (index + 1) * PAGE or self.ledger.limit(seq) == length

    @invariant()
    def everything_fits(self) -> None:
        for seq, held in self.tokens.items():
            pages = self.ledger.pages_of(seq)[0]
            assert len(held) <= self.ledger.limit(seq) <= pages * PAGE
            assert pages <= self.ledger.quota

    def teardown(self) -> None:
        for seq in list(self.tokens):
            self.ledger.release(seq)
        assert (self.ledger.free_pages, self.ledger.free_slots, len(self.ledger._index)) == (PAGES, SLOTS, 0)


class SplitMachine(LedgerMachine):
    split = True


class CollidingMachine(LedgerMachine):
    hasher = staticmethod(two_bits)


LedgerMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
SplitMachine.TestCase.settings = CollidingMachine.TestCase.settings = settings(
    max_examples=50, stateful_step_count=40, deadline=None
)
TestShared = LedgerMachine.TestCase
TestSplit = SplitMachine.TestCase
TestCollisions = CollidingMachine.TestCase
