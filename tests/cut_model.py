"""The bundled bi-encoder with the word pieces of a corpus and its lowest layers alone: its knowledge, in few bytes.

Most of its 90 MB are vectors of words that a small corpus does not have. What is embedded
with the cut model and trained from it is quick to load, to save, to digest and to run.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

_EMBEDDINGS = "embeddings.word_embeddings.weight"


def write_cut_model(source: Path, folder: Path, texts: Iterable[str], layers: int) -> Path:
    """Write the BERT model of `source` to `folder` with its lowest `layers`, the word pieces of `texts`, and those of
    one character, so that it still reads every word."""
    import torch
    from safetensors.torch import load_file, save_file
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    read = {piece for encoding in tokenizer.encode_batch(list(texts)) for piece in encoding.ids}
    declared = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    special = {token["id"] for token in declared["added_tokens"]}
    kept = sorted(
        (number, piece)
        for piece, number in declared["model"]["vocab"].items()
        if number in read | special or len(piece.removeprefix("##")) == 1
    )
    numbers = {piece: number for number, (_, piece) in enumerate(kept)}
    declared["model"]["vocab"] = numbers
    for token in declared["added_tokens"]:
        token["id"] = numbers[token["content"]]
    for name, token in declared["post_processor"]["special_tokens"].items():
        token["ids"] = [numbers[name]]

    shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "tokenizer.json").write_text(json.dumps(declared), encoding="utf-8")
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in numbers), encoding="utf-8")
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    changes = {"vocab_size": len(numbers), "num_hidden_layers": layers, "pad_token_id": numbers["[PAD]"]}
    (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
    tensors = {
        name: tensor
        for name, tensor in load_file(source / "model.safetensors").items()
        if not name.startswith("encoder.layer.") or int(name.split(".")[2]) < layers
    }
    tensors[_EMBEDDINGS] = tensors[_EMBEDDINGS][torch.tensor([number for number, _ in kept])].contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
