"""The steps of an offline evaluation on stored artifacts, over the small deployment."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from models.contracts.tiers import FIRST_STAGES
from models.errors import ArtifactError
from models.evaluation.evaluation_set import split_of
from models.evaluation.report import QUALITY_COST, RERANKERS, read_report
from models.records.mlflow_registry import Tracking
from models.release.champion import evaluate_champion
from models.release.registration import log_evaluation
from models.serving.latency_profile import profile_bundle
from models.store.artifacts import Artifact, ArtifactStore
from tests.models.serving.test_loaded_bundle import admitted, copied
from tests.small_bundle import Small


def judged(small: Small) -> tuple[Artifact, Artifact, Artifact]:
    built = small.artifacts
    return built["corpus/evaluation_set"], built["corpus/passages"], built["index/candidates"]


def test_a_split_has_its_queries_and_their_judgments(small: Small) -> None:
    evaluation_set = small.artifacts["corpus/evaluation_set"]
    sizes = {}
    for split in ("dev", "test", "train"):
        queries, judgments = split_of(evaluation_set, split)
        assert set(queries["split"]) <= {split}
        assert set(judgments["query_id"]) == set(queries["query_id"])
        sizes[split] = len(queries)
    assert sizes == {"dev": 18, "test": 25, "train": 0}


def test_the_report_has_every_system_with_its_quality_and_time(small: Small) -> None:
    report = read_report(small.first.evaluation.folder)
    assert set(report.systems) == {*FIRST_STAGES, *RERANKERS}
    assert report.queries == 25
    assert set(report.gains) == set(RERANKERS)
    assert report.best_first_stage in FIRST_STAGES
    times = {name: result.seconds_per_query for name, result in report.systems.items()}
    candidates = small.artifacts["index/candidates"].summary
    assert {name: times[name] for name in FIRST_STAGES} == {
        name: candidates[f"seconds_per_query_{name}"] for name in FIRST_STAGES
    }
    assert times["hybrid"] == times["lean"]
    for name in ("compact", "large", "tiered"):
        assert (times[name] or 0.0) > (times["hybrid"] or 0.0)


def test_reranking_is_judged_with_what_retrieval_missed(small: Small) -> None:
    rankings = small.first.evaluation.read_table("rankings.parquet")
    candidates = small.artifacts["index/candidates"].read_table("candidates.parquet")
    result = candidates.groupby("query_id")["passage_id"].apply(set).to_dict()
    for name in RERANKERS:
        for query_id, rows in rankings[rankings["system"] == name].groupby("query_id"):
            assert set(rows["passage_id"]) == result[query_id]
    tiered = rankings[rankings["system"] == "tiered"]
    assert tiered.groupby("query_id")["tier"].agg(lambda tiers: (tiers == "large").sum()).tolist() == [4] * 25


def test_its_numbers_are_in_the_summary_and_the_plot_is_drawn(small: Small) -> None:
    artifact = small.first.evaluation
    report = read_report(artifact.folder)
    assert artifact.summary["ndcg_at_10_tiered"] == report.systems["tiered"].means["nDCG@10"]
    assert artifact.summary["ndcg_at_10_gain"] == report.gains["tiered"].difference
    assert artifact.summary["gain_p_value"] == report.gains["tiered"].p_value
    assert artifact.path(QUALITY_COST).read_bytes().startswith(b"\x89PNG")


def test_it_is_logged_as_a_run(small: Small, tracking: Tracking) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking.uri, registry_uri=tracking.uri)
    run = client.get_run(log_evaluation(tracking, small.first.evaluation))
    assert run.data.metrics["ndcg_at_10_tiered"] == small.first.evaluation.summary["ndcg_at_10_tiered"]
    assert run.data.params["corpus/evaluation_set"] == small.artifacts["corpus/evaluation_set"].data_version
    logged = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert logged == {"quality_cost.png", "evaluation.html", "evaluation.json"}


def test_before_the_first_champion_there_is_nothing_to_compare_with(small: Small, tmp_path: Path) -> None:
    assert evaluate_champion(None, *judged(small), small.settings.evaluation, tmp_path) == {"champion": "none"}
    assert json.loads((tmp_path / "champion.json").read_text()) == {"champion": None}
    assert not (tmp_path / "per_query.parquet").exists()


def test_a_champion_on_the_same_set_keeps_its_numbers(small: Small, tmp_path: Path) -> None:
    bundle = small.first.bundle
    facts = evaluate_champion(bundle, *judged(small), small.settings.evaluation, tmp_path)
    assert facts == {"champion": bundle.data_version, "rescored": 0}
    stored = small.first.evaluation.read_table("per_query.parquet")
    expected = stored[stored["system"] == "tiered"].reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "per_query.parquet"), expected)


def test_a_champion_on_other_candidates_is_scored_again_and_comes_to_the_same(small: Small, tmp_path: Path) -> None:
    evaluation_set, passages, candidates = judged(small)
    store = ArtifactStore(str(tmp_path / "artifacts"), tmp_path / "cache")

    def build(folder: Path) -> dict[str, float]:
        for name in ("candidates.parquet", "first_stage.parquet"):
            candidates.read_table(name).sample(frac=1, random_state=0).to_parquet(folder / name)
        return {}

    mixed = store.get_or_create("index/candidates", code_version="1", inputs={}, settings={}, build=build)
    assert mixed.data_version != candidates.data_version
    (tmp_path / "again").mkdir()
    facts = evaluate_champion(
        small.first.bundle, evaluation_set, passages, mixed, small.settings.evaluation, tmp_path / "again"
    )
    assert facts["rescored"] == 1
    stored = small.first.evaluation.read_table("per_query.parquet")
    expected = stored[stored["system"] == "tiered"].sort_values(["query_id", "measure"], ignore_index=True)
    result = pd.read_parquet(tmp_path / "again" / "per_query.parquet").sort_values(
        ["query_id", "measure"], ignore_index=True
    )
    assert result["query_id"].tolist() == expected["query_id"].tolist()
    np.testing.assert_allclose(result["value"], expected["value"])


def test_a_champion_whose_files_changed_is_not_scored(small: Small, tmp_path: Path) -> None:
    bundle = copied(small.first.bundle, tmp_path / "bundle", own="calibration.json")
    path = tmp_path / "bundle" / "calibration.json"
    path.write_bytes(path.read_bytes().replace(b"lean", b"leam", 1))
    facts = bundle.read_json("bundle.json")
    facts["versions"]["candidates"] = "another"
    own = tmp_path / "bundle" / "bundle.json"
    own.unlink()
    own.write_text(json.dumps(facts))
    (tmp_path / "out").mkdir()
    with pytest.raises(ArtifactError, match=r"calibration\.json differs"):
        evaluate_champion(admitted(bundle, "bundle.json"), *judged(small), small.settings.evaluation, tmp_path / "out")


def test_the_profile_of_a_bundle_is_measured_on_the_bundle_loaded_anew(small: Small, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    facts = profile_bundle(small.first.bundle, small.settings, tmp_path, lambda done, total: told.append((done, total)))
    assert json.loads((tmp_path / "latency.json").read_text()) == facts
    assert 0 < facts["p50_ms"] <= facts["p95_ms"] <= facts["p99_ms"]
    assert (facts["n"], facts["degraded_share"], facts["golden_queries"]) == (40, 0.0, 4)
    assert facts["golden_order_equal"] is True
    assert facts["golden_max_difference"] < 1e-3
    assert facts["load_seconds"] > 0
    assert told[-1] == (40, 40)


def test_a_bundle_that_does_not_reproduce_its_golden_scores_shows(small: Small, tmp_path: Path) -> None:
    bundle = copied(small.first.bundle, tmp_path / "bundle", own="golden.json")
    path = tmp_path / "bundle" / "golden.json"
    golden = json.loads(path.read_text())
    golden[0]["passage_ids"].reverse()
    path.write_text(json.dumps(golden))
    tiers = small.settings.tiers.model_copy(update={"budget_ms": 101.0})
    (tmp_path / "out").mkdir()
    facts = profile_bundle(
        admitted(bundle, "golden.json"), small.settings.model_copy(update={"tiers": tiers}), tmp_path / "out"
    )
    assert facts["golden_order_equal"] is False
    assert facts["golden_max_difference"] > 0.01
    assert facts["degraded_share"] > 0, "the budget holds, the ranking does not"
