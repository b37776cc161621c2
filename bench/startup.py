"""Start-up of a one-shot command against a warm daemon, as a multiple of bare Python's, in one run."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def measure(rounds: int) -> list[str]:
    """Alternates `python -c ''` and `llmos ps`; returns the lines of a Markdown table."""
    with tempfile.TemporaryDirectory(prefix="llmos-bench-") as home:
        environment = {**os.environ, "LLMOS_HOME": home}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed is compiled, too
        llmos = str(Path(sys.executable).with_name("llmos"))
        commands = {
            "python -c ''": [sys.executable, "-c", ""],
            "llmos ps": [llmos, "ps"],
            "llmos -c true": [llmos, "-c", "true"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(rounds + 2):
            for name, argv in commands.items():
                start = time.perf_counter()
                subprocess.run(argv, env=environment, stdout=subprocess.DEVNULL, check=True)
                if turn > 1:
                    times[name].append(time.perf_counter() - start)
        subprocess.run([llmos, "daemon", "stop"], env=environment, stdout=subprocess.DEVNULL, check=True)
    medians = {name: statistics.median(values) for name, values in times.items()}
    bare = medians["python -c ''"]
    rows = [f"| `{name}` | {1000 * value:.0f} | {value / bare:.1f} |" for name, value in medians.items()]
    return ["| command | ms | over bare Python |", "|---|---|---|", *rows]
