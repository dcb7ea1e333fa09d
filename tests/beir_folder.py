"""A corpus source written as a BEIR folder."""

from __future__ import annotations

import json
from pathlib import Path

from models.contracts.rows import RejectedRow
from models.corpus.sources.base import CorpusSource


def write_beir(source: CorpusSource, folder: Path, broken_rows: int = 0) -> None:
    """Write what `source` yields, its queries in their own splits, and `broken_rows` documents without text."""
    (folder / "qrels").mkdir(parents=True)
    documents = [one for one in source.documents() if not isinstance(one, RejectedRow)]
    queries = [one for one in source.queries() if not isinstance(one, RejectedRow)]
    judgments = [one for one in source.judgments() if not isinstance(one, RejectedRow)]
    rows = [{"_id": one.document_id, "title": one.title, "text": one.text} for one in documents]
    rows += [{"_id": f"broken {number}", "title": "", "text": ""} for number in range(broken_rows)]
    _write_lines(folder / "corpus.jsonl", [json.dumps(row) for row in rows])
    _write_lines(folder / "queries.jsonl", [json.dumps({"_id": one.query_id, "text": one.text}) for one in queries])
    split_of = {one.query_id: one.split for one in queries}
    for split in sorted(set(split_of.values())):
        lines = [
            f"{one.query_id}\t{one.document_id}\t{one.grade}" for one in judgments if split_of[one.query_id] == split
        ]
        _write_lines(folder / "qrels" / f"{split}.tsv", ["query-id\tcorpus-id\tscore", *lines])


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
