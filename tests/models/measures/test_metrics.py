from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import ContractError, SettingsError
from models.measures.metrics import MEASURES, collapse_to_documents, evaluate_run, mean_values


def run_of(*rows: tuple[str, str, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["query_id", "document_id", "score"])


def judged(*rows: tuple[str, str, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["query_id", "document_id", "grade"])


def values(table: pd.DataFrame, query_id: str) -> dict[str, float]:
    rows = table[table["query_id"] == query_id]
    return dict(zip(rows["measure"], rows["value"], strict=True))


def test_graded_judgments_give_the_values_computed_by_hand() -> None:
    judgments = judged(("q", "a", 3), ("q", "b", 2), ("q", "c", 0), ("q", "missed", 1))
    run = run_of(("q", "c", 0.9), ("q", "a", 0.8), ("q", "unjudged", 0.7), ("q", "b", 0.6))

    got = values(evaluate_run(run, judgments), "q")

    dcg = 3 / math.log2(3) + 2 / math.log2(5)
    ideal = 3 + 2 / math.log2(3) + 1 / math.log2(4)
    assert got == pytest.approx(
        {
            "nDCG@10": dcg / ideal,
            "MRR@10": 1 / 2,
            "MAP": (1 / 2 + 2 / 4) / 3,
            "P@1": 0.0,
            "P@5": 2 / 5,
            "P@10": 2 / 10,
            "R@10": 2 / 3,
            "R@50": 2 / 3,
            "R@100": 2 / 3,
        }
    )


def test_cutoffs_leave_out_what_stands_below_them() -> None:
    run = run_of(*[("q", f"filler{i:02}", 100.0 - i) for i in range(10)], ("q", "a", 1.0))

    got = values(evaluate_run(run, judged(("q", "a", 1))), "q")

    assert (got["nDCG@10"], got["MRR@10"], got["R@10"]) == (0, 0, 0)
    assert got["R@50"] == 1
    assert got["MAP"] == pytest.approx(1 / 11)


def test_every_judged_query_with_a_positive_counts_and_no_other() -> None:
    judgments = judged(("found", "a", 1), ("without-results", "a", 1), ("only-negatives", "a", 0))
    run = run_of(("found", "a", 1.0), ("only-negatives", "a", 1.0), ("never-judged", "a", 1.0))

    table = evaluate_run(run, judgments)

    assert sorted(set(table["query_id"])) == ["found", "without-results"]
    assert len(table) == 2 * len(MEASURES)
    assert set(values(table, "without-results").values()) == {0.0}
    assert mean_values(table)["nDCG@10"] == 0.5
    assert list(mean_values(table)) == list(MEASURES)


def test_an_empty_run_scores_zero_everywhere() -> None:
    table = evaluate_run(run_of().astype({"score": float}), judged(("q", "a", 1)))

    assert set(table["value"]) == {0.0}


@pytest.mark.parametrize("reverse", [False, True])
def test_equal_scores_are_ordered_by_document_id_whatever_the_row_order(reverse: bool) -> None:
    rows = [("q", "a", 1.0), ("q", "b", 1.0), ("q", "c", 1.0)]
    run = run_of(*(reversed(rows) if reverse else rows))

    got = values(evaluate_run(run, judged(("q", "b", 1)), ["P@1", "MRR@10", "nDCG@10", "MAP"]), "q")

    assert got == pytest.approx({"P@1": 0.0, "MRR@10": 0.5, "nDCG@10": 1 / math.log2(3), "MAP": 0.5})


def test_scores_that_differ_below_single_precision_keep_their_order() -> None:
    run = run_of(("q", "a", 1.0 + 1e-12), ("q", "b", 1.0))

    assert values(evaluate_run(run, judged(("q", "a", 1)), ["P@1"]), "q") == {"P@1": 1.0}
    assert values(evaluate_run(run, judged(("q", "b", 1)), ["P@1"]), "q") == {"P@1": 0.0}


def expected_measures(ranked: list[str], grades: dict[str, int]) -> dict[str, float]:
    """The definitions, written out a second time."""
    relevant = [document for document, grade in grades.items() if grade > 0]
    hits = [rank for rank, document in enumerate(ranked, start=1) if grades.get(document, 0) > 0]
    ideal = sorted(grades.values(), reverse=True)[:10]
    dcg = sum(grades.get(document, 0) / math.log2(rank + 1) for rank, document in enumerate(ranked[:10], start=1))
    return {
        "nDCG@10": dcg / sum(grade / math.log2(rank + 1) for rank, grade in enumerate(ideal, start=1)),
        "MRR@10": 1 / hits[0] if hits and hits[0] <= 10 else 0.0,
        "MAP": sum(count / rank for count, rank in enumerate(hits, start=1)) / len(relevant),
        "P@5": sum(rank <= 5 for rank in hits) / 5,
        "R@10": sum(rank <= 10 for rank in hits) / len(relevant),
    }


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    grades=st.dictionaries(st.integers(0, 25).map(str), st.integers(0, 3), min_size=1).filter(
        lambda g: any(g.values())
    ),
    scores=st.dictionaries(st.integers(0, 30).map(str), st.integers(0, 6).map(float), max_size=25),
)
def test_measures_agree_with_their_definitions(grades: dict[str, int], scores: dict[str, float]) -> None:
    expected = expected_measures(sorted(scores, key=lambda document: (-scores[document], document)), grades)
    run = run_of(*(("q", document, score) for document, score in scores.items())).astype({"score": float})

    table = evaluate_run(run, judged(*(("q", document, grade) for document, grade in grades.items())), list(expected))

    assert values(table, "q") == pytest.approx(expected)


def test_passages_collapse_to_the_best_rank_of_their_document() -> None:
    ranking = pd.DataFrame(
        [
            ("q2", "x#0", "x", 1),
            ("q1", "b#1", "b", 3),
            ("q1", "a#7", "a", 2),
            ("q1", "b#0", "b", 1),
            ("q1", "c#0", "c", 4),
        ],
        columns=["query_id", "passage_id", "document_id", "rank"],
    )
    before = ranking.copy()

    run = collapse_to_documents(ranking)

    assert list(run.itertuples(index=False, name=None)) == [
        ("q1", "b", 3.0), ("q1", "a", 2.0), ("q1", "c", 1.0), ("q2", "x", 1.0),
    ]  # fmt: skip
    pd.testing.assert_frame_equal(ranking, before)


def test_equal_ranks_are_ordered_by_passage_id() -> None:
    ranking = pd.DataFrame(
        [("q", "b#0", "b", 1), ("q", "a#0", "a", 1)], columns=["query_id", "passage_id", "document_id", "rank"]
    )

    assert collapse_to_documents(ranking)["document_id"].tolist() == ["a", "b"]


def test_unusable_input_is_refused() -> None:
    judgments = judged(("q", "a", 1))
    with pytest.raises(ContractError, match="no query has a relevant document"):
        evaluate_run(run_of(("q", "a", 1.0)), judged(("q", "a", 0)))
    with pytest.raises(ContractError, match="score of query q is not a number"):
        evaluate_run(run_of(("q", "a", np.nan)), judgments)
    with pytest.raises(ContractError, match="document a appears twice for query q"):
        evaluate_run(run_of(("q", "a", 1.0), ("q", "a", 2.0)), judgments)
    with pytest.raises(ContractError, match="judgments: missing columns grade"):
        evaluate_run(run_of(("q", "a", 1.0)), judgments.drop(columns="grade"))
    with pytest.raises(ContractError, match="a rank is missing"):
        collapse_to_documents(
            pd.DataFrame({"query_id": ["q"], "passage_id": ["a#0"], "document_id": ["a"], "rank": [np.nan]})
        )


@pytest.mark.parametrize("name", ["P", "R", "ndcg@10", "nDCG@0", "F1@10", "nDCG@10;import os"])
def test_an_unknown_measure_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match="no such measure"):
        evaluate_run(run_of(("q", "a", 1.0)), judged(("q", "a", 1)), [name])
