"""Reference and current windows of drift, and the daily drift report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from models.cascade.calibration import probability
from models.expectations.contract_results import require_contracts
from models.monitoring.decision_log import LOG_FILE
from models.monitoring.drift import (
    FEATURES,
    PAGE_FILE,
    SUMMARY_FILE,
    DriftSummary,
    drift_report,
    features_from_rankings,
)
from models.monitoring.steps import DRIFT_REPORT
from models.release.bundle import Bundle
from models.store.asset_names import DECISION_LOG, EVALUATION_SET, OFFLINE_EVALUATION, RELEASE_CANDIDATE
from models.store.durable_files import canonical_json

if TYPE_CHECKING:
    from models.records.ledger import Ledger
    from models.settings import MonitoringSettings, Settings
    from models.store.artifacts import Artifact, ArtifactStore

WINDOW_FILE = "window.json"
"""What a drift report compared: day, bundle, reference and how many decisions were left out."""


@dataclass(frozen=True)
class Windows:
    """The two windows of a drift report: the day's answers of one bundle, and what they are held against.

    `bundle_version` is empty on a day without answers of a known release; `releases` are those that it served under.
    `reference` are the artifacts that the reference window is read from: the evaluation and the evaluation set of the
    bundle, or the logs of earlier days.
    """

    day: date
    kind: Literal["evaluation", "previous_days"]
    log: Artifact
    bundle_version: str
    releases: tuple[str, ...]
    reference: Mapping[str, Artifact] = field(default_factory=dict)

    @property
    def inputs(self) -> dict[str, str]:
        """What the report depends on besides the day's log: data versions by name."""
        return {
            RELEASE_CANDIDATE: self.bundle_version,
            **{name: artifact.data_version for name, artifact in self.reference.items()},
        }

    @property
    def evaluation_set(self) -> str:
        """Version of the evaluation set that the traffic is compared with; empty for a reference of traffic."""
        return self.reference[EVALUATION_SET].data_version if EVALUATION_SET in self.reference else ""

    def current_features(self) -> pd.DataFrame:
        """`models.monitoring.drift.FEATURES` of the day's answers of this bundle."""
        return _log_features(self.log, self.releases)

    def reference_features(self) -> pd.DataFrame:
        """`models.monitoring.drift.FEATURES` of the reference window; empty where there is none."""
        if OFFLINE_EVALUATION in self.reference:
            return _evaluation_features(self.reference[OFFLINE_EVALUATION], self.reference[EVALUATION_SET])
        logs = [_log_features(log, self.releases) for log in self.reference.values()]
        return pd.concat(logs, ignore_index=True) if logs else self.current_features().iloc[:0]


def make_drift_report(
    store: ArtifactStore, settings: Settings, ledger: Ledger, decision_log: Artifact, day: date
) -> Artifact:
    """The report on a day's log. Raises `ContractError` if a table of the reference breaks its contract."""
    windows = find_windows(store, ledger, decision_log, day, settings.monitoring)
    return DRIFT_REPORT.get_or_create(
        store,
        settings,
        partial(write_report, windows, settings.monitoring),
        inputs=(decision_log,),
        outside={"day": day.isoformat(), **windows.inputs},
    )


def find_windows(
    store: ArtifactStore, ledger: Ledger, log: Artifact, day: date, settings: MonitoringSettings
) -> Windows:
    """What to compare on a day. Raises `ContractError` if a table of the reference breaks its contract."""
    before: dict[str, Artifact] = {}
    if settings.reference == "previous_days":
        days = [(day - timedelta(days=back)).isoformat() for back in range(settings.reference_days, 0, -1)]
        logs = {name: store.current(DECISION_LOG, name) for name in days}
        before = {f"{DECISION_LOG}/{name}": artifact for name, artifact in logs.items() if artifact is not None}
    for artifact in before.values():
        require_contracts(store, artifact)
    bundles = _bundles(ledger, [log, *before.values()])
    bundle = _busiest(bundles, log)
    reference = before
    if settings.reference == "evaluation" and bundle:
        versions = Bundle.open(store.open(RELEASE_CANDIDATE, bundle)).facts.versions
        reference = {
            OFFLINE_EVALUATION: store.open(OFFLINE_EVALUATION, versions["offline_evaluation"]),
            EVALUATION_SET: store.open(EVALUATION_SET, versions["evaluation_set"]),
        }
        require_contracts(store, reference[EVALUATION_SET])
    releases = tuple(release_id for release_id, served in bundles.items() if served == bundle)
    return Windows(day, settings.reference, log, bundle, releases, reference)


def write_report(windows: Windows, settings: MonitoringSettings, folder: Path) -> dict[str, Any]:
    """Write the summary, the windows and, if judged, Evidently's page; returns the numbers to plot.

    A day that is not judged has counts of rows only. A column's number is `p_value_<column>` or `distance_<column>`,
    after its method.
    """
    current = windows.current_features()
    summary = drift_report(
        windows.reference_features(),
        current,
        folder / PAGE_FILE,
        min_rows=settings.min_decisions,
        max_rows=settings.max_rows,
    )
    left_out = int(windows.log.summary["dagster/row_count"]) - len(current)
    facts = {
        "day": windows.day.isoformat(),
        "reference": windows.kind,
        "bundle_version": windows.bundle_version,
        "evaluation_set": windows.evaluation_set,
        "releases": list(windows.releases),
        "left_out": left_out,
    }
    (folder / SUMMARY_FILE).write_bytes(canonical_json(summary.to_dict()))
    (folder / WINDOW_FILE).write_bytes(canonical_json(facts))
    numbers: dict[str, Any] = {
        "reference_rows": summary.reference_rows,
        "current_rows": summary.current_rows,
        "left_out_rows": left_out,
    }
    if summary.share is not None:
        numbers |= {
            "drift_share": summary.share,
            "columns_compared": len(summary.columns),
            "columns_drifted": len(summary.drifted),
        }
    for name, column in summary.columns.items():
        numbers[f"{'p_value' if column.method == 'ks' else 'distance'}_{name}"] = column.statistic
    return numbers


def read_summary(report: Artifact) -> DriftSummary:
    """The summary of a drift report."""
    return DriftSummary.from_dict(report.read_json(SUMMARY_FILE))


def columns_table(summary: DriftSummary) -> str:
    """The compared and the excluded columns as a Markdown table; of a day that is not judged, the reason as well."""
    rows = [
        f"| {name} | {column.method} | {column.statistic:.4g} | {column.threshold:.4g} | "
        f"{'yes' if column.drifted else 'no'} |"
        for name, column in summary.columns.items()
    ]
    rows += [f"| {name} | not compared: {reason} | | | |" for name, reason in summary.excluded.items()]
    table = "\n".join(["| column | method | statistic | threshold | drifted |", "|---|---|---|---|---|", *rows])
    return table if summary.judged else f"Not judged. {summary.reason}\n\n{table}"


def _bundles(ledger: Ledger, logs: Iterable[Artifact]) -> dict[str, str]:
    """The bundle behind each release that answered in `logs`; releases that the ledger does not know are left out."""
    ids = {release_id for log in logs for release_id in log.read_table(LOG_FILE, ["release_id"])["release_id"]}
    releases = {release_id: ledger.get(release_id) for release_id in sorted(ids)}
    return {release_id: release.bundle_version for release_id, release in releases.items() if release is not None}


def _busiest(bundles: Mapping[str, str], log: Artifact) -> str:
    """The bundle that gave most answers of a log; empty if no known release gave any."""
    answered = log.read_table(LOG_FILE, ["release_id"])["release_id"].map(bundles).dropna()
    return min(answered.mode(), default="")


def _log_features(log: Artifact, releases: Iterable[str]) -> pd.DataFrame:
    table = log.read_table(LOG_FILE)
    table = table[table["release_id"].isin(list(releases))]
    features = table.rename(columns={"decision_id": "row_id"}).loc[:, list(FEATURES)].reset_index(drop=True)
    return features.astype({name: "float64" for name in FEATURES if name not in ("row_id", "query")})


def _evaluation_features(evaluation: Artifact, evaluation_set: Artifact) -> pd.DataFrame:
    """Features of the tiered system on the test queries, as if they had been asked."""
    queries = evaluation_set.read_table("queries.parquet")
    rankings = evaluation.read_table("rankings.parquet")
    tiered = rankings[rankings["system"] == "tiered"]
    # The evaluation keeps logits, the service answers with probabilities.
    tiered = tiered.assign(score=probability(tiered["score"].to_numpy(dtype="float64")))
    return features_from_rankings(queries[queries["split"] == "test"], tiered)
