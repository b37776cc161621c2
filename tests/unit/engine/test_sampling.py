from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos_shell.abi.types import Sampling
from llmos_shell.engine import sampling as sampler
from llmos_shell.engine.sampling import Logits

OPEN = Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=1)


def _logits(seed: int, size: int = 2000, scale: float = 3.0) -> Logits:
    return (np.random.default_rng(seed).standard_normal(size) * scale).astype(np.float32)


def _reference(logits: Logits, s: Sampling) -> dict[int, float]:
    """Probabilities by the definition, with full sorts."""
    order = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    kept = order[: s.top_k] if s.top_k else order
    weights = [math.exp(float(logits[token]) - float(logits[order[0]])) for token in kept]
    if s.top_p < 1:
        total, mass, count = sum(weights), 0.0, 0
        while count < len(kept) and mass < s.top_p * total:
            mass += weights[count]
            count += 1
        kept, weights = kept[: max(1, count)], weights[: max(1, count)]
    pairs = [(token, w) for token, w in zip(kept, weights, strict=True) if w >= s.min_p]
    tempered = {token: w ** (1 / s.temperature) for token, w in pairs}
    return {token: value / sum(tempered.values()) for token, value in tempered.items()}


@pytest.mark.parametrize(
    "s",
    [
        Sampling(temperature=0.8, top_k=5, top_p=0.9, min_p=0.05),
        Sampling(temperature=1.5, top_k=0, top_p=0.7, min_p=0.0),
        Sampling(temperature=0.7, top_k=0, top_p=1.0, min_p=0.1),
        Sampling(temperature=1.0, top_k=8, top_p=1.0, min_p=0.0),
        Sampling(temperature=0.5, top_k=0, top_p=1.0, min_p=0.0),
    ],
)
def test_draws_follow_the_distribution(s: Sampling) -> None:
    logits = _logits(4, 200, 2.0)
    expected = _reference(logits, s)
    draws = 4000
    counts = Counter(sampler.sample(logits, s, position) for position in range(draws))
    assert set(counts) <= set(expected)
    for token, probability in expected.items():
        deviation = 5 * math.sqrt(probability * (1 - probability) * draws) + 1
        assert abs(counts[token] - probability * draws) <= deviation


@given(st.integers(0, 50), st.integers(0, 2**64 - 1), st.integers(0, 10_000))
def test_sampling_is_pure(logits_seed: int, seed: int, position: int) -> None:
    logits = _logits(logits_seed)
    before = logits.copy()
    s = Sampling(seed=seed)
    assert sampler.sample(logits, s, position) == sampler.sample(logits.copy(), s, position)
    assert (logits == before).all()


@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=400), st.integers(1, 60))
def test_top_tokens_are_the_largest(values: list[float], count: int) -> None:
    logits = np.array(values, dtype=np.float32)
    expected = sorted(range(len(values)), key=lambda token: (-logits[token], token))[:count]
    assert sampler.top_tokens(logits, count).tolist() == expected


@pytest.mark.parametrize("count", [1, 40, 500])
def test_top_tokens_of_a_large_vocabulary(count: int) -> None:
    logits = np.round(_logits(1, 32_003), 2)  # with many equal values
    expected = np.argsort(-logits, kind="stable")[:count]
    assert sampler.top_tokens(logits, count).tolist() == expected.tolist()


@given(st.integers(0, 1000), st.sampled_from([0.01, 0.1, 1.0, 8.0]), st.floats(0.01, 0.999))
def test_nucleus_of_a_large_vocabulary_is_the_smallest_that_reaches_top_p(
    seed: int, scale: float, top_p: float
) -> None:
    logits = _logits(seed, 3000, scale)
    chosen = sampler._nucleus(logits, logits.max() - logits, top_p)
    weights = np.exp(logits.astype(np.float64) - logits.max())
    rest = np.setdiff1d(np.arange(3000), chosen)
    assert len(set(chosen.tolist())) == len(chosen)
    assert not len(rest) or weights[chosen].min() >= weights[rest].max()
    tolerance = 1e-5 * weights.sum()
    assert weights[chosen].sum() >= top_p * weights.sum() - tolerance
    assert weights[chosen].sum() - weights[chosen].min() <= top_p * weights.sum() + tolerance


def test_large_distributions_are_drawn_from_as_small_ones() -> None:
    logits = np.full(5000, -np.inf, dtype=np.float32)
    logits[[0, 300, 4999]] = np.log(np.array([0.2, 0.5, 0.3], dtype=np.float32))
    counts = Counter(sampler.sample(logits, OPEN, position) for position in range(3000))
    assert set(counts) == {0, 300, 4999}
    assert abs(counts[0] - 600) < 120 and abs(counts[300] - 1500) < 150


def test_nucleus_of_a_flat_distribution() -> None:
    logits = np.zeros(5000, dtype=np.float32)
    s = Sampling(temperature=1.0, top_k=0, top_p=0.5, min_p=0.0)
    assert {sampler.sample(logits, s, position) for position in range(200)} <= set(range(2501))


def test_uniform_numbers_are_uniform_and_independent() -> None:
    numbers = np.array([sampler.uniform(seed, position) for seed in range(40) for position in range(100)])
    assert numbers.min() >= 0 and numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.02 and abs(numbers.var() - 1 / 12) < 0.01
    again = np.array([sampler.uniform(seed, position, 1) for seed in range(40) for position in range(100)])
    assert abs(np.corrcoef(numbers, again)[0, 1]) < 0.05
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.05


def test_temperature_zero_is_the_likeliest_lowest_token() -> None:
    logits = np.array([1, 5, 5, 2], dtype=np.float32)
    assert sampler.sample(logits, Sampling(temperature=0), 0) == 1
    assert sampler.sample(logits, Sampling(temperature=1e-300, seed=5), 0) in (1, 2)


def test_penalties() -> None:
    logits = np.array([2, -2, 1, 0], dtype=np.float32)
    s = Sampling(repeat_penalty=2.0, frequency_penalty=0.5, presence_penalty=0.25, repeat_last=3)
    penalised = sampler.penalised(logits, s, [2, 0, 1, 0])
    assert penalised.tolist() == [2 / 2 - 2 * 0.5 - 0.25, -2 * 2 - 0.5 - 0.25, 1, 0]
    assert logits.tolist() == [2, -2, 1, 0]


def test_masked_tokens_are_never_drawn() -> None:
    logits = np.full(100, -np.inf, dtype=np.float32)
    assert sampler.sample(logits, OPEN, 0) == sampler.NOTHING
    logits[[3, 70]] = 0
    for s in (OPEN, Sampling(seed=1), Sampling(temperature=1.0, top_k=0, top_p=0.9, min_p=0.5)):
        assert {sampler.sample(logits, s, position) for position in range(64)} == {3, 70}


def test_values_that_are_no_numbers_are_an_error() -> None:
    logits = np.array([0, np.nan], dtype=np.float32)
    with pytest.raises(FloatingPointError):
        sampler.sample(logits, OPEN, 0)


def test_extreme_parameters_still_draw() -> None:
    logits = _logits(2, 100)
    for s in (
        Sampling(min_p=2.0),
        Sampling(top_p=0.0),
        Sampling(top_k=1),
        Sampling(temperature=100.0),
        Sampling(top_k=100_000),
    ):
        assert 0 <= sampler.sample(logits, s, 3) < 100


def test_logprobs_are_those_of_the_model() -> None:
    logits = _logits(3, 50)
    probabilities = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum()
    own, top = sampler.logprobs(logits, 7, 3)
    assert own == pytest.approx(math.log(probabilities[7]), abs=1e-5)
    assert [token for token, _ in top] == np.argsort(-logits)[:3].tolist()
    assert top[0][1] == pytest.approx(math.log(probabilities.max()), abs=1e-5)
