"""[corpus] and its tables: where documents, queries and judgments come from, one section for each kind of source."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from models.settings.types import MAX_DECOMPRESSED_BYTES, Fraction, PasswordlessUrl, PositiveFloat, PositiveInt, Section


class PythonDocsSettings(Section):
    """The embedded default corpus."""

    packages: list[str] = Field(
        default=[
            "numpy", "scipy", "pandas", "scikit-learn", "matplotlib", "sqlalchemy", "dagster", "mlflow", "networkx",
            "statsmodels", "pydantic", "great-expectations", "sentence-transformers",
        ],
        description="Installed packages whose API documentation is read.",
    )  # fmt: skip
    max_documents: PositiveInt = Field(
        default=12_000, description="Documents taken, a stable sample by hash of the name."
    )
    max_body_characters: PositiveInt = Field(default=1000, description="Characters kept of each docstring body.")


class ManPagesSettings(Section):
    """Manual pages, in every language that is installed."""

    folder: str = Field(
        default="/usr/share/man", description="Folder that has man1, or de/man1; a relative one starts at corpus.path."
    )
    languages: list[str] = Field(
        default=[], description="Languages as their folders are named, as in ['en', 'de', 'zh_CN']; none is all."
    )
    max_documents: PositiveInt = Field(default=5000, description="Pages taken, a stable sample by hash of the name.")
    max_body_characters: PositiveInt = Field(default=3000, description="Characters kept of each page.")


class FilesSettings(Section):
    """The user's own tables: parquet, CSV or JSONL."""

    documents: str = Field(default="documents.parquet", description="Table of documents, below corpus.path.")
    queries: str = Field(default="queries.parquet", description="Table of queries, below corpus.path.")
    judgments: str = Field(default="judgments.parquet", description="Table of judgments, below corpus.path.")
    columns: dict[str, str] = Field(
        default={},
        description="Your column name for ours where they differ, as in { document_id = 'sku', text = 'body' }.",
    )


class FolderSettings(Section):
    """A folder of Markdown, HTML, PDF and plain text: one document per file."""

    suffixes: list[str] = Field(
        default=[".md", ".markdown", ".html", ".htm", ".pdf", ".txt"],
        description="Names of the files that are documents end so; others are passed over.",
    )
    access: list[str] = Field(default=[], description="Labels of the files that state none; none makes them public.")
    modified_times: bool = Field(
        default=True, description="Take updated_at from the file's time where its front matter states none."
    )
    max_file_bytes: PositiveInt = Field(default=50_000_000, description="Bytes of one file, at most.")
    max_text_characters: PositiveInt = Field(default=5_000_000, description="Characters of one document, at most.")
    parse_seconds: PositiveFloat = Field(
        default=30, description="Seconds of processor time that one file may take to parse."
    )
    parse_memory_mb: Annotated[int, Field(ge=256)] = Field(
        default=1024, description="Memory of the process that parses, MiB; Linux only."
    )
    queries: str = Field(default="queries.jsonl", description="Table of queries in the folder, as in corpus.files.")
    judgments: str = Field(
        default="judgments.jsonl", description="Table of judgments in the folder; document_id is the file's path in it."
    )
    columns: dict[str, str] = Field(default={}, description="Your column name for ours, as in corpus.files.")


class SqlSettings(Section):
    """Three SELECT statements on a database, read through SQLAlchemy."""

    url: PasswordlessUrl = Field(
        default="",
        description="SQLAlchemy URL without the password, as in postgresql+psycopg://reader@host/shop.",
    )
    password_env: str = Field(
        default="CORPUS_SQL_PASSWORD", description="Environment variable that holds the password, where one is needed."
    )
    documents: str = Field(
        default="", description="SELECT of document_id, text and, if any, title, source, access, updated_at."
    )
    queries: str = Field(default="", description="SELECT of query_id, text and, if any, split, group.")
    judgments: str = Field(default="", description="SELECT of query_id, document_id, grade.")
    fingerprint: str = Field(
        default="",
        description="Cheap SELECT whose result changes with the data, as max(updated_at), count(*); else all is read.",
    )
    batch_rows: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=500, description="Rows fetched at a time from the server's cursor."
    )


class IrDatasetsSettings(Section):
    """Data sets of the library ir_datasets, by their ids as in beir/scifact/train."""

    documents: str = Field(default="", description="Data set whose documents are read.")
    queries: str = Field(default="", description="Data set whose queries and judgments are split by RerankOps.")
    train: str = Field(default="", description="Data set with the queries and judgments of train.")
    dev: str = Field(default="", description="Data set with the queries and judgments of dev.")
    test: str = Field(default="", description="Data set with the queries and judgments of test.")
    published: bool = Field(
        default=False,
        description="Published sets never change: take their names for their content, instead of a digest of it all.",
    )


class HuggingFaceTable(Section):
    """One table: a data set of the Hub, or a folder."""

    path: str = Field(
        default="", description="Hub id, or a folder, relative to corpus.path, of save_to_disk or of data files."
    )
    config: str = Field(default="", description="Configuration of the data set, where it has several.")
    split: str = Field(default="train", description="Split of the data set that is read.")
    revision: str = Field(default="", description="Commit on the Hub, 40 hex digits: the same commit, the same rows.")


class HuggingFaceSettings(Section):
    """Hugging Face data sets, one for each table."""

    documents: HuggingFaceTable = HuggingFaceTable()
    queries: HuggingFaceTable = HuggingFaceTable()
    judgments: HuggingFaceTable = HuggingFaceTable()
    judgment_splits: dict[str, str] = Field(
        default={},
        description="Their split of the judgments for each of ours, as in { train = 'train', dev = 'validation' }.",
    )
    columns: dict[str, str] = Field(default={}, description="Your column name for ours, as in corpus.files.")


class CorpusSettings(Section):
    """Where documents, queries and judgments come from, and how documents become passages."""

    source: Literal["python-docs", "man-pages", "beir", "files", "folder", "sql", "ir_datasets", "huggingface"] = Field(
        default="python-docs", description="Kind of corpus source; docs/sources.md shows each."
    )
    path: str = Field(
        default="", description="Folder of a `beir`, `files` or `folder` source; relative to the settings file."
    )
    version: str = Field(
        default="",
        description="Past version to work on instead of reading the source: `rerankops corpus versions` lists them.",
    )
    max_decompressed_bytes: PositiveInt = Field(
        default=MAX_DECOMPRESSED_BYTES, description="Bytes that one compressed file may expand to."
    )
    passage_tokens: Annotated[int, Field(ge=16, le=2048)] = Field(
        default=192, description="Tokens of a passage, at most."
    )
    overlap_tokens: Annotated[int, Field(ge=0)] = Field(
        default=32, description="Tokens shared by neighbouring passages."
    )
    max_rejected_share: Fraction = Field(default=0.02, description="Share of rejected rows above which the run stops.")
    hold_against_accepted: bool = Field(
        default=True,
        description="Hold the corpus against the last released one; false for a run that changes it on purpose.",
    )
    dev_share: Fraction = Field(
        default=0.1, description="Share of the queries put into `dev` where the source has no split."
    )
    test_share: Fraction = Field(
        default=0.15, description="Share of the queries put into `test` where it has no split."
    )
    python_docs: PythonDocsSettings = PythonDocsSettings()
    man_pages: ManPagesSettings = ManPagesSettings()
    files: FilesSettings = FilesSettings()
    folder: FolderSettings = FolderSettings()
    sql: SqlSettings = SqlSettings()
    ir_datasets: IrDatasetsSettings = IrDatasetsSettings()
    huggingface: HuggingFaceSettings = HuggingFaceSettings()


def _check_corpora(tables: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Name the corpus and the key of what `CorpusSettings` refuses."""
    for name, table in tables.items():
        try:
            CorpusSettings.model_validate(table)
        except ValidationError as error:
            problem = error.errors()[0]
            raise ValueError(f"{name}.{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
    return tables


CorpusTables = Annotated[dict[str, dict[str, Any]], AfterValidator(_check_corpora)]
"""Keys of [corpus] that differ, by the name of a corpus."""
