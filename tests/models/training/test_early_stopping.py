"""Early stopping: measured on the development lists, stopped, and the best weights kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.cross_encoder.pair_tokenizer import PairTokenizer
from models.training.early_stopping import EarlyStopping, ndcg
from models.training.fine_tuning import train_large
from tests.tiny_cross_encoder import examples, tiny_settings, weights_of, write_base


def test_ndcg_by_hand() -> None:
    scores = np.array([1.0, 3.0, 2.0])
    assert ndcg(scores, np.array([1.0, 0.0, 0.0])) == pytest.approx(1 / np.log2(4))
    assert ndcg(scores, np.array([0.0, 1.0, 0.5])) == pytest.approx(1.0)
    assert ndcg(scores, np.zeros(3)) == 0.0
    assert ndcg(np.zeros(2), np.array([0.0, 1.0])) == pytest.approx(1 / np.log2(3)), "ties keep the list's order"
    assert ndcg(np.arange(20.0), np.eye(20)[0]) == 0.0, "behind the tenth place nothing counts"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


def test_the_best_weights_are_kept(base: Path, tmp_path: Path) -> None:
    settings = tiny_settings(base, early_stopping=20, evaluations=20, learning_rate=5e-3)
    development = examples(40).iloc[90:].assign(query_id=lambda table: "dev " + table["query_id"])
    report = train_large(examples(), settings, tmp_path / "all", development=development)
    assert [step for step, _ in report.development] == list(range(1, 9))
    values = dict(report.development)
    assert values[report.best_step] == max(values.values()) > values[1]
    assert all(values[step] < values[report.best_step] for step in range(1, report.best_step))
    # They rank the development lists as they did when they were measured.
    from models.cross_encoder.scorer import CrossEncoderScorer

    scorer = CrossEncoderScorer.load(tmp_path / "all", 32)
    scores = scorer.logits(list(zip(development["query"], development["passage"], strict=True)))
    relevance = development["label"].to_numpy()
    lists = zip(np.split(scores, 10), np.split(relevance, 10), strict=True)
    assert np.mean([ndcg(*item) for item in lists]) == pytest.approx(values[report.best_step])


def test_training_ends_when_it_gets_no_better(base: Path, tmp_path: Path) -> None:
    # What is learned is the opposite of what the development lists want.
    development = examples(6).assign(label=lambda table: 1.0 - table["label"])
    settings = tiny_settings(base, early_stopping=2, evaluations=8)
    report = train_large(examples(), settings, tmp_path / "stopped", development=development)
    assert report.steps < 8
    assert len(report.development) == report.best_step + 2
    assert report.steps == report.best_step + 2
    whole = train_large(examples(), tiny_settings(base), tmp_path / "whole", development=development)
    assert (whole.steps, whole.development, whole.best_step) == (8, [], 0), "without the setting nothing is measured"
    stopped, trained = weights_of(tmp_path / "stopped"), weights_of(tmp_path / "whole")
    assert any(not torch.equal(stopped[name], trained[name]) for name in stopped)


def test_measuring_leaves_the_model_as_it_was(base: Path) -> None:
    from models.training.fine_tuning import _open

    model = _open(base, tiny_settings(base))
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lists = [{"query": "how to oil the pump", "passages": ["oil it", "no"], "labels": [1.0, 0.0]}]
    stopping = EarlyStopping(lists, PairTokenizer(model.tokenizer, 32), 1, 1)
    assert stopping.measure(model) in (1.0, pytest.approx(1 / np.log2(3)))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
