"""What a conversation keeps when a summary takes the place of its beginning."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmos_shell.abi.types import Message, Turn
from llmos_shell.daemon.processes import summary

TURNS = st.builds(
    lambda system, pairs, asked: [
        *([Turn("system", "s")] if system else []),
        *[turn for number in range(pairs) for turn in (Turn("user", f"u{number}"), Turn("assistant", f"a{number}"))],
        *([Turn("user", "now")] if asked else []),
    ],
    st.booleans(),
    st.integers(0, 6),
    st.booleans(),
)


@given(TURNS)
def test_without_a_summary_all_is_seen(turns: list[Turn]) -> None:
    assert summary.view(turns, "", 0) == tuple(Message(turn.role, turn.text) for turn in turns)
    assert [summary.viewed(turns, count, "", 0) for count in range(len(turns))] == list(range(len(turns)))


@given(TURNS, st.integers(-1, 12))
def test_what_may_stay_begins_with_a_question_and_leaves_something_to_sum_up(turns: list[Turn], since: int) -> None:
    found = summary.beginnings(turns, since)
    assert found == sorted(found) and len(found) <= summary.EXCHANGES + 1
    for first in found:
        assert turns[first].role == "user" and first > since
        assert any(turn.role != "system" for turn in turns[:first])


@given(TURNS, st.data())
def test_the_view_is_the_system_prompt_the_summary_and_the_rest(turns: list[Turn], data: st.DataObject) -> None:
    asked = [index for index, turn in enumerate(turns) if turn.role == "user"]
    if not asked:
        return
    first = data.draw(st.sampled_from(asked))
    seen = summary.view(turns, "they met", first)
    systems = int(turns[0].role == "system")
    assert [message.content for message in seen[:systems]] == ["s"] * systems
    assert seen[systems].role == "user"
    assert "they met" in seen[systems].content and seen[systems].content.endswith(turns[first].text)
    assert [m.content for m in seen[systems + 1 :]] == [turn.text for turn in turns[first + 1 :]]
    for count in range(first + 1, len(turns) + 1):
        shown = summary.viewed(turns, count, "they met", first)
        assert shown == len(summary.view(turns[:count], "they met", first))
    assert summary.viewed(turns, 0, "they met", first) == 0


@given(st.integers(16, 1 << 20))
def test_what_is_reserved_holds_the_summary_and_an_instruction(context: int) -> None:
    spare = summary.reserve(context) - summary.longest_summary(context)
    assert spare >= context // 16 - 1
    assert summary.room(context) + summary.reserve(context) < context


@given(TURNS, TURNS, st.data())
def test_a_summary_moves_with_its_turns_or_is_given_up(
    before: list[Turn], other: list[Turn], data: st.DataObject
) -> None:
    asked = [index for index, turn in enumerate(before) if turn.role == "user"]
    if not asked:
        return
    first = data.draw(st.sampled_from(asked))
    after = data.draw(st.sampled_from([other, before, before[: first + 2], before[: first + 1], before[1:]]))
    there = summary.moved(before, after, first)
    if there is not None:
        assert after[there : there + 2] == before[first : first + 2] and len(before[first : first + 2]) == 2
        text = "they met"
        seen = summary.view(after, text, there)
        assert text in seen[int(after[0].role == "system")].content
    if after == before and first + 2 <= len(before):
        assert there == first
    if len(after) < first:
        assert there is None or after[0].role != before[0].role


@given(TURNS)
def test_only_the_first_answer_is_summed_up_alone(turns: list[Turn]) -> None:
    for index, turn in enumerate(turns):
        alone = turn.role == "user" and all(one.role == "system" for one in turns[:index])
        last = all(one.role != "user" for one in turns[index + 1 :])
        if turn.role == "user":
            assert summary.only_of_an_answer(turns, index) == (alone and last)
