"""First-stage retrieval: embeddings, the FAISS and BM25 indexes, and the candidates that are reranked."""

import dagster as dg

from assets import keys
from assets.making import asset_of, output, progress, reasons
from assets.policies import MODEL_POOL
from assets.resources import Deployment
from models.retrieval.steps import CANDIDATES, DENSE_INDEX, FIRST_STAGE, LEXICAL_INDEX, PASSAGE_EMBEDDINGS
from models.store.artifacts import Artifact
from models.training.steps import CORPUS_DEFAULTS


@asset_of(PASSAGE_EMBEDDINGS, keys.PASSAGES, kinds={"python", "huggingface"}, pool=MODEL_POOL)
def passage_embeddings(
    context: dg.AssetExecutionContext, deployment: Deployment, passages: Artifact
) -> dg.Output[Artifact]:
    """One normalized vector per passage, row i being row i of passages, with a copy of the encoder that made them."""
    from models.retrieval.embedding import make_passage_embeddings

    artifact = make_passage_embeddings(
        deployment.store(), deployment.settings(), passages, progress(context, "passages embedded")
    )
    return output(context, artifact)


@asset_of(DENSE_INDEX, keys.PASSAGES, keys.QUERIES, keys.PASSAGE_EMBEDDINGS, kinds={"faiss"})
def dense_index(
    context: dg.AssetExecutionContext,
    deployment: Deployment,
    passages: Artifact,
    queries: Artifact,
    passage_embeddings: Artifact,
) -> dg.Output[Artifact]:
    """The FAISS index over the passage embeddings, and its recall on queries of the corpus where it is approximate."""
    from models.retrieval.dense_index import make_dense_index

    artifact = make_dense_index(deployment.store(), deployment.settings(), passages, queries, passage_embeddings)
    return output(context, artifact)


@asset_of(LEXICAL_INDEX, keys.PASSAGES, kinds={"python"})
def lexical_index(context: dg.AssetExecutionContext, deployment: Deployment, passages: Artifact) -> dg.Output[Artifact]:
    """The BM25 index over titles and texts."""
    from models.retrieval.lexical_index import make_lexical_index

    return output(context, make_lexical_index(deployment.store(), deployment.settings(), passages))


@asset_of(
    FIRST_STAGE,
    keys.PASSAGES, keys.EVALUATION_SET, keys.PASSAGE_EMBEDDINGS, keys.DENSE_INDEX, keys.LEXICAL_INDEX,
    kinds={"python"},
    pool=MODEL_POOL,
)  # fmt: skip
def first_stage(
    context: dg.AssetExecutionContext,
    deployment: Deployment,
    passages: Artifact,
    evaluation_set: Artifact,
    passage_embeddings: Artifact,
    dense_index: Artifact,
    lexical_index: Artifact,
) -> dg.Output[Artifact]:
    """How what both searches bring is ordered: by the method that ranks the development queries best, with its
    weights."""
    from models.retrieval.first_stage import make_first_stage

    artifact = make_first_stage(
        deployment.store(),
        deployment.settings(),
        passages,
        evaluation_set,
        passage_embeddings,
        dense_index,
        lexical_index,
        progress(context, "queries retrieved"),
    )
    return output(context, artifact)


@asset_of(
    CORPUS_DEFAULTS,
    keys.PASSAGES, keys.QUERIES, keys.JUDGMENTS, keys.EVALUATION_SET, keys.FIRST_STAGE,
    kinds={"python"},
    pool=MODEL_POOL,
)  # fmt: skip
def corpus_defaults(
    context: dg.AssetExecutionContext,
    deployment: Deployment,
    passages: Artifact,
    queries: Artifact,
    judgments: Artifact,
    evaluation_set: Artifact,
    first_stage: Artifact,
) -> dg.Output[Artifact]:
    """What `auto` is for this corpus: tokens, pairs and candidates, each with the reason for it, chosen from passages,
    training and development queries and the time that there is."""
    from models.training.corpus_defaults import choices_of, make_corpus_defaults

    artifact = make_corpus_defaults(
        deployment.store(),
        deployment.settings(),
        passages,
        queries,
        judgments,
        evaluation_set,
        first_stage,
        context.log.info,
    )
    return output(context, artifact, reasons=reasons(choices_of(artifact)))


@asset_of(
    CANDIDATES,
    keys.PASSAGES, keys.QUERIES, keys.EVALUATION_SET, keys.PASSAGE_EMBEDDINGS, keys.DENSE_INDEX, keys.LEXICAL_INDEX,
    keys.FIRST_STAGE, keys.CORPUS_DEFAULTS,
    kinds={"python", "faiss"},
    pool=MODEL_POOL,
)  # fmt: skip
def candidates(
    context: dg.AssetExecutionContext,
    deployment: Deployment,
    passages: Artifact,
    queries: Artifact,
    evaluation_set: Artifact,
    passage_embeddings: Artifact,
    dense_index: Artifact,
    lexical_index: Artifact,
    first_stage: Artifact,
    corpus_defaults: Artifact,
) -> dg.Output[Artifact]:
    """Candidates of the training and evaluation queries, and the first-stage rankings of the evaluation queries."""
    from models.retrieval.candidates import make_candidates

    artifact = make_candidates(
        deployment.store(),
        deployment.settings_for(corpus_defaults),
        passages,
        queries,
        evaluation_set,
        passage_embeddings,
        dense_index,
        lexical_index,
        first_stage,
        progress(context, "queries retrieved"),
    )
    return output(context, artifact)


ASSETS = [passage_embeddings, dense_index, lexical_index, first_stage, corpus_defaults, candidates]
