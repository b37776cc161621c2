"""A flag that ends `llama_decode` early, which any thread may set.

llama.cpp asks a callback before every operation of the graph, hundreds of times per step. One in Python would take the
interpreter's lock each time. So the callback is the C library's `strlen`, and the flag a C string: of length 0 it means
to go on, of length 1 to stop.
"""

from __future__ import annotations

import ctypes
from typing import Any

from llmos_kernel_llamacpp.native import lib

_GO_ON, _STOP = b"\0", b"\1"


class AbortFlag:
    """The flag of one context. llama.cpp keeps a pointer to it, so it lives as long as the context."""

    def __init__(self, context: Any) -> None:
        self._text = ctypes.create_string_buffer(2)
        strlen = ctypes.cast(ctypes.CDLL(None).strlen, lib.ggml_abort_callback)
        lib.llama_set_abort_callback(context, strlen, ctypes.cast(self._text, ctypes.c_void_p))

    def set(self) -> None:
        """Ends the `llama_decode` that is under way, and all later ones until `clear`."""
        self._text[0] = _STOP

    def clear(self) -> None:
        """Lets the next ones compute."""
        self._text[0] = _GO_ON

    def is_set(self) -> bool:
        """Whether the one under way was ended."""
        return self._text[0] == _STOP
