from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from models.errors import ContractError
from models.measures import significance
from models.measures.significance import (
    best_of,
    bootstrap_interval,
    chance_to_show,
    holm,
    max_statistic_test,
    paired_randomization_test,
    queries_to_detect,
    queries_to_show,
    randomized_tukey_hsd,
    smallest_detectable_difference,
)


def test_p_values_are_uniform_when_there_is_no_difference() -> None:
    generator = np.random.default_rng(7)
    p_values = [
        paired_randomization_test(generator.normal(size=30), generator.normal(size=30), resamples=999, seed=trial)
        for trial in range(400)
    ]

    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert 0.02 <= np.mean(np.array(p_values) <= 0.05) <= 0.085


def test_a_planted_shift_is_found_in_either_direction() -> None:
    generator = np.random.default_rng(3)
    base = generator.uniform(size=200)
    better = base + 0.05 + generator.normal(scale=0.1, size=200)

    up = paired_randomization_test(better, base, resamples=2000, seed=0)
    down = paired_randomization_test(base, better, resamples=2000, seed=0)

    assert up == pytest.approx(1 / 2001)
    assert down == up


def test_few_queries_are_enumerated_exactly() -> None:
    # Of the 8 sign flips of (1, 2, 3), only the observed one and its mirror reach |sum| = 6.
    assert paired_randomization_test([1, 2, 3], [0, 0, 0], resamples=1000, seed=0) == 2 / 8
    # |sum| = 2 is reached by all flips but those of 3 = 1 + 2, which give 0.
    assert paired_randomization_test([1, 2, 0], [0, 0, 1], resamples=1000, seed=0) == 6 / 8


def test_the_exact_test_agrees_with_scipy() -> None:
    generator = np.random.default_rng(11)
    a, b = generator.uniform(size=9), generator.uniform(size=9)
    reference = stats.permutation_test(
        (a, b),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=2**9,  # not fewer than there are flips: the exact test
        vectorized=True,
    )

    assert paired_randomization_test(a, b, resamples=1000, seed=0) == pytest.approx(reference.pvalue)


def test_the_drawn_test_comes_near_the_exact_one() -> None:
    generator = np.random.default_rng(5)
    a, b = generator.uniform(size=14) + 0.15, generator.uniform(size=14)

    exact = paired_randomization_test(a, b, resamples=2**14, seed=0)
    drawn = paired_randomization_test(a, b, resamples=10_000, seed=0)

    assert exact != drawn
    assert drawn == pytest.approx(exact, abs=0.02)


def test_the_test_is_worked_off_in_parts_that_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = [1.0, 2.0, 3.0, -1.0, 0.5], [0.0] * 5
    whole = paired_randomization_test(a, b, resamples=100, seed=0)
    monkeypatch.setattr(significance, "_CELLS_AT_ONCE", 15)

    assert paired_randomization_test(a, b, resamples=100, seed=0) == whole


def test_queries_without_a_difference_change_nothing() -> None:
    a, b = [0.4, 0.9, 0.2, 0.5], [0.1, 0.3, 0.3, 0.1]
    ties = [0.5] * 20

    assert paired_randomization_test(a + ties, b + ties) == paired_randomization_test(a, b)
    assert paired_randomization_test(ties, ties) == 1.0


def test_unusable_values_are_refused() -> None:
    with pytest.raises(ContractError, match=r"the same queries|of 2 and 3 values"):
        paired_randomization_test([1, 2], [1, 2, 3])
    with pytest.raises(ContractError, match="not a finite number"):
        paired_randomization_test([1, np.nan], [1, 2])
    with pytest.raises(ContractError, match="one value per query"):
        paired_randomization_test([], [])
    with pytest.raises(ContractError, match="at least two queries"):
        bootstrap_interval([0.3])
    with pytest.raises(ContractError, match="at least two queries"):
        smallest_detectable_difference([0.3])


def test_the_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    generator = np.random.default_rng(2)
    covered = 0
    for trial in range(200):
        low, high = bootstrap_interval(generator.exponential(size=60), 0.9, resamples=1000, seed=trial)
        covered += low <= 1.0 <= high

    assert 0.83 <= covered / 200 <= 0.96


def test_the_interval_is_reproducible_and_widens_with_confidence() -> None:
    values = np.random.default_rng(1).normal(size=80)
    narrow, wide = bootstrap_interval(values, 0.8, 1000, 0), bootstrap_interval(values, 0.99, 1000, 0)

    assert narrow == bootstrap_interval(values, 0.8, 1000, 0)
    assert wide[0] < narrow[0] < values.mean() < narrow[1] < wide[1]


def test_equal_values_give_an_interval_of_that_value() -> None:
    assert bootstrap_interval([0.0] * 10) == (0.0, 0.0)
    assert bootstrap_interval([0.1] * 3) == (0.1, 0.1)


@pytest.mark.parametrize("values", [[0.0] * 50 + [1.0], [0.0, 1.0], [1e-200, 2e-200, 4e-200]])
def test_the_interval_of_nearly_degenerate_values_is_finite(values: list[float]) -> None:
    low, high = bootstrap_interval(values, 0.95, 2000, 0)

    assert min(values) <= low <= np.mean(values) <= high <= max(values)
    assert low < high


def test_the_detectable_difference_is_the_textbook_one() -> None:
    values = np.array([-1.0, 1.0] * 50)
    deviation = values.std(ddof=1)

    assert smallest_detectable_difference(values) == pytest.approx((1.959964 + 0.841621) * deviation / 10, rel=1e-5)
    assert smallest_detectable_difference([0.2] * 5) == 0.0


def test_the_test_finds_the_detectable_difference_with_the_stated_power() -> None:
    generator = np.random.default_rng(4)
    shift = smallest_detectable_difference(stats.norm.ppf((np.arange(60) + 0.5) / 60))
    result = 0
    for trial in range(200):
        sample = generator.normal(size=60) + shift
        result += paired_randomization_test(sample, np.zeros(60), resamples=999, seed=trial) <= 0.05

    assert 0.72 <= result / 200 <= 0.88


def test_one_comparison_needs_no_correction() -> None:
    generator = np.random.default_rng(5)
    differences = generator.normal(0.05, 0.2, size=80)

    corrected = max_statistic_test([differences], resamples=2000, seed=4)

    assert corrected[0] == paired_randomization_test(differences, np.zeros(80), resamples=2000, seed=4)
    assert max_statistic_test([[1.0, 2.0, 3.0]])[0] == 2 / 8, "few queries are enumerated"


def test_the_largest_of_many_null_differences_is_rarely_significant_once_corrected() -> None:
    generator = np.random.default_rng(11)
    plain, corrected = 0, 0
    for trial in range(200):
        common = generator.normal(size=40)
        table = np.stack([common + generator.normal(scale=scale, size=40) for scale in (0.2, 1, 1, 3, 3, 5)])
        p_values = max_statistic_test(table, resamples=400, seed=trial)
        own = [paired_randomization_test(row, np.zeros(40), resamples=400, seed=trial) for row in table]
        assert (p_values >= np.array(own) - 0.06).all()
        plain += min(own) <= 0.05
        corrected += p_values.min() <= 0.05

    assert corrected / 200 <= 0.09
    assert plain / 200 > 0.12


def test_a_planted_difference_survives_the_correction_and_nothing_is_said_of_equal_systems() -> None:
    generator = np.random.default_rng(2)
    table = np.stack([generator.normal(0.3, 0.3, size=60), generator.normal(0, 0.3, size=60), np.zeros(60)])

    p_values = max_statistic_test(table, resamples=2000)

    assert p_values[0] == 1 / 2001
    assert p_values[1] > 0.05
    assert p_values[2] == 1
    assert max_statistic_test(np.zeros((2, 5))).tolist() == [1, 1]


def test_tukey_hsd_controls_the_error_of_all_pairs_together() -> None:
    generator = np.random.default_rng(9)
    result = 0
    for trial in range(200):
        table = generator.normal(size=(1, 30)) + generator.normal(size=(5, 30))
        p_values, margin = randomized_tukey_hsd(table, resamples=300, seed=trial)
        means = table.mean(axis=1)
        apart = np.abs(means[:, None] - means)
        assert np.array_equal(p_values, p_values.T)
        assert ((apart > margin) <= (p_values <= 0.06)).all()
        result += p_values.min() <= 0.05

    assert 0.01 <= result / 200 <= 0.09


def test_tukey_hsd_finds_the_one_better_system() -> None:
    generator = np.random.default_rng(1)
    table = np.stack([generator.uniform(size=100) for _ in range(3)])
    table[2] += 0.5

    p_values, margin = randomized_tukey_hsd(table, resamples=1000)

    assert p_values[2, 0] == p_values[2, 1] == 1 / 1001
    assert p_values[0, 1] > 0.1
    assert 0 < margin < 0.5
    assert (np.diag(p_values) == 1).all()


def test_holm_steps_down() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]).tolist() == [1, 1]


def test_as_many_queries_as_are_said_to_be_needed_show_the_difference() -> None:
    generator = np.random.default_rng(8)
    differences = generator.normal(0.02, 0.15, size=120)
    needed = queries_to_detect(differences, 0.02)
    assert needed > 120

    samples = generator.normal(0.02, differences.std(ddof=1), size=(400, needed))
    _, p_values = stats.ttest_1samp(samples, 0, axis=1)
    trials = np.asarray(p_values) < 0.05

    assert 0.74 <= np.mean(trials) <= 0.86
    assert queries_to_detect(np.full(5, 0.1), 0.01) == 2


def test_the_chance_to_show_a_mean_is_that_of_samples_drawn_anew() -> None:
    generator = np.random.default_rng(1)
    samples = generator.normal(0.02, 0.1, size=(4000, 100))
    errors = samples.std(axis=1, ddof=1) / 10
    shown = (samples.mean(axis=1) - 1.959964 * errors >= 0.0).mean()

    assert chance_to_show(0.02, 0.0, 0.01) == pytest.approx(shown, abs=0.03)
    assert chance_to_show(0.02, 0.02, 0.01, confidence=0.0) == pytest.approx(0.5)
    assert (chance_to_show(0.1, 0.1, 0.0), chance_to_show(0.1, 0.2, 0.0)) == (1.0, 0.0)


def test_as_many_queries_as_are_named_bring_the_chance_to_the_power() -> None:
    queries = queries_to_show(0.02, 0.0, 0.01, 100, power=0.8)

    assert queries is not None
    assert chance_to_show(0.02, 0.0, 0.1 / np.sqrt(queries)) >= 0.8
    assert chance_to_show(0.02, 0.0, 0.1 / np.sqrt(queries - 1)) < 0.8
    assert queries_to_show(0.0, 0.0, 0.01, 100) is None, "no number shows what is not there"


def test_the_best_of_equal_tries_looks_better_than_it_is() -> None:
    maxima = np.random.default_rng(2).normal(size=(20_000, 5)).max(axis=1)

    assert best_of(1) == pytest.approx(0.0, abs=1e-9)
    assert best_of(5) == pytest.approx(maxima.mean(), abs=0.02)
    with pytest.raises(ContractError, match="the best of 0 tries"):
        best_of(0)
