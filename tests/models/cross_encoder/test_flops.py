"""What a pair costs in a cross-encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModel, BertConfig, DistilBertConfig

from models.cross_encoder.flops import pair_flops, relative_costs

_HF: Any = transformers  # its type hints lack what is loaded when it is asked for
SIZES: dict[str, Any] = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}


def test_operations_are_those_of_the_matrix_products() -> None:
    config = BertConfig(hidden_size=8, intermediate_size=32, num_hidden_layers=2)
    # Four projections of 8 x 8 and two of 8 x 32, and two products of tokens by tokens, for 3 tokens.
    assert pair_flops(config, 3) == 2 * (2 * 3 * (4 * 64 + 2 * 256) + 4 * 9 * 8)


@pytest.mark.parametrize(
    "config",
    [
        _HF.Qwen3Config(num_attention_heads=4, num_key_value_heads=2, head_dim=16, **SIZES),
        _HF.ModernBertConfig(num_attention_heads=4, pad_token_id=0, **SIZES),
        _HF.BertConfig(num_attention_heads=4, **SIZES),
    ],
    ids=lambda config: config.model_type,
)
def test_they_are_those_of_the_matrices_that_the_layers_have(config: Any) -> None:
    """Keys of fewer heads, heads of a width of their own, gated layers."""
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    weights = sum(item.numel() for name, item in model.named_parameters() if "layer" in name and item.ndim == 2)
    heads = config.num_attention_heads * (getattr(config, "head_dim", None) or 8)
    assert pair_flops(config, 3) == 2 * 3 * weights + 2 * 4 * 9 * heads


def test_half_of_the_layers_cost_half(tmp_path: Path) -> None:
    for layers in (3, 6):
        BertConfig(num_hidden_layers=layers).save_pretrained(tmp_path / str(layers))
    models = {"compact": tmp_path / "3", "large": tmp_path / "6"}
    assert relative_costs(models, 96) == {"compact": 0.5, "large": 1.0}
    DistilBertConfig(n_layers=3).save_pretrained(tmp_path / "distilled")
    assert relative_costs({**models, "compact": tmp_path / "distilled"}, 96)["compact"] == pytest.approx(0.5)
