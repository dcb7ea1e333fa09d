"""Cross-encoders of BERT's family in 8 bits (docs/decisions/0027), on every CPU with PyTorch's oneDNN."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from models.cross_encoder.group_scorer import GroupScorer
from models.cross_encoder.pair_tokenizer import EncodedPair
from models.cross_encoder.scorer import CrossEncoderScorer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SMOOTHING = "smoothing.safetensors"
"""What input channels are divided by. Weights are rounded when they are loaded."""


class Int8Scorer(GroupScorer):
    """Products of the transformer in 8 bits, everything else in float32. A score depends on nothing but the pair."""

    def __init__(self, scorer: CrossEncoderScorer, smoothing: Path, threads: int) -> None:
        """Takes the model of `scorer` over; `smoothing` is a file of `calibrate`."""
        from safetensors.torch import load_file

        from models.cross_encoder.packed_encoder import PackedEncoder
        from models.cross_encoder.packed_int8 import make_product

        super().__init__(scorer, threads)
        make = partial(make_product, load_file(smoothing))
        self._packed = self._pool.submit(PackedEncoder, scorer.model, make).result()

    @classmethod
    def load(cls, model: Path, folder: Path, max_tokens: int, threads: int = 0) -> Int8Scorer:
        """Load a model of `models.cross_encoder.scorer` with the smoothing in `folder`; `threads` 0 is one per core."""
        import torch

        scorer = CrossEncoderScorer.load(model, max_tokens)
        return cls(scorer, folder / SMOOTHING, threads or torch.get_num_threads())

    def groups_of(self, encoded: Sequence[EncodedPair]) -> list[list[int]]:
        """Places of the pairs that are read together."""
        return self._packed.packs_of([len(encoding) for encoding in encoded], self._threads)

    def score_group(self, group: list[EncodedPair]) -> NDArray[np.float32]:
        """float32 [n] logits of pairs of `groups_of`, on the calling thread."""
        return self._packed.logits(group)


def packs(scorer: CrossEncoderScorer) -> bool:
    """Whether it is a model that `Int8Scorer` computes, on this machine."""
    import torch

    from models.cross_encoder.packed_encoder import PackedEncoder

    return torch.backends.mkldnn.is_available() and PackedEncoder.packs(scorer.model)


def calibrate(scorer: CrossEncoderScorer, pairs: Sequence[tuple[str, str]], folder: Path) -> None:
    """Write the smoothing of a model to `folder`, of what it computes for `pairs`. Takes the model over."""
    from safetensors.torch import save_file

    from models.cross_encoder.packed_encoder import PackedEncoder
    from models.cross_encoder.packed_int8 import Calibration

    encoded, calibration = scorer.encode(pairs), Calibration()
    packed = PackedEncoder(scorer.model, calibration)
    for pack in packed.packs_of([len(pair) for pair in encoded], 1):
        packed.logits([encoded[place] for place in pack])
    save_file(calibration.smoothing(), folder / SMOOTHING)
