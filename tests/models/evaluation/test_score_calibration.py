"""The calibration of a deployment: with models that pay, and with models of noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from models.cascade.calibration import Calibration
from models.cascade.windows import EarlyExit
from models.contracts.tiers import MODEL_TIERS
from models.evaluation.offline import evaluate_offline
from models.evaluation.report import read_report
from models.evaluation.score_calibration import calibrate
from models.settings import GeneratorSettings, TiersSettings
from models.store.artifacts import Artifact, ArtifactStore
from models.store.tables import write_table
from tests.small_bundle import Small

pytestmark = pytest.mark.heavy


@pytest.fixture
def noisy(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    """The scored candidates of the small deployment, all logits noise; its 18 development queries are enough."""
    monkeypatch.setattr("models.cascade.model_gain.MIN_QUERIES", 10)
    version = small.first.evaluation.manifest.inputs["evaluation/scored_candidates"]
    scored = small.store.open("evaluation/scored_candidates", version)
    table = scored.read_table("scored.parquet")
    random = np.random.default_rng(0)
    noise = {tier.logit_column: random.normal(size=len(table)) for tier in MODEL_TIERS}

    def build(folder: Path) -> dict[str, Any]:
        write_table(table.assign(**noise), folder / "scored.parquet")
        return dict(scored.summary)

    store = ArtifactStore(str(tmp_path / "artifacts"), tmp_path / "cache")
    return store.get_or_create(
        "evaluation/scored_candidates", code_version="tests", inputs={}, settings={}, build=build
    )


def test_models_of_noise_leave_lean_alone_and_the_evaluation_says_the_same(
    small: Small, noisy: Artifact, tmp_path: Path
) -> None:
    evaluation_set = small.artifacts["corpus/evaluation_set"]
    store = ArtifactStore(str(tmp_path / "artifacts"), tmp_path / "cache")
    calibration = store.get_or_create(
        "evaluation/score_calibration",
        code_version="tests",
        inputs={},
        settings={},
        build=lambda folder: calibrate(
            evaluation_set,
            noisy,
            TiersSettings(compact_candidates=20, large_candidates=20),
            GeneratorSettings(),
            folder,
        ),
    )
    assert calibration.summary["lean_alone"] is True
    assert calibration.summary["ndcg_at_10_gain_over_lean"] <= 0
    stored = Calibration.from_dict(calibration.read_json("calibration.json"))
    assert stored.early_exit == EarlyExit.lean_alone()
    assert stored.early_exit.asked() == ()
    evaluate_offline(
        evaluation_set,
        small.artifacts["corpus/passages"],
        small.artifacts["index/candidates"],
        noisy,
        calibration,
        small.settings.evaluation,
        small.settings.tiers,
        tmp_path,
    )
    rankings = pd.read_parquet(tmp_path / "rankings.parquet")
    lean, tiered = (
        rankings.loc[rankings["system"] == name, ["query_id", "passage_id", "rank"]].reset_index(drop=True)
        for name in ("lean", "tiered")
    )
    pd.testing.assert_frame_equal(lean, tiered)
    report = read_report(tmp_path)
    assert report.systems["tiered"].means == report.systems["lean"].means
    assert report.systems["tiered"].seconds_per_query == report.systems["lean"].seconds_per_query


def test_models_are_asked_where_the_settings_say_so(small: Small, noisy: Artifact, tmp_path: Path) -> None:
    evaluation_set = small.artifacts["corpus/evaluation_set"]
    tiers = TiersSettings(lean_alone="never", compact_candidates=20, large_candidates=20)
    summary = calibrate(evaluation_set, noisy, tiers, GeneratorSettings(), tmp_path)
    assert summary["lean_alone"] is False
    assert "expected_early_exit_loss" in summary
