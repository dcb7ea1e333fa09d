"""Where a passage that is too long for a cross-encoder says what is asked.

Half of what is read of it is its beginning, where its title stands, and the other half the run of tokens behind it with
most of the query's words, each counting by how rare it is. Query-biased passages: Tombros and Sanderson, SIGIR 1998; as
what a cross-encoder reads of a long text: Li et al., "The Power of Selecting Key Blocks", TOIS 2023.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelFileError
from models.store.durable_files import canonical_json
from models.text.words import prefix_stems

FILE = "passage_cut.json"
"""In a model's folder, where the model was trained to read so."""

_RARE = 0.01
"""Share of passages: words of fewer count alike."""
_COMMON = 0.22
"""Share of passages: words of more do not count."""


@dataclass(frozen=True)
class PassageCut:
    """How often common words occur: `counts` of `passages` have each of them, beginning with its first 6 letters."""

    passages: int
    counts: Mapping[str, int]

    @classmethod
    def fit(cls, passages: Iterable[str]) -> PassageCut:
        """Count the words of some passages."""
        counts: Counter[str] = Counter()
        total = 0
        for passage in passages:
            counts.update({stem for stem, _ in prefix_stems(passage)})
            total += 1
        common = {word: count for word, count in sorted(counts.items()) if count > _RARE * total}
        return cls(total, common)

    @classmethod
    def load(cls, folder: Path) -> PassageCut | None:
        """What `save` wrote, None where there is nothing. Raises `ModelFileError` for what is no such file."""
        file = folder / FILE
        if not file.exists():
            return None
        try:
            values = json.loads(file.read_bytes())
            return cls(int(values["passages"]), {str(word): int(count) for word, count in values["counts"].items()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelFileError(f"{file} does not say how passages are cut", "Train the model again.") from error

    def save(self, folder: Path) -> None:
        """Write it to a model's folder."""
        (folder / FILE).write_bytes(canonical_json({"passages": self.passages, "counts": dict(self.counts)}))

    def weights(self, query: str) -> dict[str, float]:
        """What each word of the query counts by its stem: log(passages / those that have it), 0 for common ones."""
        weight_of = {}
        for stem, _ in prefix_stems(query):
            share = max(self.counts.get(stem, 0) / max(self.passages, 1), _RARE)
            weight_of[stem] = -math.log(share) if share < _COMMON else 0.0
        return weight_of

    def start(
        self, weights: Mapping[str, float], passage: str, offsets: Sequence[tuple[int, int]], first: int, size: int
    ) -> int:
        """Start of the window of `size` tokens, not before `first`, with the highest summed weight of query words: the
        middle of the first plateau where several tie, so that the words have their context on both sides. `first` where
        no word is found.

        `weights` are the query's; `offsets` say which characters of the passage each token is.
        """
        if size == 0 or len(offsets) <= first + size:
            return first
        worth = np.zeros(len(offsets))
        matches = [(offset, weights[stem]) for stem, offset in prefix_stems(passage) if weights.get(stem)]
        if not matches:
            return first
        places, values = zip(*matches, strict=True)
        tokens = np.searchsorted([begin for begin, _ in offsets], places, side="right") - 1
        np.add.at(worth, np.maximum(tokens, 0), values)
        return first + _best_run(worth[first:], size)


def _best_run(worth: NDArray[np.float64], size: int) -> int:
    sums = np.concatenate([[0.0], np.cumsum(worth)])
    # Sums of the same words differ in their last bits from place to place.
    runs = np.round(sums[size:] - sums[:-size], 6)
    begin = int(np.argmax(runs))
    if runs[begin] <= 0:
        return 0
    others = np.flatnonzero(runs[begin:] != runs[begin])
    end = begin + int(others[0]) if len(others) else len(runs)
    return (begin + end - 1) // 2
