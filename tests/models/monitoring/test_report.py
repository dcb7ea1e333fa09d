"""Decision logs, reference windows, drift reports, their incidents and what the gate hears of them."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from models.contracts.messages import PROBE_CALLER
from models.contracts.tables import DecisionLog, check_table
from models.errors import ArtifactError, ContractError
from models.monitoring.decision_log import LOG_FILE, decision_table, log_digest, read_day, write_log
from models.monitoring.drift import FEATURES, PAGE_FILE
from models.monitoring.drift_gate import COUNTS_FOR_DAYS, drift_share_for_gate, open_drift_incident
from models.monitoring.report import WINDOW_FILE, Windows, columns_table, find_windows, read_summary, write_report
from models.records.database import Database
from models.records.incidents import close_incident, open_incidents, recent_incidents
from models.records.ledger import Ledger, Release
from models.settings import MonitoringSettings
from models.store.artifacts import Artifact, ArtifactStore
from models.store.asset_names import DECISION_LOG, DRIFT_REPORT
from tests import traffic
from tests.releases import release_bundle
from tests.traffic import DAY, ask, decision, record

pytestmark = pytest.mark.heavy

START = datetime.combine(DAY, time(), UTC)
SETTINGS = MonitoringSettings()


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "artifacts"), tmp_path / "cache")


@pytest.fixture
def records(tmp_path: Path) -> Database:
    built = Database(f"sqlite:///{tmp_path / 'records.db'}")
    built.migrate()
    return built


def keep_log(store: ArtifactStore, records: Database, day: date) -> Artifact:
    """The log of a day in the store, as the asset makes it."""
    log = read_day(records, day)
    built = store.get_or_create(
        DECISION_LOG,
        code_version="1",
        inputs={"decisions": log_digest(log)},
        settings={},
        build=lambda folder: write_log(log, folder),
    )
    store.point(built, day.isoformat())
    return built


def keep_report(store: ArtifactStore, records: Database, day: date, **settings: Any) -> Artifact:
    """The drift report of a day in the store, as the asset makes it."""
    policy = SETTINGS.model_copy(update=settings)
    windows = find_windows(store, Ledger(records), keep_log(store, records, day), day, policy)
    built = store.get_or_create(
        DRIFT_REPORT,
        code_version="1",
        inputs={**windows.inputs, "log": windows.log.data_version, "day": day.isoformat()},
        settings=policy.model_dump(),
        build=lambda folder: write_report(windows, policy, folder),
    )
    store.point(built, day.isoformat())
    return built


def test_a_day_is_a_utc_day_in_time_order(database: Database) -> None:
    tokyo = timezone(timedelta(hours=9))
    moments = {
        "before": START - timedelta(microseconds=1),
        "last": START + timedelta(days=1, microseconds=-1),
        "first": START,
        "next": START + timedelta(days=1),
        "abroad": datetime.combine(DAY + timedelta(days=1), time(1), tokyo),
    }
    for name, moment in moments.items():
        record(database, decision(name, moment))
    log = read_day(database, DAY)
    assert log["decision_id"].tolist() == ["first", "abroad", "last"]
    assert log["time"].tolist()[0] == START
    check_table(log, DecisionLog, "log")


def test_probes_are_no_traffic(database: Database) -> None:
    record(database, decision("asked"))
    record(database, decision("golden", caller=PROBE_CALLER))
    assert read_day(database, DAY)["decision_id"].tolist() == ["asked"]


def test_a_day_without_decisions_is_a_table_that_holds_its_contract(database: Database, tmp_path: Path) -> None:
    log = read_day(database, DAY)
    assert write_log(log, tmp_path) == {"dagster/row_count": 0, "callers": 0}
    check_table(pd.read_parquet(tmp_path / LOG_FILE), DecisionLog, "log")


def test_a_row_says_what_was_asked_answered_and_how_long_it_took() -> None:
    bare = decision(
        "bare", endpoint="/v2/rerank", candidates=[], ranking=[], stage_ms={}, answer=None, degraded=True,
        degraded_reason="late",
    )  # fmt: skip
    rows = decision_table([decision("full"), bare]).to_dict("records")
    full = rows[0]
    assert (full["query"], full["query_words"], full["passages"], full["answered"]) == (
        "how to merge tables",
        4,
        2,
        True,
    )
    assert (full["top_score"], full["share_scored_by_large"], full["latency_ms"]) == (0.9, 0.5, 25.0)
    assert (full["top_dense_score"], full["top_lexical_score"]) == (0.7, 7.0)
    assert (rows[1]["passages"], rows[1]["answered"], rows[1]["degraded_reason"]) == (0, False, "late")
    assert np.isnan([rows[1][name] for name in ("top_score", "top_dense_score", "latency_ms")]).all()


def test_a_log_comes_back_from_its_file_and_counts(tmp_path: Path) -> None:
    log = decision_table(
        [
            decision(f"d{i}", caller=f"key-{i % 2}", degraded=i == 0, stage_ms={"total": 10.0 * (i + 1)})
            for i in range(4)
        ]
    )
    assert write_log(log, tmp_path) == {
        "dagster/row_count": 4,
        "callers": 2,
        "degraded_share": 0.25,
        "p50_latency_ms": 20.0,
        "p95_latency_ms": 40.0,
    }
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / LOG_FILE), log)


def test_the_digest_changes_with_every_decision() -> None:
    two = [decision("a"), decision("b")]
    digests = {log_digest(decision_table(result)) for result in ([], two[:1], two[1:], two)}
    assert len(digests) == 4
    assert log_digest(decision_table(two)) == log_digest(decision_table(two))


def test_the_evaluation_of_the_released_bundle_is_the_reference(store: ArtifactStore, records: Database) -> None:
    served = traffic.release(store, Ledger(records), queries=40)
    ask(records, served, DAY, 5)
    windows = find_windows(store, Ledger(records), keep_log(store, records, DAY), DAY, SETTINGS)
    reference = windows.reference_features()
    assert tuple(reference.columns) == tuple(windows.current_features().columns) == FEATURES
    assert reference["row_id"].tolist() == [f"q{i}" for i in range(40)], "test queries only"
    evaluation = windows.reference["evaluation/offline_evaluation"]
    rankings = evaluation.read_table("rankings.parquet")
    best = rankings[(rankings["system"] == "tiered") & (rankings["rank"] == 1)]
    # The service's scores are probabilities: the sigmoid of the logits that the evaluation keeps.
    np.testing.assert_allclose(reference["top_score"], 1 / (1 + np.exp(-best["score"])))
    assert windows.bundle_version == served.bundle_version
    assert windows.evaluation_set == windows.reference["corpus/evaluation_set"].data_version
    assert len(windows.current_features()) == 5


def test_a_day_is_judged_on_the_bundle_that_gave_most_answers(store: ArtifactStore, records: Database) -> None:
    ledger = Ledger(records)
    first = traffic.release(store, ledger, queries=40)
    ask(records, first, DAY, 3, seed=1)
    second = traffic.release(store, ledger, queries=40, seed=9)
    ask(records, second, DAY, 4, seed=2)
    restored = release_bundle(ledger, first.bundle_version)
    ask(records, restored, DAY, 2, seed=3)
    record(records, decision("of-another-ledger", release_id="r-unknown"))
    windows = find_windows(store, ledger, keep_log(store, records, DAY), DAY, SETTINGS)
    assert windows.bundle_version == first.bundle_version, "its two releases gave 5 answers"
    assert set(windows.releases) == {first.release_id, restored.release_id}
    assert len(windows.current_features()) == 5


def test_earlier_days_of_the_same_bundle_are_the_other_reference(store: ArtifactStore, records: Database) -> None:
    ledger = Ledger(records)
    old = traffic.release(store, ledger, queries=40, seed=9)
    served = traffic.release(store, ledger, queries=40)
    restored = release_bundle(ledger, served.bundle_version)
    days = [DAY - timedelta(days=back) for back in (8, 7, 3, 0)]
    for day, by, count in zip(days, (served, restored, served, served), (50, 4, 5, 6), strict=True):
        ask(records, by, day, count)
    ask(records, old, days[2], 3, seed=5)
    policy = SETTINGS.model_copy(update={"reference": "previous_days"})
    logs = [keep_log(store, records, day) for day in days]
    windows = find_windows(store, ledger, logs[-1], DAY, policy)
    assert windows.inputs == {
        "release/release_candidate": served.bundle_version,
        f"{DECISION_LOG}/2026-03-03": logs[1].data_version,
        f"{DECISION_LOG}/2026-03-07": logs[2].data_version,
    }
    assert len(windows.reference_features()) == 4 + 5
    assert windows.evaluation_set == ""


def test_a_reference_that_breaks_its_contract_is_refused(store: ArtifactStore, records: Database) -> None:
    served = traffic.release(store, Ledger(records), queries=40)
    ask(records, served, DAY, 3)
    bad = read_day(records, DAY).assign(top_score=2.0).rename(columns={"release_id": "release"})
    store.point(
        store.get_or_create(
            DECISION_LOG,
            code_version="bad",
            inputs={},
            settings={},
            build=lambda folder: write_log(bad, folder),
        ),
        (DAY - timedelta(days=1)).isoformat(),
    )
    policy = SETTINGS.model_copy(update={"reference": "previous_days"})
    with pytest.raises(ContractError, match="release_id"):
        find_windows(store, Ledger(records), keep_log(store, records, DAY), DAY, policy)


def test_a_bundle_that_is_gone_is_an_error_and_no_verdict(store: ArtifactStore, records: Database) -> None:
    served = release_bundle(Ledger(records), "0" * 24)
    ask(records, served, DAY, 3)
    with pytest.raises(ArtifactError, match="no artifact release/release_candidate"):
        find_windows(store, Ledger(records), keep_log(store, records, DAY), DAY, SETTINGS)


def numbers(report: Artifact) -> dict[str, Any]:
    return dict(report.summary)


@pytest.mark.parametrize("reference", ["evaluation", "previous_days"])
def test_a_day_like_the_reference_does_not_drift_and_another_does(
    reference: str, store: ArtifactStore, records: Database
) -> None:
    served = traffic.release(store, Ledger(records))
    days = [DAY + timedelta(days=number) for number in range(4)]
    ask(records, served, days[0], 150, seed=1)
    ask(records, served, days[1], 150, seed=2)
    ask(records, served, days[2], 150, seed=3, shift=1.0)
    ask(records, served, days[3], 150, seed=4, other_words=True)
    keep_log(store, records, days[0])

    alike = keep_report(store, records, days[1], reference=reference, reference_days=1)
    assert read_summary(alike).drifted == ()
    assert numbers(alike)["drift_share"] == 0.0
    assert numbers(alike)["columns_drifted"] == 0
    assert (numbers(alike)["reference_rows"], numbers(alike)["current_rows"]) == (150, 150)
    assert numbers(alike)["columns_compared"] == (9 if reference == "evaluation" else 10), "no latency was evaluated"
    assert {name for name in numbers(alike) if name.startswith("p_value_")} == {
        f"p_value_{name}" for name in read_summary(alike).columns
    }

    shifted = keep_report(store, records, days[2], reference=reference, reference_days=2)
    assert {"top_score", "mean_top10_score", "top_dense_score", "top_lexical_score"} <= set(
        read_summary(shifted).drifted
    )
    assert "query_words" not in read_summary(shifted).drifted
    assert numbers(shifted)["drift_share"] >= 4 / 10
    assert shifted.path(PAGE_FILE).read_text().count("top_dense_score")

    unknown = keep_report(store, records, days[3], reference=reference, reference_days=2)
    assert "unknown_word_share" in read_summary(unknown).drifted


def test_few_decisions_are_counted_and_not_judged(store: ArtifactStore, records: Database) -> None:
    served = traffic.release(store, Ledger(records))
    ask(records, served, DAY, 3, shift=3.0)
    report = keep_report(store, records, DAY)
    assert numbers(report) == {"reference_rows": 150, "current_rows": 3, "left_out_rows": 0}
    assert PAGE_FILE not in report.manifest.files
    assert columns_table(read_summary(report)).startswith("Not judged. The current window has 3 rows")


def test_a_day_before_any_release_is_not_judged(store: ArtifactStore, records: Database) -> None:
    record(records, decision("early"))
    report = keep_report(store, records, DAY)
    assert numbers(report) == {"reference_rows": 0, "current_rows": 0, "left_out_rows": 1}
    assert report.read_json(WINDOW_FILE)["bundle_version"] == ""


def test_the_table_names_every_column(store: ArtifactStore, records: Database) -> None:
    served = traffic.release(store, Ledger(records))
    ask(records, served, DAY, 150, shift=1.0)
    table = columns_table(read_summary(keep_report(store, records, DAY)))
    assert table.count("\n") == 1 + 10
    assert "| top_score | ks | " in table
    assert "| latency_ms | not compared: 0 values in the reference window" in table


def test_a_report_says_what_it_compared(store: ArtifactStore, records: Database) -> None:
    served = traffic.release(store, Ledger(records))
    ask(records, served, DAY, 3)
    report = keep_report(store, records, DAY)
    assert report.read_json(WINDOW_FILE) == {
        "day": DAY.isoformat(),
        "reference": "evaluation",
        "bundle_version": served.bundle_version,
        "evaluation_set": report.manifest.inputs["corpus/evaluation_set"],
        "releases": [served.release_id],
        "left_out": 0,
    }


def test_drift_opens_one_incident_a_day(database: Database, store: ArtifactStore) -> None:
    served = traffic.release(store, Ledger(database))
    ask(database, served, DAY, 60, shift=2.0)
    report = keep_report(store, database, DAY)
    share = float(report.summary["drift_share"])
    assert open_drift_incident(database, report, limit=share) is None, "at the limit is within it"
    opened = open_drift_incident(database, report, limit=0.1)
    assert opened is not None
    assert opened.kind == "drift"
    assert (opened.evidence["day"], opened.evidence["drift_share"]) == (DAY.isoformat(), share)
    assert "top_score" in opened.evidence["columns"]
    assert Path(opened.evidence["report"]).is_file()

    assert open_drift_incident(database, report, limit=0.1) is None
    ask(database, served, DAY, 20, seed=7, shift=2.0)
    assert open_drift_incident(database, keep_report(store, database, DAY), limit=0.1) is None, "the day went on"
    close_incident(database, opened.incident_id, actor="ann", note="a holiday")
    assert open_drift_incident(database, report, limit=0.1) is None, "a person has looked at this day"

    ask(database, served, DAY + timedelta(days=1), 60, shift=2.0)
    assert open_drift_incident(database, keep_report(store, database, DAY + timedelta(days=1)), limit=0.1) is not None
    assert len(open_incidents(database, "drift")) == 1
    assert len(recent_incidents(database)) == 2


def test_what_is_not_judged_opens_no_incident(records: Database, store: ArtifactStore) -> None:
    ask(records, traffic.release(store, Ledger(records)), DAY, 3, shift=3.0)
    assert open_drift_incident(records, keep_report(store, records, DAY), limit=0.0) is None
    assert open_incidents(records) == []


def _report(store: ArtifactStore, served: Release, back: int, share: float | None, **window: str) -> None:
    """A drift report `back` days before `DAY`, with a given share."""
    from models.monitoring.drift import SUMMARY_FILE, ColumnDrift, DriftSummary
    from models.store.durable_files import canonical_json

    day = (DAY - timedelta(days=back)).isoformat()
    evaluation = store.current("evaluation/offline_evaluation")
    assert evaluation is not None
    facts = {
        "day": day,
        "bundle_version": served.bundle_version,
        "evaluation_set": evaluation.manifest.inputs["corpus/evaluation_set"],
        **window,
    }
    columns = {} if share is None else {"top_score": ColumnDrift("ks", 0.5, 0.01, False)}
    summary = DriftSummary(share is not None, "", columns, {}, share, 100, 100)

    def build(folder: Path) -> dict[str, Any]:
        (folder / SUMMARY_FILE).write_bytes(canonical_json(summary.to_dict()))
        (folder / WINDOW_FILE).write_bytes(canonical_json(facts))
        return {}

    built = store.get_or_create(
        DRIFT_REPORT, code_version="1", inputs={**facts, "share": str(share)}, settings={}, build=build
    )
    store.point(built, day)


def test_without_a_release_or_a_report_the_gate_hears_nothing(store: ArtifactStore, records: Database) -> None:
    assert drift_share_for_gate(store, Ledger(records), DAY) is None
    traffic.release(store, Ledger(records), queries=5)
    assert drift_share_for_gate(store, Ledger(records), DAY) is None


def test_the_gate_hears_the_newest_report_that_was_judged(store: ArtifactStore, records: Database) -> None:
    served = traffic.release(store, Ledger(records), queries=5)
    _report(store, served, 2, 0.7)
    assert drift_share_for_gate(store, Ledger(records), DAY) == 0.7
    _report(store, served, 1, 0.2)
    assert drift_share_for_gate(store, Ledger(records), DAY) == 0.2
    _report(store, served, 0, None)
    assert drift_share_for_gate(store, Ledger(records), DAY) == 0.2, "the running day has too few decisions"


def test_an_old_report_blocks_nothing(store: ArtifactStore, records: Database) -> None:
    served = traffic.release(store, Ledger(records), queries=5)
    _report(store, served, COUNTS_FOR_DAYS + 1, 0.9)
    assert drift_share_for_gate(store, Ledger(records), DAY) is None
    _report(store, served, COUNTS_FOR_DAYS, 0.8)
    assert drift_share_for_gate(store, Ledger(records), DAY) == 0.8


def test_a_report_of_another_release_blocks_nothing(store: ArtifactStore, records: Database) -> None:
    ledger = Ledger(records)
    first = traffic.release(store, ledger, queries=5)
    _report(store, first, 2, 0.7)
    second = traffic.release(store, ledger, queries=6, seed=9)
    assert drift_share_for_gate(store, ledger, DAY) is None
    _report(store, second, 1, 0.1)
    assert drift_share_for_gate(store, ledger, DAY) == 0.1


def test_a_rollback_brings_back_what_was_known_of_the_bundle(store: ArtifactStore, records: Database) -> None:
    ledger = Ledger(records)
    first = traffic.release(store, ledger, queries=5)
    _report(store, first, 2, 0.7, evaluation_set="")
    _report(store, traffic.release(store, ledger, queries=6, seed=9), 1, 0.1, evaluation_set="")
    ledger.activate(ledger.begin_rollback(actor="test", reason="worse").release_id)
    assert drift_share_for_gate(store, ledger, DAY) == 0.7


def test_a_candidate_with_an_evaluation_set_of_its_own_answers_to_that(store: ArtifactStore, records: Database) -> None:
    served = traffic.release(store, Ledger(records), queries=5)
    _report(store, served, 1, 0.9, evaluation_set="of before")
    assert drift_share_for_gate(store, Ledger(records), DAY) is None
    _report(store, served, 1, 0.9, evaluation_set="")
    assert drift_share_for_gate(store, Ledger(records), DAY) == 0.9, (
        "compared with traffic, it counts for any candidate"
    )


def test_windows_without_a_reference_have_no_rows(store: ArtifactStore, records: Database) -> None:
    log = keep_log(store, records, DAY)
    windows = Windows(DAY, "previous_days", log, "", ())
    assert tuple(windows.reference_features().columns) == FEATURES
    assert windows.reference_features().empty
