"""llama-server's engine (the C++ server inside the PyPI package xllamacpp) as a peer, over its real HTTP interface.

As a script it serves one model until its stdin closes: `peer.py MODEL SLOTS split|unified THREADS CONTEXT [DRAFT]`.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path


class LlamaServer:
    """A running peer. `context` is tokens per slot."""

    def __init__(
        self, model: Path, *, slots: int, unified: bool, threads: int, context: int, draft: Path | None = None
    ) -> None:
        layout = "unified" if unified else "split"
        argv = [sys.executable, __file__, str(model), str(slots), layout, str(threads), str(context)]
        argv += [str(draft)] if draft is not None else []
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("READY "):
                self._address = urllib.parse.urlparse(line.split()[1]).netloc
                return
        raise RuntimeError("the peer did not start")

    def generate(self, prompts: list[str], tokens: int) -> float:
        """Generates `tokens` tokens for all prompts at once; returns the seconds it took."""
        seconds, failures = self.attempt(prompts, tokens)
        if failures:
            raise RuntimeError(f"{len(failures)} of {len(prompts)} requests failed: {failures[0]}")
        return seconds

    def attempt(self, prompts: list[str], tokens: int) -> tuple[float, list[str]]:
        """The same; also returns what was said to those that failed."""
        failures: list[str] = []
        threads = [threading.Thread(target=self._one, args=(prompt, tokens, failures)) for prompt in prompts]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - start, failures

    def stream(self, prompt: str, tokens: int, note: Callable[[], None]) -> None:
        """Generates for one prompt, and calls `note` whenever a piece of text comes."""
        body = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "ignore_eos": True, "stream": True}
        connection = http.client.HTTPConnection(self._address, timeout=600)
        connection.request("POST", "/completion", json.dumps(body), {"Content-Type": "application/json"})
        for line in connection.getresponse():
            if line.startswith(b"data: "):
                note()

    def close(self) -> None:
        """Stops it."""
        self._process.communicate("")

    def _one(self, prompt: str, tokens: int, failures: list[str]) -> None:
        body = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
        connection = http.client.HTTPConnection(self._address, timeout=600)
        connection.request("POST", "/completion", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            failures.append(text.decode(errors="replace")[:200])
        elif json.loads(text).get("tokens_predicted") != tokens:
            failures.append(f"generated {json.loads(text).get('tokens_predicted')} of {tokens} tokens")


def _serve(model: str, slots: str, layout: str, threads: str, context: str, draft: str = "") -> None:
    import xllamacpp as xlc

    params = xlc.CommonParams()
    params.model.path = model
    params.n_parallel = int(slots)
    params.kv_unified = layout == "unified"
    params.n_ctx = int(slots) * int(context)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(threads)
    params.n_threads_http = int(slots) + 4
    params.warmup = False
    params.cache_ram_mib = 0
    params.verbosity = 0
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    if draft:
        params.speculative.types = [xlc.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE]
        params.speculative.draft.mparams.path = draft
        params.speculative.draft.cpuparams.n_threads = int(threads)
        params.speculative.draft.cpuparams_batch.n_threads = int(threads)
    server = xlc.Server(params)
    print("READY", server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
