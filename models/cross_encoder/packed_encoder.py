"""Encoders of BERT's family over pairs of any lengths, one behind the other without padding (docs/decisions/0026).

Products take the rows of many pairs at once, from weights that are laid out once (oneDNN). Attention stays within a
pair. Whether a row of a product has the same bits whatever the number of rows is a question to the CPU and the library:
it is asked when the encoder is made, and products with other bits are computed in pieces that have them.

Imported only where a model is loaded, so torch stands at module level here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, scaled_dot_product_attention

from models.cross_encoder.architecture import transformer
from models.cross_encoder.packed_product import LADDER, FloatProduct, MakeProduct, Product

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers.cross_encoder import CrossEncoder

    from models.cross_encoder.pair_tokenizer import EncodedPair

_TYPES = {"bert": 0, "electra": 0, "roberta": 1, "xlm-roberta": 1, "camembert": 1}
"""Model types whose layers are BERT's; 1 where positions begin behind the number of the padding token."""

_VECTOR = 16
"""Keys that attention takes at once: numbers of float32 in a vector of 512 bits."""

_HEAD_ROWS = 32
"""Pairs that a head always reads, the last of them zeros: its products round differently for another number."""


class PackedLayers:
    """Embeddings and layers of a transformer: bfloat16 and float32, or as its products are."""

    def __init__(self, body: Any, make: MakeProduct = FloatProduct) -> None:
        """Takes the layers of a transformers model over, as they are or in bfloat16; see `packs`. `make` says how
        linear layers are computed."""
        base = body.base_model
        self._config = base.config
        self._embeddings = base.embeddings
        wider = getattr(base, "embeddings_project", None)
        self._wider = None if wider is None else make("wider", [wider])
        self._layers = [
            _Layer(layer, base.config.num_attention_heads, partial(_in_layer, make, number))
            for number, layer in enumerate(base.encoder.layer)
        ]
        self._padding = self._config.pad_token_id or 0
        self._first_position = self._padding + 1 if _TYPES[self._config.model_type] else 0
        base.encoder.layer = torch.nn.ModuleList()  # the weights stand in `_layers` now
        self._settle()

    @staticmethod
    def packs(config: Any) -> bool:
        """Whether it is the configuration of an architecture that this class computes."""
        return (
            config.model_type in _TYPES
            and config.hidden_act == "gelu"
            and not getattr(config, "is_decoder", False)
            and getattr(config, "position_embedding_type", "absolute") == "absolute"
        )

    @staticmethod
    def packs_of(lengths: Sequence[int], threads: int) -> list[list[int]]:
        """Places of pairs that are read one behind the other, the longest first: a multiple of `threads` packs of about
        the same number of tokens, none with more than the largest of `LADDER` unless a pair has more than half of it.

        Each layer's weights are read anew for each pack, so packs of 2,048 tokens are 8 % faster than those of 1,024.
        """
        order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
        ends = list(accumulate(lengths[index] for index in order))
        total = ends[-1] if order else 0
        # A pair belongs to the pack in which its middle lies: no pack exceeds their mean by more than the longest pair.
        most = LADDER[-1] - _VECTOR + 1
        mean = max(most - max(lengths, default=0), most // 2)
        count = -(-total // (mean * threads)) * threads
        packs: list[list[int]] = [[] for _ in range(count)]
        for index, end in zip(order, ends, strict=True):
            packs[(2 * end - lengths[index]) * count // (2 * total)].append(index)
        return [pack for pack in packs if pack]

    def states(self, pairs: Sequence[EncodedPair]) -> Iterator[tuple[Tensor, Tensor]]:
        """States [count, tokens, hidden] and ids [count, tokens] of some pairs, or of texts, in their order: those of
        one length that stand next to each other together."""
        lengths = [len(pair) for pair in pairs]
        ends = list(accumulate(lengths))
        rows = _rows_for(max(end + -length % _VECTOR for length, end in zip(lengths, ends, strict=True)))
        ids, types, positions = (np.full(rows, fill, dtype=np.int64) for fill in (self._padding, 0, 0))
        for pair, end in zip(pairs, ends, strict=True):
            ids[end - len(pair) : end], types[end - len(pair) : end] = pair.ids, pair.type_ids
            positions[end - len(pair) : end] = np.arange(self._first_position, self._first_position + len(pair))
        input_ids = torch.from_numpy(ids)
        if self._config.type_vocab_size < 2:
            types[:] = 0
        states = self._embeddings(
            input_ids=input_ids[None], token_type_ids=torch.from_numpy(types)[None],
            position_ids=torch.from_numpy(positions)[None],
        )[0]  # fmt: skip
        if self._wider is not None:
            states = self._wider(states)
        runs = [(length, len(list(same))) for length, same in groupby(lengths)]
        for layer in self._layers:
            states = layer(states, runs)
        start = 0
        for length, count in runs:
            part = slice(start, start + length * count)
            yield states[part].view(count, length, -1), input_ids[part].view(count, length)
            start += length * count

    @torch.inference_mode()
    def _settle(self) -> None:
        """Let products of the same shape share their plan: the weights have no say in it."""
        plans: dict[tuple[type, tuple[int, ...]], dict[int, int]] = {}
        for product in (*(product for layer in self._layers for product in layer.products), self._wider):
            if product is not None:
                alike = (type(product), product.shape)
                if alike not in plans:
                    plans[alike] = product.plan()
                product.pieces = plans[alike]


class PackedEncoder:
    """The transformer and the head of a cross-encoder."""

    packs_of = staticmethod(PackedLayers.packs_of)

    def __init__(self, model: CrossEncoder, make: MakeProduct = FloatProduct) -> None:
        """Takes the layers of a model over, as they are or in bfloat16 (`halve`); see `packs` and `PackedLayers`."""
        self._head = _head(model)
        self._layers = PackedLayers(transformer(model), make)

    @staticmethod
    def packs(model: CrossEncoder) -> bool:
        """Whether it is an architecture that this class computes."""
        return PackedLayers.packs(transformer(model).config)

    @torch.inference_mode()
    def logits(self, pairs: Sequence[EncodedPair]) -> NDArray[np.float32]:
        """float32 [pairs] logits of some pairs; those of one length are best next to each other."""
        pooled = [self._head.pooled(states, input_ids) for states, input_ids in self._layers.states(pairs)]
        return self._scores([torch.cat(parts) for parts in zip(*pooled, strict=True)]).numpy()

    def _scores(self, pooled: Sequence[Tensor]) -> Tensor:
        scores = []
        for start in range(0, len(pooled[0]), _HEAD_ROWS):
            parts = [vectors[start : start + _HEAD_ROWS] for vectors in pooled]
            count = len(parts[0])
            filled = [torch.cat([part, part.new_zeros(_HEAD_ROWS - count, part.shape[1])]) for part in parts]
            scores.append(self._head.scores(*filled)[:count])
        return torch.cat(scores)


class _Layer:
    """One layer of the encoder."""

    def __init__(self, layer: Any, heads: int, make: MakeProduct) -> None:
        attention = layer.attention.self
        self._heads = heads
        self._projected = make("projected", [attention.query, attention.key, attention.value])
        self._mixed = make("mixed", [layer.attention.output.dense], adds=True)
        self._up = make("up", [layer.intermediate.dense], gelu=True)
        self._down = make("down", [layer.output.dense], adds=True)
        self._norms = [_norm(layer.attention.output.LayerNorm), _norm(layer.output.LayerNorm)]
        self.products = (self._projected, self._mixed, self._up, self._down)

    def __call__(self, states: Tensor, runs: Sequence[tuple[int, int]]) -> Tensor:
        """States of [rows, hidden]; `runs` are lengths and how many pairs in a row have them."""
        states = self._norms[0](self._mixed(self._attend(self._projected(states), runs), states))
        return self._norms[1](self._down(self._up(states), states))

    def _attend(self, projected: Tensor, runs: Sequence[tuple[int, int]]) -> Tensor:
        rows, width = projected.shape[0], projected.shape[1] // 3
        contexts, start = [], 0
        for length, count in runs:
            contexts.append(_attended(projected, start, length, count, self._heads))
            start += length * count
        if start < rows:
            contexts.append(projected.new_zeros(rows - start, width))
        return torch.cat(contexts) if len(contexts) > 1 else contexts[0]


def _attended(projected: Tensor, start: int, length: int, count: int, heads: int) -> Tensor:
    """Contexts of `count` pairs of `length` rows from `start`.

    PyTorch computes what is left over of a vector number by number: 93 keys took 2.5 times as long as 96. So each pair
    also looks at the rows behind it, up to a whole number of vectors, through a mask.
    """
    wide = projected.shape[1]
    keys = -(-length // _VECTOR) * _VECTOR
    first = projected.storage_offset() + start * wide
    size = wide // 3 // heads
    query, key, value = (
        projected.as_strided((count, heads, tokens, size), (length * wide, size, wide, 1), first + place * wide // 3)
        for place, tokens in enumerate((length, keys, keys))
    )
    context = scaled_dot_product_attention(query, key, value, attn_mask=_mask(length, keys, query.dtype))
    return context.transpose(1, 2).reshape(count * length, wide // 3)


@cache
def _mask(length: int, keys: int, kind: torch.dtype) -> Tensor | None:
    """Lets pairs of `length` tokens look at themselves alone; [1, 1, 1, keys]."""
    if keys == length:
        return None
    mask = torch.zeros(keys, dtype=kind)
    mask[length:] = -torch.inf
    return mask.view(1, 1, 1, keys)


def _in_layer(
    make: MakeProduct, number: int, name: str, layers: Sequence[Any], gelu: bool = False, adds: bool = False
) -> Product:
    return make(f"{number}.{name}", layers, gelu, adds)


def _rows_for(tokens: int) -> int:
    """The next number of `LADDER`, or multiple of the largest one."""
    most = LADDER[-1]
    return LADDER[bisect_left(LADDER, tokens)] if tokens <= most else -(-tokens // most) * most


def _norm(norm: Any) -> Callable[[Tensor], Tensor]:
    # PyTorch normalizes bfloat16 in two thirds of the time where weights are of float32.
    shape, weight, bias, epsilon = norm.normalized_shape, norm.weight.data.float(), norm.bias.data.float(), norm.eps
    return lambda rows: layer_norm(rows, shape, weight, bias, epsilon)


class _FirstTokenHead:
    """A classification head on the first token, with BERT's pooler where there is one; float32."""

    def __init__(self, body: Any) -> None:
        self._pooler = getattr(body.base_model, "pooler", None)  # of BERT alone; others pool in the classifier
        if self._pooler is not None:
            self._pooler.float()
        self._classifier = body.classifier

    def pooled(self, tokens: Tensor, input_ids: Tensor) -> tuple[Tensor, ...]:
        return (tokens[:, 0].float(),)

    def scores(self, first: Tensor) -> Tensor:
        first = first[:, None]
        return self._classifier(first if self._pooler is None else self._pooler(first)).view(-1)


class _PairHead:
    def __init__(self, head: Any) -> None:
        self._head = head

    def pooled(self, tokens: Tensor, input_ids: Tensor) -> tuple[Tensor, ...]:
        return self._head.pooled(tokens, input_ids, torch.ones_like(input_ids))

    def scores(self, query: Tensor, passage: Tensor, first: Tensor) -> Tensor:
        return self._head.combined(query, passage, first)


def _head(model: CrossEncoder) -> _FirstTokenHead | _PairHead:
    return _PairHead(model[-1]) if hasattr(model[-1], "pooled") else _FirstTokenHead(transformer(model))
