"""LLMasOS under measurement: a daemon of its own home, driven through its socket like any client's."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from types import TracebackType

from llmos_shell.abi import syscalls as sc
from llmos_shell.ipc.client import connect


class Llmos:
    """A daemon with one model, `bench`, and with variants of it. `context` is tokens per sequence."""

    def __init__(
        self,
        model: Path,
        *,
        slots: int,
        threads: int,
        context: int,
        layout: str = "auto",
        variants: dict[str, str] | None = None,
    ) -> None:
        """`variants` by name: a further line of the model's entry."""
        self._home = tempfile.TemporaryDirectory(prefix="llmos-bench-")
        os.environ["LLMOS_HOME"] = self._home.name
        config = Path(self._home.name, "config")
        config.mkdir()
        entries = {"bench": "", **(variants or {})}
        (config / "models.toml").write_text(
            "".join(
                f'[models.{name}]\npath = "{model}"\nslots = {slots}\nthreads = {threads}\ncontext = {context}\n'
                f'layout = "{layout}"\npool_tokens = {slots * context}\n{line}\n'
                for name, line in entries.items()
            )
        )
        self.client = connect("bench")
        for name in entries:
            self.client.call(sc.MODEL_LOAD, sc.ModelName(name))

    def generate(self, prompts: list[str], tokens: int, model: str = "bench") -> float:
        """Generates `tokens` tokens for all prompts at once; returns the seconds it took."""
        sampling = {"temperature": 0.0, "max_tokens": tokens, "ignore_eos": True}
        start = time.perf_counter()
        pids = [
            self.client.call(sc.PROC_SPAWN, sc.Spawn(model=model, prompt=prompt, sampling=sampling, private=True)).pid
            for prompt in prompts
        ]
        for pid in pids:
            self.client.call(sc.PROC_WAIT, sc.Wait(pid))
        seconds = time.perf_counter() - start
        done = {row.pid: row.generated_tokens for row in self.client.call(sc.PROC_LIST, sc.List(all=True))}
        short = [pid for pid in pids if done[pid] != tokens]
        if short:
            raise RuntimeError(f"{len(short)} of {len(pids)} processes did not generate {tokens} tokens")
        return seconds

    def worker(self, model: str = "bench") -> sc.WorkerInfo:
        """The figures of the model's worker."""
        workers: tuple[sc.WorkerInfo, ...] = self.client.call(sc.SYS_STATUS, sc.Nothing()).workers
        return next(worker for worker in workers if worker.model == model)

    def close(self) -> None:
        """Stops the daemon and removes its home."""
        self.client.call(sc.SYS_STOP, sc.Stop())
        self.client.close()
        self._home.cleanup()

    def __enter__(self) -> Llmos:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()
