"""Our measures on real runs against pytrec_eval, which is trec_eval's own code (Van Gysel and de Rijke, 2018)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pytrec_eval

from models.contracts.rows import RejectedRow
from models.corpus.sources.beir import BeirSource
from models.measures.metrics import MEASURES, evaluate_run, mean_values
from models.measures.trec_runs import export_trec_run
from models.retrieval.lexical_index import LexicalIndex
from models.text.passage_text import passage_text

NAMES = {
    "nDCG@10": "ndcg_cut_10",
    "MAP": "map",
    **{f"P@{k}": f"P_{k}" for k in (1, 5, 10)},
    **{f"R@{k}": f"recall_{k}" for k in (10, 50, 100)},
}
THEIRS = {"ndcg_cut.10", "map", "P.1,5,10", "recall.10,50,100", "recip_rank"}
DEPTH = 150

DATA = Path(os.environ.get("RERANKOPS_DATA") or Path(__file__).resolve().parents[4] / "shared" / "data")


@pytest.fixture(scope="module", params=["scifact", "medquad-liveqa-open"])
def bm25(request: pytest.FixtureRequest) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The BM25 run of the test queries over whole documents, its scores with their ties, and the judgments."""
    folder = DATA / request.param
    if not (folder / "qrels").is_dir():
        pytest.skip(f"no BEIR folder {folder}; RERANKOPS_DATA names where they are")
    source = BeirSource(folder)
    documents = [item for item in source.documents() if not isinstance(item, RejectedRow)]
    queries = [item for item in source.queries() if not isinstance(item, RejectedRow) and item.split == "test"]
    asked = {query.query_id for query in queries}
    judged = [item for item in source.judgments() if not isinstance(item, RejectedRow) and item.query_id in asked]
    ids = sorted(document.document_id for document in documents)
    texts = {item.document_id: passage_text(item.title, item.text) for item in documents}
    index = LexicalIndex.build([texts[name] for name in ids], ids)
    rows, scores = index.search([query.text for query in queries], DEPTH)
    table = [
        (query.query_id, ids[row], round(float(score), 1))
        for query, result, values in zip(queries, rows, scores, strict=True)
        for row, score in zip(result, values, strict=True)
        if row >= 0
    ]
    run = pd.DataFrame(table, columns=["query_id", "document_id", "score"])
    columns = ["query_id", "document_id", "grade"]
    judgments = pd.DataFrame([(item.query_id, item.document_id, item.grade) for item in judged], columns=columns)
    return run, judgments.drop_duplicates(columns[:2])


def theirs(run: pd.DataFrame, judgments: pd.DataFrame) -> dict[str, dict[str, float]]:
    """pytrec_eval's values; ties are broken by it, by descending id."""
    qrels: dict[str, dict[str, int]] = {}
    for query_id, document_id, grade in judgments.itertuples(index=False):
        qrels.setdefault(query_id, {})[document_id] = int(grade)
    ranked: dict[str, dict[str, float]] = {}
    for query_id, document_id, score in run.itertuples(index=False):
        ranked.setdefault(query_id, {})[document_id] = float(score)
    return pytrec_eval.RelevanceEvaluator(qrels, THEIRS).evaluate(ranked)


def without_ties(run: pd.DataFrame) -> pd.DataFrame:
    """The same order, ties by ascending id as we break them, with scores that fall."""
    ordered = run.sort_values(["query_id", "score", "document_id"], ascending=[True, False, True])
    return ordered.assign(score=-ordered.groupby("query_id").cumcount().astype(float))


def assert_equal(ours: pd.DataFrame, reference: dict[str, dict[str, float]]) -> None:
    compared = 0
    for query_id, measure, value in ours.itertuples(index=False):
        if query_id not in reference:
            assert value == 0, f"{query_id} has no results"
        elif measure == "MRR@10":
            whole = reference[query_id]["recip_rank"]
            assert value == pytest.approx(whole if whole >= 1 / 10 - 1e-9 else 0.0, abs=1e-6)
        else:
            assert value == pytest.approx(reference[query_id][NAMES[measure]], abs=1e-6), (query_id, measure)
        compared += 1
    assert compared == len(MEASURES) * ours["query_id"].nunique() > 0


def test_every_measure_of_every_query_is_trec_evals(bm25: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    run, judgments = bm25
    assert run.duplicated(["query_id", "score"]).sum() > 100, "the run has ties"
    assert_equal(evaluate_run(run, judgments), theirs(without_ties(run), judgments))


def test_grades_count_as_they_do_there(bm25: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    run, judgments = bm25
    generator = np.random.default_rng(0)
    best = run[run["score"] > run.groupby("query_id")["score"].transform("quantile", 0.8)]
    extra = best.sample(min(2000, len(best)), random_state=0)[["query_id", "document_id"]].assign(grade=0)
    graded = pd.concat([judgments, extra]).drop_duplicates(["query_id", "document_id"])
    graded["grade"] = np.where(graded["grade"] > 0, 3, generator.integers(0, 3, size=len(graded)))
    ours = evaluate_run(run, graded)
    assert_equal(ours, theirs(without_ties(run), graded))
    assert mean_values(ours)["nDCG@10"] != pytest.approx(mean_values(evaluate_run(run, judgments))["nDCG@10"])


def test_queries_without_results_count_nothing(bm25: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    run, judgments = bm25
    gone = sorted(set(run["query_id"]))[::3]
    fewer = run[~run["query_id"].isin(gone)]
    ours = evaluate_run(fewer, judgments)
    assert_equal(ours, theirs(without_ties(fewer), judgments))
    judged = judgments.loc[judgments["grade"] > 0, "query_id"].nunique()
    assert ours["query_id"].nunique() == judged, "trec_eval -c: they are in the mean"


def test_an_exported_run_file_gives_the_same_numbers(bm25: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path) -> None:
    run, judgments = bm25
    ordered = without_ties(run)
    ranking = ordered.assign(passage_id=ordered["document_id"], rank=-ordered["score"] + 1)
    export_trec_run(ranking, tmp_path / "bm25.run", "bm25")
    with (tmp_path / "bm25.run").open() as file:
        parsed = pytrec_eval.parse_run(file)
    table = [(query_id, name, score) for query_id, result in parsed.items() for name, score in result.items()]
    read = pd.DataFrame(table, columns=["query_id", "document_id", "score"])
    assert_equal(evaluate_run(run, judgments), theirs(read, judgments))
