"""The check of a dense index: what was measured when it was built, against the setting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets import keys
from assets.resources import Deployment
from checks import index
from models.store.artifacts import Artifact
from tests.checks.check_cases import run_checks
from tests.deployments import shown, use_home, write_artifact


def index_asset(facts: dict[str, Any]) -> dg.AssetsDefinition:
    @dg.asset(key=keys.DENSE_INDEX, io_manager_key="io_manager")
    def made(deployment: Deployment) -> Artifact:
        return write_artifact(deployment.store(), "index/dense_index", {}, {"index.json": json.dumps(facts).encode()})

    return made


def measured(recall: float) -> dict[str, Any]:
    effort = {"ef": 128, "probes": 16, "rescore": 4}
    return {"kind": "hnsw", "effort": effort, "recall": recall, "recall_queries": 256}


@pytest.mark.parametrize(
    ("recall", "wanted", "passes"), [(0.985, "0.98", True), (0.979, "0.98", False), (0.6, "0.5", True)]
)
def test_an_approximate_index_must_reach_the_recall_that_is_set(
    recall: float, wanted: str, passes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = use_home(tmp_path, monkeypatch, INDEX__MIN_RECALL=wanted)
    result, observed = run_checks(deployment, [index_asset(measured(recall))], index.CHECKS)
    assert result.success == passes
    evaluation = observed["recall"]
    assert evaluation.passed == passes
    assert (shown(evaluation)["value"], shown(evaluation)["threshold"]) == (recall, float(wanted))
    assert "| ef | probes | rescore |" in shown(evaluation)["examples"]
    assert "256 queries" in (evaluation.description or "")


def test_an_exact_index_needs_no_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = use_home(tmp_path, monkeypatch, INDEX__MIN_RECALL="1.0")
    result, observed = run_checks(deployment, [index_asset({"kind": "flat"})], index.CHECKS)
    assert result.success
    assert shown(observed["recall"])["value"] == 1.0
