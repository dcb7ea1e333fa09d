"""Gathers the gate's evidence from artifacts and the ledger, decides on it, and records what was decided."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from models.errors import ArtifactError, ContractError
from models.evaluation.report import PAGE, SERVED, compare, read_report
from models.records.ledger import Ledger
from models.release.blocking_checks import judge_origin
from models.release.bundle import Bundle
from models.release.gate import GateDecision, GateEvidence, LatencyProfile, decide
from models.release.steps import GATE_DECISION
from models.settings import Settings
from models.store.artifacts import Artifact, ArtifactStore
from models.store.durable_files import canonical_json
from models.store.provenance import require_one_origin

DECISION_FILE = "decision.json"


class Exhibits(NamedTuple):
    """The artifacts that a candidate is judged by."""

    candidate: Artifact
    evaluation: Artifact
    champion_evaluation: Artifact
    latency: Artifact


def judge(
    store: ArtifactStore, ledger: Ledger, exhibits: Exhibits, settings: Settings, drift_share: float | None
) -> GateDecision:
    """The decision on a candidate under the settings, as of now."""
    return decide(gather(store, ledger, exhibits, settings, drift_share), settings)


def gather(
    store: ArtifactStore, ledger: Ledger, exhibits: Exhibits, settings: Settings, drift_share: float | None
) -> GateEvidence:
    """Everything that the gate looks at, read from the artifacts themselves.

    The blocking checks are asked under `settings` about what the candidate was made of, whatever is current. Raises
    `ArtifactError` where the artifacts are not about this candidate, or not about the champion of now.
    """
    candidate, evaluation, champion_evaluation, latency = exhibits
    require_one_origin(exhibits)
    report = read_report(evaluation.folder)
    current = ledger.current()
    champion = None
    facts = champion_evaluation.read_json("champion.json")
    version = current.bundle_version if current else None
    if facts["champion"] != version and candidate.data_version != version:
        raise ArtifactError(
            f"evaluation/champion_evaluation is about champion {facts['champion']}, the champion is {version}",
            "Materialize evaluation/champion_evaluation again, then the gate.",
        )
    evaluation_set = evaluation.manifest.inputs["corpus/evaluation_set"]
    served = latency.read_table("per_query.parquet")
    same_set = champion_evaluation.manifest.inputs["corpus/evaluation_set"] == evaluation_set
    if facts["champion"] is not None and current is not None:
        baseline = champion_evaluation.read_table("per_query.parquet")
        try:
            champion = compare(served, baseline, SERVED, settings=settings.evaluation)
        except ContractError:
            same_set = False
    findings = judge_origin(store, settings, candidate)
    return GateEvidence(
        contracts={check.key: finding for check, finding in findings.items() if check.is_contract},
        blocking_checks={check.key: finding for check, finding in findings.items() if not check.is_contract},
        gain=report.gains["tiered"],
        served_gain=compare(
            served,
            report.per_query,
            SERVED,
            settings=settings.evaluation,
            other_system=report.best_without_model,
            candidate=SERVED,
            baseline=report.best_without_model,
        ),
        champion=champion,
        champion_version=version,
        evaluation_set_version=evaluation_set,
        same_evaluation_set=same_set,
        lean_alone=settings.tiers.lean_alone == "auto" and not Bundle.open(candidate).calibration.early_exit.asked(),
        latency=LatencyProfile(**latency.read_json("latency.json")),
        drift_share=drift_share,
        rolled_back=ledger.was_rolled_back(candidate.data_version),
        candidate_is_champion=version == candidate.data_version,
        pseudo_only=bool(evaluation.read_json("report/evaluation.json").get("pseudo_only")),
        judged_before=ledger.candidates_judged_on(evaluation_set, but=candidate.data_version),
    )


def record(ledger: Ledger, exhibits: Exhibits, decision: GateDecision) -> dict[str, Any]:
    """Keep a decision in the ledger, whatever it is; returns it with its id and what it was about, as JSON values."""
    facts = {
        **decision.to_dict(),
        "candidate": exhibits.candidate.data_version,
        "evaluation": exhibits.evaluation.data_version,
        "report": exhibits.evaluation.path(PAGE).absolute().as_uri(),
    }
    row = ledger.record_gate_decision(
        candidate_version=exhibits.candidate.data_version,
        champion_version=decision.champion_version,
        verdict=decision.verdict,
        checks=facts,
    )
    return {"decision_id": row.decision_id, **facts}


def make_gate_decision(store: ArtifactStore, settings: Settings, exhibits: Exhibits, facts: dict[str, Any]) -> Artifact:
    """What `record` returned, as an artifact of its own."""
    build = partial(write_decision, facts)
    return GATE_DECISION.get_or_create(
        store, settings, build, inputs=exhibits, outside={"record": facts["decision_id"]}
    )


def write_decision(facts: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write what `record` returned; returns the verdict and how many checks refused."""
    (folder / DECISION_FILE).write_bytes(canonical_json(facts))
    return {
        "verdict": facts["verdict"],
        "checks_failed": sum(check["passed"] is False for check in facts["checks"]),
    }
