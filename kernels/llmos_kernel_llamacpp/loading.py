"""Loading a GGUF file: weights, context parameters, the fingerprint.

What is planned from an entry alone, and the options, are in `planning`.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from llmos_kernel_llamacpp.native import lib, take_errors
from llmos_kernel_llamacpp.planning import DEFAULT_MICRO_BATCH, MOST_GUESSES, KvPlan, options_of
from llmos_kernel_llamacpp.steady import LEAST_ROWS, LEAST_ROWS_UNIFORM, MOST_ROWS
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.worker import Load
from llmos_shell.engine.threads import default_threads

PAGE_TOKENS = 16
MOST_SCORE_BYTES = 256 << 20
SMALL_WEIGHTS_BYTES = 64 << 20

UNIFORM_FILE_TYPES = {0, 1, 7, 32}  # all f32; mostly f16, Q8_0, bf16: and the file says so, it is not a guess

KV_TYPES = {  # name: (ggml type, elements per block, bytes per block)
    "f32": (0, 1, 4),
    "f16": (1, 1, 2),
    "bf16": (30, 1, 2),
    "q8_0": (8, 32, 34),
    "q4_0": (2, 32, 18),
}


def load_model(spec: Load, progress: Callable[[int, int], bool]) -> Any:
    """The weights; `progress` is that of `LoadEngine`. Raises ENOENT or ENOEXEC with the reason in one line."""
    if not os.path.isfile(spec.path):
        raise LlmosError(Code.ENOENT, f"no model file at {spec.path}")
    options = options_of(spec)
    params = lib.llama_model_default_params()
    params.n_gpu_layers = spec.gpu_layers
    split = _take_split(params, spec.gpu_split)
    if not options.mmap:
        params.load_mode = lib.LLAMA_LOAD_MODE_NONE
    params.use_extra_bufts = not options.deterministic if options.repack is None else options.repack
    size, wanted = os.path.getsize(spec.path), True

    def progressed(share: float, _: object) -> bool:
        nonlocal wanted
        wanted = wanted and progress(int(share * size), size)
        return wanted

    params.progress_callback = lib.llama_progress_callback(progressed)
    take_errors()
    model = lib.llama_model_load_from_file(spec.path.encode(), params)
    del split
    if not model and not wanted:
        raise LlmosError(Code.EINTR, f"nobody wants {spec.path} any more")
    if not model:
        raise LlmosError(Code.ENOEXEC, f"cannot load {spec.path}: {take_errors() or 'llama.cpp refused it'}")
    if lib.llama_model_has_encoder(model) or not lib.llama_model_has_decoder(model):
        lib.llama_model_free(model)
        raise LlmosError(Code.ENOEXEC, f"cannot run {spec.path}: only decoder models are supported")
    return model


def _take_split(params: Any, layers: tuple[int, ...]) -> object:
    """Deals the layers out to the GPUs; what is returned must live until the weights are loaded."""
    used = [index for index, count in enumerate(layers) if count]
    if not used:
        return None
    if len(used) == 1:
        params.split_mode, params.main_gpu = lib.LLAMA_SPLIT_MODE_NONE, used[0]
        return None
    shares = (ctypes.c_float * max(int(lib.llama_max_devices()), len(layers)))(*layers)
    params.split_mode, params.tensor_split = lib.LLAMA_SPLIT_MODE_LAYER, shares
    return shares


def knows_gpus() -> bool:
    """Whether llama.cpp was built with support for GPUs, found or not: it tells of its backends."""
    backends = re.findall(r"(\w+) : ", lib.llama_print_system_info().decode())
    return bool(set(backends) - {"CPU"}) or bool(lib.llama_supports_gpu_offload())


def new_context(model: Any, spec: Load, plan: KvPlan, threads: int, flash: int) -> tuple[Any, int]:
    """A context, and the most tokens it takes per batch. Raises ENOMEM when llama.cpp cannot have the memory.

    `flash` is of `flash_attention`, or that of a former context, whose KV is to be read.
    """
    options = options_of(spec)
    batch = min(options.n_batch, plan.cells)
    params = lib.llama_context_default_params()
    params.n_ctx = plan.cells
    params.n_batch = max(batch, plan.slots)
    params.n_ubatch = min(options.n_ubatch, params.n_batch)
    params.n_seq_max = plan.slots
    params.n_outputs_max = plan.slots + MOST_GUESSES
    if options_of(spec).deterministic:
        params.n_batch = max(params.n_batch, plan.slots + LEAST_ROWS, MOST_ROWS)
        params.n_ubatch = max(params.n_ubatch, plan.slots + LEAST_ROWS, MOST_ROWS)
        params.n_outputs_max += LEAST_ROWS
    params.n_threads = params.n_threads_batch = threads
    params.type_k = params.type_v = kv_type(spec.kv_type)[0]
    params.flash_attn_type = flash
    params.kv_unified = plan.layout == "shared"
    params.swa_full = True  # sliding windows forget cells, and then nothing can be truncated or copied
    params.no_perf = True
    take_errors()
    context = lib.llama_init_from_model(model, params)
    if not context:
        raise LlmosError(
            Code.ENOMEM,
            f"cannot allocate a KV cache of {plan.cells} tokens: {take_errors() or 'out of memory'}",
            hint="set a smaller `context`, `slots` or `pool_tokens`",
        )
    return context, int(params.n_batch)


def flash_attention(model: Any, spec: Load, plan: KvPlan) -> int:
    """The `llama_flash_attn_type` to use.

    On a CPU plain attention decodes a lone sequence of a small model faster, and many together slower: with 15 M
    parameters one sequence takes 0.75 times as long, eight as long, 32 take 1.25 times; with 110 M 0.95, 1.05 and 1.3
    times. It holds the scores of a whole micro-batch, and in the shared layout computes those of all other sequences:
    a token after 300 beside 16,000 cells took 32 ms, with flash attention 4. So it is chosen for small weights in the
    split layout while scores stay small. A quantised V cache and `deterministic` need flash attention: without it,
    products of queries and keys have other shapes in prefill than in decoding.
    """
    options = options_of(spec)
    if spec.kv_type in ("q8_0", "q4_0") or options.deterministic:
        return int(lib.LLAMA_FLASH_ATTN_TYPE_ENABLED)
    if options.flash_attention is not None:
        return options.flash_attention
    scores = plan.context * DEFAULT_MICRO_BATCH * int(lib.llama_model_n_head(model)) * 4
    small = os.path.getsize(spec.path) <= SMALL_WEIGHTS_BYTES and scores <= MOST_SCORE_BYTES
    plain = small and plan.layout == "split" and spec.gpu_layers == 0
    return int(lib.LLAMA_FLASH_ATTN_TYPE_DISABLED if plain else lib.LLAMA_FLASH_ATTN_TYPE_AUTO)


def kv_type(name: str) -> tuple[int, int, int]:
    """ggml type, elements per block and bytes per block. Raises EINVAL for an unknown name."""
    try:
        return KV_TYPES[name]
    except KeyError:
        raise LlmosError(Code.EINVAL, f"unknown KV type `{name}`", hint=f"one of {', '.join(KV_TYPES)}") from None


def kv_bytes_per_token(model: Any, kind: str) -> int:
    """Bytes of K and V of one token in all layers, from the model's metadata."""
    _, elements, size = kv_type(kind)
    heads = max(1, lib.llama_model_n_head(model))
    kv_heads = lib.llama_model_n_head_kv(model)
    head = lib.llama_model_n_embd(model) // heads
    arch = metadata(model, "general.architecture")
    key = int(metadata(model, f"{arch}.attention.key_length") or head)
    value = int(metadata(model, f"{arch}.attention.value_length") or head)
    if key % elements or value % elements:
        raise LlmosError(
            Code.EINVAL,
            f"KV type {kind} needs heads of a multiple of {elements}, not {key}",
            hint='use `kv_type = "f16"`',
        )
    row = sum(kv_heads * length // elements * size for length in (key, value))
    return int(lib.llama_model_n_layer(model) * row)


def metadata(model: Any, key: str) -> str:
    """One value of the file's metadata as text; "" when absent."""
    buffer = ctypes.create_string_buffer(1024)
    length = lib.llama_model_meta_val_str(model, key.encode(), buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace") if length >= 0 else ""


def weights_digest(path: str) -> str:
    """Of a file's size, first and last MiB (metadata, tensor table, some tensor data); all would take minutes."""
    digest = hashlib.blake2b(digest_size=16)
    size = os.path.getsize(path)
    digest.update(repr(size).encode())
    with open(path, "rb") as file:
        digest.update(file.read(1 << 20))
        file.seek(max(0, size - (1 << 20)))
        digest.update(file.read(1 << 20))
    return digest.hexdigest()


def streams_of(plan: KvPlan) -> int:
    """Of the KV cache."""
    return plan.slots if plan.layout == "split" else 1


def fingerprint(spec: Load, flash: int, streams: int) -> str:
    """Of everything that makes KV exchangeable: weights, library, KV type, attention variant, number of KV streams.

    Of the weights it is what `weights_digest` looks at. `streams` is 0 where any number goes.
    """
    digest = hashlib.blake2b(bytes.fromhex(weights_digest(spec.path)), digest_size=16)
    parts: tuple[object, ...] = (version("llama-cpp-python"), spec.kv_type, flash, streams)
    if options_of(spec).deterministic:
        parts += ("deterministic",)
    digest.update(repr(parts).encode())
    return f"llamacpp:{digest.hexdigest()}"


def available_memory() -> int:
    """Bytes of RAM that can be had without swapping."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def least_rows(file_type: int) -> int:
    """Rows that a micro-batch needs for results that do not depend on its size, by `llama_ftype` of the weights.

    Measured: f32, f16 and bf16 differ between 1 row and several, Q8_0 does not; the others do between 7 and 8.
    """
    return LEAST_ROWS_UNIFORM if file_type in UNIFORM_FILE_TYPES else LEAST_ROWS


def threads_for(spec: Load) -> int:
    """Compute threads to start with."""
    return max(1, spec.threads or default_threads())
