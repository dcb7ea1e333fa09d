"""What must not be trained on: evaluation queries, and whatever nearly repeats one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from models.corpus.integrity import examples_of
from models.corpus.splits import normalize_query, sample_by_hash
from models.errors import ArtifactError
from models.retrieval.candidates import query_hash, stored_query_vectors
from models.settings import Settings, TrainingSettings
from models.store.artifacts import Artifact, ArtifactStore
from models.text.near_duplicates import near_duplicates, overlap
from models.training.steps import NO_EVALUATION_QUERY_IN_TRAINING

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAK_REASONS = ("same_id", "same_text", "same_words", "same_meaning")
LEAK_COLUMNS = ("query_id", "text", "reason", "evaluation_query_id", "evaluation_text", "overlap", "cosine")


def leaks(
    queries: pd.DataFrame,
    evaluation_queries: pd.DataFrame,
    vectors: NDArray[np.float32],
    evaluation_vectors: NDArray[np.float32],
    min_overlap: float,
    min_cosine: float,
) -> pd.DataFrame:
    """Queries that may not train, one row of `contracts.ExcludedQueries` for each, sorted by id.

    Both tables have `query_id` and `text`, one row per query; the vectors [n, d] are theirs. The reason is the first
    that holds: `same_id`, `same_text` (`models.corpus.splits.normalize_query`), `same_words` or `same_meaning`
    (`models.text.near_duplicates`); of several evaluation queries the nearest is named.
    """
    pairs = near_duplicates(
        queries["text"].tolist(),
        evaluation_queries["text"].tolist(),
        min_overlap,
        min_cosine,
        vectors,
        evaluation_vectors,
    )
    nearest = dict(zip(pairs["row"], pairs["other"], strict=True))
    ids, texts = evaluation_queries["query_id"].tolist(), evaluation_queries["text"].tolist()
    by_id = {query_id: row for row, query_id in enumerate(ids)}
    by_text = {normalize_query(text): row for row, text in enumerate(texts)}
    rows = []
    for row, (query_id, text) in enumerate(zip(queries["query_id"], queries["text"], strict=True)):
        exact = {"same_id": by_id.get(query_id), "same_text": by_text.get(normalize_query(text))}
        reason, other = next(((kind, row) for kind, row in exact.items() if row is not None), ("", None))
        if other is None and (other := nearest.get(row)) is None:
            continue
        shared = overlap(text, texts[other])
        cosine = float(vectors[row] @ evaluation_vectors[other])
        reason = reason or ("same_words" if shared >= min_overlap else "same_meaning")
        rows.append((query_id, text, reason, ids[other], texts[other], shared, cosine))
    table = pd.DataFrame(rows, columns=list(LEAK_COLUMNS)).astype(
        {**dict.fromkeys(LEAK_COLUMNS, "str"), "overlap": "float64", "cosine": "float64"}
    )
    return table.sort_values("query_id", ignore_index=True)


def training_queries(
    queries: pd.DataFrame,
    evaluation_queries: pd.DataFrame,
    vectors: Mapping[str, NDArray[np.float32]],
    settings: TrainingSettings,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The queries that train, a sample of `settings.max_queries`, and those of the sample that may not.

    `vectors` are those of the sample and of the evaluation queries by `query_hash`; `build_all_candidates` takes the
    same sample. Evaluation queries are in neither table, whatever their split is in `queries`.
    """
    held_out = queries["query_id"].isin(evaluation_queries["query_id"])
    sample = sample_by_hash(queries.loc[(queries["split"] == "train") & ~held_out], settings.max_queries)
    excluded = leaks(
        sample,
        evaluation_queries,
        vectors_of(sample["text"].tolist(), vectors, _no_encoder),
        vectors_of(evaluation_queries["text"].tolist(), vectors, _no_encoder),
        settings.leak_overlap,
        settings.leak_cosine,
    )
    return sample.loc[~sample["query_id"].isin(excluded["query_id"])], excluded


def held_out_queries(queries: Artifact, evaluation_set: Artifact) -> pd.DataFrame:
    """What no query that trains may repeat, rows (`query_id`, `text`): the evaluation set, and the other development
    and test queries, of which later evaluation sets and `rerankops evaluate` take theirs."""
    table = queries.read_table("queries.parquet")
    evaluated = evaluation_set.read_table("queries.parquet")
    others = table[(table["split"] != "train") & ~table["query_id"].isin(evaluated["query_id"])]
    return pd.concat([evaluated, others], ignore_index=True)[["query_id", "text"]]


def trained_and_evaluated(
    trained_lists: Artifact,
    evaluation_set: Artifact,
    candidates: Artifact,
    passage_embeddings: Artifact,
    *,
    min_overlap: float,
    min_cosine: float,
) -> pd.DataFrame:
    """`leaks` among the queries of lists that models are trained on: the training examples, or the logged lists.

    Vectors come from the candidates; what has none there is embedded by the encoder of the passages.
    """
    table = f"{trained_lists.asset.rpartition('/')[2]}.parquet"
    lists = trained_lists.read_table(table, ["query_id", "query"])
    trained = lists.drop_duplicates().rename(columns={"query": "text"})
    evaluated = evaluation_set.read_table("queries.parquet")
    known, encode = stored_query_vectors(candidates.folder), query_encoder(passage_embeddings)
    return leaks(
        trained,
        evaluated,
        vectors_of(trained["text"].tolist(), known, encode),
        vectors_of(evaluated["text"].tolist(), known, encode),
        min_overlap,
        min_cosine,
    )


def find_leaks(
    store: ArtifactStore,
    settings: Settings,
    trained_lists: Artifact,
    evaluation_set: Artifact,
    candidates: Artifact,
    passage_embeddings: Artifact,
) -> dict[str, Any]:
    """`{"count": of `trained_and_evaluated`, "examples": [...]}`; computed once per content, limits and code."""
    artifacts = (trained_lists, evaluation_set, candidates, passage_embeddings)
    versions = {artifact.asset: artifact.data_version for artifact in artifacts}
    key = {"inputs": versions, **NO_EVALUATION_QUERY_IN_TRAINING.values(settings)}
    return NO_EVALUATION_QUERY_IN_TRAINING.remember(store, key, partial(leaked, *artifacts, settings.training))


def leaked(
    trained_lists: Artifact,
    evaluation_set: Artifact,
    candidates: Artifact,
    passage_embeddings: Artifact,
    settings: TrainingSettings,
) -> dict[str, Any]:
    """What `find_leaks` remembers."""
    rows = trained_and_evaluated(
        trained_lists,
        evaluation_set,
        candidates,
        passage_embeddings,
        min_overlap=settings.leak_overlap,
        min_cosine=settings.leak_cosine,
    )
    return examples_of(rows)


def query_encoder(passage_embeddings: Artifact) -> Callable[[list[str]], NDArray[np.float32]]:
    """Embeds queries [n, d] with the encoder of the passages, which is loaded at each call."""

    def encode(texts: list[str]) -> NDArray[np.float32]:
        from models.retrieval.encoder import Encoder

        max_tokens = passage_embeddings.read_json("encoder.json")["max_tokens"]
        return Encoder.load(passage_embeddings.folder / "encoder", max_tokens).encode_queries(texts)

    return encode


def vectors_of(
    texts: Sequence[str],
    known: Mapping[str, NDArray[np.float32]],
    encode: Callable[[list[str]], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Vectors [n, d] of queries: those `known` by hash, the others by `encode`, which is not called without need."""
    hashes = [query_hash(text) for text in texts]
    missing = {name: text for name, text in zip(hashes, texts, strict=True) if name not in known}
    vectors = dict(known)
    if missing:
        vectors.update(zip(missing, encode(list(missing.values())), strict=True))
    return np.array([vectors[name] for name in hashes], dtype=np.float32)


def _no_encoder(texts: list[str]) -> NDArray[np.float32]:
    raise ArtifactError(
        f"{len(texts)} queries have no vector in index/candidates, as {texts[0][:80]!r}",
        "Materialize index/candidates again, then training/training_examples.",
    )
