"""Grammars and JSON schemas as constraints on tokens, through llama.cpp's grammar sampler."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from llmos_kernel_llamacpp.native import lib, take_errors
from llmos_shell.abi.errors import Code, LlmosError

_CANDIDATE = np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])  # llama_token_data


def to_gbnf(kind: Literal["gbnf", "json-schema"], text: str) -> str:
    """The grammar as GBNF. Raises EINVAL for a schema that is none."""
    if kind == "gbnf":
        return text
    from llama_cpp.llama_grammar import json_schema_to_gbnf  # slow to import, rarely needed

    try:
        schema = json.loads(text)
        if not isinstance(schema, dict):
            raise LlmosError(Code.EINVAL, "a JSON schema must be an object")
        return str(json_schema_to_gbnf(text))
    except json.JSONDecodeError as error:
        raise LlmosError(Code.EINVAL, f"the JSON schema is not JSON: {error}") from error
    except LlmosError:
        raise
    except Exception as error:
        raise LlmosError(Code.EINVAL, f"the JSON schema cannot be followed: {error}") from error


class GrammarConstraint:
    """Implements `abi.engine.Constraint`."""

    def __init__(self, vocab: Any, vocabulary: int, kind: Literal["gbnf", "json-schema"], text: str) -> None:
        gbnf = to_gbnf(kind, text)
        self._sampler, complaint = _parse(vocab, gbnf)
        if not self._sampler:
            raise LlmosError(Code.EINVAL, f"the grammar is wrong: {complaint}")
        self._vocabulary = vocabulary
        self._one = np.zeros(1, dtype=_CANDIDATE)
        self._one_array = _candidates(self._one)
        self._all: npt.NDArray[Any] | None = None

    def allows(self, token: int) -> bool:
        """Whether this token may come next."""
        self._one[0] = (token, 0.0, 0.0)
        lib.llama_sampler_apply(self._sampler, ctypes.byref(self._one_array))
        return float(self._one["logit"][0]) == 0.0

    def mask(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A copy with -inf for what may not come next."""
        if self._all is None:
            self._all = np.zeros(self._vocabulary, dtype=_CANDIDATE)
            self._all["id"] = np.arange(self._vocabulary)
        self._all["logit"] = logits
        array = _candidates(self._all)
        lib.llama_sampler_apply(self._sampler, ctypes.byref(array))
        return self._all["logit"].copy()

    def accept(self, token: int) -> None:
        """Advances. Asks first: llama.cpp aborts the process for a token that does not fit."""
        if not self.allows(token):
            raise LlmosError(Code.EINVAL, f"token {token} does not fit the grammar")
        lib.llama_sampler_accept(self._sampler, token)

    def close(self) -> None:
        """Releases the sampler."""
        if self._sampler:
            lib.llama_sampler_free(self._sampler)
            self._sampler = None


def _parse(vocab: Any, gbnf: str) -> tuple[Any, str]:
    """A sampler (or nothing), and what llama.cpp said; its parser writes straight to descriptor 2."""
    take_errors()
    sys.stderr.flush()
    saved, file = os.dup(2), os.memfd_create("grammar")
    try:
        os.dup2(file, 2)
        sampler = lib.llama_sampler_init_grammar(vocab, gbnf.encode(), b"root")
        sys.stderr.flush()
        said = os.pread(file, 4096, 0).decode("utf-8", "replace")
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(file)
    errors = take_errors()
    _, found, detail = said.partition("error parsing grammar: ")
    if found:
        what = detail.partition("\n")[0].strip()
        return sampler, f"{what} the end" if what.endswith(" at") else what
    return sampler, errors or "it does not parse, or has no rule `root`"


def _candidates(data: npt.NDArray[Any]) -> Any:
    """A llama_token_data_array over `data`, which must outlive it."""
    array = lib.llama_token_data_array()
    array.data = ctypes.cast(data.ctypes.data, dict(lib.llama_token_data_array._fields_)["data"])
    array.size = len(data)
    array.selected = -1
    array.sorted = False
    return array
