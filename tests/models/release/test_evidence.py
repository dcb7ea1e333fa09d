"""The gate on real candidates: a trained one passes, one with shuffled weights does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from models.cascade.windows import EarlyExit
from models.errors import ArtifactError
from models.evaluation.report import PAGE
from models.records.ledger import Ledger
from models.release.blocking_checks import BLOCKING_CHECKS
from models.release.evidence import DECISION_FILE, gather, record, write_decision
from models.release.gate import GateDecision, decide
from models.serving.champion import make_champion_evaluation
from models.store.artifacts import Artifact
from tests.small_bundle import Candidate, Small, evidence_for, exhibits_for, put_in_service


def decision_on(small: Small, ledger: Ledger, candidate: Candidate) -> GateDecision:
    """The decision under the gate's defaults."""
    return decide(evidence_for(small, ledger, candidate), small.settings)


def failing(decision: GateDecision) -> set[str]:
    return {check.name for check in decision.checks if check.refuses}


def test_a_trained_candidate_is_released_before_there_is_a_champion(small: Small, ledger: Ledger) -> None:
    evidence = evidence_for(small, ledger, small.first)
    decision = decide(evidence, small.settings)
    assert (decision.verdict, failing(decision)) == ("released", set())
    assert evidence.gain is not None
    assert (evidence.gain.candidate, evidence.gain.queries) == ("tiered", 25)
    assert evidence.gain.difference > 0.05
    assert (evidence.champion, evidence.champion_version) == (None, None)
    assert evidence.latency.golden_max_difference is not None
    assert evidence.latency.golden_max_difference < 1e-3
    findings = {**evidence.contracts, **evidence.blocking_checks}
    assert all(finding.passed for finding in findings.values())
    assert findings.keys() == {check.key for check in BLOCKING_CHECKS}
    assert {name for name in findings if name.endswith("contract")} == evidence.contracts.keys()


def test_a_candidate_with_shuffled_weights_is_refused_for_what_it_scores(small: Small, ledger: Ledger) -> None:
    assert failing(decision_on(small, ledger, small.shuffled())) >= {"gain_p_value"}
    champion = put_in_service(ledger, small.first, "1")
    evidence = evidence_for(small, ledger, small.shuffled())
    decision = decide(evidence, small.settings)
    assert decision.verdict == "refused"
    assert failing(decision) >= {"gain_p_value", "champion_loss"}
    assert decision.champion_version == champion.bundle_version
    assert evidence.champion is not None
    assert evidence.champion.difference < -0.05
    assert any("may be worse than what is serving" in reason for reason in decision.reasons)
    assert ledger.current() == champion


def test_models_that_are_never_asked_are_judged_as_models_where_the_settings_want_models(
    small: Small, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EarlyExit, "asked", lambda _: ())
    exhibits = exhibits_for(small, ledger, small.first)
    for lean_alone, judged_as_lean in (("auto", True), ("never", False)):
        tiers = small.settings.tiers.model_copy(update={"lean_alone": lean_alone})
        settings = small.settings.model_copy(update={"tiers": tiers})
        assert gather(small.store, ledger, exhibits, settings, None).lean_alone is judged_as_lean


def test_a_candidate_that_ranks_as_the_champion_does_is_released(small: Small, ledger: Ledger) -> None:
    put_in_service(ledger, small.first, "1")
    other = small.alike(golden_queries=3)
    assert other.bundle.data_version != small.first.bundle.data_version
    evidence = evidence_for(small, ledger, other)
    assert decide(evidence, small.settings).verdict == "released"
    assert evidence.champion is not None
    assert (evidence.champion.difference, evidence.champion.same) == (0.0, 25)


def test_the_champion_itself_is_current(small: Small, ledger: Ledger) -> None:
    put_in_service(ledger, small.first, "1")
    assert decision_on(small, ledger, small.first).verdict == "current"


def test_a_candidate_that_was_rolled_back_is_refused_unless_allowed(small: Small, ledger: Ledger) -> None:
    put_in_service(ledger, small.alike(golden_queries=3), "1")
    put_in_service(ledger, small.first, "2")
    ledger.activate(ledger.begin_rollback(actor="me", reason="slow").release_id)
    assert failing(decision_on(small, ledger, small.first)) == {"rolled_back"}
    gate = small.settings.gate.model_copy(update={"allow_rolled_back": True})
    allowing = small.settings.model_copy(update={"gate": gate})
    assert decide(evidence_for(small, ledger, small.first), allowing).verdict == "released"


def test_a_decision_is_recorded_and_written_once_with_what_it_was_about(
    small: Small, ledger: Ledger, tmp_path: Path
) -> None:
    decision = decision_on(small, ledger, small.first)
    facts = record(ledger, exhibits_for(small, ledger, small.first), decision)
    summary = write_decision(facts, tmp_path)

    (row,) = ledger.gate_decisions()
    assert (row.verdict, row.candidate_version) == ("released", small.first.bundle.data_version)
    written = json.loads((tmp_path / DECISION_FILE).read_text(encoding="utf-8"))
    assert written == {"decision_id": row.decision_id, **row.checks}
    assert (written["candidate"], written["evaluation"]) == (row.candidate_version, small.first.evaluation.data_version)
    assert written["report"] == small.first.evaluation.path(PAGE).absolute().as_uri()
    assert GateDecision.from_dict(written) == decision
    assert summary == {"verdict": "released", "checks_failed": 0}


def test_objectives_that_are_missed_refuse(small: Small, ledger: Ledger) -> None:
    evidence = evidence_for(small, ledger, small.first)
    objectives = small.settings.objectives.model_copy(update={"p95_ms": 1e-3, "p99_ms": 1e-3})
    strict = small.settings.model_copy(update={"objectives": objectives})
    assert failing(decide(evidence, strict)) == {"p95_ms", "p99_ms"}


def test_evidence_about_another_champion_is_refused(small: Small, ledger: Ledger, tmp_path: Path) -> None:
    exhibits = exhibits_for(small, ledger, small.first)
    put_in_service(ledger, small.alike(golden_queries=3), "1")
    with pytest.raises(ArtifactError, match="champion_evaluation is about champion None"):
        gather(small.store, ledger, exhibits, small.settings, None)


def test_candidate_and_champion_are_compared_within_one_version_of_the_evaluation_set_only(
    small: Small, ledger: Ledger, tmp_path: Path
) -> None:
    put_in_service(ledger, small.first, "1")
    candidate = small.alike(golden_queries=3)
    evidence = evidence_for(small, ledger, candidate)
    evaluation_set = small.artifacts["corpus/evaluation_set"]
    decision = decide(evidence, small.settings)
    assert decision.to_dict()["evaluation_set_version"] == evaluation_set.data_version

    smaller = _without_one_query(small)
    assert smaller.data_version != evaluation_set.data_version
    on_smaller = make_champion_evaluation(small.store, small.settings, ledger.current(), smaller)
    asked = smaller.read_table("queries.parquet")
    assert set(on_smaller.read_table("per_query.parquet")["query_id"]) == set(
        asked.loc[asked["split"] == "test", "query_id"]
    )
    exhibits = exhibits_for(small, ledger, candidate)._replace(champion_evaluation=on_smaller)
    with pytest.raises(ArtifactError, match=f"made from corpus/evaluation_set {smaller.data_version}"):
        gather(small.store, ledger, exhibits, small.settings, None)


def test_every_candidate_that_an_evaluation_set_decided_on_is_counted_once(small: Small, ledger: Ledger) -> None:
    for candidate in (small.first, small.first, small.shuffled()):
        exhibits = exhibits_for(small, ledger, candidate)
        decision = decide(evidence_for(small, ledger, candidate), small.settings)
        record(ledger, exhibits, decision)

    assert evidence_for(small, ledger, small.first).judged_before == 1
    assert evidence_for(small, ledger, small.alike(golden_queries=3)).judged_before == 2
    assert ledger.candidates_judged_on("another set") == 0


def test_quality_and_degraded_share_count_under_the_budget_that_serves(small: Small, ledger: Ledger) -> None:
    tiers = small.settings.tiers.model_copy(update={"budget_ms": 101.0, "reserve_ms": 100.9})
    hurried = small.settings.model_copy(update={"tiers": tiers})
    exhibits = exhibits_for(replace(small, settings=hurried), ledger, small.first)

    decision = decide(gather(small.store, ledger, exhibits, small.settings, None), small.settings)

    assert failing(decision) == {"served_gain", "degraded_share"}


def _without_one_query(small: Small) -> Artifact:
    tables = {
        name: small.artifacts["corpus/evaluation_set"].read_table(name)
        for name in ("queries.parquet", "judgments.parquet")
    }
    gone = "water filter/cleaning/0"

    def build(folder: Path) -> dict[str, int]:
        for name, table in tables.items():
            table[table["query_id"] != gone].to_parquet(folder / name)
        return {}

    return small.store.get_or_create("corpus/evaluation_set", code_version="1", inputs={}, settings={}, build=build)


def test_evidence_about_another_candidate_is_refused(small: Small, ledger: Ledger) -> None:
    other = small.shuffled()
    about_first = exhibits_for(small, ledger, small.first)
    exhibits = about_first._replace(candidate=other.bundle, evaluation=other.evaluation)
    with pytest.raises(ArtifactError, match="evaluation/latency_profile was made from release/release_candidate"):
        gather(small.store, ledger, exhibits, small.settings, None)
