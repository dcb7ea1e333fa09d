"""Training: mined examples, the large cross-encoder, and the compact one distilled from it."""

import dagster as dg

from assets import keys
from assets.config import TrainingConfig
from assets.making import make, output, progress
from assets.policies import MODEL_POOL, OWNERS, WHEN_INPUTS_CHANGE
from assets.resources import Deployment
from models.artifacts import Artifact
from models.code_version import code_version
from models.settings import TrainingSettings

_EXAMPLES = ("hard_negatives",)
_MODEL = ("cross_encoder", "listwise_loss")


@dg.asset(
    key=keys.TRAINING_EXAMPLES,
    group_name=keys.TRAINING,
    kinds={"python", "parquet"},
    owners=OWNERS,
    code_version=code_version(*_EXAMPLES),
    automation_condition=WHEN_INPUTS_CHANGE,
    ins={
        "passages": dg.AssetIn(key=keys.PASSAGES),
        "queries": dg.AssetIn(key=keys.QUERIES),
        "judgments": dg.AssetIn(key=keys.JUDGMENTS),
        "candidates": dg.AssetIn(key=keys.CANDIDATES),
    },
)
def training_examples(
    context: dg.AssetExecutionContext,
    config: TrainingConfig,
    deployment: Deployment,
    passages: Artifact,
    queries: Artifact,
    judgments: Artifact,
    candidates: Artifact,
) -> dg.Output[Artifact]:
    """Lists of one positive and its hard negatives, mined from the hybrid candidates of the training queries."""
    settings = config.section(TrainingSettings)

    def build(folder):
        from models.corpus import write_table
        from models.hard_negatives import mine_examples

        mined = mine_examples(
            queries.read_table("queries.parquet"),
            judgments.read_table("judgments.parquet"),
            candidates.read_table("candidates.parquet"),
            passages.read_table("passages.parquet"),
            settings,
        )
        write_table(mined.examples, folder / "training_examples.parquet")
        return {
            "dagster/row_count": len(mined.examples),
            "queries_offered": mined.queries_offered,
            "lists": mined.queries_used,
            "positives_missed": mined.positives_missed,
            "false_negatives_filtered": mined.false_negatives_filtered,
        }

    names = {"max_queries", "negatives", "negative_depth", "false_negative_margin", "seed"}
    artifact = make(
        context,
        deployment.store(),
        keys.TRAINING_EXAMPLES,
        build,
        modules=_EXAMPLES,
        inputs=(passages, queries, judgments, candidates),
        settings=settings.model_dump(include=names),
    )
    return output(artifact)


@dg.asset(
    key=keys.LARGE_RERANKER,
    group_name=keys.TRAINING,
    kinds={"huggingface", "mlflow"},
    owners=OWNERS,
    code_version=code_version(*_MODEL),
    automation_condition=WHEN_INPUTS_CHANGE,
    pool=MODEL_POOL,
    ins={"training_examples": dg.AssetIn(key=keys.TRAINING_EXAMPLES)},
)
def large_reranker(
    context: dg.AssetExecutionContext, config: TrainingConfig, deployment: Deployment, training_examples: Artifact
) -> dg.Output[Artifact]:
    """The large cross-encoder, fine-tuned on the training examples."""
    from models.weights import weights_digest

    settings = config.section(TrainingSettings)

    def build(folder):
        from models.cross_encoder import train_large

        examples = training_examples.read_table("training_examples.parquet")
        return train_large(examples, settings, folder, progress(context, "training steps")).to_dict()

    artifact = make(
        context,
        deployment.store(),
        keys.LARGE_RERANKER,
        build,
        modules=_MODEL,
        inputs=(training_examples,),
        settings=settings.model_dump(
            exclude={"compact_layers", "compact_pairs", "teacher_weight", "base_model", "max_queries"}
        ),
        outside={"weights": weights_digest(settings.base_model)},
    )
    return _registered(deployment, artifact, "large", settings)


@dg.asset(
    key=keys.COMPACT_RERANKER,
    group_name=keys.TRAINING,
    kinds={"huggingface", "mlflow"},
    owners=OWNERS,
    code_version=code_version(*_MODEL),
    automation_condition=WHEN_INPUTS_CHANGE,
    pool=MODEL_POOL,
    ins={
        "training_examples": dg.AssetIn(key=keys.TRAINING_EXAMPLES),
        "large_reranker": dg.AssetIn(key=keys.LARGE_RERANKER),
    },
)
def compact_reranker(
    context: dg.AssetExecutionContext,
    config: TrainingConfig,
    deployment: Deployment,
    training_examples: Artifact,
    large_reranker: Artifact,
) -> dg.Output[Artifact]:
    """The compact cross-encoder: chosen layers of the large one, trained on with the large one as teacher."""
    settings = config.section(TrainingSettings)

    def build(folder):
        from models.cross_encoder import train_compact

        examples = training_examples.read_table("training_examples.parquet")
        report = train_compact(examples, large_reranker.folder, settings, folder, progress(context, "training steps"))
        return report.to_dict()

    artifact = make(
        context,
        deployment.store(),
        keys.COMPACT_RERANKER,
        build,
        modules=_MODEL,
        inputs=(training_examples, large_reranker),
        settings=settings.model_dump(exclude={"large_pairs", "frozen_layers", "base_model", "max_queries"}),
    )
    return _registered(deployment, artifact, "compact", settings)


def _registered(
    deployment: Deployment, artifact: Artifact, size: str, settings: TrainingSettings
) -> dg.Output[Artifact]:
    from models.tracking import Tracking, register_model

    version = register_model(Tracking.of(deployment.settings()), artifact, size, settings.model_dump())
    return output(artifact, mlflow_version=version)


ASSETS = [training_examples, large_reranker, compact_reranker]
