"""What index/passage_embeddings and index/candidates hold of queries: the real encoder, and vectors that it gave."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from models.retrieval.candidates import query_hash
from models.retrieval.embedding import embed_corpus
from models.retrieval.encoder import Encoder
from models.settings import EncoderSettings
from models.store.artifacts import ArtifactStore
from models.store.durable_files import link_or_copy
from models.weights import local_weights
from tests.checks import corpus_tables
from tests.cut_model import write_cut_model

_LAYERS = 6
"""All that the bundled bi-encoder has."""


def embed_passages(folder: Path, texts: Iterable[str]) -> Path:
    """Two passages, embedded into `folder` with the encoder beside them: the bundled one, with the word pieces of
    these passages and `texts` alone, so that it gives them the same vectors."""
    settings = EncoderSettings()
    passages = corpus_tables.passages(2)
    with TemporaryDirectory() as weights:
        read = [*passages["title"], *passages["text"], *texts]
        write_cut_model(local_weights(settings.model), Path(weights), read, layers=_LAYERS)
        embed_corpus(passages, Path(weights), settings, folder)
    return folder


def store_vectors(store: ArtifactStore, embedded: Path, texts: Sequence[str]) -> None:
    """Make `embedded` the current index/passage_embeddings, and the vectors of `texts` those of index/candidates."""

    def candidates(folder: Path) -> dict[str, int]:
        np.save(folder / "query_hashes.npy", np.array([query_hash(text) for text in texts], dtype="S64"))
        np.save(folder / "query_vectors.npy", _encoder_of(embedded).encode_queries(list(texts)))
        return {}

    def embeddings(folder: Path) -> dict[str, int]:
        shutil.copytree(embedded, folder, dirs_exist_ok=True, copy_function=link_or_copy)
        return {}

    for name, build in (("index/candidates", candidates), ("index/passage_embeddings", embeddings)):
        store.point(store.get_or_create(name, code_version="1", inputs={}, settings={}, build=build))


@cache
def _encoder_of(embedded: Path) -> Encoder:
    return Encoder.load(embedded / "encoder", EncoderSettings().max_tokens)
