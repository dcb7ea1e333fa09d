"""Fusion of rankings. A method more is a function here and a choice in `[index]` that `fuse` reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.settings import IndexSettings

    Ranking = tuple[NDArray[np.int64], NDArray[np.float32]]
    """Ids and scores, best first."""


def fuse(rankings: Sequence[Ranking], settings: IndexSettings) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ids and fused scores, best first, by the method and with the constants of the settings.

    Each ranking holds an id once; equal scores are ordered by id.
    """
    return reciprocal_rank_fusion([ids for ids, _ in rankings], settings.rrf_k)


def reciprocal_rank_fusion(
    rankings: Sequence[NDArray[np.int64]], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ids and scores, best first: the score is the sum over the rankings of 1 / (k + rank), rank counted from 1.

    Cormack, Clarke and Büttcher (SIGIR 2009). Each ranking holds an id once; equal scores are ordered by id; the order
    of the rankings does not matter.
    """
    ids = np.concatenate([np.empty(0, dtype=np.int64), *rankings])
    if not len(ids):
        return ids, np.empty(0, dtype=np.float64)
    shares = np.concatenate([1.0 / (k + np.arange(1, len(ranking) + 1)) for ranking in rankings])
    # Sorted by share within an id, so that the floating-point sum is the same for any order of the rankings.
    order = np.lexsort((shares, ids))
    unique, starts = np.unique(ids[order], return_index=True)
    scores = np.add.reduceat(shares[order], starts)
    best_first = np.lexsort((unique, -scores))
    return unique[best_first], scores[best_first]
