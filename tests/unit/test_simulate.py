"""The simulation of policies as a user runs it: drawn and recorded requests, and traces that cannot be replayed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SIMULATE = Path(__file__).resolve().parents[2] / "bench" / "simulate"
HEADER = "arrival,prompt,output"


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SIMULATE), *arguments], capture_output=True, text=True, check=False)


def _rows(*arguments: str) -> list[list[str]]:
    """The cells of the rows of the tables, but the last, which is the time it took."""
    done = _run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.strip("| ").split(" | ")[:-1] for line in done.stdout.splitlines() if line.startswith("| ")]
    return [line for line in lines if line[0] not in ("policy", "---")]


def test_every_policy_completes_the_same_work_and_the_same_seed_gives_the_same_table() -> None:
    rows = _rows("--requests", "300", "--workload", "bursty", "--seed", "5")
    assert [row[0] for row in rows] == ["fair", "fifo", "rr", "priority", "deadline"]
    rates = [int(row[1]) for row in rows]
    assert max(rates) < 1.1 * min(rates)
    assert _rows("--requests", "300", "--workload", "bursty", "--seed", "5", "--processes", "2") == rows


def test_the_same_requests_in_each_form_of_a_trace_fare_the_same(tmp_path: Path) -> None:
    own, azure, record = tmp_path / "own.csv", tmp_path / "azure.csv", tmp_path / "record.json"
    own.write_text("output,note,prompt,Arrival\n44,x,374,7.0\n109,x,396,11.5\n")
    azure.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
        "2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:51.1805900,396,109\r\n"
    )
    events = []
    for pid, at, prompt, output in ((2, 0, 374, 44), (3, 4.5e6, 396, 109)):
        spawned = {"nice": 0, "group": "", "foreground": False}
        events.append({"ph": "i", "name": "spawn", "tid": pid, "ts": at, "args": spawned})
        ended = {"prompt_tokens": prompt, "generated_tokens": output}
        events.append({"ph": "i", "name": "exit", "tid": pid, "ts": at + 9e6, "args": ended})
    record.write_text(json.dumps({"traceEvents": events}))
    rows = [_rows("--policy", "fair", "--replay", str(path)) for path in (own, azure, record)]
    assert rows[0] == rows[1] == rows[2]
    assert rows[0][0][5:8] == ["-", "-", "-"]  # nobody in the foreground


def test_groups_and_the_foreground_of_a_trace_are_told_apart(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    lines = [f"{n / 10},500,500,batch,0," for n in range(64)] + ["7,10,5,alice,1,10"]
    trace.write_text("\n".join([f"{HEADER},group,foreground,deadline", *lines]))
    (fair,), (fifo,) = (_rows("--policy", name, "--replay", str(trace)) for name in ("fair", "fifo"))
    assert float(fair[6].split()[0]) < 2 < float(fifo[6].split()[0])
    assert "-" not in (fair[10], fifo[10])


def test_load_draws_the_arrivals_of_a_trace_together(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("\n".join([HEADER, *(f"{100 * n},100,100" for n in range(50))]))
    slow, fast = (_rows("--policy", "fair", "--replay", str(trace), *load) for load in ((), ("--load", "0.8")))
    assert int(fast[0][1]) > 100 * int(slow[0][1])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no column `arrival`: begin with a line of column names"),
        ("arrival,output\n1,2\n", "no column `prompt`"),
        (HEADER, "there are no requests in it"),
        (f"{HEADER}\n1,2,3\n1,2\n", ":3: no output"),
        (f"{HEADER}\nsoon,2,3\n", ":2: arrival 'soon' is neither seconds nor a date and time"),
        (f"{HEADER}\nnan,2,3\n", ":2: arrival 'nan' is not a number of seconds"),
        (f"{HEADER}\n5,2,3\n4,2,3\n", ":3: it arrives before the line above it"),
        (f"{HEADER}\n1,-2,3\n", ":2: prompt -2 is out of range"),
        (f"{HEADER},nice\n1,2,3,99\n", ":2: nice 99 is out of range"),
        (f"{HEADER}\n1,\xff,3\n", "not a text file"),
    ],
)
def test_a_bad_trace_is_said_in_one_line(tmp_path: Path, text: str, reason: str) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_bytes(text.encode("latin-1"))
    done = _run("--replay", str(trace))
    assert done.returncode == 1
    assert done.stdout == ""
    assert reason in done.stderr
    assert done.stderr.startswith(f"simulate: {trace}")
    assert done.stderr.count("\n") == 1


def test_what_is_no_trace_at_all(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text("{}")
    assert "not a record of schedtrace" in _run("--replay", str(other)).stderr
    assert "No such file" in _run("--replay", str(tmp_path / "none.csv")).stderr
