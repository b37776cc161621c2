"""One sequence: its tokens, how much of them is in the KV, and the present turn (text, stop strings, grammar, limits).

Knows what a sampled token means; does not know of other sequences, messages or slots being scarce.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from llmos_shell.abi.engine import Constraint, Engine
from llmos_shell.abi.errors import Code, LlmosError
from llmos_shell.abi.types import Reason, Sampling, TokenLogprob
from llmos_shell.engine import sampling as sampler
from llmos_shell.engine.speculation import Lookup
from llmos_shell.engine.text import TextStream


class Vocabulary:
    """What the loop asks an engine about single tokens, remembered."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.context = engine.info.context
        self.size = engine.info.vocabulary
        self.piece = engine.piece
        self.is_end = engine.is_end

    @cached_property
    def ends(self) -> npt.NDArray[np.intp]:
        """All tokens that end a turn."""
        return np.array([token for token in range(self.size) if self.is_end(token)], dtype=np.intp)

    def constraint(self, sampling: Sampling) -> Constraint | None:
        """The grammar these parameters ask for. Raises EINVAL for a wrong one, ENOSYS where there are none."""
        if sampling.grammar is not None and sampling.json_schema is not None:
            raise LlmosError(Code.EINVAL, "`grammar` and `json_schema` exclude each other")
        kind: Literal["gbnf", "json-schema"]
        if sampling.grammar is not None:
            kind, text = "gbnf", sampling.grammar
        elif sampling.json_schema is not None:
            kind, text = "json-schema", sampling.json_schema
        else:
            return None
        if not self._engine.info.can_constrain:
            raise LlmosError(Code.ENOSYS, "this kernel cannot follow a grammar")
        return self._engine.constraint(kind, text)


class Sequence:
    """State of one open sequence. `tokens[:kv]` are in the engine's slot; the rest is still to be computed."""

    __slots__ = (
        "_vocabulary",
        "awaited",
        "constraint",
        "ended",
        "greedy",
        "idle",
        "kv",
        "limit",
        "lookup",
        "most",
        "penalises",
        "pressed",
        "prompting",
        "sampling",
        "seq",
        "slot",
        "starved",
        "text",
        "tokens",
        "turn",
    )

    def __init__(self, vocabulary: Vocabulary, seq: int, slot: int, tokens: list[int]) -> None:
        self._vocabulary = vocabulary
        self.seq = seq
        self.slot = slot
        self.tokens = tokens
        self.kv = 0
        self.idle = True
        self.limit = 0  # of the grant in force
        self.pressed = False  # the daemon was told that it stands at its limit
        self.starved = False  # the pool had no room for it
        self.lookup = Lookup()
        self.awaited = True  # nothing came of it since `Open` or `Feed`
        self.prompting = True  # no token was sampled yet since `Open` or `Feed`
        self.ended: Reason | None = None  # the turn is over, but that was not yet said
        self.constraint: Constraint | None = None
        self._reset(0, Sampling())

    def begin(self, turn: int, sampling: Sampling, constraint: Constraint | None) -> None:
        """Starts (or resumes) the turn whose first generated token has index `turn`; owns the `constraint` from now on.

        Tokens from there on are replayed: their text counts as emitted.
        """
        self.release()
        self._reset(turn, sampling)
        self.constraint = constraint
        for token in self.tokens[turn:]:
            self.text.push(self._vocabulary.piece(token))
            if constraint is not None:
                constraint.accept(token)
        self.prompting = self.awaited = True
        self.ended = self._over()

    def choose(self, logits: npt.NDArray[np.float32]) -> tuple[int, TokenLogprob | None]:
        """The next token (`sampling.NOTHING` when none is allowed) for raw logits [vocabulary].

        A grammar is asked about the sampled token only; the whole vocabulary is masked when it refuses that one.
        """
        sampling, position = self.sampling, len(self.tokens)
        adjusted = sampler.penalised(logits, sampling, self.tokens) if self.penalises else logits
        token = sampler.sample(adjusted, sampling, position)
        if token != sampler.NOTHING and self._refuses(token):
            token = sampler.sample(self._masked(adjusted), sampling, position, 1)
        if sampling.logprobs and token != sampler.NOTHING:
            return token, self._logprob(logits, token)
        return token, None

    def accept(self, token: int) -> tuple[str, Reason | None]:
        """Appends a sampled token: the text it makes readable, and the reason if it ends the turn."""
        self.tokens.append(token)
        self.prompting = False
        if self.constraint is not None:
            self.constraint.accept(token)
        text = self.text.push(self._vocabulary.piece(token))
        if len(self.tokens) >= self.most or self.text.stopped:
            return text, self._over()
        return text, None

    def finish(self) -> str:
        """Ends the turn; returns the text held back."""
        self.idle = True
        self.ended = None
        self.release()
        return self.text.flush()

    def shift(self, keep: int, discard: int) -> None:
        """Forgets tokens in the middle. The turn counts on; where it began may lie before the first token now."""
        del self.tokens[keep : keep + discard]
        self.turn -= discard
        maximum, context = self.sampling.max_tokens, self._vocabulary.context
        self.most = context if maximum is None else min(context, self.turn + maximum)
        self.kv = min(self.kv, len(self.tokens))

    def release(self) -> None:
        """Gives up the grammar state."""
        if self.constraint is not None:
            self.constraint.close()
            self.constraint = None

    def _reset(self, turn: int, sampling: Sampling) -> None:
        self.turn = turn
        self.sampling = sampling
        self.greedy = sampler.plain_greedy(sampling)
        self.penalises = sampler.penalises(sampling)
        self.text = TextStream(sampling.stop)
        context = self._vocabulary.context
        self.most = context if sampling.max_tokens is None else min(context, turn + sampling.max_tokens)

    def _over(self) -> Reason | None:
        if self.text.stopped:
            return Reason.STOP
        maximum = self.sampling.max_tokens
        if maximum is not None and len(self.tokens) - self.turn >= maximum:
            return Reason.LENGTH
        return Reason.CONTEXT if len(self.tokens) >= self._vocabulary.context else None

    def _refuses(self, token: int) -> bool:
        if self.sampling.ignore_eos and self._vocabulary.is_end(token):
            return True
        return self.constraint is not None and not self.constraint.allows(token)

    def _masked(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        masked = logits.copy() if self.constraint is None else self.constraint.mask(logits)
        if self.sampling.ignore_eos:
            masked[self._vocabulary.ends] = -np.inf
        return masked

    def _logprob(self, logits: npt.NDArray[np.float32], token: int) -> TokenLogprob:
        own, top = sampler.logprobs(logits, token, self.sampling.logprobs)
        return TokenLogprob(token, self._readable(token), own, tuple((t, self._readable(t), p) for t, p in top))

    def _readable(self, token: int) -> str:
        return self._vocabulary.piece(token).decode("utf-8", "replace")
