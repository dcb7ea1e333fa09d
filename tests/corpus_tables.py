"""A corpus read into memory."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tokenizers import Tokenizer

from models.contracts.rows import SPLITS
from models.corpus.ingest import write_corpus
from models.corpus.sources.base import CorpusSource
from models.settings import CorpusSettings


@dataclass(frozen=True)
class CorpusTables:
    """The corpus under the contracts `Passages`, `Queries`, `Judgments` and `QuarantinedRows`, each sorted by id."""

    passages: pd.DataFrame
    queries: pd.DataFrame
    judgments: pd.DataFrame
    quarantined_rows: pd.DataFrame

    @property
    def counts(self) -> dict[str, int]:
        """Rows of each table, queries by split, and documents."""
        splits = Counter(self.queries["split"])
        return {
            "documents": len(set(self.passages["document_id"])),
            "passages": len(self.passages),
            "queries": len(self.queries),
            **{f"queries_{split}": splits[split] for split in SPLITS},
            "judgments": len(self.judgments),
            "quarantined_rows": len(self.quarantined_rows),
        }


def read_corpus(source: CorpusSource, settings: CorpusSettings, tokenizer: Tokenizer) -> CorpusTables:
    """`write_corpus` into a temporary folder, with the tables in memory."""
    with tempfile.TemporaryDirectory() as work:
        write_corpus(source, settings, tokenizer, Path(work))
        passages, *others = (
            pd.read_parquet(Path(work) / f"{table}.parquet")
            for table in ("passages", "queries", "judgments", "quarantined_rows")
        )
    passages["access"] = pd.Series([list(labels) for labels in passages["access"]], dtype=object)
    return CorpusTables(passages, *others)
