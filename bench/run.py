"""`make bench`: measures everything beside its peers and writes `bench/RESULTS.md`, good or bad.

Run it on a machine that does nothing else: `bench/run.py [--only SECTION …] [--rounds N] [--threads N]`. With `--only`
the other sections of the results stay as they are.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
TITLES = {
    "throughput": "Aggregate throughput (15 M parameters, random weights, Q8_0; prompts of 256 tokens, 64 generated)",
    "startup": "Start-up",
    "language": "The shell language",
}
"""The sections by name, in their order."""


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=TITLES, help="measure this section (may be repeated)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    measures: dict[str, Callable[[], list[str]]] = {
        "throughput": lambda: _throughput(options.threads, options.rounds),
        "startup": lambda: _startup(options.rounds),
        "language": lambda: _language(options.rounds),
    }
    for name in options.only or TITLES:
        lines = [
            f"{date.today()}, {_machine(options.threads)}. Medians of {options.rounds} rounds.\n",
            *measures[name](),
        ]
        print("\n".join([f"## {TITLES[name]}\n", *lines, ""]), flush=True)
        _write(TITLES[name], "\n".join(lines).strip())


def _write(title: str, text: str) -> None:
    """Puts a section into the results, in the place of its former self."""
    sections = _sections(RESULTS.read_text()) if RESULTS.exists() else {}
    sections[title] = text
    order = [
        *(each for each in TITLES.values() if each in sections),
        *(each for each in sections if each not in TITLES.values()),
    ]
    RESULTS.write_text("\n\n".join(["# Results", *(f"## {each}\n\n{sections[each]}" for each in order)]) + "\n")


def _sections(text: str) -> dict[str, str]:
    """Title and text of each section of the results."""
    found: dict[str, str] = {}
    for section in text.split("\n## ")[1:]:
        title, _, body = section.partition("\n")
        found[title] = body.strip()
    return found


def _throughput(threads: int, rounds: int) -> list[str]:
    import throughput

    from llmos_shell.testing.random_gguf import Shape, write_random_model

    # 15 M parameters, the shape of the public stories15M.
    small = Shape(embedding=288, layers=6, heads=6, kv_heads=6, feed_forward=768, vocabulary=32000, context=2048)
    with tempfile.TemporaryDirectory(prefix="llmos-bench-") as folder:
        model = Path(folder, "random15m-q8_0.gguf")
        write_random_model(model, small, seed=1, quantisation="q8_0")
        return throughput.measure(model, threads, rounds)


def _startup(rounds: int) -> list[str]:
    import startup

    return startup.measure(4 * rounds)


def _language(rounds: int) -> list[str]:
    import language

    return language.measure(rounds)


def _machine(threads: int) -> str:
    names = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, {threads} threads per engine"


if __name__ == "__main__":
    main()
