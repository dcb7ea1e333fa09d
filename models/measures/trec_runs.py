"""TREC run files: `query Q0 document rank score tag`, as trec_eval and every retrieval toolkit reads and writes them.

Runs name documents, as the judgments do (docs/decisions/0002-judgments-name-documents.md).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

import pandas as pd

from models.errors import SourceError
from models.measures.metrics import collapse_to_documents
from models.store.durable_files import write_atomically

_FIELDS = 6
_FORMAT = "A run file has lines of six fields: query Q0 document rank score tag."


@dataclass(frozen=True)
class ImportedRun:
    """The ranking of another system: `query_id, passage_id, document_id, rank, score`, each document its own passage.

    Lines of queries that are not evaluated are `other_queries`, lines of documents that the corpus lacks
    `unknown_documents`: those keep their rank, as they do in trec_eval.
    """

    name: str
    ranking: pd.DataFrame
    lines: int
    other_queries: int
    unknown_documents: int


def read_trec_run(
    path: Path, queries: Collection[str], documents: Collection[str], name: str | None = None
) -> ImportedRun:
    """Read and check a run file; its name is `name`, else the tag of its first line.

    The order is that of the scores, equal ones by document id; the written rank is not read, as trec_eval does not.
    Ids that `export_trec_run` encoded are decoded. Raises `SourceError` with file and line for a line that is no line
    of a run, a score that is no number, or a document twice for a query, and where no line is about the evaluated
    queries.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read as a run file: {error}", _FORMAT) from error
    wanted, known = frozenset(queries), frozenset(documents)
    rows: list[tuple[str, str, float]] = []
    seen: dict[tuple[str, str], int] = {}
    tag, count, others, unknown = "", 0, 0, 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        fields = line.split()
        if len(fields) != _FIELDS:
            raise SourceError(f"{path}:{number}: {len(fields)} fields instead of {_FIELDS}", _FORMAT)
        query_id, document_id = _decoded(fields[0], wanted), _decoded(fields[2], known)
        score = _number(fields[4], f"{path}:{number}")
        if (before := seen.setdefault((query_id, document_id), number)) != number:
            raise SourceError(
                f"{path}:{number}: document {document_id} of query {query_id} stands in line {before} already",
                "A run ranks a document once for a query: keep its best line.",
            )
        tag, count = tag or fields[5], count + 1
        if query_id not in wanted:
            others += 1
            continue
        unknown += document_id not in known
        rows.append((query_id, document_id, score))
    if not rows:
        raise SourceError(
            f"{path}: none of its {count} lines is about one of the {len(wanted)} evaluated queries",
            "Its first column must hold the query ids of the corpus.",
        )
    table = pd.DataFrame(rows, columns=["query_id", "document_id", "score"])
    table = table.sort_values(["query_id", "score", "document_id"], ascending=[True, False, True], ignore_index=True)
    ranking = table.assign(passage_id=table["document_id"], rank=table.groupby("query_id").cumcount() + 1)
    columns = ["query_id", "passage_id", "document_id", "rank", "score"]
    return ImportedRun(name or tag, ranking[columns], count, others, unknown)


def export_trec_runs(rankings: Mapping[str, pd.DataFrame], folder: Path) -> list[Path]:
    """Write `<system>.run` for every ranking; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, ranking in rankings.items():
        paths.append(folder / f"{quote(name, safe=' ')}.run")
        export_trec_run(ranking, paths[-1], name)
    return paths


def export_trec_run(ranking: pd.DataFrame, path: Path, tag: str) -> None:
    """Write the documents of a ranking as a TREC run file (`query Q0 document rank score tag`), as trec_eval reads it.

    Whitespace in an id or in the tag, which the format cannot hold, is percent-encoded. Scores are whole numbers that
    fall with the rank, so that no tool reorders ties.
    """
    run = collapse_to_documents(ranking)
    columns = [
        [_without_whitespace(query_id) for query_id in run["query_id"].tolist()],
        [_without_whitespace(document_id) for document_id in run["document_id"].tolist()],
        (run.groupby("query_id", sort=False).cumcount() + 1).tolist(),
        run["score"].astype(int).tolist(),
    ]
    name = _without_whitespace(tag)
    lines = [
        f"{query_id} Q0 {document_id} {rank} {score} {name}\n"
        for query_id, document_id, rank, score in zip(*columns, strict=True)
    ]
    write_atomically(path, "".join(lines).encode())


def _without_whitespace(text: str) -> str:
    return "".join(quote(character) if character.isspace() else character for character in text)


def _decoded(text: str, known: Collection[str]) -> str:
    """An id as it is, where it is known, else without percent-encoding."""
    return text if text in known else unquote(text)


def _number(text: str, position: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise SourceError(f"{position}: the score {text!r} is not a number", _FORMAT)
    return score
