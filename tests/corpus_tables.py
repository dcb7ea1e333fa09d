"""A corpus read into memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd
from tokenizers import Tokenizer

from models.corpus.ingest import CorpusTables, write_corpus
from models.corpus.sources.base import CorpusSource
from models.settings import CorpusSettings


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
