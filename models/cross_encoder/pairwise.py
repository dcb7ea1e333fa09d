"""Scoring one pair at a time, several pairs at once, each on a thread of its own (docs/decisions/0009).

Importing it loads no framework, so that a process that scores starts at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.cross_encoder.pair_tokenizer import EncodedPair

Progress = Callable[[int, int], None]
"""Told how many pairs, steps or queries of how many are done."""


class PairwiseScorer(ABC):
    """Scores encoded pairs, each by itself on one thread. Any number of threads may call it.

    No padding is computed, and the score of a pair depends on nothing but the pair, whatever else is asked at the
    moment.
    """

    padded = False
    """Whether a batch takes longer for pairs of different lengths (`models.serving.batching.Engine`)."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="scorer")

    @abstractmethod
    def _score(self, encoding: EncodedPair) -> float:
        """The logit of one pair."""

    def logits_of(
        self, encoded: Sequence[EncodedPair], batch_size: int = 32, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """float32 [n] relevance logits of encoded pairs. `batch_size` has no effect here."""
        order = sorted(range(len(encoded)), key=lambda index: -len(encoded[index]))
        scores = np.empty(len(encoded), dtype=np.float32)
        for done, (index, score) in enumerate(
            zip(order, self._pool.map(self._score, (encoded[index] for index in order)), strict=True), start=1
        ):
            scores[index] = score
            if progress is not None and (done % batch_size == 0 or done == len(order)):
                progress(done, len(order))
        return scores
