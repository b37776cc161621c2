"""`model.*` and `kernel.*`."""

from __future__ import annotations

from llmos_shell.abi import syscalls as abi
from llmos_shell.abi import worker
from llmos_shell.abi.types import ModelStatus
from llmos_shell.daemon import kernels
from llmos_shell.daemon.syscalls import Context, Handler


async def list_(context: Context, args: abi.Nothing) -> tuple[ModelStatus, ...]:
    """`models`; one loaded from a path is listed too."""
    core = context.core
    listed = core.registry.listing()
    known = {one.entry.path for one in listed}
    listed += [core.registry.status(c.entry) for c in core.residency.all() if c.entry.path not in known]
    return tuple(core.residency.status(one.entry, one.default, one.bytes, one.problem) for one in listed)


async def load(context: Context, args: abi.ModelName) -> ModelStatus:
    """Loads a model and waits for it."""
    core = context.core
    conductor = await core.residency.get(args.model)
    one = core.registry.status(conductor.entry)
    return core.residency.status(one.entry, one.default, one.bytes, one.problem)


async def unload(context: Context, args: abi.ModelName) -> abi.Nothing:
    """Unloads a model."""
    await context.core.residency.unload(args.model)
    return abi.Nothing()


async def tokenize(context: Context, args: abi.Tokenize) -> abi.TokenList:
    """The tokens of a text, as they stand, without BOS."""
    conductor = await context.core.residency.get(args.model)
    answer = await conductor.tokenizer.ask(worker.Tokenize(0, text=args.text, special=False))
    return abi.TokenList(answer.tokens)


async def list_kernels(context: Context, args: abi.Nothing) -> tuple[abi.KernelInfo, ...]:
    """Installed kernels."""
    return tuple(kernels.describe(manifest) for _, manifest in sorted(kernels.manifests().items()))


HANDLERS: dict[str, Handler] = {
    "model.list": list_,
    "model.load": load,
    "model.unload": unload,
    "model.tokenize": tokenize,
    "kernel.list": list_kernels,
}
