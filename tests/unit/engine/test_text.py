from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from llmos_shell.engine.text import TextStream

TEXT = st.text(alphabet="abcé日🙂", max_size=30)
STOPS = st.lists(st.text(alphabet="abcé日🙂", min_size=1, max_size=4), max_size=3).map(tuple)


def _cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


def _read(pieces: list[bytes], stop: tuple[str, ...]) -> tuple[str, bool]:
    stream, text = TextStream(stop), ""
    for piece in pieces:
        text += stream.push(piece)
    return text + stream.flush(), stream.stopped


def _expected(text: str, stop: tuple[str, ...]) -> tuple[str, bool]:
    """By definition: the text before the stop string that is complete first."""
    for end in range(len(text) + 1):
        starts = [end - len(string) for string in stop if text[:end].endswith(string)]
        if starts:
            return text[: min(starts)], True
    return text, False


@given(TEXT, STOPS, st.lists(st.integers(0, 200)))
def test_tokens_do_not_matter(text: str, stop: tuple[str, ...], cuts: list[int]) -> None:
    assert _read(_cut(text.encode(), cuts), stop) == _expected(text, stop)


@given(TEXT, STOPS, st.lists(st.integers(0, 200)), st.integers(0, 60))
def test_replay_goes_on_exactly(text: str, stop: tuple[str, ...], cuts: list[int], at: int) -> None:
    pieces = _cut(text.encode(), cuts)
    first, second = TextStream(stop), TextStream(stop)
    emitted = "".join(first.push(piece) for piece in pieces[:at])
    for piece in pieces[:at]:
        second.push(piece)
    emitted += "".join(second.push(piece) for piece in pieces[at:]) + second.flush()
    assert emitted == _expected(text, stop)[0]


@given(TEXT, STOPS)
def test_only_what_may_be_a_stop_string_is_held_back(text: str, stop: tuple[str, ...]) -> None:
    stream, emitted = TextStream(stop), ""
    for index, character in enumerate(text):
        emitted += stream.push(character.encode())
        if stream.stopped:
            break
        held = text[: index + 1].removeprefix(emitted)
        assert not held or any(string.startswith(held) and string != held for string in stop)


def test_unfinished_character_is_replaced_at_the_end() -> None:
    stream = TextStream()
    assert stream.push("é".encode()[:1]) == ""
    assert stream.flush() == "\ufffd"


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert _read([b"a\xff", b"b"], ()) == ("a\ufffdb", False)


def test_empty_stop_strings_stop_nothing() -> None:
    assert _read([b"abc"], ("",)) == ("abc", False)


def test_nothing_comes_after_a_stop() -> None:
    stream = TextStream(("b",))
    assert (stream.push(b"ab"), stream.push(b"cd"), stream.flush()) == ("a", "", "")
