"""Feature tables and drift, compared by the real Evidently without network."""

from __future__ import annotations

import json
import socket
import warnings
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from models.contracts.messages import Decision
from models.errors import ContractError
from models.monitoring.drift import (
    COLUMNS,
    FEATURES,
    DriftSummary,
    decision_features,
    drift_report,
    features_from_rankings,
)

pytestmark = pytest.mark.heavy

_WORDS = ["sort", "merge", "filter", "join", "group", "rows", "columns", "table", "index", "query", "model", "how"]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def features(rows: int, seed: int, *, shift: float = 0.0, latency: bool = True) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    queries = [" ".join(random.choice(_WORDS, size=random.integers(3, 12))) for _ in range(rows)]
    top = random.beta(5, 2, rows) * (1 - shift)
    return pd.DataFrame(
        {
            "row_id": [f"{seed}-{i}" for i in range(rows)],
            "query": queries,
            "query_characters": [float(len(query)) for query in queries],
            "query_words": [float(len(query.split())) for query in queries],
            "top_score": top,
            "mean_top10_score": top * 0.6,
            "score_gap": top * random.uniform(0, 0.3, rows),
            "top_dense_score": random.normal(0.6, 0.1, rows) * (1 - shift),
            "top_lexical_score": random.gamma(5, 3, rows) * (1 - shift),
            "share_scored_by_large": 0.2,
            "latency_ms": random.gamma(4, 50, rows) if latency else np.nan,
        }
    )


def decision(number: int = 0, **changes) -> Decision:
    values = {
        "decision_id": f"d{number}",
        "trace_id": "t",
        "time": datetime(2026, 1, 1, tzinfo=UTC),
        "endpoint": "/v2/rerank",
        "caller": "someone",
        "query": "how to merge tables",
        "candidates": [
            {"passage_id": "a", "dense_score": 0.4, "lexical_score": 7.0},
            {"passage_id": "b", "dense_score": 0.7, "lexical_score": 2.0},
        ],
        "ranking": [
            {"passage_id": "b", "rank": 2, "score": 0.5, "tier": "compact"},
            {"passage_id": "a", "rank": 1, "score": 0.9, "tier": "large"},
        ],
        "release_id": "r",
        "model_version": "1",
        "index_version": "1",
        "corpus_version": "1",
        "stage_ms": {"rank": 20.0, "retrieve": 5.0},
    }
    return Decision.model_validate({**values, **changes})


def test_features_of_a_decision() -> None:
    row = decision_features(decision())
    assert tuple(row) == FEATURES
    assert row["row_id"] == "d0"
    assert (row["query_characters"], row["query_words"]) == (19, 4)
    assert row["top_score"] == 0.9
    assert row["mean_top10_score"] == pytest.approx(0.7)
    assert row["score_gap"] == pytest.approx(0.4)
    assert (row["top_dense_score"], row["top_lexical_score"]) == (0.7, 7.0)
    assert row["share_scored_by_large"] == 0.5
    assert row["latency_ms"] == 25
    assert decision_features(decision(stage_ms={"total": 30.0, "rank": 20.0}))["latency_ms"] == 30


def test_a_known_score_counts_for_the_model_that_gave_it() -> None:
    ranking = [
        {"passage_id": "a", "rank": 1, "score": 0.9, "tier": "cached", "scored_by": "large"},
        {"passage_id": "b", "rank": 2, "score": 0.5, "tier": "cached", "scored_by": "compact"},
    ]
    assert decision_features(decision(ranking=ranking))["share_scored_by_large"] == 0.5


def test_a_decision_without_ranking_has_unknown_scores() -> None:
    row = decision_features(decision(ranking=[], candidates=[], stage_ms={}))
    unknown = ["top_score", "mean_top10_score", "score_gap", "top_dense_score", "share_scored_by_large", "latency_ms"]
    assert np.isnan([row[name] for name in unknown]).all()
    assert row["query_words"] == 4


def test_texts_of_the_caller_have_no_first_stage_scores() -> None:
    """Retrieval did not choose them, so their scores say nothing of it."""
    brought = [{"passage_id": "sha256:1", "rank": 1, "characters": 40}]
    ranking = [{"passage_id": "sha256:1", "rank": 1, "score": 0.9, "tier": "large", "dense_score": 0.4}]
    row = decision_features(decision(candidates=brought, ranking=ranking))
    assert row["top_score"] == 0.9
    assert np.isnan([row["top_dense_score"], row["top_lexical_score"]]).all()


def test_decisions_and_rankings_of_the_same_requests_have_the_same_features() -> None:
    queries = pd.DataFrame({"query_id": ["d0", "d1"], "text": ["how to merge tables", "nothing found"]})
    rankings = pd.DataFrame(
        {
            "query_id": ["d0", "d0"],
            "rank": [2, 1],
            "score": [0.5, 0.9],
            "dense_score": [0.7, 0.4],
            "lexical_score": [2.0, 7.0],
            "tier": ["compact", "large"],
        }
    )
    offline = features_from_rankings(queries, rankings)
    asked = [decision(), decision(1, query="nothing found", ranking=[], candidates=[])]
    online = pd.DataFrame([decision_features(item) for item in asked]).astype(offline.dtypes)
    pd.testing.assert_frame_equal(offline.drop(columns="latency_ms"), online.drop(columns="latency_ms"))
    assert np.isnan(offline["latency_ms"].to_numpy()).all()
    without_tier = features_from_rankings(queries, rankings.drop(columns="tier"))
    assert np.isnan(without_tier["share_scored_by_large"].to_numpy()).all()


@pytest.fixture(scope="module")
def same_traffic(tmp_path_factory: pytest.TempPathFactory) -> DriftSummary:
    return drift_report(features(300, 1), features(200, 2), tmp_path_factory.mktemp("same") / "drift.html")


def test_the_same_traffic_does_not_drift(same_traffic: DriftSummary) -> None:
    summary = same_traffic
    assert summary.judged
    assert summary.drifted == ()
    assert summary.share == 0
    assert set(summary.columns) == set(COLUMNS)
    assert {column.method for column in summary.columns.values()} == {"ks"}
    assert (summary.reference_rows, summary.current_rows) == (300, 200)


def test_moved_scores_drift_and_the_page_is_self_contained(tmp_path) -> None:
    page = tmp_path / "deep" / "drift.html"
    summary = drift_report(features(300, 1), features(200, 2, shift=0.4), page)
    assert {"top_score", "top_dense_score", "top_lexical_score"} <= set(summary.drifted)
    assert "query_words" not in summary.drifted
    assert summary.share == len(summary.drifted) / len(COLUMNS)
    text = page.read_text(encoding="utf-8")
    assert "top_dense_score" in text
    assert "<script src=" not in text
    assert '<link rel="stylesheet" href="http' not in text


def test_unknown_words_are_drift_and_known_ones_are_not(same_traffic: DriftSummary, tmp_path) -> None:
    current = features(200, 2)
    foreign = current.assign(query=[f"wie sortiert man zeile{i}" for i in range(200)])
    assert "unknown_word_share" in drift_report(features(300, 1), foreign, tmp_path / "a.html").drifted
    assert "unknown_word_share" not in same_traffic.drifted


def test_large_windows_are_held_against_a_distance(tmp_path) -> None:
    reference, current = features(1500, 1), features(1400, 2)
    moved = current.assign(top_lexical_score=current["top_lexical_score"] * 1.02)
    summary = drift_report(reference, moved, tmp_path / "drift.html")
    assert {column.method for column in summary.columns.values()} == {"wasserstein"}
    assert summary.drifted == ()
    far = drift_report(
        reference, current.assign(top_lexical_score=current["top_lexical_score"] * 1.5), tmp_path / "far.html"
    )
    assert far.drifted == ("top_lexical_score",)


def test_columns_that_the_reference_lacks_are_left_out_of_the_share(tmp_path) -> None:
    summary = drift_report(features(300, 1, latency=False), features(200, 2), tmp_path / "drift.html")
    assert "latency_ms" not in summary.columns
    assert "0 values in the reference window" in summary.excluded["latency_ms"]


def test_too_few_rows_are_not_judged(tmp_path) -> None:
    summary = drift_report(features(300, 1), features(29, 2, shift=0.9), tmp_path / "drift.html", min_rows=30)
    assert not summary.judged
    assert summary.share is None
    assert "current window has 29 rows" in summary.reason
    assert not (tmp_path / "drift.html").exists()
    assert not drift_report(features(0, 1), features(50, 2), tmp_path / "drift.html").judged


def test_only_max_rows_are_compared(tmp_path) -> None:
    summary = drift_report(features(300, 1), features(200, 2), tmp_path / "drift.html", max_rows=100)
    assert (summary.reference_rows, summary.current_rows) == (100, 100)


def test_summary_survives_json(tmp_path) -> None:
    summary = drift_report(features(60, 1), features(60, 2, shift=0.5), tmp_path / "drift.html")
    assert DriftSummary.from_dict(json.loads(json.dumps(summary.to_dict()))) == summary


def test_arguments_stay_as_they_were_and_warnings_stay_inside(tmp_path) -> None:
    reference, current = features(60, 1), features(60, 2)
    before = reference.copy(), current.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drift_report(reference, current, tmp_path / "drift.html")
    pd.testing.assert_frame_equal(reference, before[0])
    pd.testing.assert_frame_equal(current, before[1])


def test_missing_columns_are_named(tmp_path) -> None:
    with pytest.raises(ContractError, match="current features lack the columns top_score"):
        drift_report(features(60, 1), features(60, 2).drop(columns="top_score"), tmp_path / "drift.html")
