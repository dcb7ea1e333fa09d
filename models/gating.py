"""Gathers the gate's evidence from artifacts and the ledger, and decides."""

from __future__ import annotations

from models.artifacts import Artifact, ArtifactStore
from models.contracts import TABLES
from models.contracts_cache import contract_violations
from models.errors import ArtifactError, ContractError
from models.evaluation import compare
from models.gate import GateDecision, GateEvidence, decide
from models.ledger import Ledger
from models.offline_evaluation import read_report
from models.provenance import require_one_origin
from models.settings import EvaluationSettings, GateSettings, Settings

CHECKED = (
    "corpus/passages", "corpus/queries", "corpus/judgments", "corpus/quarantined_rows", "corpus/evaluation_set",
    "index/candidates", "training/training_examples",
)  # fmt: skip
"""Artifacts whose tables are held against their contracts again."""


def gather(
    store: ArtifactStore,
    ledger: Ledger,
    candidate: Artifact,
    evaluation: Artifact,
    champion_evaluation: Artifact,
    latency: Artifact,
    settings: EvaluationSettings,
    drift_share: float | None,
) -> GateEvidence:
    """Everything that the gate looks at, read from the artifacts themselves.

    Raises `ArtifactError` where they are not about this candidate, or not about the champion of now.
    """
    require_one_origin((candidate, evaluation, champion_evaluation, latency))
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
    same_set = facts.get("evaluation_set", evaluation_set) == evaluation_set
    if facts["champion"] is not None and current is not None:
        baseline = champion_evaluation.read_table("per_query.parquet")
        try:
            champion = compare(report.per_query, baseline, "tiered", settings=settings)
        except ContractError:
            same_set = False
    timing = latency.read_json("latency.json")
    return GateEvidence(
        contracts_hold=_contracts(store),
        gain=report.gains["tiered"],
        champion=champion,
        champion_version=version,
        evaluation_set_version=evaluation_set,
        same_evaluation_set=same_set,
        p95_ms=timing["p95_ms"],
        p99_ms=timing["p99_ms"],
        golden_max_difference=timing["golden_max_difference"],
        golden_order_equal=timing["golden_order_equal"],
        drift_share=drift_share,
        rolled_back=ledger.was_rolled_back(candidate.data_version),
        candidate_is_champion=version == candidate.data_version,
    )


def judge(evidence: GateEvidence, policy: GateSettings, settings: Settings) -> GateDecision:
    """The decision under a policy; the objectives come from the settings."""
    return decide(evidence, policy, settings.objectives)


def _contracts(store: ArtifactStore) -> dict[str, bool]:
    held = {}
    for name in CHECKED:
        artifact = store.require(name)
        for file in artifact.manifest.files:
            if file in TABLES:
                held[f"{name}/{file}"] = contract_violations(store, artifact, file)["count"] == 0
    return held
