# pandas' stubs type a selection as Series or DataFrame.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportReturnType=false, reportGeneralTypeIssues=false
"""A judged corpus read, indexed, retrieved from and scored with a bundle."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from models.corpus.ingest import CorpusTables, rejected_share, write_corpus
from models.corpus.sources.base import CorpusSource
from models.corpus.splits import sample_by_hash
from models.cross_encoder.candidate_scores import score_candidates
from models.cross_encoder.engines import SIZES
from models.errors import SourceError
from models.evaluation.evaluation_set import split_of
from models.evaluation.report import FIRST_STAGES
from models.release.bundle import BUNDLE
from models.settings import EncoderSettings, IndexSettings, Settings, values_of
from models.store.artifacts import Artifact, ArtifactStore
from models.store.code_version import code_version
from models.store.durable_files import digest_json
from models.store.tables import write_table
from models.weights import weights_digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.cross_encoder.bfloat16 import Bfloat16Scorer
    from models.cross_encoder.engines import OnnxScorer
    from models.cross_encoder.scorer import CrossEncoderScorer
    from models.retrieval.dense_index import DenseIndex
    from models.retrieval.lexical_index import LexicalIndex

Report = Callable[[str, int, int], None]
"""Told (what, done, of how many)."""
_READ = (
    "corpus.ingest",
    "corpus.row_rules",
    "store.tables",
    "corpus.external_sort",
    "store.durable_files",
    "corpus.chunking",
    "corpus.splits",
    "contracts.messages",
    "contracts.tables",
)
_EMBED = (
    "retrieval.embedding",
    "retrieval.encoder",
    "text.passage_text",
)
_DENSE = (
    "retrieval.dense_index",
    "retrieval.approximate_index",
)
_LEXICAL = (
    "retrieval.lexical_index",
    "text.tokenize",
)
_RETRIEVE = (
    "operations.bundle_evaluation",
    "operations.judged_corpus",
    "retrieval.candidates",
    "retrieval.fusion",
    "retrieval.retriever",
    *_DENSE,
    *_LEXICAL,
    "retrieval.encoder",
    "text.passage_text",
)
_SCORE = (
    "cascade.offline",
    "cross_encoder.candidate_scores",
    "evaluation.costs",
    "cross_encoder.engines",
    "training.engine_selection",
    "cross_encoder.scorer",
    "cross_encoder.pair_head",
    "cross_encoder.pair_tokenizer",
    "cross_encoder.passage_cut",
)
_OF_MODELS = ("compact/", "large/", "engines/")
_QUERIES_KEPT = 32
"""Queries between two states that a killed call goes on from."""
_COUNTS = ("documents", "passages", "queries", "judgments", "quarantined_rows")
_TABLES = ("passages", "queries", "judgments", "quarantined_rows")


@dataclass(frozen=True)
class JudgedCorpus:
    """What a bundle is evaluated on: the queries that count, everything retrieved for them, and both models' logits.

    `scored` holds the candidates that any first stage puts among its best, `hybrid` saying whether the hybrid one does:
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
    facts = bundle.read_json(BUNDLE)
    count = candidates or int(facts["candidates"])
    store = ArtifactStore(str(settings.evaluations), settings.evaluations / "cache")
    tables = _read(store, bundle, source, settings)
    _require_accepted(tables, settings, name)
    queries, judgments, left_out = _sample(tables, split, max_queries, name)
    dense, lexical = _index(store, bundle, tables, IndexSettings.model_validate(facts["settings"]["index"]), report)
    found = _retrieve(store, bundle, tables, dense, lexical, queries, count, report)
    scored, seconds = _score(store, bundle, found, queries, tables, settings.engine.threads, report)
    return JudgedCorpus(
        name=name,
        split=split,
        passages=tables.read_table("passages.parquet"),
        queries=queries,
        judgments=judgments,
        first_stages=found.read_table("first_stage.parquet"),
        scored=scored,
        seconds={
            **{stage: float(found.summary[f"seconds_per_query_{stage}"]) for stage in FIRST_STAGES},
            **{f"pair_{name}": seconds[name] for name in SIZES},
        },
        facts={
            "name": name,
            "split": split,
            "version": tables.data_version,
            **{key: value for key, value in tables.summary.items() if isinstance(value, int | float)},
            "queries_evaluated": len(queries),
            **left_out,
            "candidates": count,
        },
    )


def own_corpus(bundle: Artifact, settings: Settings) -> JudgedCorpus:
    """The test queries that a bundle was released with, its candidates and scores as they were stored.

    Only the hybrid candidates were scored. Raises `ArtifactError` where an artifact that it was made from is gone.
    """
    store = ArtifactStore.of(settings)
    inputs = bundle.manifest.inputs
    parts = ("corpus/evaluation_set", "corpus/passages", "index/candidates", "evaluation/offline_evaluation")
    evaluation_set, passages, found, evaluation = (store.open(name, inputs[name]) for name in parts)
    scored = store.open("evaluation/scored_candidates", evaluation.manifest.inputs["evaluation/scored_candidates"])
    queries, judgments = split_of(evaluation_set, "test")
    ids = queries["query_id"]
    stages = found.read_table("first_stage.parquet")
    table = scored.read_table("scored.parquet")
    table = table[table["query_id"].isin(ids)].reset_index(drop=True)
    return JudgedCorpus(
        name="own corpus",
        split="test",
        passages=passages.read_table("passages.parquet"),
        queries=queries.reset_index(drop=True),
        judgments=judgments.reset_index(drop=True),
        first_stages=stages[stages["query_id"].isin(ids)].reset_index(drop=True),
        scored=table.assign(hybrid=True),
        seconds={
            **{stage: float(found.summary[f"seconds_per_query_{stage}"]) for stage in FIRST_STAGES},
            **{f"pair_{name}": float(scored.summary[f"seconds_per_pair_{name}"]) for name in SIZES},
        },
        facts={
            "name": "own corpus",
            "split": "test",
            "version": evaluation_set.data_version,
            **{key: value for key, value in passages.summary.items() if key in _COUNTS},
            "queries_evaluated": len(queries),
            "queries_without_relevant": 0,
            "queries_not_sampled": 0,
            "candidates": int(table["rank"].max()),
        },
    )


def _read(store: ArtifactStore, bundle: Artifact, source: CorpusSource, settings: Settings) -> Artifact:
    from models.corpus.chunking import load_tokenizer
    from models.retrieval.encoder import tokenizer_file
    from models.store.durable_files import digest_file

    tokenizer = tokenizer_file(str(bundle.folder / "encoder"))
    fingerprint = source.fingerprint()

    def build(folder: Path) -> dict[str, Any]:
        counts = write_corpus(source, settings.corpus, load_tokenizer(tokenizer), folder, fingerprint)
        tables = CorpusTables(*(pd.read_parquet(folder / f"{name}.parquet") for name in _TABLES))
        return {**counts, "rejected_share": rejected_share(tables)}

    modules = (
        *_READ,
        *(f"corpus.sources.{path.stem}" for path in (Path(__file__).parent.parent / "corpus" / "sources").glob("*.py")),
    )
    lengths = ("passage_tokens", "overlap_tokens", "dev_share", "test_share", "max_decompressed_bytes")
    return store.get_or_create(
        "corpus/tables",
        code_version=code_version(*modules),
        inputs={"source": fingerprint, "tokenizer": digest_file(tokenizer)},
        settings=values_of(settings, *(f"corpus.{length}" for length in lengths)),
        build=build,
    )


def _require_accepted(tables: Artifact, settings: Settings, name: str) -> None:
    share, limit = float(tables.summary["rejected_share"]), settings.corpus.max_rejected_share
    if share <= limit:
        return
    refused = tables.read_table("quarantined_rows.parquet")
    first = refused.iloc[0]
    raise SourceError(
        f"{name}: {share:.1%} of the rows were refused, more than the {limit:.1%} of corpus.max_rejected_share; the "
        f"first: {first['table']} {first['position']}: {first['reason']}",
        f"All {len(refused)} are in {tables.folder / 'quarantined_rows.parquet'}. Correct the source, or --set "
        "corpus.max_rejected_share.",
    )


def _sample(
    tables: Artifact, split: str, max_queries: int | None, name: str
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, int]]:
    """The queries of the split that a document of the corpus is relevant to, their judgments on documents of the
    corpus, and counts of what was left out."""
    queries, judgments = tables.read_table("queries.parquet"), tables.read_table("judgments.parquet")
    documents = set(tables.read_table("passages.parquet", ["document_id"])["document_id"])
    known = judgments[judgments["document_id"].isin(documents)]
    of_split = queries[queries["split"] == split]
    usable = of_split[of_split["query_id"].isin(known.loc[known["grade"] > 0, "query_id"])]
    if usable.empty:
        splits = ", ".join(f"{part} {count}" for part, count in queries["split"].value_counts().items())
        raise SourceError(
            f"{name}: no query of the split {split} has a relevant document", f"Queries by split: {splits or 'none'}."
        )
    chosen = usable if max_queries is None else sample_by_hash(usable, max_queries)
    chosen = chosen.sort_values("query_id", ignore_index=True)
    kept = known[known["query_id"].isin(chosen["query_id"])].reset_index(drop=True)
    left_out = {
        "queries_without_relevant": len(of_split) - len(usable),
        "queries_not_sampled": len(usable) - len(chosen),
    }
    return chosen, kept, left_out


def _index(
    store: ArtifactStore, bundle: Artifact, tables: Artifact, settings: IndexSettings, report: Report
) -> tuple[Artifact, Artifact]:
    from models.retrieval.approximate_index import choose_kind
    from models.retrieval.dense_index import build_index
    from models.retrieval.embedding import ENCODER, embed_corpus
    from models.retrieval.encoder import Encoder
    from models.retrieval.lexical_index import LexicalIndex
    from models.text.passage_text import passage_text

    weights = bundle.folder / "encoder"
    encoder = EncoderSettings.model_validate(bundle.read_json(BUNDLE)["settings"]["encoder"])
    read = {"max_tokens": encoder.max_tokens}
    passages = tables.read_table("passages.parquet", ["passage_id", "title", "text", "content_hash"])
    # Vectors are of contents alone: queries or judgments that change embed nothing anew.
    inputs = {"contents": digest_json(passages["content_hash"].tolist()), "encoder": weights_digest(weights)}

    def embed(folder: Path) -> dict[str, Any]:
        key = digest_json([code_version(*_EMBED), inputs["encoder"], read])[:24]
        summary = embed_corpus(
            passages,
            weights,
            encoder,
            folder,
            checkpoint=store.scratch(f"embeddings-{key}"),
            progress=lambda done, total: report("passages embedded", done, total),
        )
        shutil.rmtree(folder / ENCODER)  # The bundle has it.
        return summary

    vectors = store.get_or_create(
        "index/passage_embeddings", code_version=code_version(*_EMBED), inputs=inputs, settings=read, build=embed
    )
    embeddings = np.load(vectors.path("embeddings.npy"), mmap_mode="r", allow_pickle=False)
    kind = choose_kind(len(embeddings), embeddings.shape[1], settings)

    def query_vectors() -> NDArray[np.float32]:
        asked = sample_by_hash(tables.read_table("queries.parquet"), settings.recall_queries)
        return Encoder.load(weights, encoder.max_tokens).encode_queries(asked["text"].tolist())

    dense = store.get_or_create(
        "index/dense_index",
        code_version=code_version(*_DENSE),
        inputs={"corpus/tables": tables.data_version, "index/passage_embeddings": vectors.data_version},
        settings={"kind": kind} if kind == "flat" else settings.model_dump(),
        build=lambda folder: build_index(
            folder, embeddings, passages["passage_id"].tolist(), kind, settings, query_vectors
        ),
    )

    def write_lexical(folder: Path) -> dict[str, Any]:
        report("BM25 index", 0, len(passages))
        texts = [passage_text(title, text) for title, text in zip(passages["title"], passages["text"], strict=True)]
        LexicalIndex.build(texts, passages["passage_id"].tolist(), settings.bm25_k1, settings.bm25_b).save(folder)
        return {"passages": len(texts)}

    lexical = store.get_or_create(
        "index/lexical_index",
        code_version=code_version(*_LEXICAL),
        inputs={"corpus/tables": tables.data_version},
        settings={"bm25_k1": settings.bm25_k1, "bm25_b": settings.bm25_b},
        build=write_lexical,
    )
    return dense, lexical


def _retrieve(
    store: ArtifactStore,
    bundle: Artifact,
    tables: Artifact,
    dense: Artifact,
    lexical: Artifact,
    queries: pd.DataFrame,
    count: int,
    report: Report,
) -> Artifact:
    from models.retrieval.candidates import build_candidates, first_stage_rankings
    from models.retrieval.candidates import seconds_per_query as timed
    from models.retrieval.dense_index import DenseIndex
    from models.retrieval.encoder import Encoder
    from models.retrieval.lexical_index import LexicalIndex
    from models.retrieval.retriever import HybridRetriever

    facts = bundle.read_json(BUNDLE)
    settings = IndexSettings.model_validate(facts["settings"]["index"])
    encoder = EncoderSettings.model_validate(facts["settings"]["encoder"])

    def build(folder: Path) -> dict[str, Any]:
        by_meaning, by_words = DenseIndex.load(dense.folder), LexicalIndex.load(lexical.folder)
        retriever = HybridRetriever(
            Encoder.load(bundle.folder / "encoder", encoder.max_tokens),
            by_meaning,
            by_words,
            tables.read_table("passages.parquet", ["passage_id", "document_id", "access"]),
            settings,
        )
        vectors = retriever.encode(queries["text"].tolist())
        rankings = first_stage_rankings(queries, retriever, max(settings.depth, count), vectors)
        hybrid = build_candidates(
            queries, retriever, count, lambda done, total: report("queries retrieved", done, total), vectors
        )
        others = pd.concat([rankings[name][rankings[name]["rank"] <= count] for name in ("bm25", "dense")])
        table = _with_others(hybrid, others, queries, by_meaning, by_words, vectors)
        write_table(table, folder / "union.parquet")
        stages = pd.concat([ranking.assign(system=name) for name, ranking in rankings.items()], ignore_index=True)
        write_table(stages, folder / "first_stage.parquet")
        seconds = timed(queries, retriever, settings.depth)
        return {"pairs": len(table), **{f"seconds_per_query_{name}": value for name, value in seconds.items()}}

    return store.get_or_create(
        "index/candidates",
        code_version=code_version(*_RETRIEVE),
        inputs={
            "corpus/tables": tables.data_version,
            "index/dense_index": dense.data_version,
            "index/lexical_index": lexical.data_version,
            "encoder": weights_digest(bundle.folder / "encoder"),
            "queries": digest_json(queries["query_id"].tolist()),
        },
        settings={
            "rrf_k": settings.rrf_k,
            "depth": settings.depth,
            "max_tokens": encoder.max_tokens,
            "candidates": count,
        },
        build=build,
    )


def _with_others(
    hybrid: pd.DataFrame,
    others: pd.DataFrame,
    queries: pd.DataFrame,
    dense: DenseIndex,
    lexical: LexicalIndex,
    vectors: NDArray[np.float32],
) -> pd.DataFrame:
    """The hybrid candidates and behind them, with `hybrid` false, those of the other first stages that they lack."""
    columns = ["query_id", "passage_id", "document_id"]
    row_of = {passage_id: row for row, passage_id in enumerate(dense.passage_ids)}
    parts = []
    found = dict(iter(others.groupby("query_id")))
    given = dict(iter(hybrid.groupby("query_id")))
    for place, (query_id, text) in enumerate(zip(queries["query_id"], queries["text"], strict=True)):
        known = given[query_id] if query_id in given else hybrid.iloc[:0]
        more = (found[query_id] if query_id in found else others.iloc[:0])[columns].drop_duplicates("passage_id")
        more = more[~more["passage_id"].isin(known["passage_id"])]
        rows = np.array([row_of[passage_id] for passage_id in more["passage_id"]], dtype=np.int64)
        more = more.assign(
            rank=np.arange(len(known) + 1, len(known) + 1 + len(more)),
            retriever_score=0.0,
            dense_score=dense.score(vectors[place : place + 1], rows[None, :])[0].astype(np.float64),
            lexical_score=lexical.score_rows(text, rows).astype(np.float64),
        )
        parts += [known.assign(hybrid=True), more.assign(hybrid=False)]
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


def _score(
    store: ArtifactStore,
    bundle: Artifact,
    found: Artifact,
    queries: pd.DataFrame,
    tables: Artifact,
    threads: int,
    report: Report,
) -> tuple[pd.DataFrame, dict[str, float]]:
    """The candidates with both models' logits, and the seconds of a pair in each model.

    Queries are scored some at a time and kept: a call that was killed is gone on with, and a larger sample, which holds
    the smaller one, scores only what it adds.
    """
    table = found.read_table("union.parquet")
    by_hash = sample_by_hash(queries, len(queries))
    texts = tables.read_table("passages.parquet", ["passage_id", "title", "text"])
    files = {name: one.sha256 for name, one in bundle.manifest.files.items() if name.startswith(_OF_MODELS)}
    version = digest_json(files)
    max_tokens = bundle.read_json(BUNDLE)["max_tokens"]
    load = cache(lambda: _engines(bundle, max_tokens, threads))
    parts = []
    for start in range(0, len(by_hash), _QUERIES_KEPT):
        asked = by_hash.iloc[start : start + _QUERIES_KEPT]
        rows = table[table["query_id"].isin(asked["query_id"])]
        done = sum(len(part.read_table("scored.parquet", ["query_id"])) for part in parts)

        def build(folder: Path, asked=asked, rows=rows, done=done) -> dict[str, Any]:

            scored = score_candidates(
                rows,
                asked,
                texts,
                *load(),
                lambda now, _: report("pairs scored", 2 * done + now, 2 * len(table)),
            )
            write_table(scored.table, folder / "scored.parquet")
            return {"pairs": len(rows), **{f"seconds_{name}": s for name, s in scored.seconds_per_pair.items()}}

        parts.append(
            store.get_or_create(
                "evaluation/scored",
                code_version=code_version(*_SCORE),
                inputs={
                    "corpus/tables": tables.data_version,
                    "pairs": _digest_table(rows),
                    "models": version,
                },
                settings={"max_tokens": max_tokens},
                build=build,
            )
        )
    pairs = np.array([part.summary["pairs"] for part in parts])
    seconds = {
        name: float(np.average([part.summary[f"seconds_{name}"] for part in parts], weights=pairs)) for name in SIZES
    }
    scored = pd.concat([part.read_table("scored.parquet") for part in parts], ignore_index=True)
    order = ["query_id", "hybrid", "rank"]
    return scored.sort_values(order, ascending=[True, False, True], ignore_index=True), seconds


def _engines(bundle: Artifact, max_tokens: int, threads: int) -> list[CrossEncoderScorer | Bfloat16Scorer | OnnxScorer]:
    from models.cross_encoder.engines import load_engine

    return [
        load_engine(bundle.folder / "engines", bundle.folder / size, size, max_tokens, device="auto", threads=threads)
        for size in SIZES
    ]


def _digest_table(table: pd.DataFrame) -> str:
    return digest_json(pd.util.hash_pandas_object(table, index=False).tolist())
