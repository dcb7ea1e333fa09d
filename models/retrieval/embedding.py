"""The vectors of a corpus: what the version before has is taken over, and a run that was killed goes on."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.errors import ModelFileError
from models.retrieval.encoder import Encoder, EncoderPrompts
from models.retrieval.steps import PASSAGE_EMBEDDINGS
from models.store.durable_files import digest_json, link_or_copy, write_atomically
from models.weights import local_weights, weights_digest

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from models.settings import EncoderSettings, Settings
    from models.store.artifacts import Artifact, ArtifactStore
    from models.store.steps import Lookup

VECTORS_FILE = "embeddings.npy"
HASHES_FILE = "content_hashes.npy"
FACTS_FILE = "encoder.json"
ENCODER = "encoder"

_SHARD = 1024
"""Passages between two checkpoints."""

_NOT_COPIED = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "onnx", "openvino", ".git*")


def make_passage_embeddings(
    store: ArtifactStore, settings: Settings, passages: Artifact, progress: Callable[[int, int], None] | None = None
) -> Artifact:
    """The vectors of the passages by `encoder.model`."""
    values = PASSAGE_EMBEDDINGS.values(settings)
    outside = {"weights": weights_digest(settings.encoder.model)}
    previous = partial(PASSAGE_EMBEDDINGS.previous, store, {**values, **outside})
    # Vectors are of contents: those of a killed run serve any corpus that has them.
    checkpoint = PASSAGE_EMBEDDINGS.scratch(store, values, outside)
    build = partial(embed_passages, passages, settings.encoder, previous, checkpoint, progress)
    return PASSAGE_EMBEDDINGS.get_or_create(store, settings, build, inputs=(passages,), outside=outside)


def encoder_version(passage_embeddings: Artifact) -> str:
    """Digest of what decides a query's vector: the weights of the encoder, and its settings."""
    manifest = passage_embeddings.manifest
    return digest_json([manifest.inputs["weights"], manifest.settings])


def embed_passages(
    passages: Artifact,
    settings: EncoderSettings,
    previous: Lookup,
    checkpoint: Path,
    progress: Callable[[int, int], None] | None,
    folder: Path,
) -> dict[str, float | int]:
    """`embed_corpus` of the passages into `folder`, taking over from the artifact before."""
    before = previous()
    return embed_corpus(
        passages.read_table("passages.parquet", ["title", "text", "content_hash"]),
        local_weights(settings.model),
        settings,
        folder,
        checkpoint=checkpoint,
        previous=before and before.folder,
        progress=progress,
    )


def embed_corpus(
    passages: pd.DataFrame,
    weights: Path,
    settings: EncoderSettings,
    folder: Path,
    *,
    checkpoint: Path | None = None,
    previous: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    shard: int = _SHARD,
) -> dict[str, float | int]:
    """Write embeddings.npy, content_hashes.npy, encoder.json and a copy of the encoder (encoder/) to `folder`.

    Row i is row i of `passages` (`title`, `text`, `content_hash`). A content is embedded once, and not at all when
    `previous` has it, an earlier folder of this function made with the same weights and settings. `checkpoint`, a
    folder for these weights and settings alone, keeps what is done every `shard` passages until all is: a call after
    a run that was killed goes on from there.

    Returns the counts of contents embedded, resumed from the checkpoint, and removed since `previous`, of rows taken
    over from it, and the seconds of embedding.
    """
    titles, texts, hashes = (passages[name].tolist() for name in ("title", "text", "content_hash"))
    known = {} if previous is None else dict(_stored(previous))
    new_rows: dict[str, int] = {}
    for row, content in enumerate(hashes):
        if content not in known:
            new_rows.setdefault(content, row)
    shards = _Shards(checkpoint)
    vectors = {content: vector for content, vector in shards.read() if content in new_rows}
    resumed = len(vectors)
    # The longest first: what a batch or a shard holds is then of about one length, and an estimate of the end is late.
    wanted = sorted(new_rows.keys() - vectors.keys(), key=lambda content: (-len(texts[new_rows[content]]), content))

    _bring_encoder(weights, previous, folder / ENCODER)
    prompts = EncoderPrompts(settings.query_prefix, settings.passage_prefix, settings.dimensions)
    if previous is None:
        prompts.save(folder / ENCODER)
    facts = None if previous is None else json.loads((previous / FACTS_FILE).read_text(encoding="utf-8"))
    seconds = 0.0
    if wanted or facts is None:
        encoder = Encoder.load(folder / ENCODER, settings.max_tokens, precision=settings.precision)
        facts = {"max_tokens": settings.max_tokens, "dimensions": encoder.dimensions}
        started = time.perf_counter()
        for start in range(0, len(wanted), shard):
            contents = wanted[start : start + shard]
            rows = [new_rows[content] for content in contents]
            embedded = encoder.encode_passages(
                [titles[row] for row in rows],
                [texts[row] for row in rows],
                settings.batch_size,
                _shifted(progress, start, len(wanted)),
            )
            if not np.isfinite(embedded).all():
                raise ModelFileError(f"{settings.model} gives vectors that are not finite.", "Use another encoder.")
            shards.write(contents, embedded)
            vectors.update(zip(contents, embedded, strict=True))
        seconds = time.perf_counter() - started

    out = np.lib.format.open_memmap(
        folder / VECTORS_FILE, mode="w+", dtype=np.float32, shape=(len(hashes), facts["dimensions"])
    )
    for row, content in enumerate(hashes):
        out[row] = vectors[content] if content in vectors else known[content]
    out.flush()
    np.save(folder / HASHES_FILE, np.array(hashes, dtype="S64"), allow_pickle=False)
    (folder / FACTS_FILE).write_text(json.dumps(facts))
    shards.remove()
    return {
        "dagster/row_count": len(hashes),
        "embedded": len(wanted),
        "resumed": resumed,
        "taken_over": sum(content in known for content in hashes),
        "removed": len(known.keys() - set(hashes)),
        "embedding_seconds": round(seconds, 3),
        "passages_per_second": round(len(wanted) / seconds, 1) if wanted else 0.0,
        **facts,
    }


def _stored(folder: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """(content hash, vector), the vectors memory-mapped."""
    hashes = np.load(folder / HASHES_FILE, allow_pickle=False).astype(str).tolist()
    return zip(hashes, np.load(folder / VECTORS_FILE, mmap_mode="r", allow_pickle=False), strict=True)


def _bring_encoder(weights: Path, previous: Path | None, target: Path) -> None:
    """The files of the encoder; those of the version before are linked, so that a refresh costs no room."""
    ignored = shutil.ignore_patterns(*_NOT_COPIED)
    if previous is None:
        shutil.copytree(weights, target, ignore=ignored, copy_function=shutil.copyfile)
    else:
        shutil.copytree(previous / ENCODER, target, copy_function=link_or_copy)


def _shifted(progress: Callable[[int, int], None] | None, done: int, total: int) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda now, _: progress(done + now, total)


class _Shards:
    """Vectors of a run that has not ended, in files that are whole or not there."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def read(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """(content hash, vector) of every shard."""
        for path in sorted(self._folder.glob("*.npz")) if self._folder else ():
            try:
                data = path.read_bytes()
            except FileNotFoundError:  # another run over this corpus has just ended
                continue
            with np.load(io.BytesIO(data), allow_pickle=False) as stored:
                yield from zip(stored["contents"].astype(str).tolist(), stored["vectors"], strict=True)

    def write(self, contents: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Keep the vectors [n, d] of `contents` [n]."""
        if self._folder is None:
            return
        data = io.BytesIO()
        np.savez(data, contents=np.array(contents, dtype="S64"), vectors=vectors)
        # Named by its first content: two runs over one corpus write the same files.
        write_atomically(self._folder / f"{contents[0]}.npz", data.getvalue())

    def remove(self) -> None:
        """Nothing is resumed from here any more."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
