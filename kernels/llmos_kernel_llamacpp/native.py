"""The llama.cpp library as such: initialised once per process, its log reduced to errors.

Everything that needs `llama_cpp` takes it from here as `lib`. The package ships no usable types for its ctypes
functions, so `lib` is `Any`; the other modules give everything they return a type again.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

if "OMP_WAIT_POLICY" not in os.environ:
    # Read when libgomp is loaded. Its threads spin at barriers, by default for milliseconds, which starves everyone on
    # a busy machine; these sleep after some 80 us. A lone sequence of a small model is 5 to 10 % faster so than with
    # 1000; with 20,000 it is no faster, and eight beside a process that keeps one processor busy are 15 % slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "4000")

import llama_cpp.llama_cpp as _lib

lib: Any = _lib

_ERROR, _CONTINUATION = 4, 5  # ggml_log_level as in ggml.h
_last_errors: list[str] = []
_last_level = 0
_ended_on_purpose: Callable[[], bool] | None = None  # of a computation under way


def _log(level: int, text: bytes | None, _: object) -> None:
    """Errors go to stderr and are remembered; everything else is dropped."""
    global _last_level
    if level != _CONTINUATION:
        _last_level = level
    if _last_level != _ERROR or not text or (_ended_on_purpose is not None and _ended_on_purpose()):
        return
    line = text.decode("utf-8", "replace")
    sys.stderr.write(line)
    _last_errors.append(line.strip())
    del _last_errors[:-8]


_log_callback = lib.llama_log_callback(_log)  # the library keeps only a pointer: this reference must live on
lib.llama_log_set(_log_callback, ctypes.c_void_p(0))
lib.llama_backend_init()


def decode(context: Any, batch: Any, ended_on_purpose: Callable[[], bool]) -> int:
    """`llama_decode`; what it complains of is dropped once it was ended on purpose."""
    global _ended_on_purpose
    _ended_on_purpose = ended_on_purpose
    try:
        return int(lib.llama_decode(context, batch))
    finally:
        _ended_on_purpose = None


def take_errors() -> str:
    """What the library complained about since the last call, in one line."""
    lines = [line.replace("\n", " ") for line in _last_errors if line]
    _last_errors.clear()
    telling = [line for line in lines if "failed to load model" not in line]
    return "; ".join(telling or lines)
