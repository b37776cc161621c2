"""What `schedtrace` writes, against the Trace Event Format: what a viewer needs to lay it out."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos_shell.abi.syscalls import TraceEvent, TraceRecord
from llmos_shell.shell.traces import write_trace

STATES = ("loading", "running", "waiting", "parked", "sleeping", "stopped", "ended")


def step(time: float, model: str, seconds: float) -> TraceEvent:
    return TraceEvent(time, "step", 0, model, {"seconds": seconds, "tokens": 1, "rows": 1})


def written(*events: TraceEvent) -> list[dict[str, Any]]:
    file = io.StringIO()
    write_trace(TraceRecord(events, 0), file)
    document = json.loads(file.getvalue())
    assert document["displayTimeUnit"] == "ms"
    found: list[dict[str, Any]] = document["traceEvents"]
    return found


def slices(events: list[dict[str, Any]]) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """Of every track, by their beginnings."""
    tracks: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            tracks[event["pid"], event["tid"]].append(event)
    return {track: sorted(found, key=lambda event: event["ts"]) for track, found in tracks.items()}


def test_steps_told_together_follow_on_each_other() -> None:
    events = written(step(10.0, "m", 0.5), step(11.0, "m", 0.1), step(11.0, "m", 0.2), step(11.0, "other", 0.4))
    (one, two, three), (alone,) = slices(events).values()
    assert (two["ts"], two["dur"], three["ts"], three["dur"]) == pytest.approx((700_000, 100_000, 800_000, 200_000))
    assert one["ts"] == 0 and alone["ts"] == pytest.approx(600_000)


events = st.lists(
    st.tuples(
        st.floats(0, 0.5),  # since the one before
        st.one_of(
            st.tuples(st.just("state"), st.integers(1, 4), st.sampled_from(STATES)),
            st.tuples(st.just("spawn"), st.integers(1, 4), st.just("ask")),
            st.tuples(st.just("step"), st.just(0), st.sampled_from(["a", "b"])),
            st.tuples(st.sampled_from(["preempt", "exit", "decision"]), st.integers(0, 4), st.just("x")),
        ),
        st.floats(0, 0.5),
    ),
    max_size=40,
)


@given(events)
def test_every_record_can_be_laid_out(record: list[tuple[float, tuple[str, int, str], float]]) -> None:
    now, made = 1000.0, []
    for gap, (kind, pid, text), seconds in record:
        now += gap
        made.append(TraceEvent(now, kind, pid, text, {"seconds": seconds} if kind == "step" else {}))
    found = written(*made)
    for event in found:
        assert event["ph"] in "MXi" and isinstance(event["name"], str)
        assert isinstance(event["pid"], int) and isinstance(event["tid"], int)
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name") and isinstance(event["args"]["name"], str)
        else:
            assert event["ts"] >= 0
        assert event.get("s", "t") == "t" and event.get("dur", 0) >= 0
    for track in slices(found).values():
        for left, right in pairwise(track):
            assert left["ts"] + left["dur"] <= right["ts"] + 0.3  # microseconds, rounded to tenths
