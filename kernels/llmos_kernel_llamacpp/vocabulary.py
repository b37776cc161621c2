"""Tokens and text, by llama.cpp's tokeniser. Pieces and end tokens are remembered: they are asked for every token."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, TypeVar

from llmos_kernel_llamacpp.native import lib
from llmos_shell.abi.errors import Code, LlmosError

T = TypeVar("T")


class _Remembered(dict[int, T]):
    """A function of a token, computed once per token."""

    def __init__(self, compute: Callable[[int], T]) -> None:
        super().__init__()
        self._compute = compute

    def __missing__(self, token: int) -> T:
        value = self[token] = self._compute(token)
        return value


class Vocabulary:
    """The vocabulary of a loaded model."""

    def __init__(self, model: Any) -> None:
        self.native: Any = lib.llama_model_get_vocab(model)
        self.size = int(lib.llama_vocab_n_tokens(self.native))
        self.adds_bos = bool(lib.llama_vocab_get_add_bos(self.native))
        self.bos_text = self._text(lib.llama_vocab_bos(self.native))
        self.eos_text = self._text(lib.llama_vocab_eos(self.native))
        self._adds_eos = bool(lib.llama_vocab_get_add_eos(self.native))
        self.piece: Callable[[int], bytes] = _Remembered(self._piece).__getitem__
        self.is_end: Callable[[int], bool] = _Remembered(self._is_end).__getitem__

    def tokenize(self, text: str, special: bool) -> list[int]:
        """Token ids; with `special`, BOS as the model wants it and special tokens in the text. Never EOS at the end."""
        data = text.encode("utf-8", "surrogatepass")
        room = len(data) + 16
        while True:
            tokens = (ctypes.c_int32 * room)()
            count = lib.llama_tokenize(self.native, data, len(data), tokens, room, special, special)
            if count >= 0:
                break
            if -count <= room:
                raise LlmosError(Code.E2BIG, "the text is too long for the tokeniser")
            room = -count
        if special and self._adds_eos and count:
            count -= 1
        return tokens[:count]

    def longest_piece(self) -> int:
        """Bytes of text that one token can stand for, at most; 0 where the tokeniser may leave out text.

        The vocabulary writes some bytes as several (a space as `▁`, others as `<0x0A>`), never as fewer.
        """
        if lib.llama_vocab_type(self.native) in (lib.LLAMA_VOCAB_TYPE_WPM, lib.LLAMA_VOCAB_TYPE_UGM):
            return 0
        text = lib.llama_vocab_get_text
        return max(len(text(self.native, token) or b"") for token in range(self.size))

    def _piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        length = lib.llama_token_to_piece(self.native, token, buffer, len(buffer), 0, False)
        if length < 0:
            buffer = ctypes.create_string_buffer(-length)
            length = lib.llama_token_to_piece(self.native, token, buffer, len(buffer), 0, False)
        return buffer.raw[:length]

    def _is_end(self, token: int) -> bool:
        return bool(lib.llama_vocab_is_eog(self.native, token))

    def _text(self, token: int) -> str:
        if token < 0:
            return ""
        return (lib.llama_vocab_get_text(self.native, token) or b"").decode("utf-8", "replace")
