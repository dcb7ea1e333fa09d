"""A corpus source written as a BEIR folder."""

from __future__ import annotations

import json
from pathlib import Path

from models.contracts.rows import RejectedRow
from models.corpus.sources.base import CorpusSource


def write_beir(source: CorpusSource, folder: Path, broken_rows: int = 0) -> None:
    """Write what `source` yields, its queries in their own splits, and `broken_rows` documents without text."""
    (folder / "qrels").mkdir(parents=True)
    documents = [item for item in source.documents() if not isinstance(item, RejectedRow)]
    queries = [item for item in source.queries() if not isinstance(item, RejectedRow)]
    judgments = [item for item in source.judgments() if not isinstance(item, RejectedRow)]
    rows = [{"_id": item.document_id, "title": item.title, "text": item.text} for item in documents]
    rows += [{"_id": f"broken {number}", "title": "", "text": ""} for number in range(broken_rows)]
    _write_lines(folder / "corpus.jsonl", [json.dumps(row) for row in rows])
    _write_lines(folder / "queries.jsonl", [json.dumps({"_id": item.query_id, "text": item.text}) for item in queries])
    split_of = {item.query_id: item.split for item in queries}
    for split in sorted(set(split_of.values())):
        lines = [
            f"{item.query_id}\t{item.document_id}\t{item.grade}"
            for item in judgments
            if split_of[item.query_id] == split
        ]
        _write_lines(folder / "qrels" / f"{split}.tsv", ["query-id\tcorpus-id\tscore", *lines])


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
