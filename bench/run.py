"""`make bench`: measures everything beside its peers in one run and writes `bench/RESULTS.md`, good or bad.

Run it on a machine that does nothing else: `bench/run.py [--rounds N] [--threads N]`.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path

import startup
import throughput

from llmos_shell.testing.random_gguf import Shape, write_random_model

RESULTS = Path(__file__).with_name("RESULTS.md")
SMALL = Shape(embedding=288, layers=6, heads=6, kv_heads=6, feed_forward=768, vocabulary=32000, context=2048)
"""15 M parameters, the shape of the public stories15M."""


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llmos-bench-") as folder:
        model = Path(folder, "random15m-q8_0.gguf")
        write_random_model(model, SMALL, seed=1, quantisation="q8_0")
        sections: dict[str, Callable[[], list[str]]] = {
            "Aggregate throughput (15 M parameters, random weights, Q8_0; prompts of 256 tokens, 64 generated)": (
                lambda: throughput.measure(model, options.threads, options.rounds)
            ),
            "Start-up": lambda: startup.measure(4 * options.rounds),
        }
        text = [f"# Results\n\n{date.today()}, {_machine(options.threads)}. Medians of {options.rounds} rounds.\n"]
        for title, measure in sections.items():
            text += [f"## {title}\n", *measure(), ""]
            print("\n".join(text[-1 - len(text) :][-20:]), flush=True)
    RESULTS.write_text("\n".join(text))


def _machine(threads: int) -> str:
    names = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, {threads} threads per engine"


if __name__ == "__main__":
    main()
