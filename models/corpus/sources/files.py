"""The user's own tables of documents, queries and judgments: parquet, or CSV and JSON Lines, plain or gzipped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from models.contracts.rows import Document, Judgment, Query, RejectedRow
from models.corpus.sources.base import digest_files, require_file
from models.corpus.sources.corrections import NO_CORRECTIONS, Corrections
from models.corpus.sources.raw_rows import Row, read_documents, read_judgments, read_queries
from models.corpus.sources.tables import ColumnNames, read_table_file, require_table
from models.settings import MAX_DECOMPRESSED_BYTES, FilesSettings


class FilesSource:
    """Reads three tables below a folder, in batches or line by line.

    `settings.columns` maps our column names to theirs; `documents.text` as a key maps it for that table only. Raises
    `SourceError` naming the file, the column and the columns that exist.
    """

    def __init__(
        self,
        folder: Path,
        settings: FilesSettings,
        max_decompressed: int = MAX_DECOMPRESSED_BYTES,
        corrections: Corrections = NO_CORRECTIONS,
    ) -> None:
        self.folder = folder
        self._corrections = corrections
        self.settings = settings
        self._max_decompressed = max_decompressed
        self._names = ColumnNames(settings.columns, "corpus.files.columns")
        names = {"documents": settings.documents, "queries": settings.queries, "judgments": settings.judgments}
        self._paths = {table: require_file(folder, [name], f"corpus.files.{table}") for table, name in names.items()}
        for table, path in self._paths.items():
            require_table(path, f"corpus.files.{table}")

    def fingerprint(self) -> str:
        """Digest of the contents of the three files and of the column names."""
        return digest_files("files", self._paths.values(), self.folder, self.settings.model_dump())

    def documents(self) -> Iterator[Document | RejectedRow]:
        """Yield the documents; `source` defaults to the file's name."""
        return read_documents(self._rows("documents"), self._paths["documents"].name)

    def queries(self) -> Iterator[Query | RejectedRow]:
        """Yield the queries."""
        return read_queries(self._rows("queries"))

    def judgments(self) -> Iterator[Judgment | RejectedRow]:
        """Yield the judgments."""
        return read_judgments(self._rows("judgments"))

    def _rows(self, table: str) -> Iterator[Row | RejectedRow]:
        rows = read_table_file(self._paths[table], table, self._names, self._max_decompressed)
        return self._corrections.over(table, rows)
