"""Ingredients taken out of the small deployment's scores."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from models.cascade.calibration import Calibration
from models.evaluation.ablation import (
    RETRAINED,
    Ablation,
    ablate_scores,
    calibration_errors,
    compare_retrained,
    retrained,
)
from models.evaluation.report import read_report
from models.operations.judged_corpus import JudgedCorpus, own_corpus
from models.settings import Settings, load_settings
from tests.small_bundle import Small, make_candidate


@pytest.fixture
def own(small: Small) -> JudgedCorpus:
    return own_corpus(small.first.bundle, small.settings)


@pytest.fixture
def calibration(small: Small) -> Calibration:
    return Calibration.from_dict(small.first.bundle.read_json("calibration.json"))


def test_each_ingredient_is_compared_with_what_has_it(
    small: Small, own: JudgedCorpus, calibration: Calibration
) -> None:
    report = read_report(small.first.evaluation.folder)
    settings: Settings = small.settings
    observed = ablate_scores(own.scored, own.judgments, calibration, settings.tiers, settings.evaluation)
    by_variant = {item.variant: item.comparison for item in observed}
    means = {name: result.means["nDCG@10"] for name, result in report.systems.items()}
    for variant, baseline in {"large logit alone": "large", "compact logit alone": "compact"}.items():
        assert by_variant[variant].baseline == baseline
        assert by_variant[variant].baseline_mean == pytest.approx(means[baseline])
    assert by_variant["lean order"].candidate_mean == pytest.approx(means["lean"])
    assert by_variant["large for all candidates"].candidate_mean == pytest.approx(means["large"])
    assert by_variant["compact tier last"].candidate_mean == pytest.approx(means["compact"]), "it scores all eight"
    assert by_variant["best 5 of 8"].candidate_mean <= means["tiered"]
    assert all(item.comparison.queries == 25 for item in observed)
    assert all(
        item.comparison.p_corrected >= item.comparison.p_value for item in observed if item.comparison.p_corrected
    )


def test_a_release_of_the_large_model_alone_is_ablated_too(small: Small) -> None:
    tiers = small.settings.tiers.model_copy(update={"models": ["large"]})
    settings = small.settings.model_copy(update={"tiers": tiers})
    candidate = make_candidate(small.store, settings, small.artifacts, {"large": small.first.large})
    own = own_corpus(candidate.bundle, settings)
    alone = Calibration.from_dict(candidate.bundle.read_json("calibration.json"))
    observed = ablate_scores(own.scored, own.judgments, alone, tiers, settings.evaluation)
    assert {item.variant for item in observed} >= {"large logit alone", "tiers by their logits alone", "lean order"}
    assert not any("compact" in item.variant for item in observed)
    per_query = read_report(candidate.evaluation.folder).per_query
    compared = compare_retrained({"training": per_query}, per_query, settings.evaluation)
    assert [item.comparison.baseline for item in compared] == ["large", "tiered"]
    assert set(RETRAINED) - set(retrained(tiers)) == {"distillation", "softmax as its target"}
    assert retrained(small.settings.tiers) == dict(RETRAINED)


def test_probabilities_are_worse_without_calibration(own: JudgedCorpus, calibration: Calibration) -> None:
    errors = calibration_errors(own.scored, own.judgments, calibration)
    assert set(errors["calibrated"]) == set(calibration.tiers)
    assert all(0 <= error <= 1 for kind in errors.values() for error in kind.values())
    assert errors["calibrated"]["large"] < errors["uncalibrated"]["large"]


def test_a_retrained_variant_is_compared_query_by_query(small: Small) -> None:
    baseline = read_report(small.first.evaluation.folder).per_query
    worse = read_report(small.shuffled().evaluation.folder).per_query
    tables, settings = {"nothing": baseline, "training": worse}, small.settings.evaluation
    same, changed = compare_retrained(tables, baseline, settings, ["tiered"])
    assert isinstance(same, Ablation)
    assert (same.comparison.difference, same.comparison.p_corrected) == (0, 1)
    assert changed.comparison.difference < 0
    assert changed.comparison.p_corrected == pytest.approx(2 * changed.comparison.p_value)
    assert [(item.ingredient, item.comparison.baseline) for item in compare_retrained(tables, baseline, settings)] == [
        (name, system) for name in tables for system in ("compact", "large", "tiered")
    ]


def test_a_retrained_variant_names_its_settings_and_the_models_it_changes(small: Small) -> None:
    baseline = read_report(small.first.evaluation.folder).per_query
    result = compare_retrained({"distillation": baseline}, baseline, small.settings.evaluation)
    assert [item.comparison.baseline for item in result] == ["compact", "tiered"]
    assert {item.variant for item in result} == {"training.distillation=none"}


def test_every_retrained_ablation_changes_settings_that_there_are(tmp_path: Path) -> None:
    whole = load_settings(environ={})
    for name, overrides in RETRAINED.items():
        assert load_settings(overrides, environ={}) != whole, name


def test_the_own_corpus_is_what_the_bundle_was_evaluated_on(small: Small, own: JudgedCorpus) -> None:
    stored = small.artifacts["corpus/evaluation_set"].read_table("queries.parquet")
    assert sorted(own.queries["query_id"]) == sorted(stored.loc[stored["split"] == "test", "query_id"])
    assert set(own.scored["query_id"]) == set(own.queries["query_id"])
    pd.testing.assert_series_equal(own.scored["given"], pd.Series(True, index=own.scored.index, name="given"))
