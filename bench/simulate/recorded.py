"""Recorded requests: a CSV file, or a record of `schedtrace`. Read as a stream; a bad file is a `TraceError`.

A CSV file has a line of column names, in any order and case: `arrival` (seconds, or a date and time), `prompt` and
`output` (tokens); and, where known, `group`, `nice`, `foreground` (0 or 1) and `deadline` (seconds after the arrival).
Others are ignored. The names of the public Azure traces of LLM inference are understood too: `TIMESTAMP`,
`ContextTokens`, `GeneratedTokens`. Lines are in order of arrival; the first arrives at 0.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from workload import Request

from llmos_shell.abi.errors import LlmosError
from llmos_shell.daemon.policies import weight_of

COLUMNS = {
    "arrival": ("arrival", "timestamp"),
    "prompt": ("prompt", "contexttokens"),
    "output": ("output", "generatedtokens"),
    "group": ("group",),
    "nice": ("nice",),
    "foreground": ("foreground",),
    "deadline": ("deadline",),
}
"""What a field may be called."""

NEEDED = ("arrival", "prompt", "output")


class TraceError(Exception):
    """A trace that cannot be replayed. The text says where and why, in one line."""


def read(path: Path) -> Iterator[Request]:
    """The requests of a trace, in order of arrival. Raises TraceError when it comes upon what it cannot read."""
    try:
        yield from _schedtrace(path) if path.suffix == ".json" else _csv(path)
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}") from error


def _csv(path: Path) -> Iterator[Request]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file)
        try:
            places = _places(path, next(lines, []))
            begin, last = math.nan, 0.0
            for line in lines:
                if not line:
                    continue
                request = _request({name: line[at] for name, at in places.items() if line[at:]})
                begin = request.arrival if math.isnan(begin) else begin
                request = request._replace(arrival=request.arrival - begin)
                if request.arrival < last:
                    raise ValueError("it arrives before the line above it: sort the file by arrival")
                last = request.arrival
                yield request
        except UnicodeDecodeError as error:
            raise TraceError(f"{path}: not a text file") from error
        except (ValueError, csv.Error) as error:
            raise TraceError(f"{path}:{lines.line_num}: {error}") from error


def _places(path: Path, header: list[str]) -> dict[str, int]:
    """Which column holds which field."""
    found = {column.strip().lower(): at for at, column in enumerate(header)}
    places = {name: found[known] for name, aliases in COLUMNS.items() for known in aliases if known in found}
    missing = [name for name in NEEDED if name not in places]
    if missing:
        raise TraceError(
            f"{path}: no column `{missing[0]}`: begin with a line of column names, `{','.join(NEEDED)}` at least"
        )
    return places


def _request(fields: dict[str, str]) -> Request:
    """One line. Raises ValueError, with the reason."""
    for name in NEEDED:
        if not fields.get(name, "").strip():
            raise ValueError(f"no {name}")
    return Request(
        _instant(fields["arrival"]),
        _number("prompt", fields["prompt"], 1),
        max(1, _number("output", fields["output"], 0)),
        _nice(fields.get("nice") or "0"),
        fields.get("group", ""),
        _number("foreground", fields.get("foreground") or "0", 0, 1) == 1,
        _deadline(fields.get("deadline") or "inf"),
    )


def _instant(text: str) -> float:
    """Seconds; a date without a zone is taken as UTC."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text.strip())
        except ValueError:
            raise ValueError(f"arrival {text!r} is neither seconds nor a date and time") from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(seconds):
        raise ValueError(f"arrival {text!r} is not a number of seconds")
    return seconds


def _number(name: str, text: str, least: int, most: int = 1 << 24) -> int:
    try:
        value = int(text)
    except ValueError:
        raise ValueError(f"{name} {text!r} is not a whole number") from None
    if not least <= value <= most:
        raise ValueError(f"{name} {value} is out of range: {least} to {most}")
    return value


def _nice(text: str) -> int:
    value = _number("nice", text, -(1 << 24))
    try:
        weight_of(value)
    except LlmosError as error:
        raise ValueError(f"{error}") from None
    return value


def _deadline(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise ValueError(f"deadline {text!r} is not a number of seconds above 0")
    return seconds


def _schedtrace(path: Path) -> Iterator[Request]:
    """The processes that were seen to end. Such a record is small enough to be read as a whole."""
    try:
        requests = _ended(json.loads(path.read_text())["traceEvents"])
    except (ValueError, KeyError, TypeError) as error:
        raise TraceError(f"{path}: not a record of schedtrace: {type(error).__name__}: {error}") from error
    yield from sorted(requests)


def _ended(events: list[dict[str, object]]) -> Iterator[Request]:
    born: dict[object, dict[str, str]] = {}
    for event in events:
        if event.get("ph") != "i" or event["name"] not in ("spawn", "exit"):
            continue
        args = {name: str(value) for name, value in dict(event["args"]).items()}  # type: ignore[call-overload]
        if event["name"] == "spawn":
            born[event["tid"]] = {"at": str(event["ts"]), **args}
        elif event["tid"] in born:
            start = born.pop(event["tid"])
            tokens = int(args["prompt_tokens"]), max(1, int(args["generated_tokens"]))
            foreground = start["foreground"] == "True"
            yield Request(float(start["at"]) / 1e6, *tokens, int(start["nice"]), start["group"], foreground)
