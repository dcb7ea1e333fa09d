"""What must hold between tables of a corpus: references resolve, splits are apart, and few rows were refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from models.corpus.splits import repeated_texts
from models.corpus.steps import REFERENCES_RESOLVE, REJECTED_SHARE, SPLITS_ARE_DISJOINT
from models.errors import SourceError

if TYPE_CHECKING:
    from models.store.artifacts import Artifact, ArtifactStore

_SHOWN = 20


def require_judgments(judgments: pd.DataFrame) -> None:
    """Raise `SourceError` unless a judgment is positive: without any, there is nothing to train on or to evaluate."""
    if not (judgments["grade"] > 0).any():
        raise SourceError(
            "the corpus has no judgment that a document is relevant, so nothing can be trained or evaluated",
            "Give its source queries and judgments: docs/sources.md shows where. Passages and indexes need none. "
            "Without any, training.pseudo_queries=auto makes queries from the text.",
        )


def rejected_share(
    passages: pd.DataFrame, queries: pd.DataFrame, judgments: pd.DataFrame, quarantined_rows: pd.DataFrame
) -> float:
    """Share of refused rows in the worst of documents, queries and judgments, 0 to 1.

    The worst, because a million good documents would hide that no judgment was usable. Well-formed rows that were kept
    out as leakage between splits do not count.
    """
    refused = Counter(quarantined_rows.loc[quarantined_rows["rule"] != "leakage", "table"])
    kept = {"documents": passages["document_id"].nunique(), "queries": len(queries), "judgments": len(judgments)}
    return max(refused[table] / max(refused[table] + rows, 1) for table, rows in kept.items())


def unresolved_references(judgments: pd.DataFrame, queries: pd.DataFrame, passages: pd.DataFrame) -> pd.DataFrame:
    """Judgments that name a query or a document that does not exist, rows (`query_id`, `document_id`, `missing`)."""
    no_query = ~judgments["query_id"].isin(queries["query_id"])
    no_document = ~judgments["document_id"].isin(passages["document_id"])
    missing = [
        " and ".join(name for name, absent in (("query", query), ("document", document)) if absent)
        for query, document in zip(no_query, no_document, strict=True)
    ]
    checked = judgments[["query_id", "document_id"]].assign(missing=missing)
    return checked.loc[no_query | no_document].reset_index(drop=True)


def find_rejected_rows(store: ArtifactStore, tables: Mapping[str, Artifact]) -> dict[str, Any]:
    """`{"share": of the worst table, "rows": all that were refused, "examples": [...]}` for the tables of one reading,
    by name; computed once per content and code."""
    return REJECTED_SHARE.remember(store, _versions(*tables.values()), partial(rejected_rows, dict(tables)))


def require_accepted(store: ArtifactStore, tables: Mapping[str, Artifact], limit: float, name: str) -> float:
    """The share of refused rows in the worst table of the corpus `name`. Raises `SourceError` where it is above
    `limit`, which is `corpus.max_rejected_share`."""
    share = float(find_rejected_rows(store, tables)["share"])
    if share <= limit:
        return share
    file = "quarantined_rows.parquet"
    refused = tables["quarantined_rows"].read_table(file)
    first = refused.iloc[0]
    raise SourceError(
        f"{name}: {share:.1%} of the rows were refused, more than the {limit:.1%} of corpus.max_rejected_share; the "
        f"first: {first['table']} {first['position']}: {first['reason']}",
        f"All {len(refused)} are in {tables['quarantined_rows'].folder / file}. Correct the source, or --set "
        "corpus.max_rejected_share.",
    )


def rejected_rows(tables: Mapping[str, Artifact]) -> dict[str, Any]:
    """What `find_rejected_rows` remembers."""
    frames = {name: tables[name].read_table(f"{name}.parquet") for name in ("passages", "queries", "judgments")}
    refused = tables["quarantined_rows"].read_table("quarantined_rows.parquet")
    return {
        "share": rejected_share(**frames, quarantined_rows=refused),
        "rows": len(refused),
        "examples": refused.loc[:, ["table", "reason", "position"]].head(_SHOWN).to_dict("records"),
    }


def find_unresolved(store: ArtifactStore, judgments: Artifact, queries: Artifact, passages: Artifact) -> dict[str, Any]:
    """`{"count": of `unresolved_references`, "examples": [...]}`; computed once per content and code."""
    artifacts = (judgments, queries, passages)
    return REFERENCES_RESOLVE.remember(store, _versions(*artifacts), partial(unresolved, *artifacts))


def unresolved(judgments: Artifact, queries: Artifact, passages: Artifact) -> dict[str, Any]:
    """What `find_unresolved` remembers."""
    rows = unresolved_references(
        judgments.read_table("judgments.parquet"),
        queries.read_table("queries.parquet", ["query_id"]),
        passages.read_table("passages.parquet", ["document_id"]),
    )
    return examples_of(rows)


def find_repeated(store: ArtifactStore, queries: Artifact) -> dict[str, Any]:
    """`{"count": of queries with the text of one in another split, "examples": [...]}`; computed once per content and
    code."""
    return SPLITS_ARE_DISJOINT.remember(store, _versions(queries), partial(repeated, queries))


def repeated(queries: Artifact) -> dict[str, Any]:
    """What `find_repeated` remembers."""
    return examples_of(repeated_texts(queries.read_table("queries.parquet")))


def examples_of(rows: pd.DataFrame) -> dict[str, Any]:
    """How many rows break a rule, and the first of them, as JSON values."""
    return {"count": len(rows), "examples": rows.head(_SHOWN).to_dict("records")}


def _versions(*artifacts: Artifact) -> dict[str, Any]:
    return {"inputs": {artifact.asset: artifact.data_version for artifact in artifacts}}
