"""What a bundle is evaluated on: its own test queries, or any judged corpus, which is read, indexed, retrieved from and
scored by the steps that made the bundle, with its settings.

All of that is made in a store of its own, `<home>/evaluations`, so that a second call makes only what is new and the
deployment's own artifacts stay as they are. `rerankops gc` deletes what no recent call has used; the folder may be
deleted too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd
from pandas.util import hash_pandas_object

from models.contracts.tiers import MODEL_TIERS
from models.corpus.integrity import require_accepted
from models.corpus.reading import read_tables
from models.corpus.sources.base import CorpusSource
from models.corpus.splits import sample_by_hash
from models.errors import SourceError
from models.evaluation.evaluation_set import split_of
from models.evaluation.scored_candidates import StoredModels, score, seconds_per_pair
from models.evaluation.steps import SCORED_CANDIDATES
from models.measures.query_seconds import first_stage_seconds
from models.release.bundle import Bundle
from models.retrieval.dense_index import make_dense_index
from models.retrieval.embedding import make_passage_embeddings
from models.retrieval.encoder import tokenizer_file
from models.retrieval.lexical_index import make_lexical_index
from models.retrieval.pooled_candidates import make_pooled_candidates
from models.settings import Settings, chosen
from models.store import asset_names as names
from models.store.artifacts import Artifact, ArtifactStore
from models.store.durable_files import digest_json

Report = Callable[[str, int, int], None]
"""Told (what, done, of how many)."""

_OF_MODELS = (*(f"{tier.name}/" for tier in MODEL_TIERS), "engines/")
_QUERIES_KEPT = 32
"""Queries between two states that a killed call goes on from."""

_COUNTS = ("documents", "passages", "queries", "judgments", "quarantined_rows")


@dataclass(frozen=True)
class JudgedCorpus:
    """What a bundle is evaluated on: the queries that count, everything retrieved for them, and all logits.

    `scored` holds the candidates that any first stage puts among its best, `given` saying which the bundle's own does:
    those are what the rerankers are given in serving.
    """

    name: str
    split: str
    passages: pd.DataFrame
    queries: pd.DataFrame
    judgments: pd.DataFrame
    first_stages: pd.DataFrame
    scored: pd.DataFrame
    seconds: dict[str, float]
    """Of one query in each first stage, and of one pair in each model."""

    facts: dict[str, Any] = field(default_factory=dict)
    """Counts of what was read, refused and left out."""


def judged_corpus(
    bundle: Artifact,
    source: CorpusSource,
    name: str,
    settings: Settings,
    *,
    split: str = "test",
    max_queries: int | None = None,
    candidates: int | None = None,
    report: Report = lambda what, done, total: None,
) -> JudgedCorpus:
    """Read `source` under the contracts, index it with the bundle's encoder, retrieve and score.

    Passages are cut by `settings`; retrieval and models are the bundle's, `candidates` by default too. At most
    `max_queries` queries of the split are taken, those of smallest hash. Raises `SourceError` where more rows are
    refused than `corpus.max_rejected_share`, or no query of the split is judged relevant to anything.
    """
    bundle.verify()
    store = ArtifactStore(str(settings.evaluations), settings.evaluations / "cache")
    count = candidates or Bundle.open(bundle).facts.candidates
    of_bundle = _with_settings_of(bundle, settings, count)
    tables = read_tables(store, of_bundle, source, name, tokenizer_file(of_bundle.encoder.model))
    rejected_share = require_accepted(store, tables, settings.corpus.max_rejected_share, name)
    queries, judgments, left_out = _sample(tables, split, max_queries, name)
    passages = tables["passages"]
    embeddings = make_passage_embeddings(store, of_bundle, passages, partial(report, "passages embedded"))
    dense = make_dense_index(store, of_bundle, passages, tables["queries"], embeddings)
    lexical = make_lexical_index(store, of_bundle, passages)
    retrieved = make_pooled_candidates(
        store,
        of_bundle,
        queries,
        passages,
        embeddings,
        dense,
        lexical,
        Bundle.open(bundle).first_stage,
        partial(report, "queries retrieved"),
    )
    scored, seconds = _score(store, of_bundle, bundle, retrieved, queries, passages, partial(report, "pairs scored"))
    return JudgedCorpus(
        name=name,
        split=split,
        passages=passages.read_table("passages.parquet"),
        queries=queries,
        judgments=judgments,
        first_stages=retrieved.read_table("first_stage.parquet"),
        scored=scored,
        seconds=first_stage_seconds(retrieved.summary) | seconds,
        facts={
            "name": name,
            "split": split,
            "version": passages.data_version,
            **{name: value for name, value in passages.summary.items() if isinstance(value, int) and "/" not in name},
            "rejected_share": rejected_share,
            "queries_evaluated": len(queries),
            **left_out,
            "candidates": count,
        },
    )


def own_corpus(bundle: Artifact, settings: Settings) -> JudgedCorpus:
    """The test queries that a bundle was released with, its candidates and scores as they were stored.

    Only the candidates of its own first stage were scored. Raises `ArtifactError` where an artifact that it was made
    from is gone.
    """
    store = ArtifactStore.of(settings)
    inputs = bundle.manifest.inputs
    parts = (names.EVALUATION_SET, names.PASSAGES, names.CANDIDATES, names.OFFLINE_EVALUATION)
    evaluation_set, passages, retrieved, evaluation = (store.open(name, inputs[name]) for name in parts)
    scored = store.open(names.SCORED_CANDIDATES, evaluation.manifest.inputs[names.SCORED_CANDIDATES])
    queries, judgments = split_of(evaluation_set, "test")
    ids = queries["query_id"]
    stages = retrieved.read_table("first_stage.parquet")
    table = scored.read_table("scored.parquet")
    table = table.loc[table["query_id"].isin(ids)].reset_index(drop=True)
    return JudgedCorpus(
        name="own corpus",
        split="test",
        passages=passages.read_table("passages.parquet"),
        queries=queries.reset_index(drop=True),
        judgments=judgments.reset_index(drop=True),
        first_stages=stages.loc[stages["query_id"].isin(ids)].reset_index(drop=True),
        scored=table.assign(given=True),
        seconds=first_stage_seconds(retrieved.summary)
        | {f"pair_{name}": seconds for name, seconds in seconds_per_pair(scored).items()},
        facts={
            "name": "own corpus",
            "split": "test",
            "version": evaluation_set.data_version,
            **{name: value for name, value in passages.summary.items() if name in _COUNTS},
            "queries_evaluated": len(queries),
            "queries_without_relevant": 0,
            "queries_not_sampled": 0,
            "candidates": int(table["rank"].max()),
        },
    )


def _with_settings_of(bundle: Artifact, settings: Settings, candidates: int) -> Settings:
    """The deployment's settings with what the bundle was made with: its encoder, by its own copy, and its indexes.

    The source is given and has judgments of its own, so that no queries are made from the text.
    """
    facts = Bundle.open(bundle).facts
    values = settings.model_dump()
    values |= {"encoder": facts.settings.encoder.model_dump(), "index": facts.settings.index.model_dump()}
    values["encoder"]["model"] = str(bundle.folder / "encoder")
    values["evaluation"]["candidates"] = candidates
    values["training"] |= {"pseudo_queries": "off", "max_tokens": facts.max_tokens}
    return Settings.model_validate(values)


def _sample(
    tables: Mapping[str, Artifact], split: str, max_queries: int | None, name: str
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, int]]:
    """The queries of the split that a document of the corpus is relevant to, their judgments on documents of the
    corpus, and counts of what was left out."""
    queries = tables["queries"].read_table("queries.parquet")
    judgments = tables["judgments"].read_table("judgments.parquet")
    documents = tables["passages"].read_table("passages.parquet", ["document_id"])["document_id"]
    resolved = judgments.loc[judgments["document_id"].isin(documents)]
    of_split = queries.loc[queries["split"] == split]
    usable = of_split.loc[of_split["query_id"].isin(resolved.loc[resolved["grade"] > 0, "query_id"])]
    if usable.empty:
        splits = ", ".join(f"{part} {count}" for part, count in queries["split"].value_counts().items())
        raise SourceError(
            f"{name}: no query of the split {split} has a relevant document", f"Queries by split: {splits or 'none'}."
        )
    chosen = usable if max_queries is None else sample_by_hash(usable, max_queries)
    chosen = chosen.sort_values("query_id", ignore_index=True)
    kept = resolved.loc[resolved["query_id"].isin(chosen["query_id"])].reset_index(drop=True)
    left_out = {
        "queries_without_relevant": len(of_split) - len(usable),
        "queries_not_sampled": len(usable) - len(chosen),
    }
    return chosen, kept, left_out


def _score(
    store: ArtifactStore,
    settings: Settings,
    bundle: Artifact,
    retrieved: Artifact,
    queries: pd.DataFrame,
    passages: Artifact,
    report: Callable[[int, int], None],
) -> tuple[pd.DataFrame, dict[str, float]]:
    """The candidates with the logits of all models, and the seconds of a pair in each model.

    Queries are scored some at a time and kept: a call that was killed is gone on with, and a larger sample, which holds
    the smaller one, scores only what it adds.
    """
    table = retrieved.read_table("pooled.parquet")
    by_hash = sample_by_hash(queries, len(queries))
    files = {name: entry.sha256 for name, entry in bundle.manifest.files.items() if name.startswith(_OF_MODELS)}
    models = StoredModels.of_bundle(bundle.folder, chosen(settings.training.max_tokens), settings.engine.threads)
    read_passages = cache(partial(passages.read_table, "passages.parquet", ["passage_id", "title", "text"]))
    parts = []
    for start in range(0, len(by_hash), _QUERIES_KEPT):
        asked = by_hash.iloc[start : start + _QUERIES_KEPT]
        rows = table.loc[table["query_id"].isin(asked["query_id"])]
        done = sum(len(part.read_table("scored.parquet", ["query_id"])) for part in parts)
        parts.append(
            SCORED_CANDIDATES.get_or_create(
                store,
                settings,
                partial(
                    score,
                    lambda rows=rows: rows,
                    asked,
                    read_passages,
                    models,
                    partial(_report_all, report, len(models.folders) * done, len(models.folders) * len(table)),
                ),
                inputs=(passages,),
                outside={"pairs": _digest_table(rows), "models": digest_json(files)},
            )
        )
    pairs = np.array([part.summary["dagster/row_count"] for part in parts])
    seconds = {
        f"pair_{tier}": float(np.average([seconds_per_pair(part)[tier] for part in parts], weights=pairs))
        for tier in models.folders
    }
    scored = pd.concat([part.read_table("scored.parquet") for part in parts], ignore_index=True)
    order = ["query_id", "given", "rank"]
    return scored.sort_values(order, ascending=[True, False, True], ignore_index=True), seconds


def _report_all(report: Callable[[int, int], None], before: int, total: int, done: int, _: int) -> None:
    report(before + done, total)


def _digest_table(table: pd.DataFrame) -> str:
    hashes: pd.Series = pd.Series(hash_pandas_object(table, index=False))
    return digest_json(hashes.tolist())
