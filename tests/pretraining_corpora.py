"""Three small corpora for a general start: a judged BEIR folder, judged tables, and Markdown without judgments."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from models.settings import ROOT, Settings
from models.weights import local_weights
from tests.beir_folder import write_beir
from tests.cut_model import write_cut_model
from tests.docs_corpus import TABLES, write_docs_corpus
from tests.small_bundle import Handbook

PAGES = ("0003-memoized-steps.md", "0010-near-duplicates.md", "0012-scoring-process.md", "0020-bm25.md")


def write_corpora(folder: Path) -> dict[str, dict[str, Any]]:
    """Write them below `folder`; returns `pretraining.corpora`."""
    write_beir(Handbook(), folder / "handbook")
    write_docs_corpus(folder / "docs", documents=60)
    (folder / "pages").mkdir()
    for name in PAGES:
        shutil.copyfile(ROOT / "docs" / "decisions" / name, folder / "pages" / name)
    return {
        "handbook": {"source": "beir", "path": str(folder / "handbook")},
        "docs": {"source": "files", "path": str(folder / "docs"), "files": dict(TABLES)},
        "pages": {"source": "folder", "path": str(folder / "pages"), "passage_tokens": 64, "overlap_tokens": 8},
    }


def write_encoder(corpora: dict[str, dict[str, Any]], folder: Path) -> Path:
    """Write the lowest layer of the bundled bi-encoder, with the word pieces of these corpora, to `folder`."""
    files = [file for corpus in corpora.values() for file in sorted(Path(corpus["path"]).rglob("*")) if file.is_file()]
    texts = [file.read_text(encoding="utf-8") for file in files]
    return write_cut_model(local_weights(Settings().encoder.model), folder, texts, layers=1)


def pretraining_settings(
    corpora: dict[str, dict[str, Any]], base: Path, encoder: Path, **changes: Any
) -> dict[str, Any]:
    """Settings by dotted key of a general start that takes seconds."""
    return {
        "encoder.model": str(encoder),
        "pretraining.corpora": corpora,
        "pretraining.base_model": str(base),
        "pretraining.pairs": 120,
        "pretraining.compact_pairs": 60,
        "tiers.models": ["compact", "large"],
        "encoder.max_tokens": 64,
        "training.max_tokens": 32,
        "training.passage_cut": "query",
        "training.negatives": 2,
        "training.compact_layers": [0, 3],
        "training.frozen_layers": 1,
        "training.batch_queries": 4,
        "training.learning_rate": 5e-3,
        "training.device": "cpu",
        "training.precision": "fp32",
        **{f"pretraining.{name}": value for name, value in changes.items()},
    }
