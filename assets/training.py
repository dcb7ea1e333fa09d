"""Training: mined examples, the large cross-encoder, and the compact one distilled from it."""

import dagster as dg

from assets import keys
from assets.making import make, output, progress
from assets.policies import MODEL_POOL, NO_CONFIG, OWNERS, WHEN_INPUTS_CHANGE
from assets.resources import Deployment
from models.artifacts import Artifact
from models.code_version import code_version
from models.settings import Settings, values_of

_EXAMPLES = ("hard_negatives",)
_ENGINES = ("engines", "onnx_export", "cross_encoder", "pair_head", "pair_tokens")
_MODEL = ("cross_encoder", "listwise_loss", "pair_head", "pair_tokens")
_ELSEWHERE = {"training.base_model", "training.max_queries"}
"""Keys that reach the models through other inputs: the digest of the weights, the training examples."""
_NOT_OF_LARGE = _ELSEWHERE | {"training.compact_layers", "training.compact_pairs", "training.teacher_weight"}
_NOT_OF_COMPACT = _ELSEWHERE | {"training.frozen_layers"}


@dg.asset(
    key=keys.TRAINING_EXAMPLES,
    group_name=keys.TRAINING,
    kinds={"python", "parquet"},
    owners=OWNERS,
    config_schema=NO_CONFIG,
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
    deployment: Deployment,
    passages: Artifact,
    queries: Artifact,
    judgments: Artifact,
    candidates: Artifact,
) -> dg.Output[Artifact]:
    """Lists of one positive and its hard negatives, mined from the hybrid candidates of the training queries."""
    settings = deployment.settings()

    def build(folder):
        from models.corpus import require_judgments, write_table
        from models.hard_negatives import mine_examples

        require_judgments(judgments.read_table("judgments.parquet"))
        mined = mine_examples(
            queries.read_table("queries.parquet"),
            judgments.read_table("judgments.parquet"),
            candidates.read_table("candidates.parquet"),
            passages.read_table("passages.parquet"),
            settings.training,
        )
        write_table(mined.examples, folder / "training_examples.parquet")
        return {
            "dagster/row_count": len(mined.examples),
            "queries_offered": mined.queries_offered,
            "lists": mined.queries_used,
            "positives_missed": mined.positives_missed,
            "false_negatives_filtered": mined.false_negatives_filtered,
        }

    names = ("max_queries", "negatives", "negative_depth", "false_negative_margin", "seed")
    artifact = make(
        context,
        deployment.store(),
        keys.TRAINING_EXAMPLES,
        build,
        modules=_EXAMPLES,
        inputs=(passages, queries, judgments, candidates),
        settings=values_of(settings, *(f"training.{name}" for name in names)),
    )
    return output(artifact)


@dg.asset(
    key=keys.LARGE_RERANKER,
    group_name=keys.TRAINING,
    kinds={"huggingface", "mlflow"},
    owners=OWNERS,
    config_schema=NO_CONFIG,
    code_version=code_version(*_MODEL),
    automation_condition=WHEN_INPUTS_CHANGE,
    pool=MODEL_POOL,
    ins={"training_examples": dg.AssetIn(key=keys.TRAINING_EXAMPLES)},
)
def large_reranker(
    context: dg.AssetExecutionContext, deployment: Deployment, training_examples: Artifact
) -> dg.Output[Artifact]:
    """The large cross-encoder, fine-tuned on the training examples."""
    from models.weights import weights_digest

    settings = deployment.settings()

    def build(folder):
        from models.cross_encoder import train_large

        examples = training_examples.read_table("training_examples.parquet")
        return train_large(examples, settings.training, folder, progress(context, "training steps")).to_dict()

    artifact = make(
        context,
        deployment.store(),
        keys.LARGE_RERANKER,
        build,
        modules=_MODEL,
        inputs=(training_examples,),
        settings=values_of(settings, "training", without=_NOT_OF_LARGE),
        outside={"weights": weights_digest(settings.training.base_model)},
    )
    return _registered(artifact, "large", settings)


@dg.asset(
    key=keys.COMPACT_RERANKER,
    group_name=keys.TRAINING,
    kinds={"huggingface", "mlflow"},
    owners=OWNERS,
    config_schema=NO_CONFIG,
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
    deployment: Deployment,
    training_examples: Artifact,
    large_reranker: Artifact,
) -> dg.Output[Artifact]:
    """The compact cross-encoder: chosen layers of the large one, trained on with the large one as teacher."""
    settings = deployment.settings()

    def build(folder):
        from models.cross_encoder import train_compact

        examples = training_examples.read_table("training_examples.parquet")
        report = train_compact(
            examples, large_reranker.folder, settings.training, folder, progress(context, "training steps")
        )
        return report.to_dict()

    artifact = make(
        context,
        deployment.store(),
        keys.COMPACT_RERANKER,
        build,
        modules=_MODEL,
        inputs=(training_examples, large_reranker),
        settings=values_of(settings, "training", without=_NOT_OF_COMPACT),
    )
    return _registered(artifact, "compact", settings)


@dg.asset(
    key=keys.SCORING_ENGINES,
    group_name=keys.TRAINING,
    kinds={"onnx"},
    owners=OWNERS,
    config_schema=NO_CONFIG,
    code_version=code_version(*_ENGINES),
    automation_condition=WHEN_INPUTS_CHANGE,
    pool=MODEL_POOL,
    ins={
        key.path[-1]: dg.AssetIn(key=key)
        for key in (keys.PASSAGES, keys.CANDIDATES, keys.EVALUATION_SET, keys.LARGE_RERANKER, keys.COMPACT_RERANKER)
    },
)
def scoring_engines(
    context: dg.AssetExecutionContext,
    deployment: Deployment,
    passages: Artifact,
    candidates: Artifact,
    evaluation_set: Artifact,
    large_reranker: Artifact,
    compact_reranker: Artifact,
) -> dg.Output[Artifact]:
    """Both cross-encoders as what the service runs, and how far their scores are from those of the models."""
    from models.cross_encoder import resolve_device

    settings = deployment.settings()

    def build(folder):
        from models.engines import build_engines, parity_sample
        from models.offline_evaluation import split_of

        dev, judgments = split_of(evaluation_set, "dev")
        sample = parity_sample(
            candidates.read_table("candidates.parquet"),
            dev,
            passages.read_table("passages.parquet", ["passage_id", "title", "text"]),
            judgments,
            settings.engine.parity_queries,
        )
        return build_engines(
            {"compact": compact_reranker.folder, "large": large_reranker.folder},
            settings.training.max_tokens,
            settings.training.device,
            settings.engine,
            sample,
            folder,
            progress(context, "models exported"),
        )

    artifact = make(
        context,
        deployment.store(),
        keys.SCORING_ENGINES,
        build,
        modules=_ENGINES,
        inputs=(passages, candidates, evaluation_set, large_reranker, compact_reranker),
        settings=values_of(settings, "engine", "training.max_tokens", without=("engine.threads",)),
        outside={"device": resolve_device(settings.training.device)},
    )
    return output(artifact)


def _registered(artifact: Artifact, size: str, settings: Settings) -> dg.Output[Artifact]:
    from models.tracking import Tracking, register_model

    version = register_model(Tracking.of(settings), artifact, size, settings.training.model_dump())
    return output(artifact, mlflow_version=version)


ASSETS = [training_examples, large_reranker, compact_reranker, scoring_engines]
