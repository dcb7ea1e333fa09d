"""Planted leaks: `python -m bench.leakage [BEIR folder ...]`, the three corpora below RERANKOPS_DATA by default.

Every evaluation query is reworded in six deterministic ways (`bench.rewording`) and planted into the training queries.
What `models.training.leakage` excludes of them is the recall; what it excludes of the corpus as it is, the price, of
which those that share a relevant document with the evaluation query that they are taken for are leaks by any measure.
Writes docs/benchmarks/leakage.json and prints the tables of docs/benchmarks/leakage.md.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.folders import DATA, FIGURES
from bench.rewording import REWORDINGS
from models.contracts.rows import Judgment, Query
from models.corpus.sources import open_source
from models.corpus.splits import EvaluationTables, assign_splits, evaluation_set
from models.retrieval.candidates import query_hash
from models.retrieval.encoder import Encoder
from models.settings import EncoderSettings, EvaluationSettings, TrainingSettings, load_settings
from models.training.leakage import leaks, training_queries

RESULTS = FIGURES / "leakage.json"
_CORPORA = ("medquad-liveqa-open", "scifact", "squad-v1.1-dev")
_MAX_TRAIN = 6000
Vectors = dict[str, NDArray[np.float32]]

_GRID = [(words, meaning) for words in (0.7, 0.75, 0.8, 0.85) for meaning in (0.85, 0.9, 0.95)]


@dataclass(frozen=True)
class Split:
    """Training queries, the evaluation set, and the relevant documents of every query."""

    train: pd.DataFrame
    evaluated: EvaluationTables
    relevant: dict[str, set[str]]


def read_split(folder: Path | None) -> Split:
    """The split of a BEIR folder, or of the embedded corpus, as the lifecycle makes it."""
    overrides = [] if folder is None else ["corpus.source=beir", f"corpus.path={folder}"]
    settings = load_settings(overrides)
    source = open_source(settings.corpus, settings.corpus_path)
    queries = [(q.query_id, q.text, q.split, q.group) for q in source.queries() if isinstance(q, Query)]
    table = pd.DataFrame(queries, columns=["query_id", "text", "split", "group"]).astype("str")
    rows = [
        (judgment.query_id, judgment.document_id, judgment.grade)
        for judgment in source.judgments()
        if isinstance(judgment, Judgment)
    ]
    judgments = pd.DataFrame(rows, columns=["query_id", "document_id", "grade"])
    judgments = judgments[judgments["query_id"].isin(table["query_id"])]
    placed = assign_splits(table, judgments, settings.corpus.dev_share, settings.corpus.test_share)
    sizes = EvaluationSettings()
    evaluated = evaluation_set(placed, judgments, judgments, sizes.max_dev_queries, sizes.max_test_queries)
    positive = judgments[judgments["grade"] > 0]
    relevant = {str(name): set(documents) for name, documents in positive.groupby("query_id")["document_id"]}
    return Split(placed[placed["split"] == "train"], evaluated, relevant)


def planted(evaluation_queries: pd.DataFrame) -> pd.DataFrame:
    """Each evaluation query in each rewording that changes it; rows (`query_id`, `text`, `split`, `kind`, `origin`)."""
    rows = [
        (f"planted/{kind}/{query_id}", reworded, "train", kind, query_id)
        for kind, reword in REWORDINGS.items()
        for query_id, text in zip(evaluation_queries["query_id"], evaluation_queries["text"], strict=True)
        if (reworded := reword(text)) != text
    ]
    return pd.DataFrame(rows, columns=["query_id", "text", "split", "kind", "origin"])


def embed(split: Split, encoder: Encoder) -> tuple[pd.DataFrame, Vectors]:
    """The planted queries, and the vectors of all queries by their hash."""
    false = planted(split.evaluated.queries)
    texts = [*dict.fromkeys([*split.train["text"], *false["text"], *split.evaluated.queries["text"]])]
    return false, dict(zip(map(query_hash, texts), encoder.encode_queries(texts), strict=True))


def measure(split: Split, false: pd.DataFrame, vectors: Vectors, settings: TrainingSettings) -> dict[str, Any]:
    """Recall of the planted queries by kind, and what is excluded of the corpus as it is."""
    evaluated = split.evaluated.queries
    train = pd.concat([split.train, false[["query_id", "text", "split"]]], ignore_index=True)
    started = time.perf_counter()
    kept, excluded = training_queries(
        train, evaluated, vectors, settings.model_copy(update={"max_queries": len(train)})
    )
    seconds = time.perf_counter() - started
    named = dict(zip(excluded["query_id"], excluded["evaluation_query_id"], strict=True))
    false = false.assign(
        caught=false["query_id"].isin(excluded["query_id"]), named=false["query_id"].map(named) == false["origin"]
    )
    kinds = {
        str(kind): {"planted": len(rows), "caught": int(rows["caught"].sum()), "named": int(rows["named"].sum())}
        for kind, rows in false.groupby("kind", sort=False)
    }
    clean = excluded[~excluded["query_id"].isin(false["query_id"])]
    return {
        "training_queries": len(split.train),
        "evaluation_queries": len(evaluated),
        "seconds": round(seconds, 2),
        "kinds": kinds,
        "clean": _excluded(clean, split.relevant),
        "examples": clean.head(8)[["text", "evaluation_text", "reason", "overlap", "cosine"]].to_dict("records"),
        "kept": len(kept),
    }


def _excluded(table: pd.DataFrame, relevant: dict[str, set[str]]) -> dict[str, int]:
    pairs = zip(table["query_id"], table["evaluation_query_id"], strict=True)
    shared = sum(bool(relevant.get(query, set()) & relevant.get(other, set())) for query, other in pairs)
    return {"excluded": len(table), "sharing_a_document": shared}


def grid(split: Split, false: pd.DataFrame, vectors: Vectors) -> list[dict[str, Any]]:
    """The same for several pairs of thresholds: what is excluded, and the share of the planted ones that is caught."""

    def embedded(table: pd.DataFrame) -> NDArray[np.float32]:
        return np.array([vectors[query_hash(text)] for text in table["text"]])

    evaluated, rows = split.evaluated.queries, []
    for words, meaning in _GRID:
        clean = leaks(split.train, evaluated, embedded(split.train), embedded(evaluated), words, meaning)
        caught = leaks(false, evaluated, embedded(false), embedded(evaluated), words, meaning)
        shares = false["query_id"].isin(caught["query_id"]).groupby(false["kind"]).mean()
        recall = {str(kind): round(float(share), 3) for kind, share in shares.items()}
        rows.append({"overlap": words, "cosine": meaning, **_excluded(clean, split.relevant), "recall": recall})
    return rows


def main() -> None:
    """Measure, print and write."""
    folders = [Path(name) for name in sys.argv[1:]] or [DATA / name for name in _CORPORA]
    encoder = Encoder.load(EncoderSettings().model, EncoderSettings().max_tokens)
    settings = TrainingSettings()
    results = {}
    for folder in (*folders, None):
        split = read_split(folder)
        if len(split.train) > _MAX_TRAIN:
            split = Split(split.train.head(_MAX_TRAIN), split.evaluated, split.relevant)
        name = folder.name if folder else "python-docs"
        false, vectors = embed(split, encoder)
        figures = {**measure(split, false, vectors, settings), "grid": grid(split, false, vectors)}
        results[name] = figures
        print(f"\n{name}: {figures['clean']} of {figures['training_queries']} training queries, {figures['seconds']} s")
        for kind, counts in figures["kinds"].items():
            print(f"  {kind:<22} {counts['caught']} of {counts['planted']} caught, {counts['named']} named")
        for row in figures["grid"]:
            print(
                f"  {row['overlap']} {row['cosine']}: {row['excluded']} ({row['sharing_a_document']}) {row['recall']}"
            )
    RESULTS.write_text(
        json.dumps({"overlap": settings.leak_overlap, "cosine": settings.leak_cosine, "corpora": results}, indent=1)
        + "\n"
    )


if __name__ == "__main__":
    main()
