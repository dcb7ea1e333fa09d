"""What a pair costs in a cross-encoder, in operations: the same on every machine, unlike seconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.contracts.tiers import LAST, model_tiers
from models.cross_encoder.pair_template import PairTemplate
from models.cross_encoder.pair_tokenizer import PairTokenizer

_GATED = {"modernbert"}
"""Encoders with gated feed-forward layers; decoders with grouped keys have them all."""


def pair_flops(config: Any, tokens: int) -> float:
    """Floating-point operations of the matrix products of one pair (a multiplication and an addition are two).

    `config` is that of a transformer of transformers; where it does not say how wide the feed-forward layers are, they
    count four times the hidden size. Keys and values may have fewer heads than queries, and gated feed-forward layers
    have three matrices. What DeBERTa adds for relative positions is not counted.
    """
    hidden = config.hidden_size
    inner = getattr(config, "intermediate_size", None) or getattr(config, "hidden_dim", None) or 4 * hidden
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or hidden / heads)
    groups = getattr(config, "num_key_value_heads", None)
    gated = groups is not None or config.model_type in _GATED
    of_attention = 2 * hidden * width * (1 + (groups or heads) / heads)
    projections = 2 * tokens * (of_attention + (3 if gated else 2) * hidden * inner)
    attention = 4 * tokens * tokens * width
    return float(config.num_hidden_layers * (projections + attention))


def relative_costs(models: Mapping[str, Path], tokens: int) -> dict[str, float]:
    """Operations of a pair of so many tokens in each tier's model, as a share of those in the last tier's.

    `models` are the folders of the models by tier. What a decoder's template writes counts too.
    """
    flops = {tier.name: _of_folder(models[tier.name], tokens) for tier in model_tiers(models)}
    return {name: operations / flops[LAST.name] for name, operations in flops.items()}


def _of_folder(folder: Path, tokens: int) -> float:
    from transformers import AutoConfig

    template = PairTemplate.load(folder)
    longest = PairTokenizer.load(folder, tokens).longest if template and template.chat else tokens
    return pair_flops(AutoConfig.from_pretrained(str(folder), local_files_only=True), longest)
