"""`make bench`: measures everything beside its peers and writes `bench/RESULTS.md`, good or bad.

Run it on a machine that does nothing else: `bench/run.py [--only SECTION …] [--rounds N] [--threads N] [--requests N]`.
With `--only` the other sections of the results stay as they are. `--only simulation --requests 1000000` replays a
million requests under each scheduling policy, in about half an hour on two cores.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmos_shell.testing.random_gguf import Shape

RESULTS = Path(__file__).with_name("RESULTS.md")
TITLES = {
    "throughput": "Aggregate throughput (15 M parameters, random weights, Q8_0; prompts of 256 tokens, 64 generated)",
    "large": "Aggregate throughput (110 M parameters, random weights, Q8_0; prompts of 256 tokens, 64 generated)",
    "interactive": "A prompt of 16 tokens while 64 jobs run on 8 slots: time to first token (15 M parameters)",
    "stalls": "A prompt of 4,000 tokens beside 4 streams that are read: token intervals (110 M parameters)",
    "hog": "Throughput of 8 streams beside a process that keeps one processor busy (15 M parameters)",
    "governor": "The thread governor beside fixed numbers of threads (random weights, Q8_0)",
    "speculation": "Guessing tokens ahead, beside none (180 M parameters in 24 layers, random weights, Q8_0)",
    "scheduling": "Scheduling",
    "simulation": "Scheduling policies in simulated time (32 slots, 80 % load)",
    "memory": "Memory of processes: forks, parking, far more conversations than pool (15 M parameters)",
    "endurance": "Memory after 10,000 short processes",
    "startup": "Start-up",
    "language": "The shell language",
    "residency": "Three models in a budget for one; memory estimated and measured (15 M parameters)",
}
"""The sections by name, in their order."""

REPEATED = frozenset({"throughput", "large", "hog", "governor", "speculation", "startup", "language"})
"""Those that measure everything `--rounds` times; the others run once."""


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=TITLES, help="measure this section (may be repeated)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--requests", type=int, default=40_000, help="that the policies are simulated with")
    options = parser.parse_args()
    measures: dict[str, Callable[[], list[str]]] = {
        "throughput": lambda: _throughput(options.threads, options.rounds),
        "large": lambda: _large(options.threads, options.rounds),
        "interactive": lambda: _interactive(options.threads),
        "stalls": lambda: _stalls(options.threads),
        "hog": lambda: _hog(options.threads, options.rounds),
        "governor": lambda: _governor(options.threads, options.rounds),
        "speculation": lambda: _speculation(options.threads, options.rounds),
        "scheduling": _scheduling,
        "simulation": lambda: _simulation(options.requests),
        "memory": lambda: _memory(options.threads),
        "endurance": _endurance,
        "startup": lambda: _startup(options.rounds),
        "language": lambda: _language(options.rounds),
        "residency": _residency,
    }
    for name in options.only or TITLES:
        lines = [
            f"{date.today()}, {_machine(options.threads)}.{_repeated(name, options.rounds)}\n",
            *measures[name](),
        ]
        print("\n".join([f"## {TITLES[name]}\n", *lines, ""]), flush=True)
        _write(TITLES[name], "\n".join(lines).strip())


def _residency() -> list[str]:
    import residency

    return residency.measure()


def _repeated(name: str, rounds: int) -> str:
    return f" Medians of {rounds} rounds." if name in REPEATED else " Single runs."


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

    with _small_model() as model:
        return throughput.measure(model, threads, rounds)


def _large(threads: int, rounds: int) -> list[str]:
    import throughput

    with _large_model() as model:
        return throughput.measure(model, threads, rounds, layouts=("split",))


def _interactive(threads: int) -> list[str]:
    import busy

    with _small_model() as model:
        return busy.interactive(model, threads)


def _stalls(threads: int) -> list[str]:
    import stalls

    with _large_model() as model:
        return stalls.measure(model, threads)


def _hog(threads: int, rounds: int) -> list[str]:
    import busy

    with _small_model() as model:
        return busy.beside_a_hog(model, threads, rounds)


def _governor(threads: int, rounds: int) -> list[str]:
    import governor

    with _small_model() as small, _large_model() as large:
        return governor.measure({"15 M": small, "110 M": large}, threads, rounds)


def _speculation(threads: int, rounds: int) -> list[str]:
    import speculation

    with tempfile.TemporaryDirectory(prefix="llmos-bench-") as folder:
        return speculation.measure(Path(folder), threads, rounds)


def _memory(threads: int) -> list[str]:
    import memory

    from llmos_shell.testing.random_gguf import Shape

    shape = Shape(embedding=288, layers=6, heads=6, kv_heads=6, feed_forward=768, vocabulary=32000, context=8192)
    with _random_model(shape) as model:
        return memory.measure(model, threads)


def _endurance() -> list[str]:
    import endurance

    return endurance.measure()


def _small_model() -> AbstractContextManager[Path]:
    from llmos_shell.testing.random_gguf import Shape

    # 15 M parameters, the shape of the public stories15M.
    shape = Shape(embedding=288, layers=6, heads=6, kv_heads=6, feed_forward=768, vocabulary=32000, context=2048)
    return _random_model(shape)


def _large_model() -> AbstractContextManager[Path]:
    from llmos_shell.testing.random_gguf import Shape

    # The shape of the public stories110M, with a longer context.
    shape = Shape(embedding=768, layers=12, heads=12, kv_heads=12, feed_forward=2048, vocabulary=32000, context=8192)
    return _random_model(shape)


@contextmanager
def _random_model(shape: Shape) -> Iterator[Path]:
    """A file of random weights, Q8_0, for as long as it is needed."""
    from llmos_shell.testing.random_gguf import write_random_model

    with tempfile.TemporaryDirectory(prefix="llmos-bench-") as folder:
        model = Path(folder, "random-q8_0.gguf")
        write_random_model(model, shape, seed=1, quantisation="q8_0")
        yield model


def _scheduling() -> list[str]:
    import scheduling

    return scheduling.measure()


def _simulation(requests: int) -> list[str]:
    import scheduling

    return scheduling.simulate(requests)


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
