"""The training objectives, against their formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.training.ranking_loss import RankingLoss, Teacher


class Words:
    """A tokenizer of pairs: the number in a passage."""

    def encode(self, pairs: list[tuple[str, str]]) -> list[str]:
        return [passage for _, passage in pairs]

    def pad(self, encodings: list[str]) -> dict[str, Tensor]:
        return {"numbers": torch.tensor([float(encoding) for encoding in encodings])}


class Linear(nn.Module):
    """score = weight x number."""

    device = torch.device("cpu")

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"scores": (self.weight * features["numbers"]).unsqueeze(1)}


class Known(nn.Module):
    """Scores that are known by the number in a passage."""

    device = torch.device("cpu")

    def __init__(self, scores: dict[float, float]) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"scores": torch.tensor([self.scores[number] for number in features["numbers"].tolist()]).unsqueeze(1)}


def loss_of(
    model: Any, lists: list[list[float]], labels: list[list[list[float]]], teacher_weight: float = 0.0, **options: Any
) -> Tensor:
    """`labels` has the relevance and the teacher's score of each passage."""
    tokenizer: Any = Words()
    known = {
        number: label[1]
        for numbers, of_list in zip(lists, labels, strict=True)
        for number, label in zip(numbers, of_list, strict=True)
    }
    teacher: Any = Known(known)
    loss = RankingLoss(model, tokenizer, Teacher(teacher), teacher_weight, **options)
    passages = [[str(number) for number in numbers] for numbers in lists]
    relevance = [torch.tensor([float(label[0]) for label in of_list]) for of_list in labels]
    return loss(([f"q{index}" for index in range(len(lists))], passages), relevance)


def value_of(*arguments: Any, **options: Any) -> float:
    return float(loss_of(*arguments, **options).detach())


def cross_entropy(scores: list[float], target: list[float]) -> float:
    return -float(torch.tensor(target, dtype=torch.float) @ torch.tensor(scores, dtype=torch.float).log_softmax(0))


def test_it_is_the_cross_entropy_over_each_list() -> None:
    result = value_of(Linear(), [[2.0, 1.0, 0.0], [0.5, 3.0]], [[[1, 0], [0, 0], [0, 0]], [[0, 0], [1, 0]]])
    expected = (cross_entropy([2, 1, 0], [1, 0, 0]) + cross_entropy([0.5, 3], [0, 1])) / 2
    assert result == pytest.approx(expected, rel=1e-5)


def test_grades_share_the_target() -> None:
    result = value_of(Linear(), [[2.0, 1.0, 0.0]], [[[1.0, 0], [0.5, 0], [0, 0]]])
    assert result == pytest.approx(cross_entropy([2, 1, 0], [2 / 3, 1 / 3, 0]), rel=1e-5)


def test_the_teacher_is_mixed_into_the_target_and_not_read_without_weight() -> None:
    labels = [[[1.0, 1.0], [0.0, 3.0]]]
    teacher = torch.tensor([1.0, 3.0]).softmax(0).tolist()
    mixed = [0.25 * 1 + 0.75 * teacher[0], 0.75 * teacher[1]]
    assert value_of(Linear(), [[2.0, 1.0]], labels, 0.75) == pytest.approx(cross_entropy([2, 1], mixed), rel=1e-5)
    assert value_of(Linear(), [[2.0, 1.0]], labels) == pytest.approx(cross_entropy([2, 1], [1, 0]), rel=1e-5)


def test_it_falls_in_the_direction_of_its_gradient() -> None:
    model = Linear(0.0)
    lists, labels = [[3.0, 1.0, 2.0], [5.0, 1.0]], [[[1.0, 0.0], [0, 0], [0, 0]], [[1.0, 0.0], [0, 0]]]
    before = loss_of(model, lists, labels)
    before.backward()
    assert model.weight.grad is not None
    assert float(model.weight.grad) < 0, "relevant passages have the larger numbers"
    with torch.no_grad():
        model.weight.sub_(0.1 * model.weight.grad)
    assert value_of(model, lists, labels) < float(before.detach())


def test_the_order_of_a_list_does_not_matter() -> None:
    first = value_of(Linear(), [[2.0, 1.0, 0.0]], [[[1, 5], [0, 1], [0, 2]]], 0.5)
    other = value_of(Linear(), [[0.0, 2.0, 1.0]], [[[0, 2], [1, 5], [0, 1]]], 0.5)
    assert first == pytest.approx(other, rel=1e-6)


def test_binary_cross_entropy_takes_each_pair_by_itself() -> None:
    result = value_of(Linear(), [[2.0, 1.0], [0.5, 3.0]], [[[1, 0], [0, 0]], [[0.5, 0], [0, 0]]], objective="bce")
    logits, targets = torch.tensor([2.0, 1.0, 0.5, 3.0]), torch.tensor([1.0, 0.0, 0.5, 0.0])
    probability = logits.sigmoid()
    expected = -(targets * probability.log() + (1 - targets) * (1 - probability).log()).mean()
    assert result == pytest.approx(float(expected), rel=1e-5)


def test_lambda_loss_weighs_a_swapped_pair_by_what_it_costs_in_ndcg() -> None:
    # Wang et al., 2018, with two passages: gains 1 and 0, the ideal DCG 1; delta of NDCG-Loss2 and of LambdaRank is
    # that of their discounts, 1 / log2(2) and 1 / log2(3), for ranks 1 and 2.
    discount = 1 - 1 / math.log2(3)
    for scores in ([2.0, 1.0], [1.0, 2.0]):
        result = value_of(Linear(), [scores], [[[1.0, 0.0], [0.0, 0.0]]], objective="lambda")
        expected = (10 + 1) * discount * math.log2(1 + math.exp(scores[1] - scores[0]))
        assert result == pytest.approx(expected, rel=1e-4)


def test_lambda_loss_takes_lists_of_different_lengths_and_grades() -> None:
    labels = [[[1.0, 0], [0.5, 0], [0, 0]], [[1.0, 0], [0, 0]]]
    right = value_of(Linear(), [[3.0, 2.0, 1.0], [2.0, 1.0]], labels, objective="lambda")
    swapped = value_of(Linear(), [[2.0, 3.0, 1.0], [2.0, 1.0]], labels, objective="lambda")
    assert 0 < right < swapped


def test_margin_mse_compares_differences_to_the_first_passage_with_the_teachers() -> None:
    labels = [[[1, 5.0], [0, 3.0], [0, -1.0]]]
    result = value_of(Linear(), [[2.0, 1.0, 0.0]], labels, 1.0, distillation="margin_mse")
    assert result == pytest.approx(((1 - 2) ** 2 + (2 - 6) ** 2) / 2, rel=1e-5)
    assert value_of(Linear(), [[7.0, 5.0, 1.0]], labels, 1.0, distillation="margin_mse") == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("objective", ["listwise", "lambda", "bce"])
@pytest.mark.parametrize("distillation", ["listwise", "margin_mse"])
def test_any_objective_is_mixed_with_any_distillation(objective: str, distillation: str) -> None:
    lists, labels = [[2.0, 1.0, 0.0], [0.5, 3.0]], [[[1, 1.0], [0, 2.0], [0, 0]], [[1, 1.0], [0, 4.0]]]
    options = {"objective": objective, "distillation": distillation}
    alone, taught, mixed = (value_of(Linear(), lists, labels, weight, **options) for weight in (0.0, 1.0, 0.25))
    assert mixed == pytest.approx(0.75 * alone + 0.25 * taught, rel=1e-5)
    assert alone != pytest.approx(taught)
    off = value_of(Linear(), lists, labels, 0.25, objective=objective, distillation="none")
    assert off == pytest.approx(alone, rel=1e-6)


@pytest.mark.parametrize("objective", ["listwise", "lambda", "bce"])
def test_a_list_that_nobody_judged_is_learned_from_the_teacher_alone(objective: str) -> None:
    nan = float("nan")
    lists, labels = [[2.0, 1.0], [0.5, 3.0]], [[[1.0, 1.0], [0.0, 3.0]], [[nan, 1.0], [nan, 4.0]]]
    result = value_of(Linear(), lists, labels, 0.25, objective=objective)
    judged = value_of(Linear(), lists[:1], labels[:1], 0.25, objective=objective)
    taught = cross_entropy(lists[1], torch.tensor([1.0, 4.0]).softmax(0).tolist())
    assert result == pytest.approx((judged + taught) / 2, rel=1e-5)


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_reading_the_pairs_in_parts_changes_nothing(chunk: int) -> None:
    lists, labels = [[2.0, 11.0, 0.0], [0.5, 333.0]], [[[1.0, 0.0], [0, 0], [0, 0]], [[0, 0], [1.0, 0.0]]]
    whole, parts = Linear(), Linear()
    first, other = loss_of(whole, lists, labels), loss_of(parts, lists, labels, chunk_pairs=chunk)
    assert float(first.detach()) == pytest.approx(float(other.detach()), rel=1e-6)
    first.backward()
    other.backward()
    assert whole.weight.grad is not None
    assert parts.weight.grad is not None
    torch.testing.assert_close(whole.weight.grad, parts.weight.grad)


def test_its_parameters_are_told_to_the_model_card() -> None:
    model: Any = Linear()
    tokenizer: Any = Words()
    told = RankingLoss(model, tokenizer, Teacher(model), 0.3, objective="bce").get_config_dict()
    assert told == {"objective": "bce", "distillation": "listwise", "teacher_weight": 0.3}
    assert RankingLoss(model, tokenizer, teacher_weight=0.3).get_config_dict()["teacher_weight"] == 0.0


def test_the_teacher_is_no_part_of_what_is_trained_or_saved() -> None:
    model: Any = Linear()
    tokenizer: Any = Words()
    teacher: Any = Linear(2.0)
    loss = RankingLoss(model, tokenizer, Teacher(teacher), 0.5)
    assert {id(item) for item in loss.parameters()} == {id(model.weight)}


def test_a_teacher_with_a_tokenizer_reads_the_texts_by_itself() -> None:
    class Doubled(Words):
        def encode(self, pairs: list[tuple[str, str]]) -> list[str]:
            return [str(2 * float(passage)) for _, passage in pairs]

    model: Any = Linear()
    teacher: Any = Known({4.0: 1.0, 2.0: 3.0})
    own: Any = Doubled()
    words: Any = Words()
    loss = RankingLoss(model, words, Teacher(teacher, own), 1.0)
    result = float(loss((["q"], [["2.0", "1.0"]]), [torch.tensor([1.0, 0.0])]).detach())
    assert result == pytest.approx(cross_entropy([2, 1], torch.tensor([1.0, 3.0]).softmax(0).tolist()), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_teacher_multiplies_in_its_own_type_and_scores_in_float32(dtype: torch.dtype) -> None:
    seen = []

    class Product(nn.Module):
        device = torch.device("cpu")

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(1, 1)

        def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
            scores = self.linear(features["numbers"].unsqueeze(1))
            seen.append(scores.dtype)
            return {"scores": scores}

    model: Any = Product()
    result = Teacher(model, dtype=dtype).scores({"numbers": torch.ones(2)})
    assert (seen, result.dtype, result.requires_grad) == ([dtype], torch.float32, False)
