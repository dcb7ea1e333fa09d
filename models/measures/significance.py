"""Whether a difference between two systems on the same queries is more than chance.

Paired randomization (sign-flip) test: Smucker, Allan & Carterette, "A comparison of statistical significance tests for
information retrieval evaluation", CIKM 2007. Intervals: BCa bootstrap (Efron, 1987) through SciPy. Several comparisons
on the same queries are corrected as Carterette, "Multiple testing in statistical analysis of systems-based information
retrieval experiments", TOIS 2012, says they must be: by the distribution of the largest statistic among them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.errors import ContractError

_CELLS_AT_ONCE = 2_000_000
"""Bound on resamples x queries held in memory: 16 MB of float64."""


def paired_randomization_test(
    a: ArrayLike,
    b: ArrayLike,
    resamples: int = 10_000,
    seed: int = 0,
    alternative: Literal["two-sided", "greater"] = "two-sided",
) -> float:
    """p value of "the mean of `a - b` is 0": the share of sign flips with a mean at least as far from 0.

    With the alternative `greater` it is the share of flips with a mean at least as high, so that a loss has a p value
    above a half, however significant it is.

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
    observed = float(changed.sum() if alternative == "greater" else abs(changed.sum()))
    limit = observed - 1e-12 * np.abs(changed).sum()
    total, extreme = 0, 0
    for flipped in _sign_flips(changed.size, resamples, seed, changed.size):
        sums = changed.sum() - 2.0 * (flipped.astype(float) @ changed)
        extreme += int(np.count_nonzero((sums if alternative == "greater" else np.abs(sums)) >= limit))
        total += len(flipped)
    return extreme / total if _enumerable(changed.size, resamples) else (extreme + 1) / (total + 1)


def max_statistic_test(differences: ArrayLike, resamples: int = 10_000, seed: int = 0) -> NDArray[np.float64]:
    """p values [k] of the paired randomization tests of `differences` [k, n], corrected for there being k of them.

    k systems minus a common baseline on the same n queries; the family-wise error rate is controlled whatever their
    correlation. Each flip of signs is that of a query, so it holds for all k; a p value is the share of flips whose
    largest statistic is at least the observed one (single-step maxT; Westfall and Young, 1993). The statistic is the
    mean over its standard error, which makes comparisons of different spread alike.
    """
    table = np.asarray(differences, dtype=float)
    for row in table:
        _checked(row)
    lengths = np.sqrt((table**2).sum(axis=1))
    changed = table[:, (table != 0).any(axis=0)]
    if not changed.size:
        return np.ones(len(table))
    # The sum of squares stays under flips of sign, so the sum over its root rises with the t statistic.
    scaled = changed / np.where(lengths > 0, lengths, 1.0)[:, None]
    observed = np.abs(scaled.sum(axis=1))
    total, extreme = 0, np.zeros(len(table), dtype=np.int64)
    for flipped in _sign_flips(changed.shape[1], resamples, seed, changed.size):
        largest = np.abs(scaled.sum(axis=1) - 2.0 * (flipped.astype(float) @ scaled.T)).max(axis=1)
        extreme += (largest[:, None] >= observed - 1e-12).sum(axis=0)
        total += len(flipped)
    p_values = extreme / total if _enumerable(changed.shape[1], resamples) else (extreme + 1) / (total + 1)
    return np.where(lengths > 0, p_values, 1.0)


def randomized_tukey_hsd(
    values: ArrayLike, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[NDArray[np.float64], float]:
    """p values [k, k] of all pairs of k systems with `values` [k, n], and the margin of all their differences.

    Both are corrected for the number of pairs. The systems change places within each query at random; a p value is the
    share of these permutations whose largest difference of means is at least that of the pair, and the margin is the
    quantile `confidence` of that largest difference: all differences plus and minus the margin are intervals that hold
    together (randomized Tukey HSD; Carterette, 2012).
    """
    table = np.asarray(values, dtype=float)
    for row in table:
        _checked(row)
    systems, queries = table.shape
    means = table.mean(axis=1)
    generator = np.random.default_rng(seed)
    rows = max(1, _CELLS_AT_ONCE // table.size)
    ranges = np.empty(resamples)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        permuted = generator.permuted(np.broadcast_to(table, (count, systems, queries)), axis=1).mean(axis=2)
        ranges[start : start + count] = permuted.max(axis=1) - permuted.min(axis=1)
    apart = np.abs(means[:, None] - means[None, :])
    ordered = np.sort(ranges)
    extreme = resamples - np.searchsorted(ordered, apart - 1e-12)
    return (extreme + 1) / (resamples + 1), float(np.quantile(ranges, confidence))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """p values [k] corrected for there being k of them (Holm, 1979): valid whatever their dependence."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


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

    return float(stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)) * standard_error(differences)


def standard_error(differences: ArrayLike) -> float:
    """Standard error of the mean difference: s / sqrt(n). 0 when all differences are equal.

    Raises `ContractError` for fewer than two values.
    """
    values = _checked(np.asarray(differences, dtype=float))
    if values.size < 2:
        raise ContractError("a detectable difference needs at least two queries", "Judge more queries.")
    return 0.0 if np.ptp(values) == 0 else float(np.std(values, ddof=1)) / math.sqrt(values.size)


def chance_to_show(mean: float, limit: float, error: float, *, confidence: float = 0.95) -> float:
    """Probability that the lower end of the two-sided interval of a mean is at least `limit`, where `mean` is true.

    `error` is the standard error. Normal approximation: Phi((mean - limit) / error - z). The interval of confidence 0
    is the mean itself. Without a spread it is 0 or 1.
    """
    from scipy import stats

    if error <= 0:
        return float(mean >= limit)
    z = float(stats.norm.ppf((1 + confidence) / 2))
    return float(stats.norm.cdf((mean - limit) / error - z))


def queries_to_show(
    mean: float, limit: float, error: float, queries: int, *, confidence: float = 0.95, power: float = 0.8
) -> int | None:
    """How many queries like these `queries`, of which the mean has the standard `error`, bring `chance_to_show` to
    `power`.

    None where no number does, as `mean` is not above `limit`.
    """
    from scipy import stats

    if mean <= limit:
        return None
    quantiles = float(stats.norm.ppf((1 + confidence) / 2) + stats.norm.ppf(power))
    if quantiles <= 0:  # The interval is so narrow that any number will do.
        return 2
    return max(2, math.ceil(queries * (error * quantiles / (mean - limit)) ** 2))


def best_of(count: int) -> float:
    """Expected maximum of `count` independent standard normal values: what the best of so many equal tries shows.

    Numerically, from the density of the maximum, n phi(x) Phi(x)^(n - 1). 0 for one try.
    """
    from scipy import integrate, stats

    if count < 1:
        raise ContractError(f"the best of {count} tries", "Count at least one.")
    value, _ = integrate.quad(lambda x: x * count * stats.norm.pdf(x) * stats.norm.cdf(x) ** (count - 1), -12, 12)
    return float(value)


def queries_to_detect(differences: ArrayLike, difference: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """How many queries like these `smallest_detectable_difference` needs to come down to `difference` (above 0)."""
    values = np.asarray(differences, dtype=float)
    needed = queries_to_show(difference, 0.0, standard_error(values), values.size, confidence=1 - alpha, power=power)
    if needed is None:
        raise ContractError(f"a difference of {difference} is not above 0", "Ask for a gain.")
    return needed


def _enumerable(size: int, resamples: int) -> bool:
    return size < 60 and 2**size <= resamples


def _sign_flips(size: int, resamples: int, seed: int, cells: int) -> Iterator[NDArray[np.integer]]:
    """Blocks [m, size] of ones, where a sign is flipped, and zeros: all that there are, or `resamples` drawn.

    `cells` is what a row of the block is multiplied with, which bounds its length.
    """
    rows = max(1, _CELLS_AT_ONCE // cells)
    exact = _enumerable(size, resamples)
    total = 2**size if exact else resamples
    generator = np.random.default_rng(seed)
    for start in range(0, total, rows):
        count = min(rows, total - start)
        if exact:
            numbers = np.arange(start, start + count, dtype=np.int64)[:, None]
            yield (numbers >> np.arange(size)) & 1
        else:
            yield generator.integers(0, 2, size=(count, size), dtype=np.int8)


def _checked(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if values.ndim != 1 or values.size == 0:
        raise ContractError(f"expected one value per query, got an array of shape {values.shape}")
    if not np.isfinite(values).all():
        raise ContractError(
            "a value per query is not a finite number", "Look at the per-query table of the evaluation."
        )
    return values
