"""Hugging Face data sets, of the Hub or of a folder: one for each table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.contracts.rows import Document, Judgment, Query, RejectedRow
from models.corpus.sources.base import digest_files, is_file, is_folder, require_extra, require_within
from models.corpus.sources.corrections import NO_CORRECTIONS, Corrections
from models.corpus.sources.judged_splits import SPLITS, JudgedSplits
from models.corpus.sources.raw_rows import Row, place_judgments, read_documents, read_judgments, read_queries
from models.corpus.sources.tables import ColumnNames, arrow_rows, read_table_file
from models.errors import SourceError
from models.settings import MAX_DECOMPRESSED_BYTES, HuggingFaceSettings
from models.store.durable_files import digest_json

if TYPE_CHECKING:
    import pyarrow as pa

_TABLES = ("documents", "queries", "judgments")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BATCH_ROWS = 32
_SAVED = ("state.json", "dataset_dict.json")


class HuggingFaceSource:
    """Reads data sets as they stream, without a copy on this machine.

    A set of the Hub is read at a commit, so that the same settings give the same rows; one of a folder, written with
    `save_to_disk` or a folder of data files, is told by its content. `settings.columns` maps our column names to
    theirs, as for files. With `settings.judgment_splits`, a query belongs to the split that judges it (`JudgedSplits`).
    JSON Lines of a folder are read line by line as those of `FilesSource`: `datasets` parses them in blocks, where one
    bad line ends the reading, and damaged ones have brought the process down. Of other kinds, what `datasets` cannot
    read ends the reading with a `SourceError`; a reading that was cut off is begun anew.
    """

    def __init__(
        self,
        settings: HuggingFaceSettings,
        folder: Path,
        max_decompressed: int = MAX_DECOMPRESSED_BYTES,
        corrections: Corrections = NO_CORRECTIONS,
    ) -> None:
        require_extra("huggingface", "datasets")
        self.settings = settings
        self._max_decompressed = max_decompressed
        self._corrections = corrections
        self.folder = folder
        self._names = ColumnNames(settings.columns, "corpus.huggingface.columns")
        for split in settings.judgment_splits:
            if split not in SPLITS:
                raise SourceError(
                    f"corpus.huggingface.judgment_splits: {split!r} is none of ours",
                    f"Ours: {', '.join(SPLITS)}.",
                )
        for table in _TABLES:
            self._require(table)
        self._judged = JudgedSplits(
            {
                ours: partial(self._judgments_of, theirs)
                for ours, theirs in (settings.judgment_splits or {"": settings.judgments.split}).items()
            }
        )

    def fingerprint(self) -> str:
        """Digest of the contents of folders, commits of the Hub, the settings and the version of `datasets`."""
        content = {}
        for table in _TABLES:
            folder = self._folder(table)
            if folder is not None:
                paths = sorted(folder.rglob("*"))
                self._require_within(table, folder, paths)
                content[table] = digest_files(table, [path for path in paths if path.is_file()], folder)
        known = {"settings": self.settings.model_dump(), "datasets": metadata.version("datasets"), "content": content}
        return digest_json({"kind": "huggingface", **known})

    def documents(self) -> Iterator[Document | RejectedRow]:
        """Yield the documents; `source` defaults to the name of the data set."""
        return read_documents(self._rows("documents"), self.settings.documents.path)

    def queries(self) -> Iterator[Query | RejectedRow]:
        """Yield the queries; with `judgment_splits`, those that are judged."""
        for query in read_queries(self._rows("queries")):
            if isinstance(query, RejectedRow) or not self.settings.judgment_splits:
                yield query
            elif (split := self._judged.of_queries().get(query.query_id)) is not None:
                yield replace(query, split=split)

    def judgments(self) -> Iterator[Judgment | RejectedRow]:
        """Yield the judgments, with `judgment_splits` those of test first."""
        return self._judged.judgments() if self.settings.judgment_splits else read_judgments(self._rows("judgments"))

    def _judgments_of(self, split: str) -> Iterator[tuple[str, Judgment] | RejectedRow]:
        return place_judgments(self._rows("judgments", split))

    def _require(self, table: str) -> None:
        dataset, key = getattr(self.settings, table), f"corpus.huggingface.{table}"
        if not dataset.path:
            if table == "documents":
                raise SourceError(f"{key}.path is empty", "Name a data set of the Hub or a folder.")
            return
        if self._folder(table) is None and not _COMMIT.fullmatch(dataset.revision):
            raise SourceError(
                f"{key}: {dataset.path} is no folder below {self.folder}, and on the Hub it needs a commit",
                f"Correct {key}.path, or set {key}.revision to the 40 hex digits of a commit of the data set.",
            )

    def _folder(self, table: str) -> Path | None:
        path = getattr(self.settings, table).path
        return self.folder / path if path and is_folder(self.folder / path) else None

    def _require_within(self, table: str, folder: Path, paths: Iterable[Path]) -> None:
        for path in paths:
            require_within(path, folder, f"corpus.huggingface.{table}.path")

    def _rows(self, table: str, split: str = "") -> Iterator[Row | RejectedRow]:
        return self._corrections.over(table, self._rows_of(table, split))

    def _rows_of(self, table: str, split: str) -> Iterator[Row | RejectedRow]:
        path = getattr(self.settings, table).path
        if not path:
            return
        files = self._json_lines(table, split or getattr(self.settings, table).split)
        for file in files:
            yield from self._lines(file, table)
        if files:
            return
        columns: dict[str, str] | None = None
        number = 0
        for batch in self._batches(table, split or getattr(self.settings, table).split):
            if columns is None:
                columns = self._names.require(f"{path} ({table})", table, batch.schema.names)
            chosen = batch.select(list(dict.fromkeys(columns.values())))
            for row in arrow_rows(chosen, table, f"{path}/{split}" if split else path, number):
                yield row if isinstance(row, RejectedRow) else (row[0], {o: row[1][t] for o, t in columns.items()})
            number += batch.num_rows

    def _lines(self, file: Path, table: str) -> Iterator[Row | RejectedRow]:
        """The rows of a file of JSON Lines, placed by its path below the folder of the data sets."""
        folder = file.parent.relative_to(self.folder) if file.is_relative_to(self.folder) else file.parent
        for row in read_table_file(file, table, self._names, self._max_decompressed):
            if isinstance(row, RejectedRow):
                yield replace(row, position=f"{folder.as_posix()}/{row.position}")
            else:
                yield f"{folder.as_posix()}/{row[0]}", row[1]

    def _json_lines(self, table: str, split: str) -> list[Path]:
        """The files of a split of a folder if all of them are JSON Lines, else none."""
        from datasets import load_dataset_builder

        dataset, folder = getattr(self.settings, table), self._folder(table)
        if folder is None or _is_saved(folder):
            return []
        with self._naming(table):
            builder = load_dataset_builder(str(folder), dataset.config or None)
            files = [Path(str(name)) for name in (builder.config.data_files or {}).get(split, [])]
        # Of links, and of what the card of a data set names.
        self._require_within(table, folder, files)
        return files if all(file.name.endswith((".jsonl", ".jsonl.gz")) and is_file(file) for file in files) else []

    def _batches(self, table: str, split: str) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a split in batches; raises nothing but `SourceError`."""
        with self._naming(table):
            data = self._open(table, split)
            for rows in data.with_format("arrow").iter(batch_size=_BATCH_ROWS):
                yield from rows.to_batches()

    @contextmanager
    def _naming(self, table: str) -> Iterator[None]:
        """Turn what the library raises into a `SourceError` that names the table."""
        dataset = getattr(self.settings, table)
        try:
            yield
        except SourceError:
            raise
        except Exception as error:  # what builders, file systems, parsers and the network raise, of every kind
            raise SourceError(
                f"corpus.huggingface.{table}: {dataset.path} cannot be read: {type(error).__name__}: {error}",
                "Check path, config, split and revision; without a network, point path at a folder.",
            ) from error

    def _open(self, table: str, split: str) -> Any:
        from datasets import DatasetDict, load_dataset, load_from_disk

        dataset, folder = getattr(self.settings, table), self._folder(table)
        if folder is None or not _is_saved(folder):
            source = dataset.path if folder is None else str(folder)
            revision = dataset.revision if folder is None else None
            return load_dataset(source, dataset.config or None, split=split, revision=revision, streaming=True)
        saved = load_from_disk(str(folder))
        if isinstance(saved, DatasetDict):
            if split not in saved:
                raise SourceError(
                    f"corpus.huggingface.{table}.split: {dataset.path} has no split {split!r}",
                    f"It has: {', '.join(map(str, saved))}.",
                )
            saved = saved[split]
        _require_sound(saved.data.to_batches())
        return saved


def _require_sound(batches: Sequence[pa.RecordBatch]) -> None:
    """Raise `ArrowInvalid` where buffers of a memory-mapped set do not fit each other.

    Arrow takes them as they are in the file, and a wrong length or offset would end the process, not the reading.
    """
    import pyarrow as pa

    for batch in batches:
        for column in batch.columns:
            if pa.types.is_string(column.type):  # Text that is not UTF-8 costs its row alone, later.
                column = pa.Array.from_buffers(pa.binary(), len(column), column.buffers(), offset=column.offset)
            column.validate(full=True)


def _is_saved(folder: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return any(is_file(folder / name) for name in _SAVED)
