"""A small corpus whose tables hold every contract and expectation."""

from __future__ import annotations

import hashlib

import pandas as pd


def passages(count: int = 80) -> pd.DataFrame:
    texts = [f"Passage number {i} says something long enough about topic {i}." for i in range(count)]
    return pd.DataFrame(
        {
            "passage_id": [f"d{i}#0" for i in range(count)],
            "document_id": [f"d{i}" for i in range(count)],
            "title": [f"Topic {i}" for i in range(count)],
            "text": texts,
            "start": [0] * count,
            "end": [len(text) for text in texts],
            "source": ["files"] * count,
            "access": [[] for _ in range(count)],
            "content_hash": [hashlib.sha256(text.encode()).hexdigest() for text in texts],
            "updated_at": pd.Series([None] * count, dtype="str"),
        }
    )


def queries(test: int = 60, dev: int = 10, train: int = 10) -> pd.DataFrame:
    count = test + dev + train
    return pd.DataFrame(
        {
            "query_id": [f"q{i}" for i in range(count)],
            "text": [f"how does topic {i} work" for i in range(count)],
            "split": ["test"] * test + ["dev"] * dev + ["train"] * train,
        }
    )


def judgments(count: int = 80) -> pd.DataFrame:
    ids = range(count)
    return pd.DataFrame(
        {"query_id": [f"q{i}" for i in ids], "document_id": [f"d{i}" for i in ids], "grade": [1] * count}
    )


def quarantined_rows(count: int = 0) -> pd.DataFrame:
    columns = {
        "table": ["documents"] * count,
        "reason": ["no text"] * count,
        "position": [f"corpus.jsonl:{i}" for i in range(count)],
        "rule": ["missing"] * count,
        "digest": [f"{i:024x}" for i in range(count)],
        "row": ["{}"] * count,
    }
    return pd.DataFrame({name: pd.Series(values, dtype="str") for name, values in columns.items()})


def corrections(count: int = 0) -> pd.DataFrame:
    columns = {
        "correction_id": [f"c{i}" for i in range(count)],
        "table": ["documents"] * count,
        "position": [f"corpus.jsonl:{i}" for i in range(count)],
        "state": ["applied"] * count,
        "message": ["read as corrected"] * count,
    }
    return pd.DataFrame({name: pd.Series(values, dtype="str") for name, values in columns.items()})


def excluded_queries(count: int = 2) -> pd.DataFrame:
    ids = range(70, 70 + count)
    return pd.DataFrame(
        {
            "query_id": [f"q{i}" for i in ids],
            "text": [f"How does topic {i} work?" for i in ids],
            "reason": ["same_text"] * count,
            "evaluation_query_id": [f"q{i - 70}" for i in ids],
            "evaluation_text": [f"how does topic {i} work" for i in ids],
            "overlap": [1.0] * count,
            "cosine": [0.99] * count,
        }
    )


def training_examples(count: int = 10) -> pd.DataFrame:
    ids = range(70, 70 + count)
    return pd.DataFrame(
        {
            "query_id": [f"q{i}" for i in ids],
            "query": [f"how does topic {i} work" for i in ids],
            "passage_id": [f"d{i}#0" for i in ids],
            "passage": [f"Topic {i}" for i in ids],
            "label": [1.0] * count,
            "kind": ["positive"] * count,
            "dense_score": [0.5] * count,
            "lexical_score": [3.0] * count,
        }
    )


def logged_lists(count: int = 2) -> pd.DataFrame:
    """Lists of two passages."""
    return pd.DataFrame(
        {
            "query_id": [f"decision-{i // 2}" for i in range(2 * count)],
            "query": [f"what is asked about topic {i // 2}" for i in range(2 * count)],
            "passage_id": [f"d{i}#0" for i in range(2 * count)],
            "passage": [f"Topic {i}" for i in range(2 * count)],
        }
    )
