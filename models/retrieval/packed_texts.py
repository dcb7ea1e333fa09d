"""Vectors of many texts by an encoder of BERT's family in bfloat16, the texts one behind the other without padding
(docs/decisions/0026).

Imported only where texts are embedded, so torch stands at module level here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from models.cross_encoder.bfloat16 import multiplies_bfloat16
from models.cross_encoder.packed_encoder import PackedLayers
from models.cross_encoder.pair_tokenizer import EncodedPair

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

_FOR_ITSELF = {"Pooling", "Normalize"}
"""Modules of sentence-transformers that compute a text's vector from its own tokens, number by number."""


class PackedTexts:
    """Embeds texts as the model does, to the rounding of bfloat16. A vector has the same bits among any others."""

    def __init__(self, model: SentenceTransformer) -> None:
        """Copies the transformer of `model`; see `packs`."""
        body = deepcopy(_body(model)).to(torch.bfloat16)
        self._modules = list(model)[1:]
        # On such a thread as computes: with more threads products are split in other ways.
        with _threads(1) as pool:
            self._layers = pool.submit(PackedLayers, body).result()

    @staticmethod
    def packs(model: SentenceTransformer) -> bool:
        """Whether this CPU multiplies bfloat16, and it is a model that this class computes."""
        return model.device.type == "cpu" and multiplies_bfloat16() and packable(model)

    def vectors(self, texts: Sequence[NDArray[np.int32]], threads: int) -> Iterator[tuple[list[int], Tensor]]:
        """Places in `texts`, which are ids of tokens, and what the model says of them, float32 [places, dimensions],
        pack by pack, `threads` of them at once."""
        packs = PackedLayers.packs_of([len(ids) for ids in texts], threads)
        pairs = [[EncodedPair(texts[place], np.zeros_like(texts[place])) for place in pack] for pack in packs]
        with _threads(threads) as pool:
            yield from zip(packs, pool.map(self._embedded, pairs), strict=True)

    @torch.inference_mode()
    def _embedded(self, texts: Sequence[EncodedPair]) -> Tensor:
        return torch.cat(list(self._pooled(self._layers.states(texts))))

    def _pooled(self, runs: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Tensor]:
        for states, input_ids in runs:
            features: dict[str, Any] = {
                "token_embeddings": states.float(),
                "input_ids": input_ids,
                "attention_mask": torch.ones_like(input_ids),
            }
            for module in self._modules:
                features = module(features)
            yield features["sentence_embedding"].float()


def packable(model: SentenceTransformer) -> bool:
    """Whether a model is a transformer of BERT's family and what pools its tokens, the prompt's too."""
    body = _body(model)
    return (
        body is not None
        and PackedLayers.packs(body.config)
        and all(type(module).__name__ in _FOR_ITSELF for module in list(model)[1:])
        and all(getattr(module, "include_prompt", True) for module in list(model)[1:])
    )


def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))


def _body(model: SentenceTransformer) -> Any:
    return getattr(model[0], "auto_model", None)
