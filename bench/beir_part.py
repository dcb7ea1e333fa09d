"""A part of a folder in BEIR's layout: some of its queries, their documents, and others beside them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from models.corpus.splits import sample_by_hash


def sampled_judgments(source: Path, split: str, queries: int) -> pd.DataFrame | None:
    """The judgments of a stable sample of the split's queries that have a relevant document; None without the split."""
    file = source / "qrels" / f"{split}.tsv"
    if not file.is_file():
        return None
    table = pd.read_csv(file, sep="\t", dtype={"query-id": str, "corpus-id": str})
    relevant = pd.DataFrame({"query_id": table.loc[table["score"] > 0, "query-id"].unique()})
    return table[table["query-id"].isin(sample_by_hash(relevant, queries)["query_id"])]


def write_part(source: Path, folder: Path, documents: int, judgments: Mapping[str, pd.DataFrame]) -> None:
    """Write the queries that `judgments` has by split, their relevant documents, and others up to `documents`."""
    wanted = {name for table in judgments.values() for name in table.loc[table["score"] > 0, "corpus-id"]}
    with gzip.open(source / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = {str(json.loads(line)["_id"]): line for line in lines}
    others = pd.DataFrame({"query_id": [name for name in texts if name not in wanted]})
    kept = {*wanted, *sample_by_hash(others, max(documents - len(wanted), 0))["query_id"]}
    asked = {name for table in judgments.values() for name in table["query-id"]}
    queries = (source / "queries.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    new = folder.with_name(f".{folder.name}")
    (new / "qrels").mkdir(parents=True, exist_ok=True)
    (new / "corpus.jsonl").write_text("".join(texts[name] for name in texts if name in kept), encoding="utf-8")
    of_asked = "".join(line for line in queries if str(json.loads(line)["_id"]) in asked)
    (new / "queries.jsonl").write_text(of_asked, encoding="utf-8")
    for split, table in judgments.items():
        table[table["corpus-id"].isin(kept)].to_csv(new / "qrels" / f"{split}.tsv", sep="\t", index=False)
    new.replace(folder)
