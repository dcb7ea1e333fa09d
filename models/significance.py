"""Whether a difference between two systems on the same queries is more than chance.

Paired randomization (sign-flip) test: Smucker, Allan & Carterette, "A comparison of statistical significance tests for
information retrieval evaluation", CIKM 2007. Intervals: BCa bootstrap (Efron, 1987) through SciPy.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.errors import ContractError

_CELLS_AT_ONCE = 2_000_000
"""Bound on resamples x queries held in memory: 16 MB of float64."""


def paired_randomization_test(a: ArrayLike, b: ArrayLike, resamples: int = 10_000, seed: int = 0) -> float:
    """Two-sided p value of "the mean of `a - b` is 0": the share of sign flips with a mean at least as far from 0.

    `a` and `b` hold one value per query, in the same order. All sign flips are enumerated when there are no more than
    `resamples`; otherwise `resamples` are drawn and the observed one is counted in, (k + 1) / (n + 1): p is never 0
    (Phipson & Smyth, 2010).
    """
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if first.shape != second.shape:
        raise ContractError(
            f"paired test of {first.size} and {second.size} values", "Both systems need the same queries."
        )
    differences = _checked(first - second)
    # A zero difference adds the same 0 under either sign.
    changed = differences[differences != 0]
    if changed.size == 0:
        return 1.0
    observed = abs(changed.sum())
    limit = observed - 1e-12 * np.abs(changed).sum()
    exact = changed.size < 60 and 2**changed.size <= resamples
    total = 2**changed.size if exact else resamples
    generator = np.random.default_rng(seed)
    rows = max(1, _CELLS_AT_ONCE // changed.size)
    extreme = 0
    for start in range(0, total, rows):
        count = min(rows, total - start)
        if exact:
            numbers = np.arange(start, start + count, dtype=np.int64)[:, None]
            flipped = (numbers >> np.arange(changed.size)) & 1
        else:
            flipped = generator.integers(0, 2, size=(count, changed.size), dtype=np.int8)
        means = changed.sum() - 2.0 * (flipped.astype(float) @ changed)
        extreme += int(np.count_nonzero(np.abs(means) >= limit))
    return extreme / total if exact else (extreme + 1) / (total + 1)


def bootstrap_interval(
    differences: ArrayLike, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """BCa bootstrap interval (low, high) of the mean over queries.

    Equal values give that value twice; where BCa is not defined the percentile interval is given. Raises
    `ContractError` for fewer than two values, of which no interval can be had.
    """
    from scipy import stats

    values = _checked(np.asarray(differences, dtype=float))
    if values.size < 2:
        raise ContractError(
            "an interval needs at least two queries", "Judge more queries, or raise evaluation.max_test_queries."
        )
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    batch = max(1, _CELLS_AT_ONCE // values.size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        result = stats.bootstrap(
            (values,),
            np.mean,
            n_resamples=resamples,
            batch=batch,
            confidence_level=confidence,
            method="BCa",
            rng=np.random.default_rng(seed),
        )
    low, high = float(result.confidence_interval.low), float(result.confidence_interval.high)
    if math.isnan(low) or math.isnan(high):
        tail = (1 - confidence) / 2
        low, high = (float(bound) for bound in np.quantile(result.bootstrap_distribution, [tail, 1 - tail]))
    return low, high


def smallest_detectable_difference(differences: ArrayLike, power: float = 0.8, alpha: float = 0.05) -> float:
    """Mean difference that a two-sided paired test on this many queries finds with probability `power`.

    Normal approximation (z(1 - alpha/2) + z(power)) s / sqrt(n), with the standard deviation s of these differences
    (Sakai, "Statistical reform in information retrieval?", SIGIR Forum 2014). 0 when all differences are equal.
    """
    from scipy import stats

    values = _checked(np.asarray(differences, dtype=float))
    if values.size < 2:
        raise ContractError("a detectable difference needs at least two queries", "Judge more queries.")
    deviation = 0.0 if np.ptp(values) == 0 else float(np.std(values, ddof=1))
    return float(stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)) * deviation / math.sqrt(values.size)


def _checked(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if values.ndim != 1 or values.size == 0:
        raise ContractError(f"expected one value per query, got an array of shape {values.shape}")
    if not np.isfinite(values).all():
        raise ContractError(
            "a value per query is not a finite number", "Look at the per-query table of the evaluation."
        )
    return values
