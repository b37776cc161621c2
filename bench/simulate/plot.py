"""Distributions as SVG, drawn by matplotlib (in the extra `bench`)."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "llmos"  # the same picture every time

from matplotlib import pyplot  # noqa: E402


def draw_distribution(path: Path, title: str, values: dict[str, list[float]]) -> None:
    """Draws, for each name, which part of the sorted values is at most so large."""
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for name, ordered in values.items():
        parts = [(n + 1) / len(ordered) for n in range(len(ordered))]
        axes.plot([max(value, 1e-3) for value in ordered], parts, label=name)
    axes.set(title=title, xlabel="seconds to the first token", ylabel="part of the requests", xscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
