"""Three models in a budget for one with 30 interleaved conversations, and estimates of memory beside measurements."""

from __future__ import annotations

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from llmos_shell.abi import syscalls as abi
from llmos_shell.abi.types import Reason
from llmos_shell.testing.daemon import DaemonProcess
from llmos_shell.testing.random_gguf import Shape, write_random_model

SHAPE = Shape(embedding=288, layers=6, heads=9, kv_heads=9, feed_forward=768, vocabulary=32000, context=2048)
MODELS = ("a", "b", "c")
CONVERSATIONS, TURNS, TOKENS = 30, 3, 32
MIB = 1 << 20
FORMS = [(kind, context) for kind in ("f16", "q8_0") for context in (512, 2048)]


def measure() -> list[str]:
    """Lines of Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "random.gguf"
        write_random_model(weights, SHAPE, quantisation="q8_0")
        return [*_conversations(Path(folder), weights), "", *_estimates(Path(folder), weights)]


def _daemon(home: Path, entries: dict[str, str], env: dict[str, str]) -> DaemonProcess:
    (home / "config").mkdir(mode=0o700, parents=True)
    text = "\n".join(f"[models.{name}]\n{settings}" for name, settings in entries.items())
    (home / "config" / "models.toml").write_text(text)
    os.environ["LLMOS_HOME"] = str(home)
    daemon = DaemonProcess(home, env)
    daemon.start()
    return daemon


def _conversations(folder: Path, weights: Path) -> list[str]:
    entries = dict.fromkeys(MODELS, f'path = "{weights}"\npool_tokens = 8192')
    daemon = _daemon(folder / "many", entries, {"LLMOS_MEMORY_BYTES": str(160 * MIB)})
    try:
        begun = time.perf_counter()
        with ThreadPoolExecutor(CONVERSATIONS) as pool:
            whole = sum(pool.map(lambda number: _converse(daemon, number), range(CONVERSATIONS)))
        seconds = time.perf_counter() - begun
        with daemon.connect() as client:
            events = list(client.stream(abi.SYS_DMESG, abi.Dmesg(10_000)))
        loads = sum(one.source == "residency" and one.text.startswith("loading ") for one in events)
    finally:
        daemon.stop()
    return [
        "| 3 models in a budget for one | measured | target |",
        "|---|---|---|",
        f"| conversations finished | {whole} of {CONVERSATIONS} | all |",
        f"| loads (the least possible is 3) | {loads} | ≤ 6 |",
        f"| seconds in all | {seconds:.1f} | |",
    ]


def _converse(daemon: DaemonProcess, number: int) -> bool:
    """One conversation, turn after turn; whether all its turns were answered to the end."""
    sampling = {"max_tokens": TOKENS, "ignore_eos": True, "seed": number}
    with daemon.connect() as client:
        request = abi.Spawn(model=MODELS[number % len(MODELS)], chat=True, sampling=sampling)
        pid = client.call(abi.PROC_SPAWN, request).pid
        for turn in range(TURNS):
            client.call(abi.PROC_INPUT, abi.Input(pid, f"this is turn {turn} of {number}"))
            for _ in client.stream(abi.PROC_FOLLOW, abi.Follow(pid, until="idle")):
                pass
        said = client.call(abi.PROC_TRANSCRIPT, abi.Pid(pid)).turns
        client.call(abi.PROC_INPUT, abi.Input(pid, end=True))
    return [turn.reason for turn in said if turn.role == "assistant"] == [Reason.LENGTH] * TURNS


def _estimates(folder: Path, weights: Path) -> list[str]:
    entries = {
        f"{kind}-{context}": f'path = "{weights}"\nkv_type = "{kind}"\ncontext = {context}\nslots = 8'
        for kind, context in FORMS
    }
    daemon = _daemon(folder / "estimates", entries, {})
    lines = ["| KV type, context, 8 slots | estimated MiB | worker's RSS after loading, MiB |", "|---|---|---|"]
    try:
        with daemon.connect() as client:
            for name in entries:
                found = client.call(abi.MODEL_LOAD, abi.ModelName(name))
                sizes = f"{found.estimated_bytes / MIB:.0f} | {found.measured_bytes / MIB:.0f}"
                lines.append(f"| {name.replace('-', ', ')} | {sizes} |")
    finally:
        daemon.stop()
    return lines


if __name__ == "__main__":
    print("\n".join(measure()))
