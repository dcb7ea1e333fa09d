"""`rerankops evaluate` as a process, on the small deployment."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.contracts.tiers import FIRST_STAGES
from models.evaluation.report import read_report
from models.records.database import Database
from models.records.ledger import Ledger
from models.records.mlflow_registry import CHALLENGER, Tracking
from tests.beir_folder import write_beir
from tests.commands import clean_environment, run_command
from tests.small_bundle import RERANKERS, Handbook, Small, put_in_service

Rerankops = Callable[..., subprocess.CompletedProcess[str]]
SETTINGS = """
[corpus]
passage_tokens = 48
overlap_tokens = 8
[evaluation]
resamples = 2000
[storage]
artifacts = {artifacts}
database_url = {database}
mlflow_uri = {mlflow}
"""


@pytest.fixture
def deployment(small: Small, tmp_path: Path, tracking: Tracking) -> Path:
    """The folder of a deployment whose champion is the small one's first candidate, MLflow version 1."""
    database = f"sqlite:///{tmp_path / 'records.db'}"
    values = {"artifacts": small.settings.artifact_root, "database": database, "mlflow": tracking.uri}
    text = SETTINGS.format(**{name: json.dumps(value) for name, value in values.items()})
    (tmp_path / "rerankops.toml").write_text(text, encoding="utf-8")
    records = Database(database)
    records.migrate()
    put_in_service(Ledger(records), small.first, tracking.ensure_version("reranker", small.first.bundle))
    records.close()
    return tmp_path


@pytest.fixture
def evaluate(deployment: Path) -> Rerankops:
    """Runs `rerankops evaluate` on that deployment."""
    environment = clean_environment(
        RERANKOPS_HOME=str(deployment / "home"), RERANKOPS_SETTINGS=str(deployment / "rerankops.toml")
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_command("evaluate", *arguments, env=environment)

    return run


def read(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_beir_folder_is_evaluated_like_status_with_runs_from_elsewhere_and_ablations(
    small: Small, evaluate: Rerankops, deployment: Path
) -> None:
    write_beir(Handbook(), deployment / "handbook", broken_rows=1)
    corpus = f"beir:{deployment / 'handbook'}"
    pointers = {path: path.read_bytes() for path in Path(small.settings.artifact_root).glob("current/**/*.json")}
    first = evaluate("--corpus", corpus, "--json", "--ablate", "fast", "--export-runs", str(deployment / "runs"))
    rows = read(first)
    assert "pairs scored" in first.stderr
    report = read_report(small.first.evaluation.folder)
    assert set(rows["evaluation"]) == {*FIRST_STAGES, *RERANKERS}
    for name, result in rows["evaluation"].items():
        assert result["nDCG@10"] == pytest.approx(report.systems[name].means["nDCG@10"])
        assert result["interval"][0] <= result["nDCG@10"] <= result["interval"][1]
    assert rows["gains"]["tiered"]["p_value"] == pytest.approx(report.gains["tiered"].p_value)
    assert rows["best_first_stage"] == report.best_first_stage
    assert rows["model"]["version"] == "1"
    assert rows["corpus"]["quarantined_rows"] == 1
    assert [(item["stage"], item["coverage"]) for item in rows["by_first_stage"]] == [
        (name, 1.0) for name in (*FIRST_STAGES, "lean")
    ]
    assert rows["power"]["detectable"] > 0
    assert Path(rows["report"].removeprefix("file://")).read_text().startswith("<!doctype html>")
    without = {item["variant"]: item["comparison"] for item in rows["ablation"]["scores"]}
    assert without["lean order"]["difference"] == pytest.approx(
        report.systems["lean"].means["nDCG@10"] - report.systems["tiered"].means["nDCG@10"]
    )
    assert without["best 5 of 8"]["queries"] == 25
    assert set(rows["ablation"]["expected_calibration_error"]) == {"calibrated", "uncalibrated"}

    run = deployment / "runs" / "bm25.run"
    again = read(evaluate("--corpus", corpus, "--json", "--run", f"{run}:theirs", "--model", "1"))
    assert again["evaluation"]["theirs"]["kind"] == "imported"
    assert again["evaluation"]["theirs"]["seconds_per_query"] is None
    assert again["evaluation"]["theirs"]["nDCG@10"] == pytest.approx(rows["evaluation"]["bm25"]["nDCG@10"])
    assert again["runs"][0]["lines"] == len(run.read_text().splitlines())
    assert {path: path.read_bytes() for path in pointers} == pointers


def test_without_a_corpus_the_models_own_queries_are_evaluated(
    small: Small, evaluate: Rerankops, tracking: Tracking
) -> None:
    tracking.set_alias(CHALLENGER, tracking.ensure_version("reranker", small.shuffled().bundle))
    report = read_report(small.shuffled().evaluation.folder)
    rows = read(evaluate("--json", "--model", CHALLENGER))
    assert rows["model"]["bundle_version"] == small.shuffled().bundle.data_version
    for name, result in rows["evaluation"].items():
        assert result["nDCG@10"] == pytest.approx(report.systems[name].means["nDCG@10"])
    shown = evaluate()
    assert shown.returncode == 0
    for text in ("Over hybrid", "Behind each first stage", "Where tiered gains least", "80% power"):
        assert text in shown.stdout or text.replace("hybrid", report.best_first_stage) in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--corpus", "trec:there"), "is not a corpus"),
        (("--corpus", "beir:nowhere"), "nowhere"),
        (("--model", "7"), "no bundle is named '7'"),
        (("--max-queries", "5"), "are for --corpus"),
        (("--run", "none.run"), "none.run cannot be read as a run file"),
    ],
)
def test_what_is_wrong_is_said(evaluate: Rerankops, arguments: tuple[str, ...], problem: str) -> None:
    done = evaluate("--json", *arguments)
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert problem in told["error"]
    assert told["hint"]
