"""Search by words: BM25 (Robertson and Zaragoza, 2009) in Lucene's variant, by bm25s (Lù, 2024).

One `tokenize` serves passages and queries: words are lower-cased, English stopwords dropped, the rest stemmed
(Snowball); identifiers are indexed whole and in their parts, so that "train test split" finds `train_test_split`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.dense_index import IDS_FILE, id_places
from models.errors import ArtifactError
from models.files import canonical_json, write_atomically

if TYPE_CHECKING:
    from bm25s import BM25
    from numpy.typing import NDArray

STATISTICS_FILE = "statistics.json"

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
_POSSESSIVE = re.compile(r"['\u2019]s$", re.IGNORECASE)
_PART_BOUNDARY = re.compile(
    r"_+|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])"
)


def tokenize(texts: Sequence[str]) -> list[list[str]]:
    """Index terms of each text, in order, with repetitions."""
    import Stemmer
    from bm25s.stopwords import STOPWORDS_EN

    stemmer = Stemmer.Stemmer("english")
    stopwords = frozenset(STOPWORDS_EN)
    known: dict[str, list[str]] = {}
    tokenized = []
    for text in texts:
        terms: list[str] = []
        for word in _WORD.findall(unicodedata.normalize("NFKC", text)):
            if word not in known:
                kept = [form for form in _forms(word) if form not in stopwords]
                known[word] = stemmer.stemWords(kept)
            terms += known[word]
        tokenized.append(terms)
    return tokenized


def _forms(word: str) -> list[str]:
    """The word in lower case and, of an identifier, its parts: `LinAlgError2` also as lin, alg, error, 2."""
    word = re.sub(r"['\u2019]", "", _POSSESSIVE.sub("", word))
    parts = [part for part in _PART_BOUNDARY.split(word) if part]
    if len(parts) == 1:
        return [parts[0].lower()]
    # A letter alone, as the v of v2, says nothing; a digit alone does.
    return [word.lower(), *(part.lower() for part in parts if len(part) > 1 or part.isdigit())] if parts else []


class LexicalIndex:
    """Passages by BM25 score. Results of equal score are ordered by passage id."""

    def __init__(self, bm25: BM25, passage_ids: Sequence[str], average_length: float) -> None:
        if bm25.scores["num_docs"] != len(passage_ids):
            raise ArtifactError(
                f"The lexical index has {bm25.scores['num_docs']} passages for {len(passage_ids)} passage ids.",
                "Materialize the index group again.",
            )
        self._bm25 = bm25
        self._average_length = average_length
        self.passage_ids = tuple(passage_ids)
        self._place = id_places(passage_ids)

    @classmethod
    def build(cls, texts: Sequence[str], passage_ids: Sequence[str], k1: float = 0.9, b: float = 0.4) -> LexicalIndex:
        """Index `texts`, row i being passage i. The same texts give the same files, byte for byte."""
        import bm25s

        tokenized = tokenize(texts)
        vocabulary = {term: place for place, term in enumerate(sorted(set().union(*tokenized)))}
        lengths = [len(terms) for terms in tokenized]
        bm25 = bm25s.BM25(k1=k1, b=b, method="lucene")
        if vocabulary:
            ids = [[vocabulary[term] for term in terms] for terms in tokenized]
            bm25.index((ids, vocabulary), create_empty_token=False, show_progress=False)
        else:
            bm25.scores = _no_scores(len(texts))
            bm25.vocab_dict = {}
            bm25.nonoccurrence_array = None
        return cls(bm25, passage_ids, float(np.mean(lengths)) if lengths else 0.0)

    def save(self, folder: Path) -> None:
        """Write bm25s's files, `passage_ids.json` and `statistics.json`: arrays and JSON, no pickles."""
        self._bm25.save(folder, show_progress=False)
        write_atomically(folder / IDS_FILE, canonical_json(list(self.passage_ids)))
        write_atomically(folder / STATISTICS_FILE, canonical_json({"average_length": self._average_length}))

    @classmethod
    def load(cls, folder: Path, mmap: bool = True) -> LexicalIndex:
        """Open what `save` wrote, its arrays memory-mapped. Raises `ArtifactError` when files are missing or unlike."""
        import bm25s

        try:
            bm25 = bm25s.BM25.load(folder, mmap=mmap, show_progress=False)
            ids = json.loads((folder / IDS_FILE).read_text(encoding="utf-8"))
            statistics = json.loads((folder / STATISTICS_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ArtifactError(f"{error.filename} is missing.", "Materialize index/lexical_index again.") from error
        return cls(bm25, ids, float(statistics["average_length"]))

    def __len__(self) -> int:
        return len(self.passage_ids)

    def scores(self, query: str) -> NDArray[np.float32]:
        """BM25 of every passage [size]; all zeros for a query without any known word."""
        terms = self._bm25.get_tokens_ids(tokenize([query])[0])
        if not terms:
            return np.zeros(len(self), dtype=np.float32)
        return self._bm25.get_scores_from_ids(terms)

    def score_rows(self, query: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """BM25 of the passages at `rows` [m]."""
        return self.scores(query)[rows]

    def top(
        self, scores: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows and scores, best first, of at most `k` passages that score above zero, among the `allowed` [size]."""
        matching = np.flatnonzero(scores > 0 if allowed is None else (scores > 0) & allowed)
        if len(matching) > k:
            values = scores[matching]
            worst = np.partition(values, len(values) - k)[len(values) - k]
            matching = matching[values >= worst]
        rows = matching[np.lexsort((self._place[matching], -scores[matching]))][:k]
        return rows, scores[rows]

    def search(self, queries: Sequence[str], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows [n, k] and scores [n, k], best first; where fewer passages share a word, row -1 and score 0."""
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.zeros((len(queries), k), dtype=np.float32)
        for place, query in enumerate(queries):
            found, values = self.top(self.scores(query), k)
            rows[place, : len(found)], scores[place, : len(found)] = found, values
        return rows, scores

    def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """BM25 [n] of texts that need not be in the index, with this index's word statistics.

        A text that is indexed gets the score that it has in the index.
        """
        wanted = Counter(self._bm25.get_tokens_ids(tokenize([query])[0]))
        if not wanted:
            return np.zeros(len(texts), dtype=np.float32)
        terms = np.fromiter(wanted, dtype=np.int64)
        weights = np.fromiter(wanted.values(), dtype=np.float64) * self._idf(terms)
        words = self._bm25.get_tokens_ids
        tokenized = tokenize(texts)
        counts = [Counter(words(text)) for text in tokenized]
        frequency = np.array([[count[term] for term in wanted] for count in counts], dtype=np.float64)
        frequency = frequency.reshape(len(texts), len(terms))
        length = np.array([len(text) for text in tokenized], dtype=np.float64)[:, None]
        k1, b = self._bm25.k1, self._bm25.b
        lengths = k1 * (1 - b + b * length / self._average_length)
        saturated = np.divide(frequency, frequency + lengths, out=np.zeros_like(frequency), where=frequency > 0)
        return (saturated @ weights).astype(np.float32)

    def _idf(self, terms: NDArray[np.int64]) -> NDArray[np.float64]:
        starts = self._bm25.scores["indptr"]
        passages_with = (starts[terms + 1] - starts[terms]).astype(np.float64)
        return np.log1p((len(self) - passages_with + 0.5) / (passages_with + 0.5))


def _no_scores(size: int) -> dict[str, object]:
    return {
        "data": np.empty(0, dtype=np.float32),
        "indices": np.empty(0, dtype=np.int32),
        "indptr": np.zeros(1, dtype=np.int64),
        "num_docs": size,
    }
