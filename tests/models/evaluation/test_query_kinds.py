"""Judged queries and those made from the text are reported apart, and where nobody judged, that is said."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from models.evaluation.assessment import Assessment
from models.evaluation.page import write_evaluation_page
from models.evaluation.query_kinds import PSEUDO_ONLY, pseudo_only, queries_by_kind
from models.evaluation.report import evaluate_systems
from models.settings import EvaluationSettings

IDS = [f"q{number}" for number in range(6)]
KINDS = ["title", "given", "title", "keywords", "given", "title"]
JUDGMENTS = pd.DataFrame({"query_id": IDS, "document_id": "d", "grade": 1})
PASSAGES = pd.DataFrame(
    {"passage_id": ["p", "n"], "document_id": ["d", "n"], "title": "", "text": ["oil the saw", "no"], "source": "s"}
)


def ranking(first: list[bool]) -> pd.DataFrame:
    rows = [
        (query_id, passage, {"p": "d", "n": "n"}[passage], rank, 1 / rank)
        for query_id, good in zip(IDS, first, strict=True)
        for rank, passage in enumerate(["p", "n"] if good else ["n", "p"], 1)
    ]
    return pd.DataFrame(rows, columns=["query_id", "passage_id", "document_id", "rank", "score"])


RANKINGS = {
    "bm25": ranking([True, False, True, True, False, True]),
    "tiered": ranking([True, True, False, True, True, True]),
}


def queries(kinds: list[str] | None) -> pd.DataFrame:
    table = pd.DataFrame({"query_id": IDS, "text": "how to oil the saw"})
    return table if kinds is None else table.assign(kind=kinds)


def assessment(kinds: list[str] | None) -> Assessment:
    report = evaluate_systems(RANKINGS, JUDGMENTS, {"bm25": 0.1, "tiered": 1.0}, EvaluationSettings(resamples=1000))
    return Assessment(report, RANKINGS, [], [], queries_by_kind(report.per_query, queries(kinds)))


def test_each_kind_has_the_means_of_its_own_queries() -> None:
    second = 0.6309297535714575  # nDCG@10 of the one relevant document at rank 2
    given, title, keywords = assessment(KINDS).by_kind
    assert [kind.kind for kind in (given, title, keywords)] == ["given", "title", "keywords"]
    assert [kind.queries for kind in (given, title, keywords)] == [2, 3, 1]
    assert given.means == {"bm25": second, "tiered": 1.0}
    assert title.means["tiered"] == (2 + second) / 3
    assert not pseudo_only([given, title])
    (alone,) = assessment(None).by_kind
    assert (alone.kind, alone.queries) == ("given", 6)


def test_the_page_says_what_an_evaluation_on_pseudo_queries_is_worth(tmp_path: Path) -> None:
    def page(kinds: list[str] | None) -> str:
        path = tmp_path / "page.html"
        write_evaluation_page(path, assessment(kinds), queries(kinds), JUDGMENTS, PASSAGES, title="t", facts={})
        return path.read_text(encoding="utf-8")

    warning = PSEUDO_ONLY.split(":")[0]
    pseudo_page = page(["title"] * 5 + ["written"])
    assert warning in pseudo_page
    assert "<td>written</td><td>1</td>" in pseudo_page
    mixed = page(KINDS)
    assert warning not in mixed
    assert "<td>given</td><td>2</td><td>0.6309</td><td>1.0000</td>" in mixed
    assert "By kind of query" not in page(None)
    assert assessment(["title"] * 6).to_dict()["pseudo_only"] is True
    assert assessment(None).to_dict()["pseudo_only"] is False
