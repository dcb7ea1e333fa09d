"""Scorers that read some pairs together, several groups at once, each on a thread of its own.

Importing it loads no framework.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from threading import Barrier
from typing import TYPE_CHECKING

import numpy as np

from models.cross_encoder.pairwise import PairwiseScorer, Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.cross_encoder.pair_tokenizer import EncodedPair
    from models.cross_encoder.scorer import CrossEncoderScorer


class GroupScorer(PairwiseScorer):
    """PyTorch over groups of pairs, each call of it on one thread."""

    def __init__(self, scorer: CrossEncoderScorer, threads: int) -> None:
        """`scorer` encodes; `threads` groups are read at once."""
        import torch

        super().__init__(threads)
        self._scorer = scorer
        self._threads = threads
        self.max_tokens = scorer.max_tokens
        before, ready = torch.get_num_threads(), Barrier(threads)
        list(self._pool.map(lambda _: _work_alone(ready), range(threads)))
        torch.set_num_threads(before)  # what a thread sets for itself is the start of later threads too

    def logits(
        self, pairs: Sequence[tuple[str, str]], batch_size: int = 32, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """float32 [n] relevance logits, in the order of `pairs`."""
        return self.logits_of(self.encode(pairs), batch_size, progress)

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[EncodedPair]:
        """Token ids of each pair, cut to `max_tokens`; a query may take half of them."""
        return self._scorer.encode(pairs)

    def logits_of(
        self, encoded: Sequence[EncodedPair], batch_size: int = 32, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """float32 [n] relevance logits of encoded pairs. `batch_size` has no effect here."""
        groups = self.groups_of(encoded)
        scores, done = np.empty(len(encoded), dtype=np.float32), 0
        scored = self._pool.map(self.score_group, ([encoded[index] for index in group] for group in groups))
        for group, logits in zip(groups, scored, strict=True):
            scores[group] = logits
            done += len(group)
            if progress is not None:
                progress(done, len(encoded))
        return scores

    @abstractmethod
    def groups_of(self, encoded: Sequence[EncodedPair]) -> list[list[int]]:
        """Places of the pairs that are read together."""

    @abstractmethod
    def score_group(self, group: list[EncodedPair]) -> NDArray[np.float32]:
        """float32 [n] logits of pairs of `groups_of`, on the calling thread."""

    def _score(self, encoding: EncodedPair) -> float:
        return float(self.score_group([encoding])[0])


def _work_alone(ready: Barrier) -> None:
    """Let PyTorch use one thread in calls of this one, once each thread of the pool is here to do the same."""
    import torch

    ready.wait()
    torch.get_num_threads()  # a thread's first call of PyTorch takes over the number of the process
    torch.set_num_threads(1)
