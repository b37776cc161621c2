"""Memory of processes: what a fork costs against reading again, parking against copying, a pool far too small."""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import time
from pathlib import Path

from ours import Llmos
from peer import LlamaServer
from throughput import random_prompt

from llmos_shell.abi import PROTOCOL
from llmos_shell.abi import syscalls as sc
from llmos_shell.abi.engine import Chunk
from llmos_shell.abi.types import Signal
from llmos_shell.abi.worker import Load

FORKS = 8
CONVERSATIONS = 100
NEW_TOKENS = 32
CONTEXT = 320
ROUNDS = 15
FORK_ROUNDS = 9
STEPS = 16
SETTLE_SECONDS = 0.3


def measure(model: Path, threads: int) -> list[str]:
    """Runs everything; returns Markdown."""
    lines = ["| measure | figure | target |", "|---|---|---|"]
    with Llmos(model, slots=4 * FORKS, threads=threads, context=4608, layout="shared") as ours:
        for tokens in (1024, 4096):
            lines += _forks(ours, tokens)
    lines += _parking(model, threads)
    lines += _packing(threads)
    lines += _overcommit(model, threads)
    return lines


def _forks(ours: Llmos, tokens: int) -> list[str]:
    client, rng = ours.client, random.Random(tokens)
    sampling = {"temperature": 0.0, "max_tokens": 400, "ignore_eos": True}

    def start() -> int:
        prompt = "".join(chr(0x4E00 + rng.randrange(8000)) for _ in range(tokens))
        return int(client.call(sc.PROC_SPAWN, sc.Spawn(model="bench", prompt=prompt, sampling=sampling)).pid)

    def info(pid: int) -> sc.ProcessInfo:
        row: sc.ProcessInfo = client.call(sc.PROC_INFO, sc.Pid(pid))
        return row

    def first(pid: int) -> float:
        stream = client.stream(sc.PROC_FOLLOW, sc.Follow(pid))  # tokens that nobody reads may wait a while
        while info(pid).first_token_seconds is None:
            next(stream)
        return info(pid).first_token_seconds or 0.0

    def at_rest() -> sc.WorkerInfo:
        """The figures of the worker when it has nothing to do."""
        steps = -1
        while (worker := ours.worker()).steps != steps:
            steps = worker.steps
            time.sleep(SETTLE_SECONDS)
        return worker

    again, forked, pages, steps = [], [], [], []
    for _ in range(FORK_ROUNDS):
        source = start()
        again.append(first(source))
        client.call(sc.PROC_KILL, sc.Kill(source, Signal.STOP))
        before = at_rest()
        one = info(source).resident_pages
        used = client.call(sc.MEM_INFO, sc.Nothing()).pools[0].used_pages
        child = client.call(sc.PROC_FORK, sc.Fork(source)).pids[0]
        forked.append(first(child))
        while info(child).generated_tokens < info(source).generated_tokens + STEPS:
            time.sleep(SETTLE_SECONDS / 10)
        client.call(sc.PROC_KILL, sc.Kill(child, Signal.STOP))
        after = at_rest()
        steps.append((after.step_seconds - before.step_seconds) / (after.steps - before.steps))
        others = client.call(sc.PROC_FORK, sc.Fork(source, FORKS - 1)).pids
        for pid in others:
            first(pid)
            client.call(sc.PROC_KILL, sc.Kill(pid, Signal.STOP))
        at_rest()
        pages.append((one + client.call(sc.MEM_INFO, sc.Nothing()).pools[0].used_pages - used) / one)
        for pid in (source, child, *others):
            client.call(sc.PROC_KILL, sc.Kill(pid, Signal.KILL))
    reading, copying, step = statistics.median(again), statistics.median(forked), statistics.median(steps)
    return [
        f"| fork at {tokens} tokens, to the first token, against reading again "
        f"| {1000 * copying:.1f} ms against {1000 * reading:.0f} ms: {reading / copying:.0f} times faster "
        "| ≥ 50 times at 4k |",
        f"| … against one step there | {1000 * copying:.1f} ms against {1000 * step:.1f} ms | ≤ 1 step + 1 ms |",
        f"| {FORKS} forks of {tokens}: pages | {statistics.median(pages):.2f} times those of one | ≤ 1.1 times |",
    ]


def _parking(model: Path, threads: int) -> list[str]:
    """Out of the pool into a file on tmpfs and back, as a worker does it, against copying the same bytes.

    Threads of the worker write the file, and verify it while a step is under way: steps wait for the export and the
    restoring alone. A worker that has nothing else to do waits for all of it.
    """
    import numpy as np
    from llmos_kernel_llamacpp.engine import load

    from llmos_shell.engine import images
    from llmos_shell.engine.ahead import Ahead
    from llmos_shell.engine.arenas import Arenas

    engine = load(
        Load(PROTOCOL, str(model), layout="shared", slots=4, context=4608, pool_tokens=4 * 4608, threads=threads)
    )
    tokens = [5 + n % 20000 for n in range(4096)]
    for start in range(0, len(tokens), engine.info.max_batch):
        engine.step([Chunk(0, start, tokens[start : start + engine.info.max_batch], False)])
    copy, wait, out, ahead, back, size = [], [], [], [], [], 0
    arenas, bytes_of = Arenas(), np.frombuffer(engine.export(0), dtype=np.uint8)
    verifier = Ahead(engine.info.fingerprint, arenas)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        for number in range(ROUNDS):
            path = os.path.join(folder, f"{number}.kv")
            begun = time.perf_counter()
            header = images.Header(images.VERSION, engine.info.fingerprint, tuple(tokens), "shared", 1, 0)
            draft = images.Draft(path, header, arenas)
            blob = engine.export(0, draft.room)
            wait.append(time.perf_counter() - begun)
            size = draft.finish(blob)
            out.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            bytes_of.copy()
            copy.append(time.perf_counter() - begun)
            engine.free(1)
            begun = time.perf_counter()
            engine.restore(1, images.read(path, engine.info.fingerprint, arenas).blob, len(tokens))
            back.append(time.perf_counter() - begun)
            engine.free(1)
            verifier.expect(path)
            time.sleep(SETTLE_SECONDS / 10)
            begun = time.perf_counter()
            with verifier.image(path) as image:
                engine.restore(1, image.blob, len(tokens))
            ahead.append(time.perf_counter() - begun)
            os.unlink(path)
        verifier.close()
        arenas.close()
    engine.close()
    memcpy = statistics.median(copy)
    return [
        f"| {way} {size / 2**20:.0f} MiB, against memcpy | {1000 * seconds:.1f} ms "
        f"against {1000 * memcpy:.1f} ms: {memcpy / seconds:.2f} times | {target} |"
        for way, seconds, target in (
            ("parking: what steps wait for,", statistics.median(wait[1:]), "≥ 0.5 times"),
            ("… until the file is complete, with its checksum:", statistics.median(out[1:]), ""),
            ("… the same in a new file:", out[0], ""),
            ("unparking: what steps wait for,", statistics.median(ahead[1:]), "≥ 0.5 times"),
            ("… verified and restored by a worker that waits for it:", statistics.median(back[1:]), ""),
        )
    ]


def _packing(threads: int) -> list[str]:
    """Images of the built-in model, whose weights are trained, on their way to a disk and back; files on tmpfs."""
    from llmos_kernel_llamacpp.engine import load

    from llmos_shell.daemon.memory.swap import copy_file
    from llmos_shell.engine import images
    from llmos_shell.models.registry import Registry

    weights, text = Registry().resolve("tiny").path, (Path(__file__).parents[1] / "README.md").read_text()
    lines = []
    for kv_type in ("f16", "bf16"):
        engine = load(Load(PROTOCOL, weights, layout="shared", slots=1, context=2048, threads=threads, kv_type=kv_type))
        tokens = engine.tokenize(text, True)[:2048]
        for start in range(0, len(tokens), engine.info.max_batch):
            engine.step([Chunk(0, start, tokens[start : start + engine.info.max_batch], False)])
        blob = engine.export(0)
        header = images.Header(images.VERSION, engine.info.fingerprint, tuple(tokens), "shared", 1, len(blob))
        with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
            image, packed, other = (os.path.join(folder, name) for name in ("image", "packed", "other"))
            images.write(image, header, blob)
            out = [copy_file(image, packed, True, False) for _ in range(ROUNDS)]
            back = [copy_file(packed, other, False, False) for _ in range(ROUNDS)]
            plain = [copy_file(image, other, False, False) for _ in range(ROUNDS)]
        engine.close()
        size, share = out[0].source_bytes, out[0].target_bytes / out[0].source_bytes
        rates = [size / statistics.median(one.seconds for one in each) / 1e6 for each in (out, back, plain)]
        lines.append(
            f"| swapping compressed, {kv_type}, {len(tokens)} tokens: on the disk, out and back against a copy | "
            f"{share:.2f} of {size / 2**20:.1f} MiB, {rates[0]:.0f} and {rates[1]:.0f} against {rates[2]:.0f} MB/s | |"
        )
    return lines


def _overcommit(model: Path, threads: int) -> list[str]:
    rng = random.Random(2)
    prompts = [random_prompt(rng) for _ in range(CONVERSATIONS)]
    rates, texts = [], []
    for slots in (CONVERSATIONS, CONVERSATIONS // 10):
        with Llmos(model, slots=slots, threads=threads, context=CONTEXT, layout="split") as ours:
            ours.generate(prompts[:2], 8)  # warms up
            seconds = ours.generate(prompts, NEW_TOKENS)
            rows = [row for row in ours.client.call(sc.PROC_LIST, sc.List(all=True)) if row.generated_tokens]
            pids = sorted(row.pid for row in rows)[-CONVERSATIONS:]
            turns = [ours.client.call(sc.PROC_TRANSCRIPT, sc.Pid(pid)).turns for pid in pids]
            texts.append([each[-1].text for each in turns])
            rates.append(CONVERSATIONS * NEW_TOKENS / seconds)
    equal = sum(left == right for left, right in zip(*texts, strict=True))
    return [
        f"| {CONVERSATIONS} conversations over a pool for {CONVERSATIONS // 10}: finished, with equal text "
        f"| {CONVERSATIONS}, {equal} | all |",
        f"| … throughput against a pool that holds all | {rates[1]:.0f} against {rates[0]:.0f} tok/s: "
        f"{rates[1] / rates[0]:.2f} times | ≥ 0.75 times |",
        *_peers_overcommit(model, threads, prompts),
    ]


def _peers_overcommit(model: Path, threads: int, prompts: list[str]) -> list[str]:
    """The same on llama-server's engine with a pool of the same size: as slots for ten, and shared by all."""
    lines = []
    for slots, unified in ((CONVERSATIONS // 10, False), (CONVERSATIONS, True)):
        pool = CONVERSATIONS // 10 * CONTEXT
        peer = LlamaServer(model, slots=slots, unified=unified, threads=threads, context=pool // slots)
        seconds, failures = peer.attempt(prompts, NEW_TOKENS)
        peer.close()
        done = len(prompts) - len(failures)
        how = "shared by all" if unified else f"in {slots} slots, the others waiting in line"
        lines.append(
            f"| … llama-server, the same pool {how}: finished | {done}, {done * NEW_TOKENS / seconds:.0f} tok/s | |"
        )
    return lines
