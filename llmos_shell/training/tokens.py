"""The tokenizer of `tiny`: byte-fallback BPE as llama.cpp's SentencePiece-style tokenizer reads it from a GGUF file.

A word begins with a space (`▁`) and no token reaches over a space, so words are encoded one by one. Encoding follows
llama.cpp: join the neighbouring pair whose token has the best score, leftmost first, until none is left; what is no
token then becomes bytes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise

from llmos_shell.shell.assistant import ASK, DO
from llmos_shell.shell.assistant_slots import MAX_PLACES

SPACE = "▁"
UNKNOWN, BOS, EOS = 0, 1, 2
PLACES = tuple(f"<{kind}{number}>" for kind in "nsmfjg" for number in range(1, MAX_PLACES + 1))
SPECIAL = (ASK, DO, *PLACES)
_FIRST = ("<unk>", "<s>", "</s>")


class Type(IntEnum):
    """Token types of GGUF."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    BYTE = 6


@dataclass(repr=False)
class Tokenizer:
    """Tokens in order of their ids. Learned tokens come last, best first, and their score is minus their rank."""

    tokens: list[str]
    first_learned: int
    _ids: dict[str, int] = field(init=False)
    _special: re.Pattern[str] = field(init=False)
    _cache: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ids = {token: number for number, token in enumerate(self.tokens)}
        self._special = re.compile("(" + "|".join(map(re.escape, _FIRST + SPECIAL)) + ")")

    def __len__(self) -> int:
        return len(self.tokens)

    def score(self, token: int) -> float:
        """Higher scores are joined first."""
        return -float(token - self.first_learned) if token >= self.first_learned else 0.0

    def type(self, token: int) -> Type:
        """What kind of token it is."""
        if token == UNKNOWN:
            return Type.UNKNOWN
        if token in (BOS, EOS):
            return Type.CONTROL
        if self.tokens[token] in SPECIAL:
            return Type.USER_DEFINED
        return Type.BYTE if token < self.first_learned else Type.NORMAL

    def encode(self, text: str) -> list[int]:
        """Ids without BOS; special tokens in the text are recognised."""
        ids: list[int] = []
        for part in self._special.split(text):
            if part in _FIRST or part in SPECIAL:
                ids.append(self._ids[part])
            else:
                for word in re.findall(r" ?[^ ]+| ", part):
                    ids += self._word(word.replace(" ", SPACE))
        return ids

    def _word(self, word: str) -> list[int]:
        known = self._cache.get(word)
        if known is None:
            known = self._cache[word] = self._encode_word(word)
        return known

    def _encode_word(self, word: str) -> list[int]:
        parts = list(word)
        while True:
            joined = [(self._ids.get(a + b, -1), at) for at, (a, b) in enumerate(pairwise(parts))]
            best = min((pair for pair in joined if pair[0] >= self.first_learned), default=None)
            if best is None:
                break
            at = best[1]
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return [token for part in parts for token in self._part(part)]

    def _part(self, part: str) -> list[int]:
        number = self._ids.get(part)
        if number is not None and number >= self.first_learned:
            return [number]
        return [self._ids[f"<0x{byte:02X}>"] for byte in part.encode()]


def learn(texts: Iterable[str], size: int) -> Tokenizer:
    """A tokenizer with `size` tokens, learned from texts by byte-pair encoding."""
    from tokenizers import Tokenizer as Learner
    from tokenizers import models, trainers

    fixed = [*_FIRST, *SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    special = re.compile("|".join(map(re.escape, SPECIAL)))
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word.replace(" ", SPACE) for word in re.findall(r" ?[^ ]+", special.sub(" ", text)))
    learner = Learner(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=size - len(fixed), min_frequency=2, show_progress=False)
    words = (word for word in sorted(counts) for _ in range(min(counts[word], 2000)))
    learner.train_from_iterator(words, trainer)
    learned = sorted(learner.get_vocab().items(), key=lambda item: item[1])
    letters = [token for token, _ in learned if len(token) == 1]
    joined = [token for token, _ in learned if len(token) > 1]
    return Tokenizer([*fixed, *joined, *letters], len(fixed))
