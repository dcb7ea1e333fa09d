from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import ArtifactError
from models.retrieval import lexical_index
from models.retrieval.lexical_index import STATISTICS_FILE, LexicalIndex, read_texts
from models.store.tables import write_table
from models.text.stop_words import INDEX_STOP_WORDS
from models.text.tokenize import tokenize

TEXTS = [
    "Split arrays into random train and test subsets with train_test_split.",
    "LinAlgError is raised by linear algebra functions when a matrix is singular.",
    "The matrix product of two arrays, computed by numpy.matmul.",
    "Reads a comma-separated file into a DataFrame: pandas.read_csv(path)",
    "the of and",
    "",
    "Matrix, matrix, matrix: a text that repeats one word and another word.",
]
IDS = [f"p{row}" for row in range(len(TEXTS))]
WORDS = ["matrix", "train_test_split", "arrays", "LinAlgError", "the", "unheard", "read", "csv", "word", ""]


@pytest.fixture(scope="module")
def index() -> LexicalIndex:
    return LexicalIndex.build(TEXTS, IDS)


def terms(text: str) -> list[str]:
    return tokenize([text])[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The runners were running", ["runner", "were", "run"]),
        ("train_test_split", ["train_test_split", "train", "test", "split"]),
        ("_private __init__", ["privat", "init"]),
        ("LinAlgError", ["linalgerror", "lin", "alg", "error"]),
        ("HTTPServer", ["httpserver", "http", "server"]),
        ("numpy.linalg.norm", ["numpi", "linalg", "norm"]),
        ("int8 v2", ["int8", "int", "8", "v2", "2"]),
        ("DNAs Müller", ["dnas", "müller"]),
        ("Alzheimer's don\u2019t Alzheimer\u2019S", ["alzheim", "dont", "alzheim"]),
        ("ﬁle ＡＢＣ", ["file", "abc"]),
        ("is_valid", ["is_valid", "valid"]),
        ("the of and", []),
        ("", []),
        ("?! -- ...", []),
        ("___", []),
    ],
)
def test_terms_of_a_text(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


def test_an_identifier_is_found_by_its_words_and_a_text_of_words_by_the_identifier(index: LexicalIndex) -> None:
    rows, _ = index.search(["split train test", "linear algebra error", "read csv"], 1)
    assert rows[:, 0].tolist() == [0, 1, 3]
    assert set(terms("train test split")) < set(terms("train_test_split"))


def test_the_exact_identifier_outranks_its_scattered_words() -> None:
    texts = ["call train_test_split once", "train the model, then test it, then split wood", "nothing of the kind"]
    rows, _ = LexicalIndex.build(texts, ["a", "b", "c"]).search(["train_test_split"], 3)
    assert rows[0].tolist() == [0, 1, -1]


def bm25_by_hand(query: str, text: str, corpus: list[str], k1: float, b: float) -> float:
    """Lucene's BM25 without the constant factor (k1 + 1), after Kamphuis et al. (2020), word by word."""
    passages = [terms(passage) for passage in corpus]
    average = sum(map(len, passages)) / len(passages)
    words = terms(text)
    score = 0.0
    for term in terms(query):
        having = sum(term in passage for passage in passages)
        if having:
            idf = math.log(1 + (len(passages) - having + 0.5) / (having + 0.5))
            frequency = words.count(term)
            score += idf * frequency / (frequency + k1 * (1 - b + b * len(words) / average)) if frequency else 0.0
    return score


@pytest.mark.parametrize(("k1", "b"), [(0.9, 0.4), (1.2, 0.75), (2.0, 1.0), (0.5, 0.0)])
def test_scores_are_lucenes_bm25(k1: float, b: float) -> None:
    index = LexicalIndex.build(TEXTS, IDS, k1=k1, b=b)
    for query in ("matrix of arrays", "matrix matrix word", "train_test_split LinAlgError unheard"):
        expected = [bm25_by_hand(query, text, TEXTS, k1, b) for text in TEXTS]
        np.testing.assert_allclose(index.scores(query), expected, atol=1e-5)
        np.testing.assert_allclose(index.score(query, TEXTS), expected, atol=1e-5)


@given(query=st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join))
@settings(deadline=None, max_examples=60)
def test_an_indexed_text_scores_the_same_as_a_free_text(index: LexicalIndex, query: str) -> None:
    np.testing.assert_allclose(index.score(query, TEXTS), index.scores(query), atol=1e-4)


def test_a_free_text_is_scored_with_the_statistics_of_the_corpus(index: LexicalIndex) -> None:
    new = "A singular matrix that nobody indexed, of unknown vocabulary."
    result = index.score("singular matrix", [new, "unrelated", ""])
    assert result[0] == pytest.approx(bm25_by_hand("singular matrix", new, TEXTS, 0.9, 0.4), abs=1e-5)
    assert result[1:].tolist() == [0, 0]
    assert index.score("singular", []).shape == (0,)


@pytest.mark.parametrize("query", ["", "   ", "the of and", "unheard xyzzy", "?!"])
def test_queries_without_a_known_word_find_nothing(index: LexicalIndex, query: str) -> None:
    assert not index.scores(query).any()
    assert not index.score(query, TEXTS).any()
    rows, scores = index.search([query], 3)
    np.testing.assert_array_equal(rows, -1)
    np.testing.assert_array_equal(scores, 0)


def test_search_agrees_with_the_scores(index: LexicalIndex) -> None:
    rows, scores = index.search(["matrix arrays"], 10)
    every = index.scores("matrix arrays")
    result = rows[0][rows[0] >= 0]
    assert set(result.tolist()) == set(np.flatnonzero(every).tolist())
    np.testing.assert_array_equal(index.score_rows("matrix arrays", result), scores[0, : len(result)])
    assert (np.diff(scores[0]) <= 0).all()
    assert index.search([], 4)[0].shape == (0, 4)


def test_equal_passages_come_in_the_order_of_their_ids_also_at_the_cut() -> None:
    ids = [f"p{number:02}" for number in np.random.default_rng(0).permutation(40)]
    index = LexicalIndex.build([*["same words here"] * 39, "other"], ids)
    rows, scores = index.search(["words"], 5)
    assert [index.passage_ids[row] for row in rows[0]] == sorted(ids[:39])[:5]
    assert len(set(scores[0].tolist())) == 1


def test_only_allowed_rows_are_returned(index: LexicalIndex) -> None:
    scores = index.scores("matrix")
    allowed = np.ones(len(index), dtype=bool)
    allowed[index.top(scores, 1)[0]] = False
    expected = [row for row in index.top(scores, 10)[0].tolist() if allowed[row]]
    assert expected
    assert index.top(scores, 10, allowed)[0].tolist() == expected
    assert index.top(scores, 10, np.zeros(len(index), dtype=bool))[0].tolist() == []


def test_what_was_saved_is_loaded(index: LexicalIndex, tmp_path: Path) -> None:
    index.save(tmp_path)
    loaded = LexicalIndex.load(tmp_path)
    assert loaded.passage_ids == index.passage_ids
    for query in ("matrix arrays", "unheard", ""):
        np.testing.assert_array_equal(loaded.scores(query), index.scores(query))
        np.testing.assert_array_equal(loaded.score(query, TEXTS), index.score(query, TEXTS))


@pytest.mark.parametrize("texts", [[], ["", "the", "?"]])
def test_a_corpus_without_words_is_saved_and_loaded(tmp_path: Path, texts: list[str]) -> None:
    LexicalIndex.build(texts, [f"p{row}" for row in range(len(texts))]).save(tmp_path)
    loaded = LexicalIndex.load(tmp_path)
    assert loaded.scores("anything").tolist() == [0] * len(texts)
    np.testing.assert_array_equal(loaded.search(["anything"], 2)[0], -1)
    assert loaded.score("anything", ["anything"]).tolist() == [0]


def test_the_postings_are_those_that_bm25s_builds(index: LexicalIndex) -> None:
    import bm25s
    from bm25s.stopwords import STOPWORDS_EN

    assert frozenset(STOPWORDS_EN) == INDEX_STOP_WORDS
    tokenized = tokenize(TEXTS)
    vocabulary = {term: index for index, term in enumerate(sorted(set().union(*tokenized)))}
    theirs = bm25s.BM25(k1=0.9, b=0.4, method="lucene")
    ids = [[vocabulary[term] for term in text] for text in tokenized]
    theirs.index((ids, vocabulary), create_empty_token=False, show_progress=False)
    weights, rows, starts = index._postings
    np.testing.assert_allclose(weights, theirs.scores["data"], rtol=1e-6)
    np.testing.assert_array_equal(rows, theirs.scores["indices"])
    np.testing.assert_array_equal(starts, theirs.scores["indptr"])
    assert index._vocabulary.to_pylist() == list(vocabulary)
    assert index.words == len(vocabulary)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_texts_that_come_one_by_one_are_indexed_as_all_at_once(
    index: LexicalIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    index.save(tmp_path / "whole")
    monkeypatch.setattr(lexical_index, "_BATCH", batch)
    LexicalIndex.build(iter(TEXTS), IDS).save(tmp_path / "parts")
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "parts" / path.name).read_bytes()


def test_the_texts_of_a_table_are_read_in_order(tmp_path: Path) -> None:
    table = pd.DataFrame({"title": ["", "Pumps", ""], "text": TEXTS[:3]})
    write_table(table, tmp_path / "passages.parquet")
    assert list(read_texts(tmp_path / "passages.parquet")) == [TEXTS[0], f"Pumps\n{TEXTS[1]}", TEXTS[2]]


_MEMORY = """
import sys
from pathlib import Path

import numpy as np

from models.retrieval.lexical_index import LexicalIndex; from models.text.tokenize import tokenize

def own():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

tokenize(["what is imported late"])
LexicalIndex.load(Path(sys.argv[2]))
before = own()
index = LexicalIndex.load(Path(sys.argv[1]))
loaded = own()
for number in range(300):
    index.search([f"word{number} word{7 * number} common"], 10)
print(loaded - before, own() - loaded)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory of a process is read as Linux tells it")
def test_an_index_takes_no_memory_of_its_own_and_searches_keep_it_flat(index: LexicalIndex, tmp_path: Path) -> None:
    count = 60_000
    words = np.random.default_rng(0).integers(0, 40_000, (count, 20))
    texts = (" ".join(["common", *(f"word{word}" for word in row)]) for row in words.tolist())
    LexicalIndex.build(texts, [f"document number {row}" for row in range(count)]).save(tmp_path / "large")
    index.save(tmp_path / "small")
    size = sum(path.stat().st_size for path in (tmp_path / "large").iterdir())
    assert size > 20_000_000
    program = [sys.executable, "-c", _MEMORY, str(tmp_path / "large"), str(tmp_path / "small")]
    completed = subprocess.run(
        program, check=True, cwd=Path(__file__).resolve().parents[3], capture_output=True, text=True
    )
    loaded, searched = map(int, completed.stdout.split())
    assert loaded < 1_000_000
    assert searched < 3_000_000


def test_the_files_hold_no_pickles_and_are_the_same_in_every_process(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from models.retrieval.lexical_index import LexicalIndex;"
        f"LexicalIndex.build({TEXTS!r}, {IDS!r}).save(Path(sys.argv[1]))"
    )
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / seed)],
            check=True,
            cwd=Path(__file__).resolve().parents[3],
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert {path.rpartition(".")[2] for path in names} == {"arrow", "npy", "json"}
    for name in names:
        content = (tmp_path / "1" / name).read_bytes()
        assert content == (tmp_path / "2" / name).read_bytes()
        if name.endswith(".npy"):
            assert np.load(tmp_path / "1" / name, allow_pickle=False).dtype != object


def test_missing_and_unlike_files_are_refused(index: LexicalIndex, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="missing"):
        LexicalIndex.load(tmp_path)
    index.save(tmp_path)
    (tmp_path / STATISTICS_FILE).unlink()
    with pytest.raises(ArtifactError, match=STATISTICS_FILE):
        LexicalIndex.load(tmp_path)
    with pytest.raises(ArtifactError, match="7 passages for 2"):
        LexicalIndex.build(TEXTS, ["a", "b"])


def test_repeated_query_words_count_as_often_as_they_stand(index: LexicalIndex) -> None:
    once, twice = index.scores("matrix"), index.scores("matrix matrix")
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-6)
    assert Counter(terms("matrix matrix")) == {"matrix": 2}
