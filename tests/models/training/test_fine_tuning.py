"""Fine-tuning, on models small enough for a test: trained, saved, loaded and scored."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel, set_seed
from transformers.models.bert.modeling_bert import BertLayer

from models.contracts.tiers import DISTILLED_TIERS
from models.cross_encoder.scorer import CrossEncoderScorer
from models.errors import ModelFileError, SettingsError
from models.training.fine_tuning import TrainingReport, mixed_precision, require_layers, train_large, train_student
from tests.tiny_cross_encoder import (
    PICKLES,
    TINY,
    TOPICS,
    add_tokenizer,
    examples,
    tiny_settings,
    weights_of,
    write_base,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def large(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingReport]:
    folder = tmp_path_factory.mktemp("large")
    return folder, train_large(examples(), tiny_settings(base), folder)


@pytest.fixture(scope="module")
def compact(
    base: Path, large: tuple[Path, TrainingReport], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, TrainingReport]:
    folder = tmp_path_factory.mktemp("compact")
    return folder, train_student("compact", examples(), large[0], tiny_settings(base), folder)


@pytest.fixture(scope="module")
def scorer(large: tuple[Path, TrainingReport]) -> CrossEncoderScorer:
    return CrossEncoderScorer.load(large[0], 32)


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
    before, after = weights_of(base), weights_of(large[0])
    changed = {name for name, tensor in before.items() if name in after and not torch.equal(tensor, after[name])}
    assert not [name for name in changed if name.startswith(("embeddings.", "encoder.layer.0."))]
    assert [name for name in changed if name.startswith("encoder.layer.3.")]


def test_the_same_seed_trains_the_same_weights(base: Path, large: tuple[Path, TrainingReport], tmp_path: Path) -> None:
    again = train_large(examples(), tiny_settings(base), tmp_path / "again")
    assert again == large[1]
    for name, tensor in weights_of(large[0]).items():
        assert torch.equal(tensor, weights_of(tmp_path / "again")[name]), name


def test_progress_counts_the_steps_and_training_stops_at_its_pairs(base: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    report = train_large(
        examples(), tiny_settings(base, large_pairs=13), tmp_path, lambda done, total: told.append((done, total))
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
    names = weights_of(folder)
    assert any("layer.1." in name for name in names)
    assert not any("layer.2." in name for name in names)
    scores = CrossEncoderScorer.load(folder, 32).logits([("how to oil the pump", "This is valid: oil the pump.")])
    assert np.isfinite(scores).all()


def test_the_compact_model_leaves_untrained_what_the_large_one_left(
    base: Path, large: tuple[Path, TrainingReport], tmp_path: Path
) -> None:
    before = weights_of(large[0])
    cases = ((1, [0, 3], [0]), (3, [0, 1, 3], [0, 1]), (3, [0, 2, 3], [0]), (3, [1, 3], []), (3, [0, 1], []))
    for frozen, layers, stay in cases:
        folder = tmp_path / f"{frozen}-{layers}"
        settings = tiny_settings(base, compact_layers=layers, frozen_layers=frozen)
        train_student("compact", examples(), large[0], settings, folder)
        after = weights_of(folder)
        same = [
            index
            for index, layer in enumerate(layers)
            if all(
                torch.equal(tensor, before[name.replace(f"layer.{index}.", f"layer.{layer}.")])
                for name, tensor in after.items()
                if f"encoder.layer.{index}." in name
            )
        ]
        assert same == stay
        words = "embeddings.word_embeddings.weight"
        assert torch.equal(after[words], before[words]) == bool(stay)


def test_what_teacher_and_student_have_in_common_is_read_once_and_trains_the_same(
    base: Path, large: tuple[Path, TrainingReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    forward = BertLayer.forward

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        read.append(self)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(BertLayer, "forward", counted)
    settings = tiny_settings(base, compact_layers=[0, 1, 3], frozen_layers=2, chunk_pairs=5)
    train_student("compact", examples(), large[0], settings, tmp_path / "once")
    once = len(read)
    read.clear()
    monkeypatch.setattr("models.training.fine_tuning._read_once", lambda *args: None)
    train_student("compact", examples(), large[0], settings, tmp_path / "twice")
    assert once == len(read) * 5 / 7
    first, second = weights_of(tmp_path / "once"), weights_of(tmp_path / "twice")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_with_dropout_the_teacher_reads_by_itself(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What dropout leaves of a layer's output is not what the teacher learned from."""
    shared = []
    monkeypatch.setattr("models.training.fine_tuning._read_once", lambda student, teacher, count: shared.append(count))
    for dropout, known in ((0.0, [1]), (0.1, [])):
        settings = tiny_settings(base, dropout=dropout)
        train_large(examples(), settings, tmp_path / f"large {dropout}")
        shared.clear()
        train_student("compact", examples(), tmp_path / f"large {dropout}", settings, tmp_path / f"compact {dropout}")
        assert shared == known


def test_the_teacher_changes_what_is_learned_and_may_be_left_out(
    base: Path, large: tuple[Path, TrainingReport], compact: tuple[Path, TrainingReport], tmp_path: Path
) -> None:
    alone = train_student("compact", examples(), large[0], tiny_settings(base, teacher_weight=0.0), tmp_path)
    assert alone.pairs == compact[1].pairs
    assert [loss for _, loss in alone.loss] != [loss for _, loss in compact[1].loss]


def test_a_model_with_a_classification_head_of_its_own_is_loaded_and_trained(base: Path, tmp_path: Path) -> None:
    set_seed(0)
    config = BertConfig(**{**TINY.to_dict(), "num_labels": 1})
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path / "own")
    add_tokenizer(tmp_path / "own")
    scorer = CrossEncoderScorer.load(tmp_path / "own", 32)
    pairs = [("how to oil", "oil it"), ("how", "a much longer passage about oil")]
    with torch.inference_mode():
        encoded = [torch.tensor(encoding.ids)[None] for encoding in scorer.encode(pairs)]
        types = [torch.tensor(encoding.type_ids)[None] for encoding in scorer.encode(pairs)]
        direct = [float(model(input_ids=i, token_type_ids=t).logits) for i, t in zip(encoded, types, strict=True)]
    np.testing.assert_allclose(scorer.logits(pairs), direct, atol=1e-5)
    report = train_large(examples(4), tiny_settings(tmp_path / "own"), tmp_path / "trained")
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
        train_large(examples(), tiny_settings(tmp_path / "base"), tmp_path / "out")
    with pytest.raises(OSError, match="safetensors"):
        CrossEncoderScorer.load(tmp_path / "large", 32)
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("loss", ["lambda", "bce"])
def test_every_objective_learns(base: Path, tmp_path: Path, loss: str) -> None:
    train_large(examples(48), tiny_settings(base, loss=loss, large_pairs=144), tmp_path)
    scorer = CrossEncoderScorer.load(tmp_path, 32)
    pairs = [
        (f"how to oil the {topic}", f"This is {word}: oil the {topic} 7 times.")
        for topic in TOPICS
        for word in ("valid", "void")
    ]
    scores = scorer.logits(pairs).reshape(-1, 2)
    assert (scores[:, 0] > scores[:, 1]).all()


@pytest.mark.parametrize(
    "changes", [{"loss": "lambda", "distillation": "margin_mse"}, {"loss": "bce", "distillation": "listwise"}]
)
def test_objectives_and_distillations_train_a_usual_head(tmp_path: Path, changes: dict[str, Any]) -> None:
    set_seed(0)
    BertForSequenceClassification(BertConfig(**{**TINY.to_dict(), "num_labels": 1})).save_pretrained(tmp_path / "own")
    add_tokenizer(tmp_path / "own")
    settings = tiny_settings(tmp_path / "own", **changes, chunk_pairs=5, gradient_checkpointing=True)
    train_large(examples(8), settings, tmp_path / "large")
    report = train_student("compact", examples(8), tmp_path / "large", settings, tmp_path / "compact")
    assert report.layers == 2
    assert all(np.isfinite(loss) for _, loss in report.loss)
    assert np.isfinite(CrossEncoderScorer.load(tmp_path / "compact", 32).logits([("how", "so")])).all()


@pytest.mark.parametrize("changes", [{"chunk_pairs": 5}, {"gradient_checkpointing": True}])
def test_reading_in_parts_and_saving_memory_train_the_same(
    base: Path, large: tuple[Path, TrainingReport], tmp_path: Path, changes: dict[str, Any]
) -> None:
    # Weights without a gradient, as the bias of a head under a listwise loss, drift with the rounding.
    report = train_large(examples(), tiny_settings(base, **changes), tmp_path)
    assert [loss for _, loss in report.loss] == pytest.approx([loss for _, loss in large[1].loss], rel=0.01)


def test_nothing_is_printed_and_the_head_is_counted(
    base: Path, large: tuple[Path, TrainingReport], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train_large(examples(4), tiny_settings(base), tmp_path)
    assert capfd.readouterr().out == ""
    # The classifier of BertModel, its pooler, is saved and counted too; the pair head has w, c and b.
    assert large[1].parameters == sum(tensor.numel() for tensor in weights_of(large[0]).values())


def test_layers_that_the_large_model_lacks_are_refused_before_it_is_trained(base: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"training\.frozen_layers: 5 are more than the 4 layers"):
        train_large(examples(), tiny_settings(base, frozen_layers=5), tmp_path)
    assert not list(tmp_path.iterdir())
    too_many = tiny_settings(base, compact_layers=[0, 4])
    with pytest.raises(SettingsError, match=r"training\.compact_layers: \[0, 4\] are not layers of a model with 4"):
        require_layers(too_many, DISTILLED_TIERS)
    require_layers(too_many, ())  # without a compact model its layers do not matter


def test_a_layer_that_a_trained_model_lacks_is_refused(
    base: Path, large: tuple[Path, TrainingReport], tmp_path: Path
) -> None:
    settings = tiny_settings(base, compact_layers=[0, 4], teacher_weight=0.0)
    with pytest.raises(SettingsError, match=r"training\.compact_layers: \[0, 4\] are not layers of a model with 4"):
        train_student("compact", examples(), large[0], settings, tmp_path)


def test_the_compact_model_may_start_from_weights_of_its_own(
    base: Path, large: tuple[Path, TrainingReport], tmp_path: Path
) -> None:
    set_seed(3)
    (tmp_path / "own").mkdir()
    config = BertConfig(**{**TINY.to_dict(), "num_hidden_layers": 1, "hidden_size": 16})
    BertModel(config).save_pretrained(tmp_path / "own")
    add_tokenizer(tmp_path / "own")
    # Layers of the large model then do not matter.
    settings = tiny_settings(base, compact_base_model=str(tmp_path / "own"), compact_layers=[7])
    report = train_student("compact", examples(), large[0], settings, tmp_path / "compact")
    assert report.layers == 1
    assert json.loads((tmp_path / "compact" / "config.json").read_text())["hidden_size"] == 16


def test_logged_lists_are_learned_from_the_teacher(
    base: Path, large: tuple[Path, TrainingReport], tmp_path: Path
) -> None:
    table = examples(12)
    logged = table.assign(query_id="logged " + table["query_id"]).loc[:, ["query_id", "query", "passage"]]
    report = train_student("compact", examples(8), large[0], tiny_settings(base), tmp_path / "both", logged=logged)
    assert (report.lists, report.pairs) == (20, 60)
    alone = train_student(
        "compact", examples(8), large[0], tiny_settings(base, distillation="none"), tmp_path / "alone", logged=logged
    )
    assert alone.lists == 8, "without a teacher there is nothing to learn from them"


def test_half_precision_without_a_gpu_is_refused(base: Path) -> None:
    assert mixed_precision(tiny_settings(base, precision="bf16")) == "bf16"
    assert mixed_precision(tiny_settings(base)) == "fp32"
    with pytest.raises(SettingsError, match=r"training\.precision: fp16 is for a GPU"):
        mixed_precision(tiny_settings(base, precision="fp16"))
