"""Offline evaluation: scored candidates, calibration, all systems against each other, and the champion's side."""

import dagster as dg

from assets import keys
from assets.making import asset_of, by_tier, image, output, progress
from assets.policies import MODEL_POOL
from assets.resources import Deployment
from models.evaluation.steps import OFFLINE_EVALUATION, SCORE_CALIBRATION, SCORED_CANDIDATES
from models.serving.steps import CHAMPION_EVALUATION, LATENCY_PROFILE
from models.store.artifacts import Artifact


@asset_of(
    SCORED_CANDIDATES,
    keys.EVALUATION_SET, keys.PASSAGES, keys.CANDIDATES, keys.SCORING_ENGINES, keys.CORPUS_DEFAULTS, *keys.RERANKERS,
    kinds={"python", "huggingface"},
    pool=MODEL_POOL,
)  # fmt: skip
def scored_candidates(
    context: dg.AssetExecutionContext,
    deployment: Deployment,
    evaluation_set: Artifact,
    passages: Artifact,
    candidates: Artifact,
    scoring_engines: Artifact,
    corpus_defaults: Artifact,
    **rerankers: Artifact,
) -> dg.Output[Artifact]:
    """The candidates of the development and test queries with the logits of all cross-encoders."""
    from models.evaluation.scored_candidates import make_scored_candidates

    settings = deployment.settings_for(corpus_defaults)
    artifact = make_scored_candidates(
        deployment.store(),
        settings,
        evaluation_set,
        passages,
        candidates,
        by_tier(rerankers, settings),
        scoring_engines,
        progress(context, "pairs scored"),
    )
    return output(context, artifact)


@asset_of(SCORE_CALIBRATION, keys.EVALUATION_SET, keys.SCORED_CANDIDATES, keys.CORPUS_DEFAULTS, kinds={"python"})
def score_calibration(
    context: dg.AssetExecutionContext,
    deployment: Deployment,
    evaluation_set: Artifact,
    scored_candidates: Artifact,
    corpus_defaults: Artifact,
) -> dg.Output[Artifact]:
    """How each tier combines first-stage scores and logits into one calibrated probability, and how close to the best
    a candidate must be for the next model; fitted on the dev queries."""
    from models.evaluation.score_calibration import make_score_calibration

    settings = deployment.settings_for(corpus_defaults)
    artifact = make_score_calibration(deployment.store(), settings, evaluation_set, scored_candidates)
    return output(context, artifact)


@asset_of(
    OFFLINE_EVALUATION,
    keys.EVALUATION_SET, keys.PASSAGES, keys.CANDIDATES, keys.SCORED_CANDIDATES, keys.SCORE_CALIBRATION,
    keys.CORPUS_DEFAULTS,
    kinds={"python", "mlflow"},
)  # fmt: skip
def offline_evaluation(
    context: dg.AssetExecutionContext,
    deployment: Deployment,
    evaluation_set: Artifact,
    passages: Artifact,
    candidates: Artifact,
    scored_candidates: Artifact,
    score_calibration: Artifact,
    corpus_defaults: Artifact,
) -> dg.Output[Artifact]:
    """Every system on the test queries: metrics with intervals, gains over the best first stage, quality
    against cost."""
    from models.evaluation.offline import make_offline_evaluation
    from models.evaluation.report import PAGE, QUALITY_COST
    from models.records.mlflow_registry import Tracking
    from models.release.registration import log_evaluation

    settings = deployment.settings_for(corpus_defaults)
    artifact = make_offline_evaluation(
        deployment.store(), settings, evaluation_set, passages, candidates, scored_candidates, score_calibration
    )
    if not artifact.reused:
        log_evaluation(Tracking.of(settings), artifact)
    return output(
        context,
        artifact,
        report=dg.MetadataValue.url(artifact.path(PAGE).absolute().as_uri()),
        quality_against_cost=image(artifact.path(QUALITY_COST)),
    )


@asset_of(
    CHAMPION_EVALUATION,
    keys.EVALUATION_SET,
    kinds={"python"},
    pool=MODEL_POOL,
    # Not read: the champion may have changed since the last candidate, so each new one is compared with that of now.
    deps=[keys.RELEASE_CANDIDATE],
)
def champion_evaluation(
    context: dg.AssetExecutionContext, deployment: Deployment, evaluation_set: Artifact
) -> dg.Output[Artifact]:
    """The champion as it serves, by its own indexes, on the test queries of the current evaluation set."""
    from models.records.ledger import Ledger
    from models.records.mlflow_registry import Tracking
    from models.release.releaser import Releaser
    from models.serving.champion import make_champion_evaluation

    settings, ledger = deployment.settings(), Ledger(deployment.database())
    Releaser(ledger, Tracking.of(settings), deployment.store()).repair()
    artifact = make_champion_evaluation(
        deployment.store(), settings, ledger.current(), evaluation_set, progress(context, "champion's requests timed")
    )
    return output(context, artifact)


@asset_of(LATENCY_PROFILE, keys.RELEASE_CANDIDATE, keys.EVALUATION_SET, kinds={"python"}, pool=MODEL_POOL)
def latency_profile(
    context: dg.AssetExecutionContext, deployment: Deployment, release_candidate: Artifact, evaluation_set: Artifact
) -> dg.Output[Artifact]:
    """The bundle loaded anew and asked all test queries inside the budget: times, quality, and golden scores."""
    from models.serving.latency_profile import make_latency_profile

    artifact = make_latency_profile(
        deployment.store(),
        deployment.settings(),
        release_candidate,
        evaluation_set,
        progress(context, "requests timed"),
    )
    return output(context, artifact)


ASSETS = [
    scored_candidates,
    score_calibration,
    offline_evaluation,
    champion_evaluation,
    latency_profile,
]
