# pandas' stubs type a selection as Series or DataFrame.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportReturnType=false, reportGeneralTypeIssues=false
"""Offline evaluation: scored candidates, calibration, all systems against each other, and the champion's side."""

from dataclasses import replace

import dagster as dg

from assets import keys
from assets.making import image, make, output, progress
from assets.policies import MODEL_POOL, NO_CONFIG, OWNERS, WHEN_INPUTS_CHANGE
from assets.resources import Deployment
from models.settings import values_of
from models.store.artifacts import Artifact
from models.store.code_version import code_version

_SCORERS = (
    "cross_encoder.engines",
    "training.engine_selection",
    "cross_encoder.pairwise",
    "cross_encoder.onnx_session",
    "cross_encoder.bfloat16",
    "cross_encoder.scorer",
    "cross_encoder.pair_head",
    "cross_encoder.pair_tokenizer",
    "cross_encoder.passage_cut",
)
_SCORE = (
    "cascade.offline",
    "cross_encoder.candidate_scores",
    "evaluation.costs",
    "cross_encoder.flops",
    *_SCORERS,
)
_CALIBRATE = (
    "cascade.calibration",
    "cascade.windows",
    "cascade.window_fitting",
    "cascade.offline",
    "cross_encoder.candidate_scores",
    "evaluation.costs",
    "cascade.cascade",
    "serving.tiered_reranker",
)
_EVALUATE = (
    "evaluation.report",
    "measures.metrics",
    "measures.significance",
    "cascade.offline",
    "cross_encoder.candidate_scores",
    "evaluation.costs",
    "cascade.calibration",
    "cascade.windows",
    "cascade.cascade",
    "serving.tiered_reranker",
    "evaluation.evaluation_set",
    "evaluation.offline",
    "release.champion",
    "serving.latency_profile",
    "evaluation.assessment",
    "evaluation.slices",
    "evaluation.first_stage_gains",
    "evaluation.page",
)
_CHAMPION = (
    *_EVALUATE,
    *_SCORERS,
)
_RESAMPLING = ("evaluation.resamples", "evaluation.confidence")


def _ins(*asset_keys: dg.AssetKey) -> dict[str, dg.AssetIn]:
    return {key.path[-1]: dg.AssetIn(key=key) for key in asset_keys}


@dg.asset(
    key=keys.SCORED_CANDIDATES,
    group_name=keys.EVALUATION,
    kinds={"python", "huggingface"},
    owners=OWNERS,
    config_schema=NO_CONFIG,
    code_version=code_version(*_SCORE),
    automation_condition=WHEN_INPUTS_CHANGE,
    pool=MODEL_POOL,
    ins=_ins(
        keys.EVALUATION_SET,
        keys.PASSAGES,
        keys.CANDIDATES,
        keys.LARGE_RERANKER,
        keys.COMPACT_RERANKER,
        keys.SCORING_ENGINES,
    ),
)
def scored_candidates(
    context: dg.AssetExecutionContext,
    deployment: Deployment,
    evaluation_set: Artifact,
    passages: Artifact,
    candidates: Artifact,
    large_reranker: Artifact,
    compact_reranker: Artifact,
    scoring_engines: Artifact,
) -> dg.Output[Artifact]:
    """The candidates of the development and test queries with the logits of both cross-encoders."""
    settings = deployment.settings()

    def build(folder):
        from models.evaluation.offline import score_evaluation_set

        return score_evaluation_set(
            candidates.read_table("candidates.parquet"),
            evaluation_set.read_table("queries.parquet"),
            passages.read_table("passages.parquet"),
            scoring_engines.folder,
            {"compact": compact_reranker.folder, "large": large_reranker.folder},
            settings.training,
            settings.engine.threads,
            folder,
            progress(context, "pairs scored"),
        )

    artifact = make(
        context,
        deployment.store(),
        keys.SCORED_CANDIDATES,
        build,
        modules=_SCORE,
        inputs=(evaluation_set, passages, candidates, large_reranker, compact_reranker, scoring_engines),
        settings=values_of(settings, "training.max_tokens"),
    )
    return output(artifact)


@dg.asset(
    key=keys.SCORE_CALIBRATION,
    group_name=keys.EVALUATION,
    kinds={"python"},
    owners=OWNERS,
    config_schema=NO_CONFIG,
    code_version=code_version(*_CALIBRATE),
    automation_condition=WHEN_INPUTS_CHANGE,
    ins=_ins(keys.EVALUATION_SET, keys.SCORED_CANDIDATES),
)
def score_calibration(
    context: dg.AssetExecutionContext, deployment: Deployment, evaluation_set: Artifact, scored_candidates: Artifact
) -> dg.Output[Artifact]:
    """How each tier combines first-stage scores and logits into one calibrated probability, and how close to the best
    a candidate must be for the next model; fitted on the dev queries."""
    settings = deployment.settings()

    def build(folder):
        from models.cascade.calibration import fit_calibration
        from models.cascade.window_fitting import fit_stopping
        from models.evaluation.evaluation_set import split_of
        from models.store.durable_files import canonical_json

        dev, judgments = split_of(evaluation_set, "dev")
        scored = scored_candidates.read_table("scored.parquet")
        scored = scored[scored["query_id"].isin(dev["query_id"])]
        calibration = fit_calibration(scored, judgments)
        cost = float(scored_candidates.summary["compact_cost"])
        stopping = fit_stopping(scored, judgments, calibration, settings.tiers, cost)
        calibration = replace(calibration, stopping=stopping.stopping)
        (folder / "calibration.json").write_bytes(canonical_json(calibration.to_dict()))
        errors = {f"expected_calibration_error_{name}": e for name, e in calibration.expected_calibration_error.items()}
        return {"queries": calibration.queries, **errors, **stopping.summary()}

    artifact = make(
        context,
        deployment.store(),
        keys.SCORE_CALIBRATION,
        build,
        modules=_CALIBRATE,
        inputs=(evaluation_set, scored_candidates),
        settings=values_of(settings, "tiers", without=("tiers.budget_ms", "tiers.reserve_ms")),
    )
    return output(artifact)


@dg.asset(
    key=keys.OFFLINE_EVALUATION,
    group_name=keys.EVALUATION,
    kinds={"python", "mlflow"},
    owners=OWNERS,
    config_schema=NO_CONFIG,
    code_version=code_version(*_EVALUATE),
    automation_condition=WHEN_INPUTS_CHANGE,
    ins=_ins(keys.EVALUATION_SET, keys.PASSAGES, keys.CANDIDATES, keys.SCORED_CANDIDATES, keys.SCORE_CALIBRATION),
)
def offline_evaluation(
    context: dg.AssetExecutionContext,
    deployment: Deployment,
    evaluation_set: Artifact,
    passages: Artifact,
    candidates: Artifact,
    scored_candidates: Artifact,
    score_calibration: Artifact,
) -> dg.Output[Artifact]:
    """Every system on the test queries: metrics with intervals, gains over the best first stage, quality
    against cost."""
    settings = deployment.settings()

    def build(folder):
        from models.evaluation.offline import evaluate_offline

        return evaluate_offline(
            evaluation_set,
            passages,
            candidates,
            scored_candidates,
            score_calibration,
            settings.evaluation,
            settings.tiers,
            folder,
        )

    artifact = make(
        context,
        deployment.store(),
        keys.OFFLINE_EVALUATION,
        build,
        modules=_EVALUATE,
        inputs=(evaluation_set, passages, candidates, scored_candidates, score_calibration),
        settings=values_of(settings, *_RESAMPLING, "tiers.compact_candidates", "tiers.large_candidates"),
    )
    from models.evaluation.offline import QUALITY_COST, log_evaluation
    from models.evaluation.page import PAGE
    from models.records.mlflow_registry import Tracking

    if not artifact.reused:
        log_evaluation(Tracking.of(settings), artifact)
    return output(
        artifact,
        report=dg.MetadataValue.url(artifact.path(PAGE).absolute().as_uri()),
        quality_against_cost=image(artifact.path(QUALITY_COST)),
    )


@dg.asset(
    key=keys.CHAMPION_EVALUATION,
    group_name=keys.EVALUATION,
    kinds={"python"},
    owners=OWNERS,
    config_schema=NO_CONFIG,
    code_version=code_version(*_CHAMPION),
    automation_condition=WHEN_INPUTS_CHANGE,
    pool=MODEL_POOL,
    ins=_ins(keys.EVALUATION_SET, keys.PASSAGES, keys.CANDIDATES),
    # Not read: the champion may have changed since the last candidate, so each new one is compared with that of now.
    deps=[keys.RELEASE_CANDIDATE],
)
def champion_evaluation(
    context: dg.AssetExecutionContext,
    deployment: Deployment,
    evaluation_set: Artifact,
    passages: Artifact,
    candidates: Artifact,
) -> dg.Output[Artifact]:
    """The champion on the current evaluation set and candidates: its stored numbers where the set is the same,
    else scored anew."""
    from models.records.ledger import Ledger
    from models.records.mlflow_registry import Tracking
    from models.release.releaser import Releaser

    settings = deployment.settings()
    store, ledger = deployment.store(), Ledger(deployment.database())
    Releaser(ledger, Tracking.of(settings)).repair()
    champion = ledger.current()

    def build(folder):
        from models.release.champion import evaluate_champion

        bundle = None if champion is None else store.open("release/release_candidate", champion.bundle_version)
        return evaluate_champion(bundle, evaluation_set, passages, candidates, settings.evaluation, folder)

    artifact = make(
        context,
        store,
        keys.CHAMPION_EVALUATION,
        build,
        modules=_CHAMPION,
        inputs=(evaluation_set, passages, candidates),
        settings=values_of(settings, *_RESAMPLING),
        outside={"champion": champion.bundle_version if champion else ""},
    )
    return output(artifact)


@dg.asset(
    key=keys.LATENCY_PROFILE,
    group_name=keys.EVALUATION,
    kinds={"python"},
    owners=OWNERS,
    config_schema=NO_CONFIG,
    code_version=code_version(
        "serving.loaded_bundle",
        "store.asset_names",
        "cascade.cascade",
        "serving.tiered_reranker",
        "serving.batching",
        "measures.latency",
    ),
    automation_condition=WHEN_INPUTS_CHANGE,
    pool=MODEL_POOL,
    ins=_ins(keys.RELEASE_CANDIDATE),
)
def latency_profile(
    context: dg.AssetExecutionContext, deployment: Deployment, release_candidate: Artifact
) -> dg.Output[Artifact]:
    """The bundle loaded anew: milliseconds of rerank requests, and how far it is from its golden scores."""
    settings = deployment.settings()

    def build(folder):
        from models.serving.latency_profile import profile_bundle

        return profile_bundle(release_candidate, settings, folder, progress(context, "requests timed"))

    artifact = make(
        context,
        deployment.store(),
        keys.LATENCY_PROFILE,
        build,
        modules=(
            "serving.loaded_bundle",
            "store.asset_names",
            "cascade.cascade",
            "serving.tiered_reranker",
            "serving.batching",
            "measures.latency",
        ),
        inputs=(release_candidate,),
        settings=values_of(
            settings,
            "gate.max_golden_difference",
            "tiers.budget_ms",
            "serving.candidates",
            "serving.threads",
            "serving.batch_tokens",
        ),
    )
    return output(artifact)


ASSETS = [
    scored_candidates,
    score_calibration,
    offline_evaluation,
    champion_evaluation,
    latency_profile,
]
