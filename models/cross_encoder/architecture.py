"""Cross-encoders of every architecture that sentence-transformers opens: encoders with a classification head or a pair
head, decoders with a classification head, and decoders asked for "yes" or "no".

What differs between them is found by name in the model itself, here and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import ModelFileError, SettingsError

if TYPE_CHECKING:
    from sentence_transformers.cross_encoder import CrossEncoder
    from torch import Tensor

_LAYERS = ("layer", "layers")
_OWNERS = ("encoder", "transformer")
_NO_LIMIT = 1_000_000
"""Tokens; what relative positions allow, within reason."""


def open_cross_encoder(folder: Path, device: str, *, dropout: bool = True) -> CrossEncoder:
    """The cross-encoder in a folder of safetensors, in float32; a model that gives no score yet gets a new pair head.

    Without `dropout` all its rates are 0. Code that a folder brings is never run. Raises `ModelFileError` for a model
    that does not open without it, or that gives more than one score.
    """
    import torch
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder import CrossEncoder
    from transformers import AutoConfig

    from models.cross_encoder.pair_head import FOLDER, PairHead

    common: dict[str, Any] = {"device": device, "activation_fn": torch.nn.Identity()}
    weights = {"use_safetensors": True, "dtype": torch.float32}
    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
        changes = {} if dropout else _without_dropout(config)
        if (folder / FOLDER).is_dir() or not _scores(folder, config):
            body = Transformer(
                str(folder),
                transformer_task="feature-extraction",
                model_kwargs={**weights, "local_files_only": True},
                config_kwargs={**changes, "local_files_only": True},
            )
            head = PairHead.load(str(folder), FOLDER, local_files_only=True) if (folder / FOLDER).is_dir() else None
            return CrossEncoder(modules=[body, head or _new_head(body, folder)], **common)
        model = CrossEncoder(
            str(folder), model_kwargs=weights, config_kwargs=changes or None, local_files_only=True, **common
        )
    except ValueError as error:
        raise ModelFileError(
            f"{folder} is no model that sentence-transformers opens: {error}",
            "Custom code is never run: name a model of an architecture that transformers has.",
        ) from error
    if model.num_labels != 1:
        raise ModelFileError(
            f"{folder} gives {model.num_labels} scores of a pair, and a reranker gives one.", "Name another model."
        )
    body: Any = transformer(model)
    if body.config.pad_token_id is None:  # decoders look for the last token before the padding
        body.config.pad_token_id = model.tokenizer.pad_token_id
    reader: Any = model[0]
    more: dict[str, Any] = {"modality": next(iter(reader.modality_config))}
    if answers(model):
        more["logits_to_keep"] = 1  # of the last token, not of all of them
    reader.register_forward_pre_hook(lambda _, values: ({**more, **values[0]},))
    return model


def transformer(model: CrossEncoder) -> Any:
    """The transformers model inside."""
    assert model.model is not None
    return model.model


def logits(model: CrossEncoder, tokens: Mapping[str, Tensor]) -> Tensor:
    """float32 [pairs] logits of tokens as `models.cross_encoder.pair_tokenizer` pads them."""
    return model(dict(tokens))["scores"].view(-1).float()


def answers(model: CrossEncoder) -> bool:
    """Whether it is a decoder asked for "yes" or "no"."""
    from sentence_transformers.cross_encoder.modules import LogitScore

    return isinstance(model[-1], LogitScore)


def keep_answers_only(model: CrossEncoder) -> None:
    """Let a decoder that is asked for "yes" or "no" compute the logits of these alone: a head of two rows, no longer
    tied to the embeddings. The scores stay; the model is no longer one to save."""
    import torch

    if not answers(model):
        return
    score: Any = model[-1]
    body = transformer(model)
    rows = [token for token in (score.true_token_id, score.false_token_id) if token is not None]
    whole = body.get_output_embeddings()
    head = torch.nn.Linear(whole.in_features, len(rows), bias=whole.bias is not None)
    with torch.no_grad():
        head.weight.copy_(whole.weight[rows])
        if whole.bias is not None:
            head.bias.copy_(whole.bias[rows])
    body.set_output_embeddings(head.to(whole.weight.device))
    score.true_token_id, score.false_token_id = 0, 1 if len(rows) > 1 else None


def halve(model: CrossEncoder) -> None:
    """Turn the parameters of the transformer to bfloat16.

    A head behind it keeps float32: logits of 8 bits would tie. So do buffers, such as the frequencies of rotary
    positions.
    """
    import torch

    body = transformer(model)
    base = body.base_model
    for parameter in base.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    for child in body.children() if base is not body else ():
        if child is not base:
            child.register_forward_pre_hook(lambda _, values: tuple(value.float() for value in values))
    reader: Any = model[0]
    name = reader.module_output_name
    reader.register_forward_hook(lambda _, inputs, features: {**features, name: features[name].float()})


def transformer_layers(body: Any) -> tuple[Any, str]:
    """The module that holds the layers of a transformers model, and the name of its list of them."""
    base = body.base_model
    for owner in (*(getattr(base, name, None) for name in _OWNERS), base):
        for name in _LAYERS:
            if owner is not None and hasattr(owner, name):
                return owner, name
    raise ModelFileError(
        f"{type(base).__name__} has no list of layers that can be left out or frozen.",
        "Set training.frozen_layers to 0 and name weights of its own for each model.",
    )


def freeze(body: Any, count: int) -> None:
    """Leave the embeddings and the lowest `count` layers untrained, and what these share with others, as the relative
    positions of DeBERTa; none where it is 0."""
    if count == 0:
        return
    owner, layers = transformer_layers(body)
    base = body.base_model
    modules = [child for name, child in base.named_children() if name.startswith("embed")]
    if owner is not base:
        modules += [child for name, child in owner.named_children() if name != layers]
    for module in (*modules, *getattr(owner, layers)[:count]):
        module.requires_grad_(False)


def keep_layers(body: Any, layers: Sequence[int]) -> None:
    """Keep these layers, counted from 0, and what the configuration says of them.

    Raises `SettingsError` where a layer cannot stand in the place that it would get: the first one of ModernBERT lacks
    what all others have.
    """
    import torch

    owner, name = transformer_layers(body)
    present = getattr(owner, name)
    for place, layer in enumerate(layers):
        if present[place].state_dict().keys() != present[layer].state_dict().keys():
            raise SettingsError(
                f"layer {layer} of {type(body).__name__} cannot be layer {place}", "Keep the lowest layer too."
            )
    for key, values in body.config.to_dict().items():
        if isinstance(values, list) and len(values) == len(present):
            setattr(body.config, key, [values[layer] for layer in layers])
    setattr(owner, name, torch.nn.ModuleList([present[layer] for layer in layers]))
    body.config.num_hidden_layers = len(layers)


def token_limit(config: Any) -> int:
    """Tokens that a transformers model can read at all, by its positions; a million where they are relative."""
    positions = getattr(config, "max_position_embeddings", None)
    if not positions or positions < 0 or getattr(config, "position_biased_input", True) is False:
        return _NO_LIMIT
    return int(positions - (config.pad_token_id + 1 if config.model_type in _COUNTED_BEHIND_PADDING else 0))


_COUNTED_BEHIND_PADDING = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer"}
"""Model types whose positions begin behind the number of the padding token."""


def _scores(folder: Path, config: Any) -> bool:
    """Whether the model in a folder says itself how it scores a pair."""
    facts_file = folder / "config_sentence_transformers.json"
    if facts_file.is_file() and (kind := json.loads(facts_file.read_bytes()).get("model_type")):
        return kind == "CrossEncoder"
    modules = folder / "modules.json"
    if modules.is_file() and any("Pooling" in module["type"] for module in json.loads(modules.read_bytes())):
        return False
    return (config.architectures or [""])[0].endswith(("ForSequenceClassification", "ForCausalLM"))


def _new_head(body: Any, folder: Path) -> Any:
    from models.cross_encoder.pair_head import PairHead

    tokenizer = body.tokenizer
    if tokenizer.sep_token_id is None:
        raise ModelFileError(
            f"{folder} embeds texts, and its tokenizer has no separator to put between query and passage.",
            "Name a cross-encoder, or an encoder with one.",
        )
    return PairHead(int(body.model.config.hidden_size), tokenizer.sep_token_id, sorted(tokenizer.all_special_ids))


def _without_dropout(config: Any) -> dict[str, float]:
    return {name: 0.0 for name, rate in config.to_dict().items() if "drop" in name and isinstance(rate, float)}
