"""Attention by matrix products: the same numbers as PyTorch's own, and no trace in what is saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BertModel

from models.training.cpu_attention import NAME, attention, use_products
from tests.tiny_cross_encoder import TINY

_QUERY_WEIGHT = "encoder.layer.0.attention.self.query.weight"


def test_states_and_gradients_are_those_of_the_fused_kernel(tmp_path: Path) -> None:
    ids = torch.randint(1, 50, (3, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    result = []
    for products in (False, True):
        torch.manual_seed(0)
        body = BertModel(TINY).eval()  # without dropout
        if products:
            use_products(body)
        assert (body.config._attn_implementation == NAME) is products
        states = body(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()]
        states.square().sum().backward()
        result.append((states.detach(), body.get_parameter(_QUERY_WEIGHT).grad))
    for fused, products in zip(*result, strict=True):
        torch.testing.assert_close(products, fused, rtol=1e-4, atol=1e-5)
    body.save_pretrained(tmp_path)
    assert NAME not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize("heads", [4, 2, 1])
def test_grouped_queries_share_their_keys(heads: int) -> None:
    generator = torch.Generator().manual_seed(2)
    query = torch.randn(2, 4, 5, 8, generator=generator)
    key, value = (torch.randn(2, heads, 5, 8, generator=generator) for _ in range(2))
    states, _ = attention(torch.nn.Identity(), query, key, value, None)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    torch.testing.assert_close(states, expected.transpose(1, 2))


def test_a_row_where_all_is_masked_has_numbers_in_every_precision() -> None:
    """As of padding on the left of a decoder: its numbers are not used, but NaN would reach the gradients."""
    states = torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(4))
    mask = torch.full((1, 1, 3, 3), torch.finfo(torch.float32).min)
    mask[..., 1:, 0] = 0
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        same = states.to(dtype)
        read, _ = attention(torch.nn.Identity(), same, same, same, mask)
        assert read.isfinite().all(), dtype
        torch.testing.assert_close(read[0, 1], same[0, :, 0])


def test_dropout_is_of_training_alone() -> None:
    states = torch.randn(1, 2, 6, 4, generator=torch.Generator().manual_seed(3))
    module = torch.nn.Identity()
    torch.manual_seed(0)
    trained, _ = attention(module.train(), states, states, states, None, dropout=0.5)
    read, _ = attention(module.eval(), states, states, states, None, dropout=0.5)
    plain, _ = attention(module, states, states, states, None)
    assert torch.equal(read, plain)
    assert not torch.equal(trained, plain)
