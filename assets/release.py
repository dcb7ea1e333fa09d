"""Release: the serving bundle, the gate's decision on it, and the release itself."""

import dagster as dg

from assets import keys
from assets.making import make, output
from assets.policies import NO_CONFIG, OWNERS, REGISTRY_POOL, WEEKLY, WHEN_INPUTS_CHANGE
from assets.resources import Deployment
from models.artifacts import Artifact
from models.code_version import code_version
from models.markdown import table_lines
from models.settings import values_of

_PARTS = (
    keys.PASSAGES, keys.PASSAGE_EMBEDDINGS, keys.DENSE_INDEX, keys.LEXICAL_INDEX, keys.LARGE_RERANKER,
    keys.COMPACT_RERANKER, keys.SCORING_ENGINES,
    keys.SCORE_CALIBRATION, keys.OFFLINE_EVALUATION, keys.EVALUATION_SET, keys.CANDIDATES,
)  # fmt: skip
_EVIDENCE = (keys.RELEASE_CANDIDATE, keys.OFFLINE_EVALUATION, keys.CHAMPION_EVALUATION, keys.LATENCY_PROFILE)
_SERVED = (
    "encoder", "index", "tiers", "generator", "evaluation", "serving.golden_queries", "training.max_tokens",
)  # fmt: skip
"""Settings that the bundle records for serving."""


@dg.asset(
    key=keys.RELEASE_CANDIDATE,
    group_name=keys.RELEASES,
    kinds={"python", "mlflow"},
    owners=OWNERS,
    config_schema=NO_CONFIG,
    code_version=code_version("bundle", "model_card"),
    automation_condition=WHEN_INPUTS_CHANGE,
    pool=REGISTRY_POOL,
    ins={key.path[-1]: dg.AssetIn(key=key) for key in (*_PARTS, keys.SCORED_CANDIDATES)},
)
def release_candidate(
    context: dg.AssetExecutionContext,
    deployment: Deployment,
    passages: Artifact,
    passage_embeddings: Artifact,
    dense_index: Artifact,
    lexical_index: Artifact,
    large_reranker: Artifact,
    compact_reranker: Artifact,
    scoring_engines: Artifact,
    score_calibration: Artifact,
    offline_evaluation: Artifact,
    evaluation_set: Artifact,
    candidates: Artifact,
    scored_candidates: Artifact,
) -> dg.Output[Artifact]:
    """The self-contained serving bundle: models, calibration, tiers, indexes, passages and settings; MLflow's
    challenger. Refused where its parts were not made from each other, or with different settings."""
    from models.bundle import BundleParts, write_bundle
    from models.model_card import CARD
    from models.provenance import require_one_origin
    from models.tracking import CHALLENGER, Tracking

    settings = deployment.settings()
    parts = BundleParts(
        passages=passages,
        passage_embeddings=passage_embeddings,
        dense_index=dense_index,
        lexical_index=lexical_index,
        large_reranker=large_reranker,
        compact_reranker=compact_reranker,
        scoring_engines=scoring_engines,
        score_calibration=score_calibration,
        offline_evaluation=offline_evaluation,
        evaluation_set=evaluation_set,
        candidates=candidates,
    )
    inputs = tuple(getattr(parts, name) for name in parts.versions())
    # The scored candidates are no part, but calibration and evaluation go back to the models through them.
    made_with = require_one_origin((*inputs, scored_candidates), values_of(settings, *_SERVED))

    def build(folder):
        bundle = write_bundle(folder, parts, settings)
        return {name: bundle[name] for name in ("corpus_version", "index_version")}

    artifact = make(
        context,
        deployment.store(),
        keys.RELEASE_CANDIDATE,
        build,
        modules=("bundle", "model_card"),
        inputs=inputs,
        settings=made_with,
    )
    tracking = Tracking.of(settings)
    version = tracking.ensure_version(tracking.model_name, artifact)
    card = artifact.path(CARD).read_text(encoding="utf-8")
    tracking.describe_version(version, card)
    tracking.set_alias(CHALLENGER, version)
    return output(artifact, mlflow_version=version, model_card=dg.MetadataValue.md(card))


@dg.asset(
    key=keys.GATE_DECISION,
    group_name=keys.RELEASES,
    kinds={"python"},
    owners=OWNERS,
    config_schema=NO_CONFIG,
    automation_condition=WHEN_INPUTS_CHANGE,
    ins={key.path[-1]: dg.AssetIn(key=key) for key in _EVIDENCE},
)
def gate_decision(
    context: dg.AssetExecutionContext,
    deployment: Deployment,
    release_candidate: Artifact,
    offline_evaluation: Artifact,
    champion_evaluation: Artifact,
    latency_profile: Artifact,
) -> dg.Output[Artifact]:
    """What the gate decided on the candidate, with every number; kept in the ledger whatever it is."""
    from models.evaluation_page import PAGE
    from models.files import canonical_json
    from models.gating import gather, judge
    from models.ledger import Ledger

    settings = deployment.settings()
    store, ledger = deployment.store(), Ledger(deployment.database())
    report = offline_evaluation.path(PAGE).absolute().as_uri()
    evidence = gather(
        store,
        ledger,
        release_candidate,
        offline_evaluation,
        champion_evaluation,
        latency_profile,
        settings.evaluation,
        drift_share=latest_drift_share(deployment),
    )
    decision = judge(evidence, settings.gate, settings)
    record = ledger.record_gate_decision(
        candidate_version=release_candidate.data_version,
        champion_version=evidence.champion_version,
        verdict=decision.verdict,
        checks={**decision.to_dict(), "evaluation": offline_evaluation.data_version, "report": report},
    )

    def build(folder):
        facts = {
            "decision_id": record.decision_id,
            "candidate": release_candidate.data_version,
            "evaluation": offline_evaluation.data_version,
            "report": report,
            **decision.to_dict(),
        }
        (folder / "decision.json").write_bytes(canonical_json(facts))
        return {"verdict": decision.verdict, "checks_failed": sum(not check.passed for check in decision.checks)}

    artifact = make(
        context,
        store,
        keys.GATE_DECISION,
        build,
        modules=("gate", "gating"),
        inputs=(release_candidate, offline_evaluation, champion_evaluation, latency_profile),
        settings=values_of(settings, "gate", "objectives"),
        outside={"record": record.decision_id},
    )
    rows = [(c.name, c.value, f"{c.comparison} {c.threshold}", c.passed) for c in decision.checks]
    table = table_lines(("check", "value", "threshold", "passed"), rows)
    return output(
        artifact, checks=dg.MetadataValue.md("\n".join(table)), evaluation_report=dg.MetadataValue.url(report)
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
    from models.acceptance import accept_corpus
    from models.gating import gather, judge
    from models.ledger import Ledger
    from models.releasing import Releaser
    from models.tracking import Tracking

    settings = deployment.settings()
    store, ledger = deployment.store(), Ledger(deployment.database())
    releaser = Releaser(ledger, Tracking.of(settings))
    releaser.repair()
    evidence = gather(
        store,
        ledger,
        release_candidate,
        offline_evaluation,
        champion_evaluation,
        latency_profile,
        settings.evaluation,
        drift_share=latest_drift_share(deployment),
    )
    decision = judge(evidence, settings.gate, settings)
    recorded = gate_decision.read_json("decision.json")
    reasons = [*decision.reasons]
    if recorded["candidate"] != release_candidate.data_version:
        reasons.append("The gate decided on another candidate; materialize gate_decision again.")
    elif recorded["verdict"] == "refused" and not reasons:
        reasons.append("The recorded decision is a refusal; materialize gate_decision again with what now holds.")
    if reasons:
        lines = "\n".join(reasons)
        raise dg.Failure(
            description=f"Refused; the champion keeps serving.\n{lines}",
            metadata={"refused": True},
            allow_retries=False,
        )
    versions = release_candidate.read_json("bundle.json")["versions"]
    tracking = releaser.tracking
    made = releaser.release(
        bundle_version=release_candidate.data_version,
        model_version=tracking.ensure_version(tracking.model_name, release_candidate),
        index_version=str(release_candidate.summary["index_version"]),
        corpus_version=versions["passages"],
        large_version=versions["large_reranker"],
        compact_version=versions["compact_reranker"],
        settings_digest=release_candidate.manifest.settings_digest,
        gate_decision_id=recorded["decision_id"],
        actor=f"dagster run {context.run_id}",
        reason="gate passed",
    )
    return dg.MaterializeResult(
        data_version=dg.DataVersion(made.release_id),
        metadata={
            "corpus_accepted": accept_corpus(store, release_candidate),
            "release_id": made.release_id,
            "model_version": made.model_version,
            "bundle_version": made.bundle_version,
            "index_version": made.index_version,
            "corpus_version": made.corpus_version,
        },
    )


def latest_drift_share(deployment: Deployment) -> float | None:
    """Share of drifted columns in the newest drift report that counts at the gate; None where none does.

    Reports count that were judged, are at most a week old, and are about the bundle that serves and the evaluation set
    in use; `models.monitoring.drift_share_for_gate` says why.
    """
    from datetime import UTC, datetime

    from models.ledger import Ledger
    from models.monitoring import drift_share_for_gate

    return drift_share_for_gate(deployment.store(), Ledger(deployment.database()), datetime.now(UTC).date())


ASSETS = [release_candidate, gate_decision, release]
