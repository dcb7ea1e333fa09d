"""The pair head, against its formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize

from models.cross_encoder.pair_head import FOLDER, PairHead

CLS, SEP, PAD = 101, 102, 0
IDS = torch.tensor([[CLS, 7, 8, SEP, 9, 10, 11, SEP], [CLS, 7, SEP, 9, SEP, PAD, PAD, PAD]])
MASK = (IDS != PAD).long()


def head(scale: float = 10.0) -> PairHead:
    return PairHead(4, SEP, [PAD, CLS, SEP], scale)


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randn((2, 8, 4), generator=torch.Generator().manual_seed(0))


def test_untrained_it_is_the_scaled_cosine_of_the_two_means(tokens: torch.Tensor) -> None:
    result = head().score(tokens, IDS, MASK)
    expected = torch.stack(
        [
            10 * cosine_similarity(tokens[0, 1:3].mean(0), tokens[0, 4:7].mean(0), dim=0),
            10 * cosine_similarity(tokens[1, 1], tokens[1, 3], dim=0),
        ]
    )
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(head(3.0).score(tokens, IDS, MASK), 0.3 * expected)


def test_trained_it_weighs_the_dimensions_and_the_first_token(tokens: torch.Tensor) -> None:
    trained = head()
    with torch.no_grad():
        trained.interaction.copy_(torch.tensor([1.0, -2.0, 0.5, 0.0]))
        trained.first_token.weight.copy_(torch.tensor([[0.1, 0.2, 0.3, 0.4]]))
        trained.first_token.bias.fill_(0.7)
    query, passage = normalize(tokens[0, 1:3].mean(0), dim=0), normalize(tokens[0, 4:7].mean(0), dim=0)
    products = query * passage * torch.tensor([1.0, -2.0, 0.5, 0.0])
    first = tokens[0, 0] @ torch.tensor([0.1, 0.2, 0.3, 0.4])
    torch.testing.assert_close(trained.score(tokens, IDS, MASK)[0], products.sum() + first + 0.7)


def test_padding_and_special_tokens_decide_nothing(tokens: torch.Tensor) -> None:
    changed = tokens.clone()
    changed[1, 5:] = 1e6
    changed[:, 0] = -1e6
    changed[0, 3] = changed[0, 7] = 1e6
    torch.testing.assert_close(head().score(changed, IDS, MASK), head().score(tokens, IDS, MASK))
    longer = torch.cat([tokens, torch.ones(2, 3, 4)], dim=1)
    ids, mask = (torch.cat([table, torch.zeros(2, 3, dtype=torch.long)], dim=1) for table in (IDS, MASK))
    torch.testing.assert_close(head().score(longer, ids, mask), head().score(tokens, IDS, MASK))


@pytest.mark.parametrize("ids", [[CLS, SEP, 9, SEP], [CLS, 7, SEP, SEP], [CLS, SEP, SEP, PAD]])
def test_an_empty_query_or_passage_scores_zero(ids: list[int]) -> None:
    table = torch.tensor([ids])
    result = head().score(torch.randn((1, 4, 4)), table, (table != PAD).long())
    assert result.tolist() == [0.0]


def test_as_a_module_it_adds_scores_in_float32(tokens: torch.Tensor) -> None:
    features: dict[str, Any] = {
        "token_embeddings": tokens.bfloat16(), "input_ids": IDS, "attention_mask": MASK
    }  # fmt: skip
    scores = head()(features)["scores"]
    assert (scores.shape, scores.dtype) == ((2, 1), torch.float32)
    torch.testing.assert_close(scores.squeeze(1), head().score(tokens, IDS, MASK), atol=0.1, rtol=0.01)


def test_every_parameter_learns(tokens: torch.Tensor) -> None:
    trained = head()
    trained.score(tokens.requires_grad_(), IDS, MASK).sum().backward()
    for name, parameter in trained.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert tokens.grad is not None
    assert (tokens.grad[1, 5:] == 0).all(), "padding"


def test_saved_and_loaded_it_scores_the_same(tokens: torch.Tensor, tmp_path: Path) -> None:
    trained = head(4.0)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(torch.rand(parameter.shape))
    (tmp_path / FOLDER).mkdir()
    trained.save(str(tmp_path / FOLDER))
    assert {path.name for path in (tmp_path / FOLDER).iterdir()} == {"config.json", "model.safetensors"}
    again = PairHead.load(str(tmp_path), FOLDER, local_files_only=True)
    assert (again.special_ids, again.separator_id, again.scale) == ([PAD, CLS, SEP], SEP, 4.0)
    torch.testing.assert_close(again.score(tokens, IDS, MASK), trained.score(tokens, IDS, MASK), atol=0, rtol=0)
