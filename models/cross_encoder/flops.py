"""What a pair costs in a cross-encoder, in operations: the same on every machine, unlike seconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.contracts.tiers import LAST, MODEL_TIERS


def pair_flops(config: Any, tokens: int) -> float:
    """Floating-point operations of the matrix products of one pair (a multiplication and an addition are two).

    `config` is that of a transformer of transformers; where it does not say how wide the feed-forward layers are, they
    count four times the hidden size.
    """
    hidden = config.hidden_size
    inner = getattr(config, "intermediate_size", None) or getattr(config, "hidden_dim", None) or 4 * hidden
    projections = 2 * tokens * (4 * hidden * hidden + 2 * hidden * inner)
    attention = 4 * tokens * tokens * hidden
    return float(config.num_hidden_layers * (projections + attention))


def relative_costs(models: Mapping[str, Path], tokens: int) -> dict[str, float]:
    """Operations of a pair of so many tokens in each tier's model, as a share of those in the last tier's.

    `models` are the folders of the models by tier.
    """
    from transformers import AutoConfig

    flops = {
        tier.name: pair_flops(AutoConfig.from_pretrained(str(models[tier.name]), local_files_only=True), tokens)
        for tier in MODEL_TIERS
    }
    return {name: operations / flops[LAST.name] for name, operations in flops.items()}
