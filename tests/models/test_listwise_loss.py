"""The training objective, against its formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.listwise_loss import ListwiseLoss


class Words:
    """A tokenizer of pairs: the number in a passage."""

    def encode(self, pairs: list[tuple[str, str]]) -> list[float]:
        return [float(passage) for _, passage in pairs]

    def pad(self, encodings: list[float]) -> dict[str, Tensor]:
        return {"numbers": torch.tensor(encodings)}


class Linear(nn.Module):
    """score = weight x number."""

    device = torch.device("cpu")

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"scores": (self.weight * features["numbers"]).unsqueeze(1)}


def loss_of(
    model: Any, lists: list[list[float]], labels: list[list[list[float]]], teacher_weight: float = 0.0
) -> Tensor:
    loss = ListwiseLoss(model, Words(), teacher_weight)  # pyright: ignore[reportArgumentType]
    passages = [[str(number) for number in numbers] for numbers in lists]
    return loss(([f"q{place}" for place in range(len(lists))], passages), [torch.tensor(label) for label in labels])


def value_of(*arguments: Any) -> float:
    return float(loss_of(*arguments).detach())


def cross_entropy(scores: list[float], target: list[float]) -> float:
    return -float(torch.tensor(target, dtype=torch.float) @ torch.tensor(scores, dtype=torch.float).log_softmax(0))


def test_it_is_the_cross_entropy_over_each_list() -> None:
    found = value_of(Linear(), [[2.0, 1.0, 0.0], [0.5, 3.0]], [[[1, 0], [0, 0], [0, 0]], [[0, 0], [1, 0]]])
    expected = (cross_entropy([2, 1, 0], [1, 0, 0]) + cross_entropy([0.5, 3], [0, 1])) / 2
    assert found == pytest.approx(expected, rel=1e-5)


def test_grades_share_the_target() -> None:
    found = value_of(Linear(), [[2.0, 1.0, 0.0]], [[[1.0, 0], [0.5, 0], [0, 0]]])
    assert found == pytest.approx(cross_entropy([2, 1, 0], [2 / 3, 1 / 3, 0]), rel=1e-5)


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
    one = value_of(Linear(), [[2.0, 1.0, 0.0]], [[[1, 5], [0, 1], [0, 2]]], 0.5)
    other = value_of(Linear(), [[0.0, 2.0, 1.0]], [[[0, 2], [1, 5], [0, 1]]], 0.5)
    assert one == pytest.approx(other, rel=1e-6)


def test_its_parameters_are_told_to_the_model_card() -> None:
    assert ListwiseLoss(Linear(), Words(), 0.3).get_config_dict() == {"teacher_weight": 0.3}  # pyright: ignore[reportArgumentType]
