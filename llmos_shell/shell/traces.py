"""Scheduler records as Chrome trace events (the JSON that Perfetto and chrome://tracing open), and the way back.

Format: "Trace Event Format", the object form with `traceEvents`; times are microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TextIO

import msgspec

from llmos_shell.abi.syscalls import TraceEvent, TraceRecord

PROCESSES, WORKERS = 1, 2
"""The viewer's "processes": ours, each with a track of its own, and the models' workers with the scheduler."""


def write_trace(record: TraceRecord, file: TextIO) -> None:
    """Writes the record, one event per line."""
    encode = msgspec.json.encode
    file.write('{"displayTimeUnit": "ms", "traceEvents": [\n')
    file.write(",\n".join(encode(event).decode() for event in trace_events(record)))
    file.write("\n]}\n")


def trace_events(record: TraceRecord) -> Iterator[dict[str, Any]]:
    """The viewer's events. A state lasts until the next one of the same process, or to the end of the record."""
    yield _meta("process_name", PROCESSES, 0, "processes")
    yield _meta("process_name", WORKERS, 0, "scheduler and workers")
    yield _meta("thread_name", WORKERS, 0, "decisions")
    events = record.events
    begun = events[0].time if events else 0.0
    last = events[-1].time if events else 0.0
    states: dict[int, TraceEvent] = {}
    workers: dict[str, int] = {}
    ends = _ends_of_steps(events)
    for index, event in enumerate(events):
        at = event.time - begun
        if event.kind == "spawn":
            yield _meta("thread_name", PROCESSES, event.pid, f"{event.pid} {event.text}")
            yield _instant("spawn", PROCESSES, event.pid, at, event.args)
        elif event.kind == "state":
            former = states.pop(event.pid, None)
            if former is not None:
                yield _slice(former.text, PROCESSES, event.pid, former.time - begun, event.time - former.time, {})
            if event.text != "ended":
                states[event.pid] = event
        elif event.kind == "step":
            if event.text not in workers:
                workers[event.text] = len(workers) + 1
                yield _meta("thread_name", WORKERS, workers[event.text], f"steps of {event.text}")
            end, seconds = max(0.0, ends[index] - begun), float(event.args.get("seconds", 0.0))
            start = max(0.0, end - seconds)
            yield _slice("step", WORKERS, workers[event.text], start, end - start, event.args)
        elif event.kind == "decision":
            yield _instant(f"decision {event.text}", WORKERS, 0, at, event.args)
        else:
            yield _instant(event.kind, PROCESSES, event.pid, at, {"text": event.text, **event.args})
    for pid, former in states.items():
        yield _slice(former.text, PROCESSES, pid, former.time - begun, last - former.time, {})


def _ends_of_steps(events: tuple[TraceEvent, ...]) -> dict[int, float]:
    """When each step ended, by its index: news of several come together, but a worker's steps follow on each other."""
    ends: dict[int, float] = {}
    begins: dict[str, float] = {}  # of the next step, by worker
    for index in range(len(events) - 1, -1, -1):
        event = events[index]
        if event.kind == "step":
            ends[index] = min(event.time, begins.get(event.text, event.time))
            begins[event.text] = ends[index] - float(event.args.get("seconds", 0.0))
    return ends


def _meta(name: str, process: int, track: int, value: str) -> dict[str, Any]:
    return {"ph": "M", "name": name, "pid": process, "tid": track, "args": {"name": value}}


def _slice(name: str, process: int, track: int, start: float, seconds: float, args: dict[str, Any]) -> dict[str, Any]:
    times = {"ts": round(start * 1e6, 1), "dur": round(seconds * 1e6, 1)}
    return {"ph": "X", "name": name, "pid": process, "tid": track, **times, "args": args}


def _instant(name: str, process: int, track: int, at: float, args: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "i", "s": "t", "name": name, "pid": process, "tid": track, "ts": round(at * 1e6, 1), "args": args}
