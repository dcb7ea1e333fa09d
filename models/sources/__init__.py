"""Corpus sources: where documents, queries and judgments come from. A new kind is one module and one line here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from models.settings import CorpusSettings
from models.sources.base import CorpusSource
from models.sources.beir import BeirSource
from models.sources.files import FilesSource
from models.sources.folder import FolderSource
from models.sources.huggingface import HuggingFaceSource
from models.sources.ir_datasets import IrDatasetsSource
from models.sources.python_docs import PythonDocsSource
from models.sources.sql import SqlSource

SOURCES: dict[str, Callable[[CorpusSettings, Path], CorpusSource]] = {
    "python-docs": lambda settings, folder: PythonDocsSource(settings.python_docs),
    "beir": lambda settings, folder: BeirSource(folder, settings.max_decompressed_bytes),
    "files": lambda settings, folder: FilesSource(folder, settings.files, settings.max_decompressed_bytes),
    "folder": lambda settings, folder: FolderSource(folder, settings.folder, settings.max_decompressed_bytes),
    "sql": lambda settings, folder: SqlSource(settings.sql, folder),
    "ir_datasets": lambda settings, folder: IrDatasetsSource(settings.ir_datasets),
    "huggingface": lambda settings, folder: HuggingFaceSource(settings.huggingface, folder),
}
"""How each kind of `corpus.source` is opened."""


def open_source(settings: CorpusSettings, folder: Path) -> CorpusSource:
    """Open the source that `corpus.source` names; `folder` is `Settings.corpus_path`.

    Raises `SourceError` naming the path and the settings key when a folder, file, column or package is missing.
    """
    return SOURCES[settings.source](settings, folder)


def describe_source(settings: CorpusSettings, folder: Path) -> str:
    """The source in words, for lineage: its kind and where it is, as in `beir /data/scifact`."""
    table = settings.huggingface.documents
    places = {
        "python-docs": ", ".join(settings.python_docs.packages),
        "sql": settings.sql.url,
        "ir_datasets": settings.ir_datasets.documents,
        "huggingface": f"{table.path}@{table.revision}" if table.revision else table.path,
    }
    return f"{settings.source} {places.get(settings.source, folder)}"
