"""Traffic of a released reranker for tests of monitoring: an evaluation, a release, and decisions like them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import numpy as np
import pandas as pd

from models.contracts.messages import Decision
from models.records.database import Database
from models.records.decisions import decision_row, insert_decisions
from models.records.ledger import Ledger, Release
from models.release.bundle import BundleFacts, BundleSettings
from models.settings import EncoderSettings, IndexSettings, TiersSettings
from models.store.artifacts import ArtifactStore
from tests.deployments import write_artifact
from tests.releases import release_bundle

DAY = date(2026, 3, 10)
_WORDS = "sort merge filter join group rows columns table index query model how read write count split".split()
_OTHER_WORDS = "wie sortiert man zeilen spalten einer tabelle nach datum und wert oder sucht eintraege darin".split()
_RANKED = 10


def record(database: Database, decision: Decision) -> None:
    """Store one decision now; one that is stored already is left as it is."""
    insert_decisions(database, [decision_row(decision)])


def decision(decision_id: str, when: datetime | None = None, **changes: Any) -> Decision:
    """A decision at noon of `DAY` with two ranked passages."""
    values = {
        "decision_id": decision_id,
        "trace_id": "t",
        "time": when or datetime.combine(DAY, time(12), UTC),
        "endpoint": "/v1/answer",
        "caller": "key-1",
        "query": "how to merge tables",
        "candidates": [
            {"passage_id": "a", "rank": 1, "dense_score": 0.4, "lexical_score": 7.0},
            {"passage_id": "b", "rank": 2, "dense_score": 0.7, "lexical_score": 2.0},
        ],
        "ranking": [
            {"passage_id": "a", "rank": 1, "score": 0.9, "tier": "large"},
            {"passage_id": "b", "rank": 2, "score": 0.5, "tier": "compact"},
        ],
        "release_id": "r-unknown",
        "model_version": "1",
        "index_version": "i",
        "corpus_version": "c",
        "stage_ms": {"retrieve": 5.0, "total": 25.0},
        "answer": "Like so.",
    }
    return Decision.model_validate({**values, **changes})


def release(store: ArtifactStore, ledger: Ledger, *, queries: int = 150, seed: int = 0, best: str = "p0") -> Release:
    """Release a bundle that was evaluated on `queries` test queries; another seed gives another bundle.

    `best` is the passage that its golden query must find.
    """
    asked = list(_questions(np.random.default_rng(seed), queries, _WORDS, 0.0))
    test = pd.DataFrame({"query_id": [f"q{i}" for i in range(queries)], "text": [text for text, _ in asked]})
    rankings = [
        {**row, "query_id": f"q{i}", "system": "tiered"} for i, (_, ranked) in enumerate(asked) for row in ranked
    ]
    # Another split and another system, which are no reference.
    other = pd.DataFrame({"query_id": ["dev"], "text": ["not asked"], "split": ["dev"]})
    rankings += [{**row, "query_id": "q0", "system": "large", "score": 99.0} for row in asked[0][1]]
    evaluation_set = write_artifact(
        store,
        "corpus/evaluation_set",
        {"queries.parquet": pd.concat([test.assign(split="test"), other], ignore_index=True)},
    )
    evaluation = write_artifact(
        store,
        "evaluation/offline_evaluation",
        {"rankings.parquet": pd.DataFrame(rankings)},
        inputs={"corpus/evaluation_set": evaluation_set.data_version},
    )
    store.point(evaluation)
    versions = {"offline_evaluation": evaluation.data_version, "evaluation_set": evaluation_set.data_version}
    golden = [{"query_id": "q0", "query": asked[0][0], "passage_ids": [best], "logits": [1.0], "labels": []}]
    facts = BundleFacts(
        corpus_version="c",
        index_version="i",
        versions=versions,
        max_tokens=64,
        candidates=10,
        settings=BundleSettings(
            encoder=EncoderSettings(), index=IndexSettings(), tiers=TiersSettings(), generator={}, evaluation={}
        ),
    )
    files = {"bundle.json": facts.model_dump(mode="json"), "golden.json": golden}
    bundle = write_artifact(
        store, "release/release_candidate", {}, {name: json.dumps(value).encode() for name, value in files.items()}
    )
    return release_bundle(ledger, bundle.data_version)


def ask(
    database: Database,
    served: Release,
    day: date,
    count: int,
    *,
    seed: int = 1,
    shift: float = 0.0,
    other_words: bool = False,
    **changes: Any,
) -> None:
    """Store `count` decisions of a day, answered by a release.

    Without `shift` and `other_words` they are drawn as the evaluation was. `shift` takes that much off each logit and
    first-stage score, in their standard deviations.
    """
    random = np.random.default_rng(seed)
    start = datetime.combine(day, time(), UTC)
    words = _OTHER_WORDS if other_words else _WORDS
    asked = []
    for number, (text, ranked) in enumerate(_questions(random, count, words, shift)):
        rows = [{**row, "score": float(1 / (1 + np.exp(-row["score"])))} for row in ranked]
        values = {
            "query": text,
            "candidates": [{name: row[name] for name in ("dense_score", "lexical_score")} for row in rows],
            "ranking": rows,
            "release_id": served.release_id,
            "stage_ms": {"total": float(random.gamma(4, 50))},
        }
        when = start + timedelta(seconds=number)
        asked.append(decision_row(decision(f"{day}-{seed}-{number}", when, **{**values, **changes})))
    insert_decisions(database, asked)


def _questions(
    random: np.random.Generator, count: int, words: Sequence[str], shift: float
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Questions with the ranking that they got: logits as scores, best first."""
    for _ in range(count):
        text = " ".join(random.choice(words, size=random.integers(3, 12)))
        logits = np.sort(random.normal(0, 1.5, _RANKED) - 1.5 * shift)[::-1]
        columns = {
            "passage_id": [f"p{i}" for i in range(_RANKED)],
            "rank": range(1, _RANKED + 1),
            "score": logits.tolist(),
            "dense_score": (random.normal(0.5, 0.1, _RANKED) - 0.1 * shift).tolist(),
            "lexical_score": np.maximum(0.0, random.normal(12, 3, _RANKED) - 3 * shift).tolist(),
            "tier": random.permutation(["large"] * 5 + ["compact"] * 5).tolist(),
        }
        yield text, [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
