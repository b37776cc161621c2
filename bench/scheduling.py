"""The daemon's scheduler: shares, fairness, latency, cost of a decision, idle CPU, models in turns; and the simulation.

What does not depend on the speed of a device runs on the scripted engine, whose steps take a fixed time.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmos_shell.abi import syscalls as sc
from llmos_shell.abi.types import Limits, ProcessInfo
from llmos_shell.daemon.sched.scheduler import Scheduler, Slots
from llmos_shell.ipc.client import Client
from llmos_shell.testing.clients import info, spawn, text_of, wait_for_tokens
from llmos_shell.testing.daemon import DaemonProcess, write_models
from llmos_shell.testing.retry import retry_until
from llmos_shell.testing.scripted import computed

SECONDS = 15.0
SLEEPERS = 1000
NICE_5 = 1.25**5
WAKEUPS = 20


def measure(seconds: float = SECONDS) -> list[str]:
    """Markdown lines."""
    rows = [
        ("share of nice 0 against nice 5", f"{NICE_5:.2f} ± 5 %", f"{_shares(seconds):.2f}"),
        ("Jain's index of 16 equal processes on 4 slots", "≥ 0.99", f"{_jain(seconds):.4f}"),
        (f"steps of others before a waking conversation computes, most of {WAKEUPS}", "≤ 2", str(_latency())),
        *((f"a decision with {count:,} processes, p99", goal, f"{_decision(count):.3f} ms") for count, goal in
          ((100, ""), (1000, ""), (10_000, "≤ 1 ms"))),
        (f"CPU of the daemon with {SLEEPERS:,} sleeping processes", "< 0.5 % of a core", f"{_idle(seconds):.2f} %"),
    ]  # fmt: skip
    table = ["| measure | target | here |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    return [*table, "", *_turns()]


@contextmanager
def _daemon(**options: Any) -> Iterator[tuple[Client, DaemonProcess]]:
    with tempfile.TemporaryDirectory(prefix="llmos-bench-") as home:
        before = os.environ.get("LLMOS_HOME")
        os.environ["LLMOS_HOME"] = home
        write_models(Path(home), scripted=options)
        daemon = DaemonProcess(Path(home))
        daemon.start()
        try:
            with daemon.connect("bench") as client:
                yield client, daemon
        finally:
            daemon.stop()
            del os.environ["LLMOS_HOME"]
            if before is not None:
                os.environ["LLMOS_HOME"] = before


def _used(client: Client, pids: list[int], seconds: float) -> list[float]:
    """Device seconds that each used within a time, after all have begun."""
    for pid in pids:
        wait_for_tokens(client, pid)
    before = [_row(client, pid).device_seconds for pid in pids]
    time.sleep(seconds)
    return [_row(client, pid).device_seconds - was for pid, was in zip(pids, before, strict=True)]


def _row(client: Client, pid: int) -> ProcessInfo:
    return info(client, pid)


def _shares(seconds: float) -> float:
    with _daemon(slots=1, step_seconds=0.002, pages=4096) as (client, _):
        client.call(sc.SCHED_SET, sc.PolicyName("fair", {"min_run": 0.05, "lead": 0.02}))
        first, second = _used(client, [spawn(client, "a", nice=0), spawn(client, "b", nice=5)], seconds)
    return first / second


def _jain(seconds: float) -> float:
    with _daemon(slots=4, step_seconds=0.002, pages=4096) as (client, _):
        client.call(sc.SCHED_SET, sc.PolicyName("fair", {"min_run": 0.05, "lead": 0.02}))
        used = _used(client, [spawn(client, f"{n}") for n in range(16)], seconds)
    return float(sum(used) ** 2 / (len(used) * sum(one * one for one in used)))


def _latency() -> int:
    """A conversation wakes while eight others have all slots: steps from its message to its first token's step."""
    with tempfile.TemporaryDirectory() as folder:
        counter = str(Path(folder, "counter"))
        with _daemon(slots=1, step_seconds=0.02, pages=4096, counter=counter) as (client, _):
            chat = spawn(client, chat=True, sampling={"max_tokens": 2})
            for n in range(8):
                spawn(client, f"{n}", detached=True)
            most = 0
            for n in range(WAKEUPS):
                time.sleep(0.1)
                length = _row(client, chat).context_tokens
                before = len(computed(counter))
                taken = client.call(sc.PROC_INPUT, sc.Input(chat, f"message {n}"))
                text_of(client, chat, offset=taken.offset, until="idle")
                rows = computed(counter)[before:]
                mine = next(at for at, row in enumerate(rows) if row.tokens > 1 and row.position <= length)
                most = max(most, mine)
    return most


def _decision(count: int) -> float:
    """Milliseconds of a decision while processes come, go and use the device; 32 slots."""
    scheduler, now, run, times = Scheduler(), 0.0, tuple[int, ...](), list[float]()
    for pid in range(2, count + 2):
        scheduler.add(pid, pid % 5, group=f"g{pid % 50}")
        scheduler.wake(pid, now)
    for turn in range(2000):
        now += 0.05
        scheduler.charge_step(dict.fromkeys(run, 1), 0.05)
        for pid in run[turn % 7 :: 7]:
            scheduler.sleep(pid, now)
            scheduler.wake(pid, now)
            run = tuple(one for one in run if one != pid)
        begun = time.thread_time()  # not what other programs of the machine take
        run = scheduler.choose(run, Slots(32, len(run)), now).run
        times.append(time.thread_time() - begun)
    return 1000 * statistics.quantiles(times, n=100)[98]


def _idle(seconds: float) -> float:
    """Percent of a core."""
    with _daemon() as (client, daemon):
        for n in range(SLEEPERS):
            client.call(sc.PROC_SPAWN, sc.Spawn(chat=True, name=f"sleeper {n}"))
        time.sleep(2.0)
        before, begun = _cpu(daemon.pid), time.monotonic()
        time.sleep(seconds)
        return 100 * (_cpu(daemon.pid) - before) / (time.monotonic() - begun)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / float(os.sysconf("SC_CLK_TCK"))


def _turns() -> list[str]:
    """Two models of 15 M parameters, four processes each, side by side and in turns, as the daemon measures it."""
    from llmos_shell.testing.random_gguf import Shape, write_random_model

    shape = Shape(embedding=288, layers=6, heads=6, kv_heads=6, feed_forward=768, vocabulary=32000, context=2048)
    with tempfile.TemporaryDirectory(prefix="llmos-bench-") as folder, _daemon() as (client, _):
        config = Path(os.environ["LLMOS_HOME"], "config", "models.toml")
        for name in ("one", "two"):
            path = Path(folder, f"{name}.gguf")
            write_random_model(path, shape, seed=1, quantisation="q8_0")
            with config.open("a") as file:
                file.write(f'[models.{name}]\npath = "{path}"\nslots = 8\npool_tokens = 16384\n')
        for n in range(8):
            options = {"sampling": {"ignore_eos": True}, "limits": Limits(tokens=2000)}
            spawn(client, f"prompt {n}", model=("one", "two")[n % 2], **options)
        device = retry_until(lambda: _measured(client), 120.0)
    ratio = device.gang_rate / device.free_rate if device.free_rate else 0.0
    text = "Two models of 15 M parameters with four processes each on this CPU: "
    text += f"{device.free_rate:.0f} tokens/s side by side, {device.gang_rate:.0f} in turns of {device.quantum:g} s "
    return [f"{text}({ratio:.2f} times as many); chosen: {'turns' if device.mode == 'gang' else 'side by side'}."]


def _measured(client: Client) -> sc.DeviceSharing | None:
    shown: sc.SchedulerInfo = client.call(sc.SCHED_SHOW, sc.Nothing())
    return next((device for device in shown.devices if device.gang_rate is not None and not device.measuring), None)


def simulate(requests: int) -> list[str]:
    """The policies in simulated time, at 80 % load on 32 slots."""
    folder = Path(__file__).with_name("simulate")
    command = [sys.executable, str(folder), f"--requests={requests}", "--processes=2", f"--svg={folder / 'plots'}"]
    tables = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.rstrip().split("\n")
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return [f"{requests:,} requests:", "", *tables, "", f"Memory of a simulation, at most: {most:.0f} MiB."]


if __name__ == "__main__":
    print("\n".join(measure()))
