"""Cross-encoders in bfloat16 on CPUs that multiply it.

BERT's family reads pairs of any lengths one behind the other (`models.cross_encoder.packed_encoder`). Other
architectures are PyTorch's, one pair at a time, or in groups where the CPU has tiles (AMX), which one pair does not
fill.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.cross_encoder.architecture import halve
from models.cross_encoder.group_scorer import GroupScorer
from models.cross_encoder.pair_tokenizer import EncodedPair, PairTokenizer
from models.cross_encoder.pairwise import PairwiseScorer, Progress
from models.cross_encoder.scorer import CrossEncoderScorer

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_STEP = 16
"""Pairs of a group are padded to the same whole number of so many tokens."""

_FEWEST_ROWS, _MOST_ROWS = 384, 1536
"""Tokens of a group, padding included. Below the first oneDNN cuts products in another way, and so rounds in another;
behind the second nothing is gained."""

_MULTIPLE = 4
"""A group has a multiple of so many pairs: the vectors of the head's last product."""


class Bfloat16Scorer(GroupScorer):
    """PyTorch with the transformer in bfloat16 and the head in float32.

    A score depends on nothing but the pair. With `packed`, a group is as many pairs as fill a product. With `grouped`,
    pairs of about the same length are read together: a group's length is a step of its own, and groups too small to be
    multiplied like the others are filled up with pairs whose scores are not used.
    """

    def __init__(
        self, scorer: CrossEncoderScorer, threads: int, grouped: bool | None = None, packed: bool | None = None
    ) -> None:
        """Takes the model of `scorer` over. `packed` is by default whether the architecture is known there, and
        `grouped`, for others, whether the CPU has tiles."""
        from models.cross_encoder.packed_encoder import PackedEncoder

        halve(scorer.model)
        packed = PackedEncoder.packs(scorer.model) if packed is None else packed
        self._grouped = self.padded = not packed and (has_tiles() if grouped is None else grouped)
        if self._grouped:
            scorer.tokenizer = _InSteps(scorer.tokenizer)
        super().__init__(scorer, threads)
        # On a thread of the pool: with more threads products are split in other ways.
        self._packed = self._pool.submit(PackedEncoder, scorer.model).result() if packed else None

    @classmethod
    def load(cls, folder: Path, max_tokens: int, threads: int = 0) -> Bfloat16Scorer:
        """Load a model of `models.cross_encoder.scorer`; `threads` pairs run at once, 0 is one per core."""
        import torch

        return cls(CrossEncoderScorer.load(folder, max_tokens), threads or torch.get_num_threads())

    def logits_of(
        self, encoded: Sequence[EncodedPair], batch_size: int = 32, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """float32 [n] relevance logits of encoded pairs. `batch_size` has no effect where pairs are read together."""
        if not self._grouped and self._packed is None:
            return PairwiseScorer.logits_of(self, encoded, batch_size, progress)
        return super().logits_of(encoded, batch_size, progress)

    def groups_of(self, encoded: Sequence[EncodedPair]) -> list[list[int]]:
        """Places of the pairs that are read together, of an engine that reads any together."""
        lengths = [len(encoding) for encoding in encoded]
        return (
            _groups(lengths, self._threads) if self._packed is None else self._packed.packs_of(lengths, self._threads)
        )

    def score_group(self, group: list[EncodedPair]) -> NDArray[np.float32]:
        """float32 [n] logits of pairs of `groups_of`, on the calling thread."""
        if self._packed is not None:
            return self._packed.logits(group)
        fewest = _fewest(_in_steps(len(group[0])))
        filled = max(-(-len(group) // _MULTIPLE) * _MULTIPLE, fewest)
        return self._scorer.logits_of([*group, *[group[0]] * (filled - len(group))], filled)[: len(group)]

    def _score(self, encoding: EncodedPair) -> float:
        return float(self._scorer.logits_of([encoding], 1)[0])


class _InSteps(PairTokenizer):
    """A tokenizer that pads to whole steps."""

    def __init__(self, tokenizer: PairTokenizer) -> None:
        self.__dict__.update(tokenizer.__dict__)

    def pad(self, encodings: Sequence[EncodedPair]) -> dict[str, Tensor]:
        """As the tokenizer's, with more padding."""
        from torch.nn.functional import pad

        tensors = super().pad(encodings)
        width = tensors["input_ids"].shape[1]
        more = _in_steps(width) - width
        sides = (more, 0) if self.left else (0, more)
        return {name: pad(tensor, sides) for name, tensor in tensors.items()}


def _in_steps(tokens: int) -> int:
    return -(-tokens // _STEP) * _STEP


def _fewest(length: int) -> int:
    """Pairs of so many tokens that a group has at least."""
    return -(-_FEWEST_ROWS // (length * _MULTIPLE)) * _MULTIPLE


def _groups(lengths: Sequence[int], threads: int) -> list[list[int]]:
    """Places of pairs that are read together, the longest first, enough groups of each length for all threads.

    Pairs that fill their steps exactly stay apart from those that are padded: attention without a mask is computed by
    another kernel.
    """
    alike: dict[tuple[int, bool], list[int]] = defaultdict(list)
    for index, length in enumerate(lengths):
        alike[_in_steps(length), length % _STEP == 0].append(index)
    groups = []
    for (length, _), places in sorted(alike.items(), reverse=True):
        unit = _fewest(length)
        units = -(-len(places) // unit)
        most = max(_MOST_ROWS // length // unit, 1)
        count = min(max(-(-units // most), threads), units)
        ends = [unit * (units * end // count) for end in range(count + 1)]
        groups += [places[start:end] for start, end in pairwise(ends)]
    return groups


def has_tiles() -> bool:
    """Whether this CPU multiplies bfloat16 in tiles (AMX)."""
    import torch

    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions that multiply bfloat16, and PyTorch the library that uses them (oneDNN)."""
    import torch

    return torch.backends.mkldnn.is_available() and has_bfloat16_instructions()


def has_bfloat16_instructions() -> bool:
    """Whether this CPU has instructions that multiply bfloat16."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
