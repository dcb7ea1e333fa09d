"""The page of an evaluation: whole, escaped, and loading nothing."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from models.evaluation.assessment import Assessment
from models.evaluation.page import write_evaluation_page
from models.evaluation.report import PAGE, evaluate_systems, read_report
from models.evaluation.slices import query_facts, slice_gains
from models.settings import EvaluationSettings
from tests.small_bundle import Handbook, Small

EVIL = "<script>alert('x')</script> & \"quotes\""
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Tags that are left open, addresses that a browser would load, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_of_an_offline_evaluation_stands_alone(small: Small) -> None:
    text = small.first.evaluation.path(PAGE).read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert not page.tags & {"script", "link", "iframe", "object", "form"}
    assert page.addresses, "the plot"
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not re.search(r"url\(|@import", text)
    report = read_report(small.first.evaluation.folder)
    for name, result in report.systems.items():
        assert name in page.text
        assert f"{result.means['nDCG@10']:.4f}" in page.text
    assert f"{report.gains['tiered'].difference:+.4f}" in page.text
    assert f"{report.power.detectable:.4f}" in page.text if report.power else False
    values = report.per_query[report.per_query["measure"] == "nDCG@10"].pivot(
        index="query_id", columns="system", values="value"
    )
    best = (values["tiered"] - values[report.best_first_stage]).sort_values(kind="stable").index[-1]
    text_of = {query.query_id: query.text for query in Handbook().queries()}
    assert text_of[best] in page.text[page.text.index("Most improved queries") :]
    assert small.artifacts["corpus/evaluation_set"].data_version in page.text


@pytest.fixture
def hostile() -> tuple[Assessment, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Three queries and documents whose texts are markup; the second query is lost, the third won."""
    ids = [f"q{number}" for number in range(3)]
    queries = pd.DataFrame({"query_id": ids, "text": [f"{EVIL} {name}" for name in ids]})
    judgments = pd.DataFrame({"query_id": ids, "document_id": f"d<b>{EVIL}", "grade": 1})
    passages = pd.DataFrame(
        {
            "passage_id": ["p", "n"],
            "document_id": [f"d<b>{EVIL}", "n"],
            "title": [EVIL, ""],
            "text": [EVIL * 40, "nothing"],
            "source": EVIL,
        }
    )

    def ranking(first: list[bool]) -> pd.DataFrame:
        rows = []
        for query_id, good in zip(ids, first, strict=True):
            order = ["p", "n"] if good else ["n", "p"]
            rows += [
                (query_id, name, {"p": f"d<b>{EVIL}", "n": "n"}[name], rank, 1 / rank)
                for rank, name in enumerate(order, 1)
            ]
        return pd.DataFrame(rows, columns=["query_id", "passage_id", "document_id", "rank", "score"])

    settings = EvaluationSettings(resamples=1000)
    rankings = {"bm25": ranking([True, True, False]), "tiered": ranking([True, False, True])}
    report = evaluate_systems(rankings, judgments, {"bm25": 0.1, "tiered": 1.0}, settings)
    facts = query_facts(queries, judgments, passages)
    texts = dict(zip(queries["query_id"], queries["text"], strict=True))
    slices = slice_gains(report.per_query, facts, texts, "tiered", "bm25", settings)
    return Assessment(report, rankings, slices, []), queries, judgments, passages


def test_texts_of_the_corpus_are_no_markup(
    hostile: tuple[Assessment, pd.DataFrame, pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    path = tmp_path / "report" / "page.html"
    write_evaluation_page(path, *hostile, title=EVIL, facts={EVIL: EVIL})
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == []
    assert "script" not in page.tags
    assert page.addresses == []
    assert page.text.count(EVIL) >= 6
    lost, won = (page.text.index(heading) for heading in ("Worst queries", "Most improved queries"))
    assert lost < page.text.index(f"{EVIL} q1", lost) < won < page.text.index(f"{EVIL} q2", won)
    assert "…" in page.text, "long texts are cut"
