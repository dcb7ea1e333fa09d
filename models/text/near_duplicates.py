"""Texts that say nearly the same: by the words they share, and by the cosine of their embeddings.

Resemblance is the Jaccard coefficient of two sets (Broder, 1997). Queries are few and short, so theirs is computed
exactly, over the stems of the words that carry content: neither order, case, punctuation nor function words count. The
cosine finds rewordings with other words. `docs/decisions/0010-near-duplicates.md` has the measurements.

Passages are many and long: candidates come from MinHash signatures of their shingles in bands, and count when their
resemblance, computed exactly, is high enough. datasketch has MinHash and bands, but not the rest: a bound on the texts
of a bucket that are compared, the exact resemblance, and a sample that keeps pairs together. It would replace
`_signature` and a dictionary.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from models.text.stop_words import FUNCTION_WORDS
from models.text.tokenize import tokenize

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

PAIR_COLUMNS = ("row", "other", "overlap", "cosine")

_ROWS_AT_ONCE = 2048
_BANDS, _BAND_VALUES = 16, 4
_PRIME = np.uint64(2**32 - 5)
_COMPARED = 10
"""Texts of a bucket that a further one is compared with: where many are alike, one of the first is alike too."""


def near_duplicates(
    texts: Sequence[str],
    others: Sequence[str],
    min_overlap: float,
    min_cosine: float,
    vectors: NDArray[np.float32],
    other_vectors: NDArray[np.float32],
) -> pd.DataFrame:
    """For each of `texts` that nearly repeats one of `others`, the nearest of these; rows of `PAIR_COLUMNS`.

    `row` and `other` are places in the two lists. A pair is one when the content words overlap by `min_overlap`
    (Jaccard, 0 to 1) or the vectors, [n, d] of length 1, have a cosine of `min_cosine`. The pair with the highest sum
    of both is named. Every pair is compared: n x m cosines, in blocks.
    """
    terms, other_terms = _term_matrices(texts, others)
    sizes, other_sizes = terms.sum(axis=1), other_terms.sum(axis=1)
    near_pairs: list[tuple[int, int, float, float]] = []
    for start in range(0, len(texts) if len(others) else 0, _ROWS_AT_ONCE):
        block = slice(start, start + _ROWS_AT_ONCE)
        shared = (terms[block] @ other_terms.T).toarray()
        union = np.asarray(sizes[block])[:, None] + np.asarray(other_sizes)[None, :] - shared
        overlap = shared / np.maximum(union, 1)
        cosine = vectors[block] @ other_vectors.T
        near = (overlap >= min_overlap) | (cosine >= min_cosine)
        strength = np.where(near, overlap + cosine, -np.inf)
        rows = np.flatnonzero(near.any(axis=1))
        best = strength[rows].argmax(axis=1)
        pairs = zip(rows + start, best, overlap[rows, best], cosine[rows, best], strict=True)
        near_pairs += [(int(row), int(other), float(o), float(c)) for row, other, o, c in pairs]
    return pd.DataFrame(near_pairs, columns=PAIR_COLUMNS)


def overlap(text: str, other: str) -> float:
    """Jaccard coefficient of the content words of two texts, 0 to 1."""
    terms, other_terms = _content_terms([text, other])
    return len(terms & other_terms) / max(len(terms | other_terms), 1)


def near_duplicate_of(texts: Sequence[str], min_resemblance: float = 0.8, shingle: int = 3) -> list[int | None]:
    """For each text the place of another one that it resembles, or None.

    The sets are shingles of `shingle` words in a row, lower-cased. Of pairs with a resemblance of 0.8, 16 bands of 4
    values miss 2 in 10,000.
    """
    sets = [_shingles(text, shingle) for text in texts]
    signatures = np.array([_signature(shingles) for shingles in sets], dtype=np.uint64).reshape(
        len(sets), _BANDS, _BAND_VALUES
    )
    nearest: list[int | None] = [None] * len(texts)
    for band in range(_BANDS):
        buckets: dict[bytes, list[int]] = {}
        for row, values in enumerate(signatures[:, band]):
            bucket = buckets.setdefault(values.tobytes(), [])
            for other in bucket[:_COMPARED] if sets[row] else []:
                if _resemblance(sets[row], sets[other]) >= min_resemblance:
                    nearest[row] = other if nearest[row] is None else nearest[row]
                    nearest[other] = row if nearest[other] is None else nearest[other]
                    break
            bucket.append(row)
    return nearest


def alike_sample(texts: Sequence[str], count: int) -> list[int]:
    """Places of about `count` texts, in order, that keeps texts which are alike together.

    Each text is named by the smallest hash of its shingles, and the texts of the smallest names, hashed again, are
    taken: two texts share their name with the probability of their resemblance (Broder, 1997). A plain sample of 1 %
    would keep 1 pair in 10,000.
    """
    if len(texts) <= count:
        return list(range(len(texts)))
    names = [zlib.crc32(min(_shingles(text, 3), default=0).to_bytes(8, "big")) for text in texts]
    limit = sorted(names)[count - 1]
    return [row for row, name in enumerate(names) if name <= limit]


def _shingles(text: str, size: int) -> frozenset[int]:
    """Hashes (32 bits) of the runs of `size` words; of a shorter text, of all of it."""
    words = text.lower().split()
    starts = range(max(len(words) - size + 1, min(len(words), 1)))
    return frozenset(zlib.crc32(" ".join(words[start : start + size]).encode()) for start in starts)


def _signature(shingles: frozenset[int]) -> NDArray[np.uint64]:
    """Smallest value [bands x values] of the shingles under as many random linear hashes."""
    if not shingles:
        return np.zeros(_BANDS * _BAND_VALUES, dtype=np.uint64)
    factors, shifts = _hashes()
    values = np.fromiter(shingles, dtype=np.uint64, count=len(shingles))
    return ((factors[:, None] * values[None, :] + shifts[:, None]) % _PRIME).min(axis=1)


@cache
def _hashes() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    random = np.random.default_rng(0)
    return tuple(random.integers(1, 2**31, size=_BANDS * _BAND_VALUES, dtype=np.uint64) for _ in range(2))  # pyright: ignore[reportReturnType]


def _resemblance(left: frozenset[int], other: frozenset[int]) -> float:
    return len(left & other) / len(left | other)


def _content_terms(texts: Sequence[str]) -> list[frozenset[str]]:
    """Stems of the words that carry content, in the languages of these texts; of a text without any, of all words."""
    function_stems = _function_stems()
    tokenized = [frozenset(terms) for terms in tokenize([text.casefold() for text in texts])]
    return [terms - function_stems or terms for terms in tokenized]


@cache
def _function_stems() -> frozenset[str]:
    return frozenset(term for terms in tokenize(sorted(FUNCTION_WORDS)) for term in terms)


def _term_matrices(texts: Sequence[str], others: Sequence[str]) -> tuple[csr_array, csr_array]:
    """0/1 matrices [texts, terms] over the terms of both."""
    from scipy.sparse import csr_array

    every = _content_terms([*texts, *others])
    sets, other_sets = every[: len(texts)], every[len(texts) :]
    column_of: dict[str, int] = {}
    matrices = []
    for group in (sets, other_sets):
        columns = [column_of.setdefault(term, len(column_of)) for terms in group for term in sorted(terms)]
        ends = np.cumsum([0, *(len(terms) for terms in group)])
        matrices.append((columns, ends))
    shape = len(column_of)
    left, right = (
        csr_array((np.ones(len(columns), dtype=np.float32), columns, ends), shape=(len(ends) - 1, shape))
        for columns, ends in matrices
    )
    return left, right
