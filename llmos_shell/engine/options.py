"""Options of a kernel, from `models.toml`: checked against what the kernel knows, so that none is silently ignored."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from llmos_shell.abi.errors import Code, LlmosError

T = TypeVar("T", bound=Struct)


def convert_options(options: dict[str, Any], kind: type[T]) -> T:
    """The options as `kind`. Raises EINVAL for one that it does not have, naming those it has, or of another type."""
    known = kind.__struct_fields__
    for name in options:
        if name not in known:
            hint = f"known: {', '.join(known)}" if known else "it has none"
            raise LlmosError(Code.EINVAL, f"the kernel has no option `{name}`", hint=hint)
    try:
        return msgspec.convert(options, kind)
    except msgspec.ValidationError as error:
        raise LlmosError(Code.EINVAL, f"options: {error}") from None
