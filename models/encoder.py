"""The bi-encoder: passages and queries to normalized vectors (sentence-transformers; Reimers and Gurevych, 2019)."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from models.errors import ModelFileError, SettingsError
from models.weights import local_weights

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

    from models.settings import EncoderSettings

Device = Literal["auto", "cpu", "cuda", "mps"]

_BATCHES_PER_REPORT = 8
_NO_LIMIT = 1_000_000
"""Tokens; what relative positions allow, within reason."""


def passage_text(title: str, text: str) -> str:
    """A passage as every model reads it: the title, where there is one, on a line above the text."""
    return f"{title}\n{text}" if title else text


class Encoder:
    """A sentence-transformers model whose vectors are float32 of length 1, so that a dot product is their cosine.

    Prompts that the model's own configuration sets for queries and documents are used. Calls from several threads take
    turns: the tokenizer cannot be shared.
    """

    def __init__(self, model: SentenceTransformer, folder: Path) -> None:
        self._model = model
        self._folder = folder
        self._lock = threading.Lock()

    @classmethod
    def load(cls, model: str | Path, max_tokens: int, device: Device = "auto", threads: int | None = None) -> Encoder:
        """Load the model that `models.weights` resolves, safetensors only, cutting texts at `max_tokens`.

        `threads` sets torch's threads for the whole process. Raises `ModelFileError` for files that are missing or
        altered, and `SettingsError` when the model cannot read `max_tokens`.
        """
        folder = local_weights(str(model))
        import torch
        from sentence_transformers import SentenceTransformer

        if threads:
            torch.set_num_threads(threads)
        loaded = SentenceTransformer(
            str(folder),
            device=None if device == "auto" else device,
            local_files_only=True,
            model_kwargs={"use_safetensors": True},
        )
        limit = _token_limit(loaded, folder)
        if max_tokens > limit:
            raise SettingsError(
                f"encoder.max_tokens is {max_tokens}, but {model} reads {limit} tokens.", f"Set it to {limit} or less."
            )
        loaded.max_seq_length = max_tokens
        return cls(loaded, folder)

    @property
    def dimensions(self) -> int:
        """Length of the vectors."""
        dimensions = self._model.get_embedding_dimension()
        if dimensions is None:
            raise ModelFileError(f"{self._folder} does not say the length of its vectors.", "Use another encoder.")
        return dimensions

    @property
    def tokenizer_path(self) -> Path:
        """The model's tokenizer.json, as the `tokenizers` library reads it."""
        parts = [self._folder, *sorted(path for path in self._folder.iterdir() if path.is_dir())]
        for part in parts:
            if (part / "tokenizer.json").is_file():
                return part / "tokenizer.json"
        raise ModelFileError(f"{self._folder} has no tokenizer.json.", "Save the model with a fast tokenizer.")

    def encode_passages(
        self,
        titles: Sequence[str],
        texts: Sequence[str],
        batch_size: int = 32,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float32]:
        """Vectors [n, dimensions] in the order given; `progress` gets (passages done, n) every few batches.

        Passages are encoded longest first, so that a batch has little padding.
        """
        passages = [passage_text(title, text) for title, text in zip(titles, texts, strict=True)]
        vectors = np.empty((len(passages), self.dimensions), dtype=np.float32)
        order = np.argsort([-len(passage) for passage in passages], kind="stable")
        step = batch_size * _BATCHES_PER_REPORT
        for start in range(0, len(passages), step):
            rows = order[start : start + step]
            with self._lock:
                vectors[rows] = self._model.encode_document(
                    [passages[row] for row in rows],
                    batch_size=batch_size,
                    normalize_embeddings=True,
                    show_progress_bar=False,
                )
            if progress is not None:
                progress(min(start + step, len(passages)), len(passages))
        return vectors

    def encode_queries(self, texts: Sequence[str], batch_size: int = 64) -> NDArray[np.float32]:
        """Vectors [n, dimensions] in the order given."""
        if not texts:
            return np.empty((0, self.dimensions), dtype=np.float32)
        with self._lock:
            vectors = self._model.encode_query(
                list(texts), batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
            )
        return np.asarray(vectors, dtype=np.float32)


def _token_limit(model: SentenceTransformer, folder: Path) -> int:
    """Tokens that the model can read at all: its positions or what its tokenizer declares, whichever is fewer.

    The limit that sentence-transformers puts on the loaded tokenizer is only a preference of who published the model.
    """
    config = getattr(getattr(model[0], "auto_model", None), "config", None)
    limits = [_NO_LIMIT, getattr(config, "max_position_embeddings", None)]
    declared = folder / "tokenizer_config.json"
    if declared.is_file():
        limits.append(json.loads(declared.read_text(encoding="utf-8")).get("model_max_length"))
    return min(int(limit) for limit in limits if limit and limit > 0)


def tokenizer_file(model: str) -> Path:
    """The tokenizer.json of a model named as in the settings."""
    folder = local_weights(model)
    if not (folder / "tokenizer.json").is_file():
        raise ModelFileError(f"{folder} has no tokenizer.json.", "Save the model with a fast tokenizer.")
    return folder / "tokenizer.json"


def embed_corpus(
    passages: pd.DataFrame,
    weights: Path,
    settings: EncoderSettings,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float | int]:
    """Write embeddings.npy, encoder.json and a copy of the encoder (encoder/) to `folder`; returns counts and speed."""
    import shutil
    import time

    ignored = shutil.ignore_patterns("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "onnx", "openvino", ".git*")
    shutil.copytree(weights, folder / "encoder", ignore=ignored, copy_function=shutil.copyfile)
    encoder = Encoder.load(folder / "encoder", settings.max_tokens)
    started = time.perf_counter()
    vectors = encoder.encode_passages(
        passages["title"].tolist(), passages["text"].tolist(), settings.batch_size, progress
    )
    seconds = time.perf_counter() - started
    np.save(folder / "embeddings.npy", vectors, allow_pickle=False)
    facts = {"max_tokens": settings.max_tokens, "dimensions": encoder.dimensions}
    (folder / "encoder.json").write_text(json.dumps(facts))
    return {
        "dagster/row_count": len(vectors),
        "passages_per_second": round(len(vectors) / max(seconds, 1e-9), 1),
        **facts,
    }
