"""Release: the serving bundle, the gate's decision on it, and the release itself."""

from typing import TYPE_CHECKING

import dagster as dg

from assets import keys
from assets.making import asset_of, output
from assets.policies import NO_CONFIG, OWNERS, REGISTRY_POOL, WEEKLY, WHEN_INPUTS_CHANGE
from assets.resources import Deployment
from models.release.steps import GATE_DECISION, RELEASE_CANDIDATE
from models.store.artifacts import Artifact

if TYPE_CHECKING:
    from models.records.ledger import Release
    from models.release.evidence import Exhibits
    from models.release.gate import GateDecision

_PARTS = (
    keys.PASSAGES, keys.PASSAGE_EMBEDDINGS, keys.DENSE_INDEX, keys.LEXICAL_INDEX, keys.FIRST_STAGE, *keys.RERANKERS,
    keys.SCORING_ENGINES, keys.SCORE_CALIBRATION, keys.OFFLINE_EVALUATION, keys.EVALUATION_SET, keys.CANDIDATES,
)  # fmt: skip
_EVIDENCE = (keys.RELEASE_CANDIDATE, keys.OFFLINE_EVALUATION, keys.CHAMPION_EVALUATION, keys.LATENCY_PROFILE)


@asset_of(
    RELEASE_CANDIDATE,
    *_PARTS,
    keys.SCORED_CANDIDATES,
    keys.CORPUS_DEFAULTS,
    kinds={"python", "mlflow"},
    pool=REGISTRY_POOL,
)
def release_candidate(
    context: dg.AssetExecutionContext,
    deployment: Deployment,
    scored_candidates: Artifact,
    corpus_defaults: Artifact,
    **parts: Artifact,
) -> dg.Output[Artifact]:
    """The self-contained serving bundle: models, calibration, tiers, indexes, passages and settings; MLflow's
    challenger. Refused where its parts were not made from each other, or with different settings."""
    from models.records.ledger import Ledger
    from models.records.mlflow_registry import Tracking
    from models.release.parts import BundleParts
    from models.release.registration import register_candidate
    from models.release.release_candidate import make_release_candidate

    settings = deployment.settings_for(corpus_defaults)
    bundle = make_release_candidate(
        deployment.store(), settings, BundleParts.of(parts, settings.tiers), scored_candidates, corpus_defaults
    )
    above = Ledger(deployment.database()).highest_model_version()
    version, card = register_candidate(Tracking.of(settings), bundle, above=above)
    return output(context, bundle, mlflow_version=version, model_card=dg.MetadataValue.md(card))


@asset_of(GATE_DECISION, *_EVIDENCE, decided_anew=True, kinds={"python"})
def gate_decision(
    context: dg.AssetExecutionContext,
    deployment: Deployment,
    release_candidate: Artifact,
    offline_evaluation: Artifact,
    champion_evaluation: Artifact,
    latency_profile: Artifact,
) -> dg.Output[Artifact]:
    """What the gate decided on the candidate, with every number; kept in the ledger whatever it is."""
    from models.records.ledger import Ledger
    from models.release.evidence import Exhibits, make_gate_decision, record

    settings = deployment.settings()
    exhibits = Exhibits(release_candidate, offline_evaluation, champion_evaluation, latency_profile)
    decision = _judge(deployment, exhibits)
    facts = record(Ledger(deployment.database()), exhibits, decision)
    artifact = make_gate_decision(deployment.store(), settings, exhibits, facts)
    return output(
        context,
        artifact,
        checks=dg.MetadataValue.md(decision.to_markdown()),
        evaluation_report=dg.MetadataValue.url(facts["report"]),
    )


@dg.asset(
    key=keys.RELEASE,
    group_name=keys.RELEASES,
    kinds={"python", "mlflow"},
    owners=OWNERS,
    config_schema=NO_CONFIG,
    automation_condition=WHEN_INPUTS_CHANGE,
    freshness_policy=WEEKLY,
    pool=REGISTRY_POOL,
    ins={key.path[-1]: dg.AssetIn(key=key) for key in (keys.GATE_DECISION, *_EVIDENCE)},
)
def release(
    context: dg.AssetExecutionContext,
    deployment: Deployment,
    gate_decision: Artifact,
    release_candidate: Artifact,
    offline_evaluation: Artifact,
    champion_evaluation: Artifact,
    latency_profile: Artifact,
) -> dg.MaterializeResult:
    """The champion: decided again from the evidence, then MLflow's aliases and the release ledger move to the
    bundle."""
    from models.errors import GateRefused
    from models.expectations.accepted import accept_corpus
    from models.records.ledger import Ledger
    from models.records.mlflow_registry import Tracking
    from models.release.evidence import DECISION_FILE, Exhibits
    from models.release.releaser import Releaser

    releaser = Releaser(Ledger(deployment.database()), Tracking.of(deployment.settings()), deployment.store())
    releaser.repair()  # The gate looks at the champion, which a crash may have left half-way.
    exhibits = Exhibits(release_candidate, offline_evaluation, champion_evaluation, latency_profile)
    decision, recorded = _judge(deployment, exhibits), gate_decision.read_json(DECISION_FILE)
    actor = f"dagster run {context.run.run_id}"
    try:
        champion = releaser.release_judged(release_candidate, decision, recorded, actor=actor)
    except GateRefused as refused:
        raise dg.Failure(str(refused), metadata={"refused": True}, allow_retries=False) from refused
    return _released(champion, accept_corpus(deployment.store(), release_candidate))


def _released(champion: "Release", corpus_accepted: bool) -> dg.MaterializeResult:
    return dg.MaterializeResult(
        data_version=dg.DataVersion(champion.release_id),
        metadata={
            "corpus_accepted": corpus_accepted,
            "release_id": champion.release_id,
            "model_version": champion.model_version,
            "bundle_version": champion.bundle_version,
            "index_version": champion.index_version,
            "corpus_version": champion.corpus_version,
        },
    )


def _judge(deployment: Deployment, exhibits: "Exhibits") -> "GateDecision":
    """The gate's decision as of now: gate_decision records it, and release asks again."""
    from models.records.ledger import Ledger
    from models.release.evidence import judge

    ledger = Ledger(deployment.database())
    return judge(deployment.store(), ledger, exhibits, deployment.settings(), latest_drift_share(deployment))


def latest_drift_share(deployment: Deployment) -> float | None:
    """Share of drifted columns in the newest drift report that counts at the gate; None where none does.

    Reports count that were judged, are at most a week old, and are about the bundle that serves and the evaluation set
    in use; `models.monitoring.drift_gate.drift_share_for_gate` says why.
    """
    from datetime import UTC, datetime

    from models.monitoring.drift_gate import drift_share_for_gate
    from models.records.ledger import Ledger

    return drift_share_for_gate(deployment.store(), Ledger(deployment.database()), datetime.now(UTC).date())


ASSETS = [release_candidate, gate_decision, release]
