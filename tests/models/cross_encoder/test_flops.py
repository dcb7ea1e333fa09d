"""What a pair costs in a cross-encoder."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import BertConfig, DistilBertConfig

from models.cross_encoder.flops import pair_flops, relative_costs


def test_operations_are_those_of_the_matrix_products() -> None:
    config = BertConfig(hidden_size=8, intermediate_size=32, num_hidden_layers=2)
    # Four projections of 8 x 8 and two of 8 x 32, and two products of tokens by tokens, for 3 tokens.
    assert pair_flops(config, 3) == 2 * (2 * 3 * (4 * 64 + 2 * 256) + 4 * 9 * 8)


def test_half_of_the_layers_cost_half(tmp_path: Path) -> None:
    for layers in (3, 6):
        BertConfig(num_hidden_layers=layers).save_pretrained(tmp_path / str(layers))
    models = {"compact": tmp_path / "3", "large": tmp_path / "6"}
    assert relative_costs(models, 96) == {"compact": 0.5, "large": 1.0}
    DistilBertConfig(n_layers=3).save_pretrained(tmp_path / "distilled")
    assert relative_costs({**models, "compact": tmp_path / "distilled"}, 96)["compact"] == pytest.approx(0.5)
