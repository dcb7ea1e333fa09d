"""A `files` corpus cut from the documentation of installed packages: real text, on every machine, in a second."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models.corpus.sources.python_docs import PythonDocsSource
from models.settings import PythonDocsSettings

PACKAGES = ["httpx", "typer", "pandera"]
TABLES = {"documents": "documents.jsonl", "queries": "queries.jsonl", "judgments": "judgments.jsonl"}


def write_docs_corpus(folder: Path, documents: int, left_out: int = 0) -> None:
    """Write three JSON Lines tables of `documents` documents less the last `left_out`, with their queries."""
    source = PythonDocsSource(PythonDocsSettings(packages=PACKAGES, max_documents=documents, max_body_characters=300))
    result = list(source.documents())
    kept = {document.document_id for document in result[: len(result) - left_out]}
    judgments = [judgment for judgment in source.judgments() if judgment.document_id in kept]
    judged = {judgment.query_id for judgment in judgments}
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / TABLES["documents"], (asdict(item) for item in result if item.document_id in kept))
    _write(folder / TABLES["queries"], (asdict(query) for query in source.queries() if query.query_id in judged))
    _write(folder / TABLES["judgments"], (asdict(judgment) for judgment in judgments))


def docs_settings(folder: Path) -> dict[str, Any]:
    """The settings that read such a folder, by dotted key."""
    return {
        "corpus.source": "files",
        "corpus.path": str(folder),
        **{f"corpus.files.{table}": name for table, name in TABLES.items()},
    }


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
