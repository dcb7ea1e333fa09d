"""Search by words: BM25 (Robertson and Zaragoza, 2009) in Lucene's variant, scored when indexed (Lù, 2024, bm25s).

One `Tokenizer` serves passages and queries: words without case, stemmed in the language that a passage is told to be
in; identifiers also in their parts, so that "train test split" finds `train_test_split`. Stop words count neither for
scores nor for lengths, except to queries that have no other words.

Scores, words and ids are memory-mapped: processes on one machine share them, and a search reads those of its words.
docs/decisions/0020-bm25.md says why this is not bm25s itself.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from models.errors import ArtifactError
from models.retrieval.passage_ids import PassageIds
from models.retrieval.steps import LEXICAL_INDEX
from models.store.durable_files import canonical_json, write_atomically
from models.store.tables import map_arrow, one_array, write_arrow
from models.text.languages import LANGUAGES, Languages, tell, voices
from models.text.passage_text import passage_text
from models.text.scripts import SCRIPTS, script_of
from models.text.tokenize import STOP_MARK, Tokenizer, terms_of
from models.text.words import find_words, forms_of

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from models.settings import IndexSettings, Settings
    from models.store.artifacts import Artifact, ArtifactStore

STATISTICS_FILE = "statistics.json"
VOCABULARY_FILE = "vocabulary.arrow"
_ARRAYS = ("weights", "rows", "starts")
_WORDS_REMEMBERED, _LONGEST_REMEMBERED = 65_536, 64
_BATCH = 16_384
_ROWS = 2048


class Postings(NamedTuple):
    """The passages of each word and what it adds to their scores, word by word in the order of the vocabulary."""

    weights: NDArray[np.float32]
    """[n] What a word that the query has once adds to the score of a passage."""

    rows: NDArray[np.int32]
    """[n] Those passages, of one word in ascending order."""

    starts: NDArray[np.int64]
    """[words + 1] Where the passages of each word begin."""


@dataclass(frozen=True)
class Statistics:
    """What the weights were computed with.

    `average_length` is in terms, repetitions among them, without stop words. `languages` has the ISO 639-1 codes by
    script, as `Languages`.
    """

    k1: float
    b: float
    passages: int
    average_length: float
    languages: dict[str, list[str]]


class LexicalIndex:
    """Passages by BM25 score. Results of equal score are ordered by passage id."""

    def __init__(
        self, postings: Postings, vocabulary: pa.LargeStringArray, statistics: Statistics, passage_ids: Sequence[str]
    ) -> None:
        if statistics.passages != len(passage_ids):
            raise ArtifactError(
                f"The lexical index has {statistics.passages} passages for {len(passage_ids)} passage ids.",
                "Materialize the index group again.",
            )
        self._postings = postings
        self._vocabulary = vocabulary
        self._remembered_column_of = lru_cache(maxsize=_WORDS_REMEMBERED)(partial(_find, vocabulary))
        self._statistics = statistics
        of_script = {script: tuple(codes) for script, codes in statistics.languages.items()}
        self._tokenizer = Tokenizer(Languages(of_script))
        self.passage_ids = PassageIds.of(passage_ids)

    @classmethod
    def build(
        cls,
        texts: Iterable[str],
        passage_ids: Sequence[str],
        k1: float = 0.9,
        b: float = 0.4,
        languages: Sequence[str] = (),
    ) -> LexicalIndex:
        """Index `texts`, row i being passage i. The same texts give the same files, byte for byte.

        `languages` are those of the corpus (ISO 639-1); without any they are told from the texts. Memory holds some 16
        bytes per passage and word in it, and of the texts a few thousand at once.
        """
        import pyarrow as pa

        forms = _Forms(languages)
        texts = iter(texts)
        while batch := list(islice(texts, _BATCH)):
            forms.add(batch)
        spoken = forms.languages()
        counts = _Counts()
        for tokenized in forms.terms(spoken):
            counts.add(*tokenized)
        vocabulary = pa.array(counts.vocabulary(), type=pa.large_string())
        of_script = {script: list(codes) for script, codes in spoken.of_script.items()}
        statistics = Statistics(k1, b, counts.passages, counts.average_length, of_script)
        return cls(counts.postings(statistics), vocabulary, statistics, passage_ids)

    def save(self, folder: Path) -> None:
        """Write the postings, the words, the ids and `statistics.json`: arrays and JSON, no pickles."""
        import pyarrow as pa

        folder.mkdir(parents=True, exist_ok=True)
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self._postings, name), allow_pickle=False)
        write_arrow(pa.table({"word": self._vocabulary}), folder / VOCABULARY_FILE)
        self.passage_ids.save(folder)
        write_atomically(folder / STATISTICS_FILE, canonical_json(asdict(self._statistics)))

    @classmethod
    def load(cls, folder: Path) -> LexicalIndex:
        """Open what `save` wrote, memory-mapped. Raises `ArtifactError` when files are missing or unlike."""
        try:
            # Plain views of the maps, whose own class is slow to slice.
            mapped = [np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in _ARRAYS]
            vocabulary = one_array(map_arrow(folder / VOCABULARY_FILE)["word"])
            ids = PassageIds.load(folder)
            # An index made before languages were told, as a bundle of format 3 has, has each script in its first one.
            statistics = {"languages": {}, **json.loads((folder / STATISTICS_FILE).read_text(encoding="utf-8"))}
        except FileNotFoundError as error:
            raise ArtifactError(f"{error.filename} is missing.", "Materialize index/lexical_index again.") from error
        return cls(Postings(*mapped), vocabulary, Statistics(**statistics), ids)

    @property
    def words(self) -> int:
        """How many different words the passages have."""
        return len(self._vocabulary)

    @property
    def languages(self) -> list[str]:
        """ISO 639-1 codes of the languages that are told of its passages, those of each script by frequency."""
        return [code for codes in self._statistics.languages.values() for code in codes]

    def __len__(self) -> int:
        return len(self.passage_ids)

    def scores(self, query: str) -> NDArray[np.float32]:
        """BM25 of every passage [size]; all zeros for a query without any known word."""
        scores = np.zeros(len(self), dtype=np.float32)
        weights, rows, starts = self._postings
        for column, share in self._asked(query):
            of_word = slice(starts[column], starts[column + 1])
            # A passage stands once among those of a word.
            scores[rows[of_word]] += weights[of_word] if share == 1 else weights[of_word] * np.float32(share)
        return scores

    def score_rows(self, query: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """BM25 of the passages at `rows` [m]."""
        return self.scores(query)[rows]

    def top(
        self, scores: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows and scores, best first, of at most `k` passages that score above zero, among the `allowed` [size]."""
        matching = np.flatnonzero(scores > 0 if allowed is None else (scores > 0) & allowed)
        if not k:
            return matching[:0], scores[:0]
        if len(matching) > k:
            values = scores[matching]
            worst = np.partition(values, len(values) - k)[len(values) - k]
            matching = matching[values >= worst]
        rows = matching[np.lexsort((self.passage_ids.order[matching], -scores[matching]))][:k]
        return rows, scores[rows]

    def search(self, queries: Sequence[str], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows [n, k] and scores [n, k], best first; where fewer passages share a word, row -1 and score 0."""
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.zeros((len(queries), k), dtype=np.float32)
        for number, query in enumerate(queries):
            best, values = self.top(self.scores(query), k)
            rows[number, : len(best)], scores[number, : len(best)] = best, values
        return rows, scores

    def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """BM25 [n] of texts that need not be in the index, with this index's word statistics.

        A text that is indexed gets the score that it has in the index.
        """
        wanted: dict[int, float] = {}
        for column, share in self._asked(query):
            wanted[column] = wanted.get(column, 0.0) + share
        if not wanted:
            return np.zeros(len(texts), dtype=np.float32)
        columns = np.fromiter(wanted, dtype=np.int64)
        weights = np.fromiter(wanted.values(), dtype=np.float64) * self._idf(columns)
        tokenized = self._tokenizer.passages(texts)
        counts = [Counter(text) for text in tokenized]
        terms = [self._vocabulary[column].as_py() for column in wanted]
        frequency = np.array([[count[term] for term in terms] for count in counts], dtype=np.float64)
        frequency = frequency.reshape(len(texts), len(terms))
        length = np.array([sum(map(_is_content, text)) for text in tokenized], dtype=np.float64)[:, None]
        lengths = _length_norm(length, self._statistics)
        saturated = np.divide(frequency, frequency + lengths, out=np.zeros_like(frequency), where=frequency > 0)
        return (saturated @ weights).astype(np.float32)

    def _column_of(self, word: str) -> int:
        """The column of a word; long ones, which callers can make up, are looked up anew."""
        if len(word) > _LONGEST_REMEMBERED:
            return _find(self._vocabulary, word)
        return self._remembered_column_of(word)

    def _asked(self, query: str) -> Iterator[tuple[int, float]]:
        """The columns of a query's words, and what they count of their weights.

        The forms that a word has in several languages are synonyms: each weighs as if all were one word (Pirkola, "The
        effects of query structure and dictionary setups in dictionary-based cross-language information retrieval",
        SIGIR 1998). Else a form of the language with the fewest passages would weigh most.
        """
        for terms in self._tokenizer.query(query):
            columns = [column for column in map(self._column_of, terms) if column >= 0]
            if len(columns) == 1:
                yield columns[0], 1.0
            elif columns:
                starts = self._postings.starts
                having = np.array([starts[column + 1] - starts[column] for column in columns], dtype=np.float64)
                together = _idf(np.minimum(having.sum(), len(self)), len(self))
                yield from zip(columns, (together / _idf(having, len(self))).tolist(), strict=True)

    def _idf(self, terms: NDArray[np.int64]) -> NDArray[np.float64]:
        starts = self._postings.starts
        return _idf((starts[terms + 1] - starts[terms]).astype(np.float64), len(self))


class _Forms:
    """The forms of the words of all passages as they come, and the languages that are told of each passage."""

    def __init__(self, wanted: Sequence[str]) -> None:
        self._wanted = wanted
        self._number: dict[str, int] = {}
        self._of_word: dict[str, list[int]] = {}
        self._batches: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []
        self._told: list[NDArray[np.int64]] = []

    def add(self, texts: Sequence[str]) -> None:
        """Read further passages."""
        flat: list[int] = []
        ends = []
        of_word = self._of_word
        for text in texts:
            for word in find_words(text):
                numbers = of_word.get(word)
                if numbers is None:
                    numbers = of_word[word] = self._numbers(word)
                flat += numbers
            ends.append(len(flat))
        if len(of_word) > _WORDS_REMEMBERED:
            of_word.clear()
        forms, lengths = np.array(flat, dtype=np.int32), np.diff(ends, prepend=0).astype(np.int32)
        self._batches.append((forms, lengths))
        self._told.append(tell(self._votes(forms, lengths), self._wanted))

    def _numbers(self, word: str) -> list[int]:
        return [self._number.setdefault(form, len(self._number)) for form in forms_of(word)]

    def _votes(self, forms: NDArray[np.int32], lengths: NDArray[np.int32]) -> NDArray[np.int64]:
        """As `count_votes`, for all passages of a batch at once."""
        spoken = [(self._number[form], languages) for form, languages in voices().items() if form in self._number]
        speaks = np.zeros((len(spoken), len(LANGUAGES)), dtype=np.float32)
        place_of = np.full(len(self._number), -1, dtype=np.int32)
        for place, (form, languages) in enumerate(spoken):
            speaks[place, languages] = 1
            place_of[form] = place
        places = place_of[forms]
        is_spoken = places >= 0
        passage_of = np.repeat(np.arange(len(lengths)), lengths)[is_spoken]
        has = np.zeros((len(lengths), len(spoken)), dtype=bool)
        has[passage_of, places[is_spoken]] = True
        blocks = [has[start : start + _ROWS].astype(np.float32) @ speaks for start in range(0, len(has), _ROWS)]
        return np.concatenate(blocks).astype(np.int64)

    def languages(self) -> Languages:
        """The languages of the corpus."""
        return Languages.of(np.concatenate([np.empty((0, len(SCRIPTS)), dtype=np.int64), *self._told]), self._wanted)

    def terms(self, languages: Languages) -> Iterator[tuple[list[str], NDArray[np.int32], NDArray[np.int32]]]:
        """Of each batch its different terms, which of them each word is, and the words of each passage.

        Empties the batches.
        """
        forms, scripts, neutral = list(self._number), list(SCRIPTS), len(LANGUAGES)
        of_forms = (scripts.index(script) if (script := script_of(form)) else -1 for form in forms)
        script_of_form = np.fromiter(of_forms, dtype=np.int64, count=len(forms))
        while self._batches:
            (flat, lengths), told = self._batches.pop(0), self._told.pop(0)
            numbers = np.column_stack([languages.resolve(told), np.full(len(told), neutral)])
            spoken, columns = np.unique(numbers, return_inverse=True)
            columns = columns.reshape(numbers.shape).astype(np.int32)
            language = columns[np.repeat(np.arange(len(lengths)), lengths), script_of_form[flat]]
            keys = flat * np.int64(len(spoken)) + language
            is_used = np.zeros(len(forms) * len(spoken), dtype=bool)
            is_used[keys] = True
            used = np.flatnonzero(is_used)
            place_of = np.cumsum(is_used, dtype=np.int32) - 1
            of_key, language_of_key = np.divmod(used, len(spoken))
            terms = np.empty(len(used), dtype=object)
            for column, number in enumerate(spoken.tolist()):
                chosen = np.flatnonzero(language_of_key == column)
                code = LANGUAGES[number] if number < neutral else ""
                terms[chosen] = terms_of([forms[form] for form in of_key[chosen]], code)
            yield terms.tolist(), place_of[keys], lengths


class _Counts:
    """How often each word stands in each passage, in arrays; words are numbered as they come."""

    def __init__(self) -> None:
        self._number: dict[str, int] = {}
        self._lengths: list[NDArray[np.int32]] = []
        self._different: list[NDArray[np.int32]] = []
        self._batches: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []

    def add(self, terms: Sequence[str], places: NDArray[np.int32], lengths: NDArray[np.int32]) -> None:
        """Count further passages of `lengths` words, which are at `places` among the `terms`."""
        number = self._number
        numbers = np.array([number.setdefault(term, len(number)) for term in terms], dtype=np.int64)
        is_content = np.array([_is_content(term) for term in terms], dtype=np.int32)
        size = max(len(number), 1)
        passage_of = np.repeat(np.arange(len(lengths)), lengths)
        keys, counts = np.unique(passage_of * size + numbers[places], return_counts=True)
        passages, term_of = np.divmod(keys, size)
        content = np.bincount(passage_of, weights=is_content[places], minlength=len(lengths))
        self._lengths.append(content.astype(np.int32))
        self._different.append(np.bincount(passages, minlength=len(lengths)).astype(np.int32))
        self._batches.append((term_of.astype(np.int32), counts.astype(np.int32)))

    @property
    def passages(self) -> int:
        """How many were added."""
        return sum(map(len, self._lengths))

    @property
    def average_length(self) -> float:
        """Terms of a passage, repetitions among them, without stop words."""
        lengths = np.concatenate([np.empty(0, dtype=np.int32), *self._lengths])
        return float(lengths.mean()) if len(lengths) else 0.0

    def vocabulary(self) -> list[str]:
        """All words, sorted."""
        return sorted(self._number)

    def postings(self, statistics: Statistics) -> Postings:
        """The passages of each word, words sorted, with their weights. Empties the counts."""
        numbers = np.array([self._number[term] for term in self.vocabulary()], dtype=np.int64)
        columns = np.empty(len(numbers), dtype=np.int64)
        columns[numbers] = np.arange(len(numbers))
        having = np.zeros(len(numbers), dtype=np.int64)
        for terms, _ in self._batches:
            having += np.bincount(columns[terms], minlength=len(numbers))
        starts = np.concatenate([[0], np.cumsum(having)])
        weights = np.empty(starts[-1], dtype=np.float32)
        rows = np.empty(starts[-1], dtype=np.int32)
        idf = _idf(having.astype(np.float64), statistics.passages).astype(np.float32)
        filled, first = starts[:-1].copy(), 0
        for lengths, different in zip(self._lengths, self._different, strict=True):
            terms, counts = self._batches.pop(0)
            order = np.argsort(columns[terms], kind="stable")
            passage_terms = columns[terms][order]
            passages = np.repeat(np.arange(len(lengths)), different)[order]
            of_term = np.bincount(passage_terms, minlength=len(numbers))
            places = np.arange(len(passage_terms)) + np.repeat(filled - np.cumsum(of_term) + of_term, of_term)
            frequency = counts[order].astype(np.float32)
            saturation = frequency / (_length_norm(lengths[passages], statistics) + frequency)
            weights[places] = idf[passage_terms] * saturation
            rows[places] = first + passages
            filled += of_term
            first += len(lengths)
        return Postings(weights, rows, starts)


def _is_content(term: str) -> bool:
    return not term.startswith(STOP_MARK)


def _length_norm(lengths: NDArray[Any], statistics: Statistics) -> NDArray[np.float64]:
    """What the frequency of a word is weighed against in passages of these lengths, in terms."""
    k1, b = statistics.k1, statistics.b
    return k1 * (1 - b + b * lengths / (statistics.average_length or 1.0))


def _find(vocabulary: pa.LargeStringArray, word: str) -> int:
    """The column of the score matrix that `word` has; -1 for a word of no passage."""
    column = bisect_left(vocabulary, word, key=lambda value: value.as_py())
    return column if column < len(vocabulary) and vocabulary[column].as_py() == word else -1


def _idf(having: NDArray[np.float64] | np.float64, size: int) -> NDArray[np.float64]:
    """Lucene's weight [n] of terms that `having` of `size` passages have."""
    return np.log1p((size - having + 0.5) / (having + 0.5))


def read_texts(passages: Path) -> Iterator[str]:
    """The texts to index of passages.parquet, row by row, read some thousand at once."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(passages) as table:
        for batch in table.iter_batches(_BATCH, columns=["title", "text"]):
            yield from map(passage_text, batch["title"].to_pylist(), batch["text"].to_pylist())


def make_lexical_index(store: ArtifactStore, settings: Settings, passages: Artifact) -> Artifact:
    """The BM25 index of the titles and texts of a corpus."""
    build = partial(index_texts, passages, settings.index)
    return LEXICAL_INDEX.get_or_create(store, settings, build, inputs=(passages,))


def index_texts(passages: Artifact, settings: IndexSettings, folder: Path) -> dict[str, Any]:
    """Write the index to `folder`; return counts of passages and words, and its bytes."""
    ids = passages.read_table("passages.parquet", ["passage_id"])["passage_id"].tolist()
    texts = read_texts(passages.path("passages.parquet"))
    index = LexicalIndex.build(texts, ids, settings.bm25_k1, settings.bm25_b, settings.languages)
    index.save(folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {"dagster/row_count": len(ids), "words": index.words, "languages": index.languages, "bytes": size}
