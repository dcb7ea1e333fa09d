"""Scorers of the tiers: fitted on development queries, comparable as probabilities."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.cascade.calibration import (
    Calibration,
    TierScorer,
    candidate_inputs,
    expected_calibration_error,
    fit_calibration,
    probability,
)
from models.contracts.tiers import MODEL_TIERS, TIERS
from models.errors import ContractError
from models.measures.metrics import evaluate_run

CANDIDATES = 8
NAMES = [tier.name for tier in TIERS]


def scored(queries: int, seed: int = 0, *, lexical: float | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Candidates of which one is relevant: the large logit tells best which, the dense score worst."""
    rng = np.random.default_rng(seed)
    rows, judged = [], []
    for query in range(queries):
        relevant = int(rng.integers(CANDIDATES))
        for index in range(CANDIDATES):
            hit = float(index == relevant)
            rows.append(
                (
                    f"q{query:03d}",
                    f"p{query}-{index}",
                    f"d{query}-{index}",
                    0.4 + 0.1 * hit + 0.1 * rng.normal(),
                    max(0.0, 5 + 2 * hit + 3 * rng.normal()) if lexical is None else lexical,
                    2 * hit + rng.normal(),
                    4 * hit + rng.normal(),
                )
            )
        judged.append((f"q{query:03d}", f"d{query}-{relevant}", 1))
    columns = "query_id passage_id document_id dense_score lexical_score compact_logit large_logit".split()
    table = pd.DataFrame(rows, columns=columns)
    table["retriever_score"] = table["dense_score"] + 0.02 * table["lexical_score"]
    return table, pd.DataFrame(judged, columns=["query_id", "document_id", "grade"])


def quality(calibration: Calibration, tier: str, table: pd.DataFrame, judgments: pd.DataFrame) -> float:
    """Mean nDCG@10 of a tier's ranking."""
    logits = calibration.tiers[tier].logits(candidate_inputs(table))
    run = table.assign(score=logits).sort_values(["query_id", "score"], ascending=[True, False])
    values = evaluate_run(run[["query_id", "document_id", "score"]], judgments)
    return float(values.loc[values["measure"] == "nDCG@10", "value"].mean())


@pytest.fixture(scope="module")
def fitted() -> Calibration:
    return fit_calibration(*scored(120))


def test_better_informed_tiers_rank_better_on_queries_they_were_not_fitted_on(fitted: Calibration) -> None:
    table, judgments = scored(200, seed=1)
    result = {tier: quality(fitted, tier, table, judgments) for tier in NAMES}
    assert result["lean"] < result["compact"] < result["large"]
    assert result["lean"] > quality(_only(fitted, "dense"), "dense", table, judgments)


def _only(fitted: Calibration, feature: str) -> Calibration:
    return Calibration({feature: TierScorer((feature,), (0.0,), (1.0,), (1.0,), 1.0, 0.0)}, 0, {})


@pytest.mark.parametrize("tier", NAMES)
def test_scores_are_the_share_that_is_relevant(fitted: Calibration, tier: str) -> None:
    table, judgments = scored(400, seed=2)
    scores = probability(fitted.tiers[tier].logits(candidate_inputs(table)))
    labels = table["document_id"].isin(judgments["document_id"]).to_numpy().astype(float)
    assert scores.mean() == pytest.approx(1 / CANDIDATES, abs=0.02)
    assert expected_calibration_error(scores, labels) < 0.05
    assert fitted.expected_calibration_error[tier] < 0.05


def test_tiers_read_their_features_and_keep_the_order_of_their_ranker(fitted: Calibration) -> None:
    assert fitted.queries == 120
    for tier in TIERS:
        scorer, features = fitted.tiers[tier.name], tier.features
        assert scorer.features == features
        assert len(scorer.weights) == len(scorer.mean) == len(scorer.scale) == len(features)
        assert scorer.slope > 0
        assert all(scale > 0 for scale in scorer.scale)


def test_fitting_twice_gives_the_same(fitted: Calibration) -> None:
    assert fit_calibration(*scored(120)) == fitted


def test_it_survives_json(fitted: Calibration) -> None:
    again = Calibration.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert again == fitted
    inputs = candidate_inputs(scored(3)[0])
    for tier, scorer in fitted.tiers.items():
        np.testing.assert_array_equal(again.tiers[tier].logits(inputs), scorer.logits(inputs))


@pytest.mark.parametrize("lexical", [0.0, 7.3, 0.1])
def test_a_feature_that_never_varied_decides_nothing_later(lexical: float) -> None:
    table, judgments = scored(60, lexical=lexical)
    calibration = fit_calibration(table.assign(retriever_score=0.2), judgments)
    for scorer in calibration.tiers.values():
        inputs = {
            "retriever": np.array([0.0, 5.0, 80.0]),
            "dense": np.full(3, 0.5),
            "lexical": np.array([0.0, 5.0, 80.0]),
            "compact": np.ones(3),
            "large": np.ones(3),
        }
        assert np.ptp(scorer.logits(inputs)) < 1e-6


@pytest.mark.parametrize("value", [1e-5, 7.3, 1e6])
def test_rounding_is_no_variation(value: float) -> None:
    table, judgments = scored(60, lexical=value)
    noise = 1 + np.finfo(np.float32).eps * np.random.default_rng(0).normal(size=len(table))
    relevant = table["document_id"].isin(judgments["document_id"])
    # The noise even tells the relevant passages: it must not be blown up to a signal.
    table["lexical_score"] *= np.where(relevant, noise.max(), noise.clip(max=1))
    calibration = fit_calibration(table, judgments)
    inputs = {"dense": np.full(2, 0.5), "lexical": np.array([0.0, 80.0]), "compact": np.ones(2), "large": np.ones(2)}
    for scorer in (calibration.tiers[tier.name] for tier in MODEL_TIERS):
        logits = scorer.logits(inputs)
        assert np.abs(logits).max() < 20
        assert np.ptp(logits) < 1e-6


def test_one_query_is_enough_to_fit_finite_scores() -> None:
    calibration = fit_calibration(*scored(1))
    for scorer in calibration.tiers.values():
        assert np.isfinite(scorer.logits(candidate_inputs(scored(5, seed=9)[0]))).all()


def test_perfectly_separable_candidates_give_finite_scores() -> None:
    table, judgments = scored(30)
    relevant = table["document_id"].isin(judgments["document_id"])
    table = table.assign(large_logit=np.where(relevant, 50.0, -50.0))
    calibration = fit_calibration(table, judgments)
    scores = probability(calibration.tiers["large"].logits(candidate_inputs(table)))
    assert ((scores > 0) & (scores < 1)).all()
    assert scores[relevant].min() > scores[~relevant].max()


def test_higher_grades_weigh_more() -> None:
    table, judgments = scored(60)
    second = table.groupby("query_id").head(1)[["query_id", "document_id"]].assign(grade=9)
    both = pd.concat([judgments, second]).drop_duplicates(["query_id", "document_id"], keep="last")
    table.loc[table["document_id"].isin(second["document_id"]), "dense_score"] += 0.5
    heavy = fit_calibration(table, both).tiers["large"]
    light = fit_calibration(table, judgments).tiers["large"]
    index = heavy.features.index("dense")
    assert heavy.weights[index] > light.weights[index]


def test_queries_whose_positives_were_missed_count_for_the_probability_only() -> None:
    table, judgments = scored(60)
    missed = table.assign(query_id="x" + table["query_id"], document_id="x" + table["document_id"])
    alone = fit_calibration(table, judgments)
    both = fit_calibration(pd.concat([table, missed], ignore_index=True), judgments)
    assert both.queries == alone.queries == 60
    inputs = candidate_inputs(table)
    assert both.tiers["compact"].weights == pytest.approx(alone.tiers["compact"].weights)
    for name in NAMES:
        means = [probability(item.tiers[name].logits(inputs)).mean() for item in (both, alone)]
        assert means[0] < means[1]


def test_without_a_relevant_candidate_there_is_nothing_to_fit() -> None:
    table, judgments = scored(5)
    for nothing in (judgments.assign(grade=0), judgments.assign(document_id="other"), judgments.iloc[:0]):
        with pytest.raises(ContractError, match="no development query has a relevant passage"):
            fit_calibration(table, nothing)


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_probabilities_stay_inside_and_never_swap(logits: list[float]) -> None:
    values = np.array(sorted(logits))
    result = probability(values)
    assert ((result > 0) & (result < 1)).all()
    assert (np.diff(result) >= 0).all()


def test_probability_is_the_sigmoid() -> None:
    np.testing.assert_allclose(probability(np.array([0.0, 2.0, -2.0])), [0.5, 0.880797, 0.119203], atol=1e-6)


def test_the_calibration_error_by_hand() -> None:
    scores = np.array([0.1, 0.1, 0.9, 0.9])
    assert expected_calibration_error(scores, np.array([0.0, 0.0, 1.0, 1.0]), bins=2) == pytest.approx(0.1)
    assert expected_calibration_error(scores, np.array([1.0, 1.0, 0.0, 0.0]), bins=2) == pytest.approx(0.9)
    assert expected_calibration_error(np.array([0.5]), np.array([1.0])) == pytest.approx(0.5)


def test_inputs_are_the_columns_that_are_there() -> None:
    table, _ = scored(1)
    first_stage = {"dense", "lexical", "retriever"}
    assert set(candidate_inputs(table)) == {*first_stage, "compact", "large"}
    assert set(candidate_inputs(table.drop(columns=["compact_logit", "large_logit"]))) == first_stage


@pytest.mark.parametrize("turned", [1.0, -1.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_without_a_model_the_order_is_that_of_the_first_stage_at_any_scale(turned: float, scale: float) -> None:
    """Reciprocal ranks are some hundredths; and a first stage that ranks badly here still is what is served."""
    table, judgments = scored(120)
    table["retriever_score"] *= turned * scale
    lean = fit_calibration(table, judgments).tiers["lean"]
    logits = lean.logits(candidate_inputs(table))
    np.testing.assert_array_equal(np.argsort(-logits), np.argsort(-table["retriever_score"].to_numpy()))
    if turned > 0:
        assert np.ptp(logits) > 1, "the probability follows the score, whatever its unit"
