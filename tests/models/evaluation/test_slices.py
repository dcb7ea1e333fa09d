"""Slices of the evaluated queries, and the rerankers behind each first stage, over the small deployment."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from models.cascade.calibration import Calibration
from models.contracts.tiers import FIRST_STAGES
from models.evaluation.evaluation_set import split_of
from models.evaluation.first_stage_gains import BEHIND, stage_gains
from models.evaluation.report import read_report
from models.evaluation.slices import MIN_QUERIES, query_facts, slice_gains, worst
from models.settings import EvaluationSettings
from tests.small_bundle import Small, small_settings

SETTINGS = EvaluationSettings(resamples=1000)
PASSAGES = pd.DataFrame(
    [
        ("a#0", "a", "Ovens", "Wash the oven with soda", "kitchen"),
        ("a#1", "a", "Ovens", "then dry it with linen", "kitchen"),
        ("b", "b", "", "A pump moves water", "garden"),
        ("c", "c", "", "Water the plants", "garden"),
    ],
    columns=["passage_id", "document_id", "title", "text", "source"],
)


def test_what_is_known_of_a_query_comes_from_its_words_and_its_judged_documents() -> None:
    queries = pd.DataFrame({"query_id": ["1", "2"], "text": ["dry the oven with sand", "water pump"]})
    judgments = pd.DataFrame(
        [("1", "a", 2), ("1", "c", 0), ("2", "c", 1), ("2", "b", 1)], columns=["query_id", "document_id", "grade"]
    )
    facts = query_facts(queries, judgments, PASSAGES)
    assert facts.loc["1"].to_dict() == {
        "words": 5,
        "overlap": pytest.approx(2 / 3),
        "rarest": 0,
        "source": "kitchen",
        "grade": 2,
        "relevant": 1,
    }
    assert list(facts.loc["2", ["words", "overlap", "rarest", "relevant"]]) == [2, 1.0, 1, 2]


def test_a_kind_of_query_that_is_hurt_shows_first_with_its_worst_queries() -> None:
    ids = [f"q{number:02}" for number in range(60)]
    long = set(ids[40:])
    texts = {name: "a b c d e f g h" if name in long else f"word {name}" for name in ids}
    generator = np.random.default_rng(0)
    before = generator.uniform(0.4, 0.6, size=60)
    after = before + np.where(np.arange(60) < 40, 0.2, -0.3) + generator.normal(0, 0.02, size=60)
    per_query = pd.concat(
        pd.DataFrame({"query_id": ids, "system": system, "measure": "nDCG@10", "value": values})
        for system, values in (("bm25", before), ("tiered", after))
    )
    facts = pd.DataFrame(
        {
            "words": [len(texts[name].split()) for name in ids],
            "overlap": 0.5,
            "rarest": [number % 3 for number in range(60)],
            "source": ["one"] * 57 + ["other"] * 3,
            "grade": 1,
            "relevant": 1,
        },
        index=pd.Index(ids, name="query_id"),
    )
    slices = slice_gains(per_query, facts, texts, "tiered", "bm25", SETTINGS)
    first = worst(slices)[0]
    assert (first.by, first.value, first.queries, first.hurt) == ("query length", "8 words", 20, 20)
    assert first.low < first.difference < first.high < 0
    assert first.p_value <= first.p_corrected < 0.05
    lost = after - before
    assert [item["query_id"] for item in first.examples] == [ids[row] for row in np.argsort(lost)[:3]]
    assert {item.by for item in slices} == {"query length", "rarest word", "judged grade", "source"}
    assert all(item.queries >= MIN_QUERIES for item in slices), "three queries of a source say nothing"
    assert sum(item.queries for item in slices if item.by == "rarest word") == 60


def test_the_small_deployment_has_slices_in_its_evaluation(small: Small) -> None:
    values = small.first.evaluation.read_json("report/evaluation.json")
    report = read_report(small.first.evaluation.folder)
    gain = report.gains["tiered"]
    whole = [item for item in values["slices"] if item["by"] == "judged grade"]
    assert [item["queries"] for item in whole] == [25]
    assert whole[0]["difference"] == pytest.approx(gain.difference)
    assert whole[0]["p_value"] == pytest.approx(gain.p_value)


def test_behind_each_first_stage_its_own_passages_are_reranked(small: Small) -> None:
    values = small.first.evaluation.read_json("report/evaluation.json")
    report = read_report(small.first.evaluation.folder)
    by_stage = {item["stage"]: item for item in values["by_first_stage"]}
    assert list(by_stage) == [*FIRST_STAGES, "lean"]
    assert by_stage["lean"]["coverage"] == 1.0
    assert 0 < by_stage["bm25"]["coverage"] < 1
    for name, stage in by_stage.items():
        assert set(stage["gains"]) == set(BEHIND)
        assert stage["gains"]["large"]["baseline_mean"] == pytest.approx(report.systems[name].means["nDCG@10"])
    served = by_stage["lean"]["gains"]["tiered"]
    assert served["candidate_mean"] == pytest.approx(report.systems["tiered"].means["nDCG@10"], abs=0.02)
    corrected = [gain["p_corrected"] for item in by_stage.values() for gain in item["gains"].values()]
    plain = [gain["p_value"] for item in by_stage.values() for gain in item["gains"].values()]
    assert all(p >= own for p, own in zip(corrected, plain, strict=True))


def test_what_has_no_score_keeps_its_place_and_nothing_scored_changes_nothing(small: Small) -> None:
    settings = small_settings(small.home)
    queries, judgments = split_of(small.artifacts["corpus/evaluation_set"], "test")
    stages = small.artifacts["index/candidates"].read_table("first_stage.parquet")
    stages = stages[stages["query_id"].isin(queries["query_id"])]
    calibration = Calibration.from_dict(
        small.store.open(
            "evaluation/score_calibration", small.first.bundle.manifest.inputs["evaluation/score_calibration"]
        ).read_json("calibration.json")
    )
    scored = small.store.open(
        "evaluation/scored_candidates", small.first.evaluation.manifest.inputs["evaluation/scored_candidates"]
    ).read_table("scored.parquet")
    none = stage_gains(stages, scored.iloc[:0], judgments, calibration, settings.tiers, 8, SETTINGS)
    assert [(item.coverage, dict(item.gains)) for item in none] == [(0.0, {})] * 4
    first = scored[scored["rank"] == 1]
    single = stage_gains(stages, first, judgments, calibration, settings.tiers, 8, SETTINGS)
    for item in single:
        assert 0 < item.coverage < 1 / 6, "one passage of at most eight"
        assert {gain.difference for gain in item.gains.values()} == {0.0}, "one passage alone has nowhere to go"
