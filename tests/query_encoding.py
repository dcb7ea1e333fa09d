"""What index/passage_embeddings and index/candidates hold of queries: the real encoder, and vectors that it gave."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.retrieval.candidates import query_hash
from models.retrieval.embedding import embed_corpus
from models.retrieval.encoder import Encoder
from models.settings import EncoderSettings
from models.store.artifacts import ArtifactStore
from models.weights import local_weights
from tests.checks import corpus_tables


def embed_passages(folder: Path) -> Path:
    """Two passages, embedded into `folder` with the encoder beside them."""
    settings = EncoderSettings()
    embed_corpus(corpus_tables.passages(2), local_weights(settings.model), settings, folder)
    return folder


def store_vectors(store: ArtifactStore, embedded: Path, texts: Sequence[str]) -> None:
    """Make `embedded` the current index/passage_embeddings, and the vectors of `texts` those of index/candidates."""

    def candidates(folder: Path) -> dict[str, int]:
        encoder = Encoder.load(embedded / "encoder", EncoderSettings().max_tokens)
        np.save(folder / "query_hashes.npy", np.array([query_hash(text) for text in texts], dtype="S64"))
        np.save(folder / "query_vectors.npy", encoder.encode_queries(list(texts)))
        return {}

    def embeddings(folder: Path) -> dict[str, int]:
        shutil.copytree(embedded, folder, dirs_exist_ok=True)
        return {}

    for name, build in (("index/candidates", candidates), ("index/passage_embeddings", embeddings)):
        store.point(store.get_or_create(name, code_version="1", inputs={}, settings={}, build=build))
