"""The steps of an offline evaluation on stored artifacts, over the small deployment."""

from __future__ import annotations

from models.contracts.tiers import FIRST_STAGES
from models.evaluation.evaluation_set import split_of
from models.evaluation.report import QUALITY_COST, WITHOUT_MODEL, read_report
from models.records.mlflow_registry import Tracking
from models.release.registration import log_evaluation
from tests.small_bundle import RERANKERS, Small


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
    assert set(report.gains_over_first_stage) == set(RERANKERS)
    assert set(report.gains) == {"compact", "large", "tiered"}
    assert report.best_without_model in WITHOUT_MODEL
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
    assert artifact.summary["gain_p_value"] == report.gains["tiered"].p_gain
    assert artifact.path(QUALITY_COST).read_bytes().startswith(b"\x89PNG")


def test_it_is_logged_as_a_run(small: Small, tracking: Tracking) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking.uri, registry_uri=tracking.uri)
    run = client.get_run(log_evaluation(tracking, small.first.evaluation))
    assert run.data.metrics["ndcg_at_10_tiered"] == small.first.evaluation.summary["ndcg_at_10_tiered"]
    assert run.data.params["corpus/evaluation_set"] == small.artifacts["corpus/evaluation_set"].data_version
    logged = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert logged == {"quality_cost.png", "evaluation.html", "evaluation.json"}
