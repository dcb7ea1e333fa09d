"""What a pair costs in a cross-encoder, in operations: the same on every machine, unlike seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any


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


def relative_cost(model: Path, other: Path, tokens: int) -> float:
    """Operations of a pair of so many tokens in the model of one folder, as a share of those in that of the other."""
    from transformers import AutoConfig

    first, second = (
        pair_flops(AutoConfig.from_pretrained(str(folder), local_files_only=True), tokens) for folder in (model, other)
    )
    return first / second
