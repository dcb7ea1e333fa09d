"""Corpus sources: where documents, queries and judgments come from. A new kind is one module and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from models.corpus.sources.base import CorpusSource
from models.corpus.sources.beir import CONTRACTS as BEIR_CONTRACTS
from models.corpus.sources.beir import BeirSource
from models.corpus.sources.corrections import NO_CORRECTIONS, CorrectedSource, Corrections
from models.corpus.sources.files import FilesSource
from models.corpus.sources.folder import FolderSource
from models.corpus.sources.huggingface import HuggingFaceSource
from models.corpus.sources.ir_datasets import CONTRACTS as IR_CONTRACTS
from models.corpus.sources.ir_datasets import IrDatasetsSource
from models.corpus.sources.man_pages import ManPagesSource
from models.corpus.sources.python_docs import PythonDocsSource
from models.corpus.sources.raw_rows import RawRow
from models.corpus.sources.sql import SqlSource
from models.corpus.sources.tables import CONTRACTS as TABLE_CONTRACTS
from models.settings import CorpusSettings

Open = Callable[[CorpusSettings, Path, Corrections], CorpusSource]

SOURCES: dict[str, Open] = {
    "python-docs": lambda settings, folder, corrections: PythonDocsSource(settings.python_docs),
    "man-pages": lambda settings, folder, corrections: ManPagesSource(folder, settings.man_pages),
    "beir": lambda settings, folder, corrections: BeirSource(folder, settings.max_decompressed_bytes, corrections),
    "files": lambda settings, folder, corrections: FilesSource(
        folder, settings.files, settings.max_decompressed_bytes, corrections
    ),
    "folder": lambda settings, folder, corrections: FolderSource(
        folder, settings.folder, settings.max_decompressed_bytes, corrections
    ),
    "sql": lambda settings, folder, corrections: SqlSource(settings.sql, folder, corrections),
    "ir_datasets": lambda settings, folder, corrections: IrDatasetsSource(settings.ir_datasets, corrections),
    "huggingface": lambda settings, folder, corrections: HuggingFaceSource(
        settings.huggingface, folder, settings.max_decompressed_bytes, corrections
    ),
}
"""How each kind of `corpus.source` is opened."""

RAW_CONTRACTS: Mapping[str, Mapping[str, type[RawRow]]] = {
    "beir": BEIR_CONTRACTS,
    "files": TABLE_CONTRACTS,
    "folder": TABLE_CONTRACTS,
    "sql": TABLE_CONTRACTS,
    "ir_datasets": IR_CONTRACTS,
    "huggingface": TABLE_CONTRACTS,
}
"""What a raw row of each table of each kind of source must hold; `python-docs` and `man-pages` have none to correct."""


def open_source(settings: CorpusSettings, folder: Path, corrections: Corrections = NO_CORRECTIONS) -> CorpusSource:
    """Open the source that `corpus.source` names; `folder` is `Settings.corpus_path`.

    It reads `corrections` in place of the rows that they are of. Raises `SourceError` naming the path and the settings
    key when a folder, file, column or package is missing.
    """
    source = SOURCES[settings.source](settings, folder, corrections)
    return CorrectedSource(source, corrections) if corrections else source


def describe_source(settings: CorpusSettings, folder: Path) -> str:
    """The source in words, for lineage: its kind and where it is, as in `beir /data/scifact`."""
    table = settings.huggingface.documents
    places = {
        "python-docs": ", ".join(settings.python_docs.packages),
        "man-pages": ", ".join([str(folder / settings.man_pages.folder), *settings.man_pages.languages]),
        "sql": settings.sql.url,
        "ir_datasets": settings.ir_datasets.documents,
        "huggingface": f"{table.path}@{table.revision}" if table.revision else table.path,
    }
    return f"{settings.source} {places.get(settings.source, folder)}"
