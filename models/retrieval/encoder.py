"""The bi-encoder: passages and queries to normalized vectors (sentence-transformers; Reimers and Gurevych, 2019)."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from models.cross_encoder.architecture import token_limit
from models.errors import ModelFileError, SettingsError
from models.store.durable_files import canonical_json
from models.text.passage_text import beginning, passage_text
from models.weights import local_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

    from models.retrieval.packed_texts import PackedTexts

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16"]
Task = Literal["query", "document"]
_PROMPTS: dict[Task, tuple[str, ...]] = {"query": ("query",), "document": ("document", "passage", "corpus")}
"""Names of a model's prompts, the first that it has, as `encode_query` and `encode_document` look for them."""
_PROMPTS_FILE = "encoder_prompts.json"
_BATCHES_PER_REPORT = 8
_PACKS_PER_REPORT = 4
_TOKENIZED_TOGETHER = 1024
_ROWS = 16
"""Tokens of a batch, at least. MKL multiplies fewer than 4 rows in another way."""


@dataclass(frozen=True)
class EncoderPrompts:
    """What the settings say of an encoder, stored in its folder: words before each query and passage in place of those
    that the model's own configuration has, and how many of the first dimensions of a vector are kept (0: all)."""

    query: str = ""
    passage: str = ""
    dimensions: int = 0

    @classmethod
    def load(cls, folder: Path) -> EncoderPrompts:
        """What `save` wrote, nothing where it was not called. Raises `ModelFileError` for what is no such file."""
        file = folder / _PROMPTS_FILE
        try:
            return cls(**json.loads(file.read_bytes())) if file.is_file() else cls()
        except (ValueError, TypeError) as error:
            raise ModelFileError(f"{file} does not say how texts are embedded", "Make the embeddings again.") from error

    def save(self, folder: Path) -> None:
        """Write it to an encoder's folder, unless it says nothing."""
        if self != EncoderPrompts():
            (folder / _PROMPTS_FILE).write_bytes(canonical_json(asdict(self)))


class Encoder:
    """A sentence-transformers model whose vectors are float32 of length 1, so that a dot product is their cosine.

    Prompts that the model's own configuration sets for queries and documents are used, or those of the settings. A
    vector that was trained for it (Kusupati et al., "Matryoshka Representation Learning", 2022) is cut to its first
    dimensions before it is normalized.

    A vector has the same bits
    whatever is embedded with it, by however many threads, so that embedding what changed in a corpus gives what
    embedding all of it gives: texts are computed in batches of one length in tokens, without padding, each by one
    thread. That holds where a matrix product computes a row alike for any number of rows, as Intel MKL does with one
    thread and a few rows; elsewhere, as on a GPU, the last bits may differ.

    Passages are many, and a CPU that multiplies bfloat16 does so for them, for some models (`PackedTexts`). Queries
    have float32 everywhere.

    Several threads may share an encoder; they take turns with the tokenizer.
    """

    def __init__(
        self, model: SentenceTransformer, folder: Path, max_tokens: int, precision: Precision = "auto"
    ) -> None:
        self._model = model
        self._max_tokens = max_tokens
        self._folder = folder
        self._precision: Precision = precision
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls,
        model: str | Path,
        max_tokens: int,
        device: Device = "auto",
        threads: int | None = None,
        precision: Precision = "auto",
    ) -> Encoder:
        """Load the model that `models.weights` resolves, safetensors only, cutting texts at `max_tokens`.

        `threads` sets torch's threads for the whole process. `precision` is that of passages. Raises `ModelFileError`
        for files that are missing or altered, and `SettingsError` when the model cannot read `max_tokens`, or in
        `precision`.
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
        prompts = EncoderPrompts.load(folder)
        if prompts.dimensions > (whole := loaded.get_embedding_dimension() or prompts.dimensions):
            raise SettingsError(
                f"encoder.dimensions is {prompts.dimensions}, but {model} gives {whole}.", f"Set it to {whole} or less."
            )
        given = {"query": prompts.query, "document": prompts.passage}
        loaded.prompts.update({name: prompt for name, prompt in given.items() if prompt})
        loaded.truncate_dim = prompts.dimensions or None
        encoder = cls(loaded.eval(), folder, max_tokens, precision)
        if precision == "bf16" and not encoder._packs():
            raise SettingsError(
                f"encoder.precision is bf16, in which {model} cannot be computed on this machine.", "Set it to auto."
            )
        return encoder

    @property
    def dimensions(self) -> int:
        """Length of the vectors."""
        dimensions = self._model.get_embedding_dimension()
        if dimensions is None:
            raise ModelFileError(f"{self._folder} does not say the length of its vectors.", "Use another encoder.")
        return dimensions

    def encode_passages(
        self,
        titles: Sequence[str],
        texts: Sequence[str],
        batch_size: int = 8,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float32]:
        """Vectors [n, dimensions] in the order given; `progress` gets (passages done, n) every few batches."""
        passages = [passage_text(title, text) for title, text in zip(titles, texts, strict=True)]
        if self._precision == "fp32" or not self._packs():
            return self._encode(passages, "document", batch_size, progress)
        import torch

        packs = self._packed.vectors(self._token_ids(passages, "document"), torch.get_num_threads())
        normalized = ((rows, self._normalized(vectors)) for rows, vectors in packs)
        return self._collected(normalized, len(passages), _PACKS_PER_REPORT, progress)

    def encode_queries(self, texts: Sequence[str], batch_size: int = 32) -> NDArray[np.float32]:
        """Vectors [n, dimensions] in the order given."""
        return self._encode(list(texts), "query", batch_size)

    def _encode(
        self, texts: list[str], task: Task, batch_size: int, progress: Callable[[int, int], None] | None = None
    ) -> NDArray[np.float32]:
        counts = self._token_counts(texts, task)
        batches = batches_of_one_length(counts, batch_size)
        # A few tokens are a few rows of the matrix product, for which there are other kernels: they are repeated.
        times = [ceil(_ROWS / (counts[rows[0]] * len(rows) or _ROWS)) for rows in batches]
        work = [[texts[row] for row in rows] * count for rows, count in zip(batches, times, strict=True)]
        computed = (
            (rows, vectors[: len(rows)]) for rows, vectors in zip(batches, self._compute(work, task), strict=True)
        )
        return self._collected(computed, len(texts), _BATCHES_PER_REPORT, progress)

    def _collected(
        self,
        parts: Iterable[tuple[Sequence[int] | NDArray[np.int64], NDArray[np.float32]]],
        count: int,
        parts_per_report: int,
        progress: Callable[[int, int], None] | None,
    ) -> NDArray[np.float32]:
        """Vectors [count, dimensions] from parts of them, each with its rows."""
        vectors = np.empty((count, self.dimensions), dtype=np.float32)
        embedded = 0
        for number, (rows, part) in enumerate(parts, start=1):
            vectors[rows] = part
            embedded += len(rows)
            if progress is not None and (number % parts_per_report == 0 or embedded == count):
                progress(embedded, count)
        return vectors

    def _compute(self, batches: Sequence[list[str]], task: Task) -> Iterator[NDArray[np.float32]]:
        """Vectors of each batch, in order. On a CPU each core takes a batch of its own.

        Threads inside the matrix products wait for each other at every layer, and for whatever else the machine does;
        and they cut a product in parts whose sums are rounded in another order.
        """
        import torch

        if self._model.device.type != "cpu":
            yield from (self._forward(batch, task) for batch in batches)
            return
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            if min(threads, len(batches)) < 2:
                yield from (self._forward(batch, task) for batch in batches)
                return
            with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                yield from pool.map(lambda batch: self._forward(batch, task), batches)
        finally:
            torch.set_num_threads(threads)

    def _forward(self, texts: list[str], task: Task) -> NDArray[np.float32]:
        """What `SentenceTransformer.encode` does with one batch."""
        import torch
        from sentence_transformers.util import batch_to_device

        features = batch_to_device(self._features(texts, task), self._model.device)
        with torch.inference_mode():
            return self._normalized(self._model(features, task=task)["sentence_embedding"])

    def _normalized(self, vectors: Tensor) -> NDArray[np.float32]:
        """Cut to the dimensions that are kept, and of length 1."""
        from sentence_transformers.util import truncate_embeddings
        from torch.nn.functional import normalize

        if self._model.truncate_dim is not None:
            vectors = truncate_embeddings(vectors, self._model.truncate_dim)
        return normalize(vectors.float(), p=2, dim=1).cpu().numpy()

    def _packs(self) -> bool:
        from models.retrieval.packed_texts import PackedTexts

        return PackedTexts.packs(self._model)

    @cached_property
    def _packed(self) -> PackedTexts:
        from models.retrieval.packed_texts import PackedTexts

        return PackedTexts(self._model)

    def _features(self, texts: list[str], task: Task) -> dict[str, Any]:
        prompts, names = self._model.prompts, _PROMPTS[task]
        texts = [beginning(text, self._max_tokens) for text in texts]
        name = next((name for name in names if name in prompts), self._model.default_prompt_name)
        with self._lock:
            return self._model.preprocess(texts, prompt=prompts.get(name) if name else None, task=task)

    def _token_counts(self, texts: Sequence[str], task: Task) -> NDArray[np.int64]:
        """Tokens [n] of each text as the model reads it; zeros for a model that pads nothing."""
        counts = np.zeros(len(texts), dtype=np.int64)
        for start, features in self._tokenized(texts, task):
            mask = features.get("attention_mask")
            if mask is not None:
                counts[start : start + len(mask)] = mask.sum(dim=1).numpy()
        return counts

    def _token_ids(self, texts: Sequence[str], task: Task) -> list[NDArray[np.int32]]:
        """Ids of each text's tokens as the model reads them."""
        return [
            ids[mask.bool()].numpy().astype(np.int32)
            for _, features in self._tokenized(texts, task)
            for ids, mask in zip(features["input_ids"], features["attention_mask"], strict=True)
        ]

    def _tokenized(self, texts: Sequence[str], task: Task) -> Iterator[tuple[int, dict[str, Any]]]:
        """Features of some texts at a time, and the place of the first of them."""
        for start in range(0, len(texts), _TOKENIZED_TOGETHER):
            yield start, self._features(list(texts[start : start + _TOKENIZED_TOGETHER]), task)


def batches_of_one_length(counts: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Rows of `counts` in batches of at most `batch_size` that have the same count, the longest first."""
    order = np.argsort(-counts, kind="stable")
    lengths = np.split(order, np.flatnonzero(np.diff(counts[order])) + 1)
    return [rows[start : start + batch_size] for rows in lengths for start in range(0, len(rows), batch_size)]


def _token_limit(model: SentenceTransformer, folder: Path) -> int:
    """Tokens that the model can read at all: its positions or what its tokenizer declares, whichever is fewer.

    The limit that sentence-transformers puts on the loaded tokenizer is only a preference of who published the model.
    """
    config = getattr(getattr(model[0], "auto_model", None), "config", None)
    limits = [token_limit(config)]
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
