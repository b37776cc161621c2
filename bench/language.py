"""The shell language beside dash, bash and xonsh, in one run: start-up, a loop, pipelines, and reading a long script.

Whole processes are timed, their start included; for reading a script the start-up is taken off. A peer that is not
installed is reported as absent. xonsh's language is Python, so its scripts do the same in its own words.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LOOP = "i=0; while [ $i -lt 10000 ]; do i=$((i + 1)); done"
PIPELINES = "i=0; while [ $i -lt 1000 ]; do /bin/echo x | /bin/cat; i=$((i + 1)); done"
XONSH = {
    "loop": "i = 0\nwhile i < 10000:\n    i = i + 1\n",
    "pipelines": "for i in range(1000):\n    /bin/echo x | /bin/cat\n",
}
SCRIPT_BYTES = 1_000_000
BLOCK = """\
# Builds one target and says how it went.
build_{n}() {{
    local target="$1" log="${{2:-/tmp/build-{n}.log}}"
    if [ ! -d "$target" ] || [ -n "$force" ]; then
        mkdir -p "$target" && cd "$target" || return 1
    elif [ -f "$target/done" ]; then
        echo "target $target is up to date" >&2
        return 0
    fi
    for file in *.c "$HOME"/src/*.h; do
        case "$file" in
            *_test.c | *_bench.c) continue ;;
            *.h) headers="$headers $file" ;;
            *) cc -O2 -I"$HOME/include" -c "$file" -o "${{file%.c}}.o" 2>>"$log" || failed=$((failed + 1)) ;;
        esac
    done
    ls -1 *.o | sort | while read -r object; do echo "linked $object as ${{object##*/}}"; done
    cat <<END
target: $target
failed: $((failed * 100 / {n})) percent
END
    [ "$failed" -eq 0 ]
}}

"""


def measure(rounds: int) -> list[str]:
    """Alternates the shells; returns the lines of a Markdown table and of the targets."""
    with tempfile.TemporaryDirectory(prefix="llmos-bench-") as folder:
        shells = _shells(folder)
        script = Path(folder, "long.sh")
        script.write_text(_long_script())
        start = _medians({name: [*argv, "-c", "true"] for name, argv in shells.items()}, 4 * rounds)
        bare = _medians({"python": [sys.executable, "-c", ""]}, 4 * rounds)["python"]
        loop = _medians({name: [*argv, "-c", _text(name, "loop")] for name, argv in shells.items()}, rounds)
        piping = {name: [*argv, "-c", _text(name, "pipelines")] for name, argv in shells.items()}
        pipes = _medians(piping, max(1, rounds // 2))
        readers = {name: argv for name, argv in shells.items() if name != "xonsh"}
        read = _medians({name: [*argv, "-n", str(script)] for name, argv in readers.items()}, rounds)
        empty = _medians({name: [*argv, "-n", os.devnull] for name, argv in readers.items()}, rounds)
        rate = {name: script.stat().st_size / 1e6 / max(read[name] - empty[name], 1e-4) for name in readers}
    return [*_table(start, loop, pipes, rate), "", *_targets(bare, start, loop, pipes, rate)]


def _shells(home: str) -> dict[str, list[str]]:
    """Those that are installed, with what makes them read no start-up files."""
    beside = Path(sys.executable).parent
    os.environ["LLMOS_HOME"] = os.environ["XONSH_DATA_DIR"] = home
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed is compiled, too
    candidates = {"llmos": ["llmos"], "dash": ["dash"], "bash": ["bash"], "xonsh": ["xonsh", "--no-rc"]}
    found: dict[str, list[str]] = {}
    for name, (program, *options) in candidates.items():
        path = shutil.which(program, path=str(beside)) or shutil.which(program)
        if path is not None:
            found[name] = [path, *options]
    return found


def _text(name: str, what: str) -> str:
    if name == "xonsh":
        return XONSH[what]
    return LOOP if what == "loop" else PIPELINES


def _long_script() -> str:
    pieces: list[str] = []
    size = 0
    while size < SCRIPT_BYTES:
        pieces.append(BLOCK.format(n=len(pieces) + 1))
        size += len(pieces[-1])
    return "".join(pieces)


def _medians(commands: dict[str, list[str]], rounds: int) -> dict[str, float]:
    """Seconds of each command: the median of rounds in which they take turns, after one to warm up."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(rounds + 1):
        for name, argv in commands.items():
            begun = time.perf_counter()
            subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
            if turn:
                times[name].append(time.perf_counter() - begun)
    return {name: statistics.median(values) for name, values in times.items()}


def _table(
    start: dict[str, float], loop: dict[str, float], pipes: dict[str, float], rate: dict[str, float]
) -> list[str]:
    lines = [
        "| shell | `-c true`, ms | loop of 10,000 rounds, s | 1,000 pipelines of two programs, s | reading, MB/s |",
        "|---|---|---|---|---|",
    ]
    for name in ("llmos", "dash", "bash", "xonsh"):
        if name not in start:
            lines.append(f"| {name} | absent | absent | absent | absent |")
            continue
        reading = f"{rate[name]:.1f}" if name in rate else "-"
        lines.append(f"| {name} | {1000 * start[name]:.0f} | {loop[name]:.2f} | {pipes[name]:.2f} | {reading} |")
    return lines


def _targets(
    bare: float, start: dict[str, float], loop: dict[str, float], pipes: dict[str, float], rate: dict[str, float]
) -> list[str]:
    """What is aimed at, and whether it is reached."""
    ours = start["llmos"]
    checks = [
        (f"start-up at most 4 times bare Python's {1000 * bare:.0f} ms: {ours / bare:.1f}", ours <= 4 * bare),
        (f"the loop in at most 0.5 s: {loop['llmos']:.2f} s", loop["llmos"] <= 0.5),
        (f"reading at least 1 MB/s: {rate['llmos']:.1f} MB/s", rate["llmos"] >= 1),
    ]
    if "xonsh" in start:
        checks.append((f"start-up under half of xonsh's: {ours / start['xonsh']:.2f} of it", ours < start["xonsh"] / 2))
    if "bash" in start:
        ratio = pipes["llmos"] / pipes["bash"]
        checks.append((f"pipelines within twice bash's time: {ratio:.1f} times", ratio <= 2))
    return [f"* {text}: {'reached' if reached else '**missed**'}" for text, reached in checks]
