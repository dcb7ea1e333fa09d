"""Training: mined examples, logged lists, the large cross-encoder, and those that are distilled from it."""

import dagster as dg

from assets import keys
from assets.making import asset_of, by_tier, output, progress
from assets.policies import MODEL_POOL
from assets.resources import Deployment
from models.contracts.tiers import DISTILLED_TIERS, LAST, TierSpec
from models.settings import Settings
from models.store.artifacts import Artifact
from models.training.steps import (
    DISTILLED_RERANKERS,
    LARGE_RERANKER,
    LOGGED_LISTS,
    SCORING_ENGINES,
    TRAINING_EXAMPLES,
)


@asset_of(
    TRAINING_EXAMPLES,
    keys.PASSAGES, keys.QUERIES, keys.JUDGMENTS, keys.CANDIDATES, keys.EVALUATION_SET, keys.PASSAGE_EMBEDDINGS,
    keys.CORPUS_DEFAULTS,
    kinds={"python", "parquet"},
)  # fmt: skip
def training_examples(
    context: dg.AssetExecutionContext,
    deployment: Deployment,
    passages: Artifact,
    queries: Artifact,
    judgments: Artifact,
    candidates: Artifact,
    evaluation_set: Artifact,
    passage_embeddings: Artifact,
    corpus_defaults: Artifact,
) -> dg.Output[Artifact]:
    """Lists of one positive and its negatives, mined from the candidates of the training queries, without those that
    nearly repeat a development or test query, which are listed; and the lists of the development queries."""
    from models.training.examples import make_training_examples

    artifact = make_training_examples(
        deployment.store(),
        deployment.settings_for(corpus_defaults),
        passages,
        queries,
        judgments,
        candidates,
        evaluation_set,
        passage_embeddings,
    )
    return output(context, artifact)


@asset_of(
    LOGGED_LISTS,
    keys.PASSAGES, keys.QUERIES, keys.EVALUATION_SET, keys.CANDIDATES, keys.PASSAGE_EMBEDDINGS,
    kinds={"python", "parquet"},
)  # fmt: skip
def logged_lists(
    context: dg.AssetExecutionContext,
    deployment: Deployment,
    passages: Artifact,
    queries: Artifact,
    evaluation_set: Artifact,
    candidates: Artifact,
    passage_embeddings: Artifact,
) -> dg.Output[Artifact]:
    """Lists of the decision log as it was yesterday, training.logged_queries of them, without queries that nearly
    repeat one of evaluation, which are listed."""
    from models.training.logged_decisions import logged_until_today
    from models.training.logged_lists import make_logged_lists

    settings = deployment.settings()
    count = settings.training.logged_queries
    logged = logged_until_today(deployment.database(), count) if count else []
    artifact = make_logged_lists(
        deployment.store(), settings, logged, passages, queries, evaluation_set, candidates, passage_embeddings
    )
    return output(context, artifact)


@asset_of(
    LARGE_RERANKER,
    keys.TRAINING_EXAMPLES, keys.CORPUS_DEFAULTS,
    kinds={"huggingface", "mlflow"},
    pool=MODEL_POOL,
)  # fmt: skip
def large_reranker(
    context: dg.AssetExecutionContext, deployment: Deployment, training_examples: Artifact, corpus_defaults: Artifact
) -> dg.Output[Artifact]:
    """The large cross-encoder, fine-tuned on the training examples."""
    from models.training.large_reranker import make_large_reranker

    settings = deployment.settings_for(corpus_defaults)
    artifact = make_large_reranker(deployment.store(), settings, training_examples, progress(context, "training steps"))
    return _registered(context, settings, artifact, LAST.name)


def _distilled_reranker(tier: TierSpec) -> dg.AssetsDefinition:
    @asset_of(
        DISTILLED_RERANKERS[tier.name],
        keys.TRAINING_EXAMPLES, keys.LARGE_RERANKER, keys.LOGGED_LISTS, keys.CORPUS_DEFAULTS,
        description=f"The {tier.name} cross-encoder: chosen layers of the large one, or weights of its own, trained on "
        "with the large one as teacher. Left out where tiers.models does not name it.",
        kinds={"huggingface", "mlflow"},
        pool=MODEL_POOL,
    )  # fmt: skip
    def distilled_reranker(
        context: dg.AssetExecutionContext,
        deployment: Deployment,
        training_examples: Artifact,
        large_reranker: Artifact,
        logged_lists: Artifact,
        corpus_defaults: Artifact,
    ) -> dg.Output[Artifact]:
        from models.training.distilled_reranker import is_left_out, make_distilled_reranker

        settings = deployment.settings_for(corpus_defaults)
        artifact = make_distilled_reranker(
            deployment.store(),
            settings,
            tier.name,
            training_examples,
            large_reranker,
            logged_lists,
            progress(context, "training steps"),
        )
        return (
            output(context, artifact) if is_left_out(artifact) else _registered(context, settings, artifact, tier.name)
        )

    return distilled_reranker


distilled_rerankers = [_distilled_reranker(tier) for tier in reversed(DISTILLED_TIERS)]


@asset_of(
    SCORING_ENGINES,
    keys.PASSAGES, keys.CANDIDATES, keys.EVALUATION_SET, keys.CORPUS_DEFAULTS, *keys.RERANKERS,
    kinds={"onnx", "pytorch"},
    pool=MODEL_POOL,
)  # fmt: skip
def scoring_engines(
    context: dg.AssetExecutionContext,
    deployment: Deployment,
    passages: Artifact,
    candidates: Artifact,
    evaluation_set: Artifact,
    corpus_defaults: Artifact,
    **rerankers: Artifact,
) -> dg.Output[Artifact]:
    """The cross-encoders as what the service runs, and how far their scores are from those of the models."""
    from models.training.engine_selection import make_scoring_engines

    settings = deployment.settings_for(corpus_defaults)
    artifact = make_scoring_engines(
        deployment.store(),
        settings,
        passages,
        candidates,
        evaluation_set,
        by_tier(rerankers, settings),
        progress(context, "models exported"),
    )
    return output(context, artifact)


def _registered(
    context: dg.AssetExecutionContext, settings: Settings, artifact: Artifact, size: str
) -> dg.Output[Artifact]:
    from models.records.mlflow_registry import Tracking
    from models.release.registration import register_model

    version = register_model(Tracking.of(settings), artifact, size, settings.training.model_dump())
    return output(context, artifact, mlflow_version=version)


ASSETS = [training_examples, logged_lists, large_reranker, *distilled_rerankers, scoring_engines]
