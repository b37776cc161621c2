"""The next token, as a pure function of logits, parameters, seed and position.

The draw needs no state: a counter-based hash (splitmix64) of seed and position gives a uniform number, the inverse of
the cumulative distribution turns it into a token. So a sequence that was parked, restored or replayed goes on as if
nothing had happened. Filters apply in the order documented at `abi.types.Sampling`.

No step sorts the vocabulary. The k largest logits are found exactly through maxima of groups: the k-th largest group
maximum has at least k logits that are not smaller, so everything below it is out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import log

import numpy as np
import numpy.typing as npt

from llmos_shell.abi.types import Sampling

Logits = npt.NDArray[np.float32]

_MASK = (1 << 64) - 1
_GROUP = 32  # logits per group of the preselection
_SMALLEST_TEMPERATURE = 1e-6  # keeps quotients finite; far below any difference it could make
_NUCLEUS_START = 256  # candidates looked at first for top-p over the whole vocabulary

NOTHING = -1
"""What `sample` and `argmax` return when every logit is -inf."""


def uniform(seed: int, position: int, attempt: int = 0) -> float:
    """A number in [0, 1) from splitmix64 of the three values; 53 random bits."""
    state = (
        _mix((seed & _MASK) ^ 0x6C6C6D61736F7321) + position * 0x9E3779B97F4A7C15 + attempt * 0xD1342543DE82EF95
    ) & _MASK
    return (_mix(state) >> 11) * 2.0**-53


def plain_greedy(sampling: Sampling) -> bool:
    """Whether the next token is simply the likeliest: no penalties, no grammar, no log-probabilities wanted."""
    return (
        sampling.temperature <= 0
        and not penalises(sampling)
        and not sampling.logprobs
        and sampling.grammar is None
        and sampling.json_schema is None
        and not sampling.ignore_eos
    )


def penalises(sampling: Sampling) -> bool:
    """Whether repetition penalties change the logits."""
    return sampling.repeat_last > 0 and (
        sampling.repeat_penalty != 1.0 or sampling.presence_penalty != 0.0 or sampling.frequency_penalty != 0.0
    )


def penalised(logits: Logits, sampling: Sampling, recent: Sequence[int]) -> Logits:
    """A copy of `logits` with the penalties for the last `repeat_last` of the `recent` tokens."""
    counts = Counter(recent[-sampling.repeat_last :])
    if not counts:
        return logits
    result = logits.copy()
    tokens = np.fromiter(counts, dtype=np.intp, count=len(counts))
    times = np.fromiter(counts.values(), dtype=np.float32, count=len(counts))
    values = result[tokens]
    values = np.where(values > 0, values / sampling.repeat_penalty, values * sampling.repeat_penalty)
    result[tokens] = values - times * sampling.frequency_penalty - sampling.presence_penalty
    return result


def argmax(logits: Logits) -> int:
    """The likeliest token (the lowest of equals), or `NOTHING`. Raises FloatingPointError when they are not numbers."""
    token = int(logits.argmax())
    top = float(logits[token])
    if top == -np.inf:
        return NOTHING
    if top - top != 0.0:
        raise FloatingPointError("the model computed values that are not numbers")
    return token


def sample(logits: Logits, sampling: Sampling, position: int, attempt: int = 0) -> int:
    """A token drawn from penalised (and possibly masked) `logits`, or `NOTHING` when all are -inf.

    `position` is the index the token will have in the sequence. `attempt` makes an independent draw at the same
    position, after a grammar refused the first.
    """
    if sampling.temperature <= 0:
        return argmax(logits)
    likeliest = argmax(logits)
    if likeliest == NOTHING:
        return NOTHING
    tokens, values = _candidates(logits, sampling, float(logits[likeliest]))
    temperature = max(sampling.temperature, _SMALLEST_TEMPERATURE)
    cumulative = np.cumsum(np.exp((values - values.max()) / temperature))
    chance = uniform(sampling.seed or 0, position, attempt) * cumulative[-1]
    index = int(cumulative.searchsorted(chance, side="right"))
    return int(tokens[min(index, len(cumulative) - 1)])


def logprobs(logits: Logits, token: int, count: int) -> tuple[float, list[tuple[int, float]]]:
    """Natural-log probability of `token`, and the `count` likeliest tokens with theirs, best first.

    They are those of the model's own distribution: before penalties, grammar, filters and temperature.
    """
    top = float(logits.max())
    norm = top + log(float(np.exp(logits - np.float32(top)).sum(dtype=np.float64)))
    tokens = top_tokens(logits, count) if count > 0 else np.empty(0, dtype=np.intp)
    return float(logits[token]) - norm, [(int(other), float(logits[other]) - norm) for other in tokens]


def top_tokens(logits: Logits, count: int) -> npt.NDArray[np.intp]:
    """The `count` tokens with the largest logits, largest first; of equals the lower token first."""
    size = len(logits)
    count = min(count, size)
    columns = size // _GROUP
    if columns > 2 * count:
        grouped = columns * _GROUP
        maxima = logits[:grouped].reshape(_GROUP, columns).max(axis=0)
        threshold = np.partition(maxima, columns - count)[columns - count]
        chosen = np.flatnonzero(logits >= threshold)
    else:
        chosen = np.arange(size)
    if len(chosen) > 4 * count:  # many equal logits, or a small vocabulary
        values = logits[chosen]
        threshold = np.partition(values, len(values) - count)[len(values) - count]
        chosen = chosen[values >= threshold]
    order = np.argsort(-logits[chosen], kind="stable")
    return chosen[order[:count]]


def _candidates(logits: Logits, sampling: Sampling, top: float) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Tokens that pass top-k, top-p and min-p, with their logits."""
    least = top + min(0.0, log(sampling.min_p)) if sampling.min_p > 0 else -np.inf
    if 0 < sampling.top_k < len(logits):
        tokens = top_tokens(logits, sampling.top_k)
        values = logits[tokens].astype(np.float64)
        if sampling.top_p < 1:
            weights = np.exp(values - top)
            kept = _nucleus(weights, sampling.top_p * float(weights.sum()))
            tokens, values = tokens[:kept], values[:kept]
    elif sampling.top_p < 1:
        tokens = _whole_nucleus(logits, sampling.top_p, top)
        values = logits[tokens].astype(np.float64)
    else:
        tokens = np.flatnonzero(logits >= least) if least > -np.inf else np.arange(len(logits))
        return tokens, logits[tokens].astype(np.float64)
    if least > -np.inf:
        kept = max(1, int(np.count_nonzero(values >= least)))
        tokens, values = tokens[:kept], values[:kept]
    return tokens, values


def _whole_nucleus(logits: Logits, top_p: float, top: float) -> npt.NDArray[np.intp]:
    """The nucleus of the whole vocabulary, largest first, looking at as few tokens as suffice."""
    mass = top_p * float(np.exp(logits - np.float32(top)).sum(dtype=np.float64))
    count = _NUCLEUS_START
    while True:
        tokens = top_tokens(logits, count)
        weights = np.exp(logits[tokens].astype(np.float64) - top)
        if len(tokens) == len(logits) or float(weights.sum()) >= mass:
            return tokens[: _nucleus(weights, mass)]
        count *= 8


def _nucleus(weights: npt.NDArray[np.float64], mass: float) -> int:
    """How many of the descending `weights` are needed to reach `mass`; at least one."""
    return min(int(np.cumsum(weights).searchsorted(mass)) + 1, len(weights))


def _mix(value: int) -> int:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
