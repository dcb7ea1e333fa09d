"""Training: mined examples, the large cross-encoder, and the compact one distilled from it."""

from collections.abc import Mapping
from datetime import UTC, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets import keys
from assets.making import make, output, progress
from assets.policies import MODEL_POOL, NO_CONFIG, OWNERS, WHEN_INPUTS_CHANGE
from assets.resources import Deployment
from models.settings import Settings, values_of
from models.store.artifacts import Artifact, ArtifactStore
from models.store.code_version import code_version

if TYPE_CHECKING:
    from models.training.logged_lists import LoggedList

_ENGINES = (
    "cross_encoder.engines",
    "training.engine_selection",
    "cross_encoder.pairwise",
    "cross_encoder.onnx_session",
    "cross_encoder.onnx_export",
    "cross_encoder.bfloat16",
    "cross_encoder.scorer",
    "cross_encoder.pair_head",
    "cross_encoder.pair_tokenizer",
    "cross_encoder.passage_cut",
)
_EXAMPLES = (
    "training.hard_negatives",
    "corpus.passage_table",
    "corpus.pseudo_queries",
    "training.leakage",
    "text.near_duplicates",
    "corpus.splits",
)
_MINING = (
    "training.max_queries", "training.negatives", "training.draws", "training.negative_sources",
    "training.negative_depth",
    "training.negative_top_share", "training.random_share", "training.false_negative_margin",
    "training.leak_overlap", "training.leak_cosine", "training.seed",
)  # fmt: skip
_MODEL = (
    "training.fine_tuning",
    "training.cpu_attention",
    "training.ranking_loss",
    "training.early_stopping",
    "training.checkpoints",
    "cross_encoder.scorer",
    "cross_encoder.pair_head",
    "cross_encoder.pair_tokenizer",
    "cross_encoder.passage_cut",
)
_ELSEWHERE = {
    "training.base_model", "training.compact_base_model", "training.false_negative_teacher",
    "training.pseudo_queries", "training.pseudo_documents", *_MINING[:-1],
}  # fmt: skip
"""Keys that reach the models through other inputs: the digest of the weights, the training examples."""
_COMPACT = (
    *_MODEL,
    "training.logged_lists",
    "corpus.passage_table",
)
_NO_MATTER = {"training.checkpoint_minutes"}
_NOT_OF_LARGE = (
    _ELSEWHERE
    | _NO_MATTER
    | {
        "training.compact_layers", "training.compact_pairs", "training.teacher_weight", "training.distillation",
        "training.logged_queries",
    }
)  # fmt: skip
_NOT_OF_COMPACT = _ELSEWHERE | _NO_MATTER


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
        "evaluation_set": dg.AssetIn(key=keys.EVALUATION_SET),
    },
)
def training_examples(
    context: dg.AssetExecutionContext,
    deployment: Deployment,
    passages: Artifact,
    queries: Artifact,
    judgments: Artifact,
    candidates: Artifact,
    evaluation_set: Artifact,
) -> dg.Output[Artifact]:
    """Lists of one positive and its negatives, mined from the candidates of the training queries, without those that
    nearly repeat an evaluation query, which are listed; and the lists of the development queries."""
    from models.weights import weights_digest

    settings = deployment.settings()
    teacher = settings.training.false_negative_teacher

    def build(folder):
        from models.corpus.ingest import require_judgments
        from models.corpus.passage_table import PassageTable
        from models.retrieval.candidates import stored_query_vectors
        from models.store.tables import write_table
        from models.training.hard_negatives import development_lists, mine_examples, open_teacher
        from models.training.leakage import training_queries

        judged, evaluated = judgments.read_table("judgments.parquet"), evaluation_set.read_table("queries.parquet")
        require_judgments(judged)
        kept, excluded = training_queries(
            queries.read_table("queries.parquet"),
            evaluated,
            stored_query_vectors(candidates.folder),
            settings.training,
        )
        texts = PassageTable(passages.path("passages.parquet"))
        mined = mine_examples(
            kept,
            judged,
            candidates.read_table("training_candidates.parquet"),
            texts,
            settings.training,
            open_teacher(settings.training),
        )
        write_table(mined.examples, folder / "training_examples.parquet")
        write_table(excluded, folder / "excluded_queries.parquet")
        development = development_lists(evaluated, judged, candidates.read_table("candidates.parquet"), texts)
        write_table(development, folder / "development_lists.parquet")
        return {"dagster/row_count": len(mined.examples), "queries_excluded": len(excluded), **mined.counts}

    artifact = make(
        context,
        deployment.store(),
        keys.TRAINING_EXAMPLES,
        build,
        modules=_EXAMPLES,
        inputs=(passages, queries, judgments, candidates, evaluation_set),
        settings=values_of(settings, *_MINING),
        outside={"teacher": weights_digest(teacher)} if teacher else {},
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
    from models.training.fine_tuning import require_layers
    from models.weights import weights_digest

    settings, store = deployment.settings(), deployment.store()
    require_layers(settings.training)
    read = values_of(settings, "training", without=_NOT_OF_LARGE)
    outside = {"weights": weights_digest(settings.training.base_model)}

    def build(folder):
        from models.training.fine_tuning import train_large

        report = train_large(
            training_examples.read_table("training_examples.parquet"),
            settings.training,
            folder,
            progress(context, "training steps"),
            development=training_examples.read_table("development_lists.parquet"),
            checkpoints=_checkpoints(store, "large", read, outside, training_examples),
        )
        return report.to_dict()

    artifact = make(
        context,
        store,
        keys.LARGE_RERANKER,
        build,
        modules=_MODEL,
        inputs=(training_examples,),
        settings=read,
        outside=outside,
    )
    return _registered(artifact, "large", settings)


@dg.asset(
    key=keys.COMPACT_RERANKER,
    group_name=keys.TRAINING,
    kinds={"huggingface", "mlflow"},
    owners=OWNERS,
    config_schema=NO_CONFIG,
    code_version=code_version(*_COMPACT),
    automation_condition=WHEN_INPUTS_CHANGE,
    pool=MODEL_POOL,
    ins={
        "training_examples": dg.AssetIn(key=keys.TRAINING_EXAMPLES),
        "large_reranker": dg.AssetIn(key=keys.LARGE_RERANKER),
        "passages": dg.AssetIn(key=keys.PASSAGES),
        "queries": dg.AssetIn(key=keys.QUERIES),
    },
)
def compact_reranker(
    context: dg.AssetExecutionContext,
    deployment: Deployment,
    training_examples: Artifact,
    large_reranker: Artifact,
    passages: Artifact,
    queries: Artifact,
) -> dg.Output[Artifact]:
    """The compact cross-encoder: chosen layers of the large one, or weights of its own, trained on with the large one
    as teacher."""
    from models.weights import weights_digest

    settings, store = deployment.settings(), deployment.store()
    read = values_of(settings, "training", without=_NOT_OF_COMPACT)
    own = settings.training.compact_base_model
    outside = {"weights": weights_digest(own)} if own else {}
    inputs = (training_examples, large_reranker)
    logged = _logged(deployment, queries, settings.training.logged_queries)
    if logged:
        from models.training.logged_lists import logged_digest

        # Only then the texts count: a document more does not train the model anew.
        inputs, outside = (*inputs, passages), {**outside, "decisions": logged_digest(logged)}

    def build(folder):
        from models.corpus.passage_table import PassageTable
        from models.training.fine_tuning import train_compact
        from models.training.logged_lists import logged_table

        length = settings.training.negatives + 1
        texts = PassageTable(passages.path("passages.parquet"))

        report = train_compact(
            training_examples.read_table("training_examples.parquet"),
            large_reranker.folder,
            settings.training,
            folder,
            progress(context, "training steps"),
            logged=logged_table(logged, texts, length) if logged else None,
            development=training_examples.read_table("development_lists.parquet"),
            checkpoints=_checkpoints(store, "compact", read, outside, *inputs),
        )
        return report.to_dict()

    artifact = make(
        context,
        store,
        keys.COMPACT_RERANKER,
        build,
        modules=_COMPACT,
        inputs=inputs,
        settings=read,
        outside=outside,
    )
    return _registered(artifact, "compact", settings)


@dg.asset(
    key=keys.SCORING_ENGINES,
    group_name=keys.TRAINING,
    kinds={"onnx", "pytorch"},
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
    from models.cross_encoder.bfloat16 import has_tiles, multiplies_bfloat16
    from models.cross_encoder.scorer import resolve_device

    settings = deployment.settings()
    # Scores of other instructions differ by rounding.
    machine = {
        "device": resolve_device(settings.training.device),
        "bfloat16": str(multiplies_bfloat16()),
        "tiles": str(has_tiles()),
    }

    def build(folder):
        from models.evaluation.evaluation_set import split_of
        from models.training.engine_selection import build_engines, parity_sample

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
        outside=machine,
    )
    return output(artifact)


def _logged(deployment: Deployment, queries: Artifact, count: int) -> "list[LoggedList]":
    """Logged candidates up to yesterday, so that runs of one day learn from the same."""
    if not count:
        return []
    from models.training.logged_lists import read_logged

    table = queries.read_table("queries.parquet")
    evaluated = table.loc[table["split"] != "train", "text"].tolist()
    today = datetime.combine(datetime.now(UTC).date(), time(), UTC)
    return read_logged(deployment.database(), evaluated, count, today)


def _checkpoints(
    store: ArtifactStore, size: str, settings: Mapping[str, Any], outside: Mapping[str, str], *inputs: Artifact
) -> Path:
    """The scratch folder of this very training: what it is killed in, it goes on from."""
    from models.store.durable_files import digest_json

    versions = [artifact.data_version for artifact in inputs]
    return store.scratch(f"{size}-{digest_json([code_version(*_MODEL), settings, outside, versions])[:24]}")


def _registered(artifact: Artifact, size: str, settings: Settings) -> dg.Output[Artifact]:
    from models.records.mlflow_registry import Tracking
    from models.release.registration import register_model

    version = register_model(Tracking.of(settings), artifact, size, settings.training.model_dump())
    return output(artifact, mlflow_version=version)


ASSETS = [training_examples, large_reranker, compact_reranker, scoring_engines]
