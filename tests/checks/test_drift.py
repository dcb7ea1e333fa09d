"""The drift check over drift reports of single days."""

import json
from pathlib import Path

import dagster as dg
import pytest

from assets import keys
from assets.partitions import DAYS
from assets.resources import Deployment
from checks.drift import drift_share
from models.monitoring.drift import PAGE_FILE, SUMMARY_FILE, ColumnDrift, DriftSummary
from models.monitoring.report import WINDOW_FILE
from models.records.incidents import open_incidents
from models.store.artifacts import Artifact
from tests.checks.check_cases import run_checks
from tests.deployments import shown, use_home, write_artifact


def _summary(drifted: int) -> DriftSummary:
    columns = {f"column_{i}": ColumnDrift("ks", 0.001 if i < drifted else 0.4, 0.01, i < drifted) for i in range(4)}
    return DriftSummary(True, "", columns, {}, drifted / 4, 300, 200)


def _report(summaries: dict[str, DriftSummary]) -> dg.AssetsDefinition:
    @dg.asset(key=keys.DRIFT_REPORT, partitions_def=DAYS, io_manager_key="io_manager")
    def drift_report(context: dg.AssetExecutionContext, deployment: Deployment) -> Artifact:
        summary = summaries[context.partition_key]
        window = {"day": context.partition_key, "bundle_version": "b", "reference": "evaluation"}
        files = {SUMMARY_FILE: json.dumps(summary.to_dict()).encode(), WINDOW_FILE: json.dumps(window).encode()}
        if summary.judged:
            files[PAGE_FILE] = b"<html></html>"
        return write_artifact(deployment.store(), "monitoring/drift_report", {}, files)

    return drift_report


@pytest.mark.parametrize(("drifted", "passes"), [(0, True), (2, True), (3, False)])
def test_share_is_held_against_the_gate(drifted: int, passes: bool, tmp_path: Path, monkeypatch) -> None:
    deployment = use_home(tmp_path, monkeypatch, GATE__MAX_DRIFT_SHARE="0.5")
    asset = _report({"2026-01-02": _summary(drifted)})
    result, observed = run_checks(deployment, [asset], [drift_share], partition_key="2026-01-02")
    evaluation = observed["drift_share"]
    assert result.success
    assert evaluation.passed is passes
    assert evaluation.severity == dg.AssetCheckSeverity.WARN
    assert shown(evaluation)["value"] == drifted / 4
    assert shown(evaluation)["threshold"] == 0.5
    assert shown(evaluation)["judged"] is True
    assert Path(shown(evaluation)["report"]).is_file()
    assert shown(evaluation)["examples"].count("| column_") == drifted
    incidents = open_incidents(deployment.database(), "drift")
    assert [incident.evidence["day"] for incident in incidents] == ([] if passes else ["2026-01-02"])


def test_too_few_decisions_pass_unjudged(tmp_path: Path, monkeypatch) -> None:
    few = DriftSummary(False, "The current window has 3 rows; at least 30 are needed.", {}, {}, None, 300, 3)
    asset = _report({"2026-01-02": few})
    _, result = run_checks(use_home(tmp_path, monkeypatch), [asset], [drift_share], partition_key="2026-01-02")
    evaluation = result["drift_share"]
    assert evaluation.passed
    assert shown(evaluation)["judged"] is False
    assert evaluation.metadata["value"] == dg.MetadataValue.null()
    assert evaluation.metadata["report"] == dg.MetadataValue.null()
    assert "3 rows" in (evaluation.description or "")


def test_each_day_is_checked_for_itself(tmp_path: Path, monkeypatch) -> None:
    deployment = use_home(tmp_path, monkeypatch)
    asset = _report({"2026-01-02": _summary(4), "2026-01-03": _summary(0)})
    for day, passes in (("2026-01-02", False), ("2026-01-03", True), ("2026-01-02", False)):
        _, result = run_checks(deployment, [asset], [drift_share], partition_key=day)
        assert result["drift_share"].passed is passes


def test_alone_it_looks_at_the_report_made_last(tmp_path: Path, monkeypatch) -> None:
    deployment = use_home(tmp_path, monkeypatch)
    asset = _report({"2026-01-02": _summary(4), "2026-01-03": _summary(0)})
    selection = dg.AssetSelection.checks(drift_share)
    with dg.DagsterInstance.ephemeral() as instance:
        for day, passes in (("2026-01-03", True), ("2026-01-02", False)):
            run_checks(deployment, [asset], [], partition_key=day, instance=instance)
            result, observed = run_checks(deployment, [asset], [drift_share], instance=instance, selection=selection)
            assert result.success
            assert observed["drift_share"].passed is passes


def test_alone_before_any_report_it_is_an_error_and_no_verdict(tmp_path: Path, monkeypatch) -> None:
    deployment = use_home(tmp_path, monkeypatch)
    selection = dg.AssetSelection.checks(drift_share)
    result, observed = run_checks(deployment, [_report({})], [drift_share], selection=selection)
    assert not result.success
    assert observed == {}
