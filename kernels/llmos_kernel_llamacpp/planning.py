"""What can be told of a model before it is loaded: its options, the layout and size of the KV cache. Pure, and light:
the daemon asks for it too.

Options (of `Load.options`, from `models.toml`):

- `n_batch`, `n_ubatch`: most tokens per step, and per micro-batch
- `flash_attention`: 1, 0, or -1 for llama.cpp's own choice; left out: see `loading.flash_attention`
- `mmap`: false reads the weights into memory of the worker's own
- `repack`: false leaves weights in the layout of the file, where llama.cpp would rearrange some types for its products
- `speculation`: true guesses tokens (`engine.guessing`) while that is measured to pay: those that followed in the
  context before, or what a draft model says where the entry names one. A step of several rows differs from one of a
  single row in the last bits, so two runs may then differ where tokens are tied. Left out: with a draft model, and with
  `deterministic`, where bits are the same
- `deterministic`: true makes what a sequence generates independent, bit for bit, of what else runs, of threads, of
  parking, forks and replays (on a CPU; `engine` has the size of what is thereby avoided). Implies the layout `split`,
  flash attention and no `repack`; not for models with recurrent state. Prompts take 1.1 to 1.9 times as long. So does
  a lone decoding sequence with f32, f16, bf16 and Q8_0 weights, 1.2 to 1.5 times; with others 5 times (they compute 8
  rows); 8 sequences in neighbouring slots lose 0 to 20 %. Measured on 2 threads, 512 dimensions, dense models

`plan_kv` is pure. llama.cpp rounds the cells of a sequence up to multiples of 256; a slot or pool has that many cells.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from llmos_kernel_llamacpp.steady import LEAST_ROWS, MOST_ROWS, SPARE_CELLS
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.kernel import Shape
from llmos_shell.abi.worker import Load
from llmos_shell.engine.options import convert_options

CELLS_MULTIPLE = 256
DEFAULT_SLOTS = 32
MAX_SLOTS = 256  # sequence ids of llama.cpp
KV_SHARE_OF_RAM = 0.25
KV_MOST_BYTES = 4 << 30
DEFAULT_BATCH = 1024
DEFAULT_MICRO_BATCH = 512
MOST_GUESSES = 16
INPUT_COPIES = 4
"""Of a micro-batch's inputs where several GPUs work one after another: GGML_SCHED_MAX_COPIES."""

Tokens = Annotated[int, Meta(ge=1, lt=1 << 31)]


class Options(Struct, frozen=True):
    """The options above, with their defaults."""

    n_batch: Tokens = DEFAULT_BATCH
    n_ubatch: Tokens = DEFAULT_MICRO_BATCH
    flash_attention: Literal[-1, 0, 1] | None = None
    mmap: bool = True
    repack: bool | None = None  # None: unless `deterministic`
    speculation: bool | None = None  # None: with a draft model, and with `deterministic`
    deterministic: bool = False


class KvPlan(Struct, frozen=True):
    """How the KV cache is laid out."""

    layout: Literal["shared", "split"]
    slots: int
    context: int  # longest sequence
    cells: int  # in all


def plan_kv(spec: Load, trained_context: int, bytes_per_token: int, available_bytes: int) -> KvPlan:
    """Chooses layout, slots and size from what was asked for and what fits; ENOMEM when what was asked for cannot fit.

    `auto` is `split` when every slot can have the whole context within the budget (a quarter of the available RAM, at
    most 4 GiB), because attention then reads no other sequence's cells; else one shared pool of the budget's size. A
    context that was not asked for shrinks to the pool.
    """
    context = max(1, spec.context or trained_context)
    budget = int(min(KV_SHARE_OF_RAM * available_bytes, KV_MOST_BYTES)) // max(1, bytes_per_token)
    spare = 0
    if options_of(spec).deterministic:
        if spec.layout == "shared":
            raise LlmosError(
                Code.EINVAL,
                "`deterministic` does not go with the layout `shared`",
                hint='use `layout = "split"`',
            )
        most = budget if spec.context is None and spec.pool_tokens is None else spec.pool_tokens
        spec, spare = replace(spec, layout="split", pool_tokens=most), SPARE_CELLS
    slots = spec.slots or DEFAULT_SLOTS
    if not 1 <= slots <= MAX_SLOTS:
        raise LlmosError(Code.EINVAL, f"slots must be from 1 to {MAX_SLOTS}, not {slots}")
    room = budget if spec.pool_tokens is None else spec.pool_tokens
    layout = spec.layout
    if layout == "auto":
        layout = "split" if slots * _padded(context + spare) <= room else "shared"
    if layout == "split":
        if spec.pool_tokens is not None:
            context = min(context, max(1, spec.pool_tokens // slots - spare))
        plan = KvPlan("split", slots, context, slots * _padded(context + spare))
    else:
        if spec.pool_tokens is None:
            room = max(min(slots * context, budget), spec.context or 0)
        cells = _padded(max(1, room))
        plan = KvPlan("shared", slots, min(context, cells), cells)
    if plan.cells * bytes_per_token > available_bytes:
        raise LlmosError(
            Code.ENOMEM,
            f"a KV pool of {plan.cells} tokens needs {plan.cells * bytes_per_token >> 20} MiB,"
            f" {available_bytes >> 20} MiB are available",
            hint="set a smaller `context`, `slots` or `pool_tokens`",
        )
    return plan


def pool_bytes(spec: Load, trained_context: int, kv_bytes_per_token: int, available_bytes: int) -> int:
    """As `abi.kernel.PoolBytes`."""
    return plan_kv(spec, trained_context, kv_bytes_per_token, available_bytes).cells * kv_bytes_per_token


def compute_bytes(spec: Load, shape: Shape, kv_tokens: int, gpus: int) -> int:
    """As `abi.kernel.ComputeBytes`: an upper bound of the `compute buffer size` that llama.cpp logs.

    For each row of a micro-batch a few vectors of the width of the model, the feed-forward network's three, and the
    mask of all cells it may attend to; the logits; without flash attention, which GPUs have, the scores of all heads.
    Compared with dense models on a CPU, whose graph is the same: 1.0 to 2.0 times what was logged, mostly below 1.1.
    """
    options, slots = options_of(spec), spec.slots or DEFAULT_SLOTS
    rows = options.n_ubatch
    outputs = slots + MOST_GUESSES
    if options.deterministic:
        rows, outputs = max(rows, slots + LEAST_ROWS, MOST_ROWS), outputs + LEAST_ROWS
    cells = kv_tokens // slots if spec.layout == "split" or options.deterministic else kv_tokens
    vectors = rows * 4 * (4 * shape.embedding + 3 * shape.feed_forward)
    copies = INPUT_COPIES if gpus > 1 else 1
    per_cell = 4 * (shape.heads + copies) if options.flash_attention == 0 else 2 * copies
    return vectors + rows * cells * per_cell + outputs * shape.vocabulary * 4


def options_of(spec: Load) -> Options:
    """The options, checked. Raises EINVAL."""
    return convert_options(spec.options, Options)


def _padded(tokens: int) -> int:
    return -(-tokens // CELLS_MULTIPLE) * CELLS_MULTIPLE
