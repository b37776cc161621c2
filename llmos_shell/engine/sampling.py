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
_BINS, _BINS_PER_UNIT = 2048, 64.0  # of the histogram of logits below the largest
_BLOCK = 256  # weights per block of a large distribution

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
    likeliest = argmax(logits)
    if likeliest == NOTHING or sampling.temperature <= 0:
        return likeliest
    top = logits[likeliest]
    tokens, depths = _candidates(logits, sampling, top)
    weights = np.exp(depths * np.float32(-1 / max(sampling.temperature, _SMALLEST_TEMPERATURE)))
    index = _draw(weights, uniform(sampling.seed or 0, position, attempt))
    return index if tokens is None else int(tokens[index])


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
    return _top(logits, count)[0]


def _top(logits: Logits, count: int) -> tuple[npt.NDArray[np.intp], Logits]:
    """The largest logits with their tokens, as `top_tokens`."""
    size = len(logits)
    count = min(count, size)
    columns = size // _GROUP
    if columns > 2 * count:
        maxima = logits[: columns * _GROUP].reshape(_GROUP, columns).max(axis=0)
        chosen = (logits >= _least_of_top(maxima, count)).nonzero()[0]
        values = logits[chosen]
        if len(chosen) > 4 * count:  # many are equal
            kept = (values >= _least_of_top(values.copy(), count)).nonzero()[0]
            chosen, values = chosen[kept], values[kept]
    else:
        chosen = (logits >= _least_of_top(logits.copy(), count)).nonzero()[0]
        values = logits[chosen]
    order = (-values).argsort(kind="stable")[:count]
    return chosen[order], values[order]


def _least_of_top(values: Logits, count: int) -> np.float32:
    """The `count`-th largest value; `values` are reordered."""
    place = len(values) - count
    values.partition(place)
    least: np.float32 = values[place]
    return least


def _candidates(logits: Logits, sampling: Sampling, top: np.float32) -> tuple[npt.NDArray[np.intp] | None, Logits]:
    """Tokens that pass top-k, top-p and min-p (None: all), and how far their logits lie below the largest.

    Their order depends on the logits only.
    """
    deepest = np.float32(-log(min(1.0, sampling.min_p))) if sampling.min_p > 0 else None
    if 0 < sampling.top_k < len(logits):
        tokens, values = _top(logits, sampling.top_k)
        depths = top - values
        if sampling.top_p < 1:
            cumulative = np.exp(-depths).cumsum()
            count = _reaching(cumulative, sampling.top_p * float(cumulative[-1]))
            tokens, depths = tokens[:count], depths[:count]
        if deepest is not None:
            count = int(depths.searchsorted(deepest, side="right"))
            tokens, depths = tokens[:count], depths[:count]
        return tokens, depths
    depths = top - logits
    if sampling.top_p < 1:
        tokens = _nucleus(logits, depths, sampling.top_p)
        if deepest is not None:
            tokens = tokens[depths[tokens] <= deepest]
        return tokens, depths[tokens]
    if deepest is not None:
        tokens = (depths <= deepest).nonzero()[0]
        return tokens, depths[tokens]
    return None, depths


def _nucleus(logits: Logits, depths: Logits, top_p: float) -> npt.NDArray[np.intp]:
    """The likeliest tokens of the whole vocabulary that reach `top_p`.

    Mostly a few tokens do, and are looked at first. Else a histogram of the logits says where the border lies, and only
    the tokens of the bin that holds it are sorted.
    """
    weights = np.exp(-depths)
    mass = top_p * float(weights.sum())
    tokens = top_tokens(logits, _NUCLEUS_START)
    cumulative = np.cumsum(weights[tokens], dtype=np.float64)
    if cumulative[-1] >= mass or len(tokens) == len(logits):
        return tokens[: _reaching(cumulative, mass)]
    bins = np.minimum(depths * np.float32(_BINS_PER_UNIT), np.float32(_BINS)).astype(np.intp)
    cumulative = np.cumsum(np.bincount(bins, weights))
    border = _reaching(cumulative, mass) - 1
    before = float(cumulative[border - 1]) if border else 0.0
    inside, at = np.flatnonzero(bins < border), np.flatnonzero(bins == border)
    at = at[np.argsort(depths[at], kind="stable")]
    count = _reaching(np.cumsum(weights[at], dtype=np.float64), mass - before)
    return np.concatenate((inside, at[:count]))


def _reaching(cumulative: npt.NDArray[np.floating], mass: float) -> int:
    """How many of the values are needed to reach `mass`; at least one."""
    return min(int(cumulative.searchsorted(mass)) + 1, len(cumulative))


def _draw(weights: Logits, chance: float) -> int:
    """The index at which the cumulative distribution of `weights` passes `chance`; many are summed in blocks first."""
    if len(weights) > 4 * _BLOCK:
        blocks = np.add.reduceat(weights, np.arange(0, len(weights), _BLOCK))
        cumulative = np.cumsum(blocks, dtype=np.float64)
        target = chance * float(cumulative[-1])
        block = min(int(cumulative.searchsorted(target, side="right")), len(blocks) - 1)
        target -= float(cumulative[block - 1]) if block else 0.0
        start = block * _BLOCK
        return start + _place(np.cumsum(weights[start : start + _BLOCK], dtype=np.float64), target)
    cumulative = weights.cumsum(dtype=np.float64)
    return _place(cumulative, chance * float(cumulative[-1]))


def _place(cumulative: npt.NDArray[np.float64], target: float) -> int:
    """The index at which `target` is passed; never one of weight 0."""
    index = int(cumulative.searchsorted(target, side="right"))
    return index if index < len(cumulative) else int(cumulative.searchsorted(cumulative[-1]))


def _mix(value: int) -> int:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
