"""A bundle as it serves: timed, judged on the test queries, and held against its golden scores."""

from __future__ import annotations

import json
from pathlib import Path

import faiss
import numpy as np
import pandas as pd
import pytest

from models.evaluation.evaluation_set import split_of
from models.measures.metrics import mean_values
from models.serving import latency_profile
from models.serving.latency_profile import make_latency_profile, profile_bundle
from models.settings import Settings
from models.store.artifacts import Artifact
from tests.models.serving.test_loaded_bundle import admitted, copied
from tests.small_bundle import Small

EVALUATION_SET = "corpus/evaluation_set"


@pytest.fixture(scope="module")
def hurried(small: Small) -> Settings:
    """Settings whose budget leaves the models no time."""
    tiers = small.settings.tiers.model_copy(update={"budget_ms": 101.0, "reserve_ms": 100.9})
    return small.settings.model_copy(update={"tiers": tiers})


def profile_of(small: Small, settings: Settings) -> Artifact:
    """The profile of the first candidate, made once for all tests that ask for it."""
    return make_latency_profile(small.store, settings, small.first.bundle, small.artifacts[EVALUATION_SET])


def test_a_bundle_answers_every_test_query_as_it_was_evaluated(small: Small) -> None:
    profile = profile_of(small, small.settings)
    facts = profile.summary

    assert profile.read_json("latency.json") == facts
    assert 0 < facts["p50_ms"] <= facts["p95_ms"] <= facts["p99_ms"]
    assert (facts["n"], facts["degraded_share"], facts["golden_queries"]) == (40, 0.0, 4)
    assert facts["golden_order_equal"] is True
    assert facts["golden_max_difference"] < 1e-3
    assert facts["load_seconds"] > 0
    requests = profile.read_table("requests.parquet")
    queries, _ = split_of(small.artifacts[EVALUATION_SET], "test")
    assert requests["query_id"].tolist()[:25] == queries["query_id"].tolist()
    offline = small.first.evaluation.read_table("per_query.parquet")
    expected = offline[offline["system"] == "tiered"].reset_index(drop=True)
    served = profile.read_table("per_query.parquet")
    assert set(served["system"]) == {"served"}
    assert served[["query_id", "measure"]].equals(expected[["query_id", "measure"]])
    np.testing.assert_allclose(served["value"], expected["value"])


def test_a_budget_that_cuts_the_models_short_shows_in_quality_and_share(small: Small, hurried: Settings) -> None:
    profile = profile_of(small, hurried)

    assert profile.summary["degraded_share"] == 1.0
    offline = small.first.evaluation.read_table("per_query.parquet")
    served = mean_values(profile.read_table("per_query.parquet"))["nDCG@10"]
    assert served < mean_values(offline[offline["system"] == "tiered"])["nDCG@10"] - 0.05


def test_a_broken_first_stage_shows_in_what_is_served(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency_profile, "_FEWEST", 0)  # what is asked again is timed, and ranked no second time
    bundle = copied(small.first.bundle, tmp_path / "bundle", own="dense_index/index.faiss")
    path = tmp_path / "bundle" / "dense_index" / "index.faiss"
    index = faiss.read_index(str(path))
    vectors = index.reconstruct_n(0, index.ntotal)
    broken = faiss.IndexFlatIP(index.d)
    broken.add(np.roll(vectors, len(vectors) // 2, axis=0))
    path.unlink()
    faiss.write_index(broken, str(path))
    (tmp_path / "out").mkdir()

    profile_bundle(
        admitted(bundle, "dense_index/index.faiss"), small.artifacts[EVALUATION_SET], small.settings, tmp_path / "out"
    )

    offline = small.first.evaluation.read_table("per_query.parquet")
    served = mean_values(pd.read_parquet(tmp_path / "out" / "per_query.parquet"))["nDCG@10"]
    assert served < mean_values(offline[offline["system"] == "tiered"])["nDCG@10"] - 0.05


def test_a_bundle_that_does_not_reproduce_its_golden_scores_shows(
    small: Small, hurried: Settings, tmp_path: Path
) -> None:
    bundle = copied(small.first.bundle, tmp_path / "bundle", own="golden.json")
    path = tmp_path / "bundle" / "golden.json"
    golden = json.loads(path.read_text())
    golden[0]["passage_ids"].reverse()
    path.write_text(json.dumps(golden))
    (tmp_path / "out").mkdir()
    told: list[tuple[int, int]] = []

    facts = profile_bundle(
        admitted(bundle, "golden.json"),
        small.artifacts[EVALUATION_SET],
        hurried,
        tmp_path / "out",
        lambda done, total: told.append((done, total)),
    )

    assert facts["golden_order_equal"] is False
    assert facts["golden_max_difference"] > 0.01
    assert told[-1] == (40, 40)


def test_a_bundle_is_profiled_once_per_budget(small: Small, hurried: Settings) -> None:
    profile = profile_of(small, small.settings)

    assert profile_of(small, small.settings).reused
    assert profile_of(small, hurried).manifest.step != profile.manifest.step
