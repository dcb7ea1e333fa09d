"""Suites on small frames, run by the real Great Expectations without network."""

from __future__ import annotations

import hashlib
import json
import socket
import warnings

import pandas as pd
import pytest

from models.errors import ContractError
from models.expectations import (
    SUITES,
    ExpectationReport,
    evaluation_table,
    passage_table,
    report_html,
    suite_file,
    validate,
)

PASSAGE_PARAMETERS = {"min_passages": 2, "max_characters": 2000}
EVALUATION_PARAMETERS = {"min_test_queries": 6, "min_dev_queries": 2, "max_mean_positives": 10}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def passages(count: int = 20) -> pd.DataFrame:
    texts = [f"Passage number {i} says something long enough about topic {i}." for i in range(count)]
    return pd.DataFrame(
        {
            "passage_id": [f"d{i}#0" for i in range(count)],
            "document_id": [f"d{i}" for i in range(count)],
            "title": [f"Topic {i}" for i in range(count)],
            "text": texts,
            "start": [0] * count,
            "end": [len(text) for text in texts],
            "source": ["files"] * count,
            "access": [[] for _ in range(count)],
            "content_hash": [hashlib.sha256(text.encode()).hexdigest() for text in texts],
            "updated_at": [None] * count,
        }
    )


def retext(table: pd.DataFrame, texts: list[str]) -> pd.DataFrame:
    return table.assign(text=texts, end=table["start"] + [len(text) for text in texts])


def evaluation_set(test: int = 60, dev: int = 10) -> tuple[pd.DataFrame, pd.DataFrame]:
    ids = [f"q{i}" for i in range(test + dev)]
    queries = pd.DataFrame(
        {
            "query_id": ids,
            "text": [f"how does topic {i} work" for i in range(test + dev)],
            "split": ["test"] * test + ["dev"] * dev,
        }
    )
    return queries, pd.DataFrame(
        {"query_id": ids, "document_id": [f"d{i}" for i in range(test + dev)], "grade": [1] * (test + dev)}
    )


def failed(report: ExpectationReport) -> set[str]:
    return {outcome.name for outcome in report.results if not outcome.success}


def test_good_passages_meet_every_expectation() -> None:
    report = validate(passage_table(passages()), "passages", PASSAGE_PARAMETERS)
    assert report.success
    assert report.rows == 20
    assert report.statistics["success_share"] == 1
    names = [e["meta"]["name"] for e in json.loads(suite_file("passages").read_text())["expectations"]]
    assert [outcome.name for outcome in report.results] == names


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        (lambda t: t.assign(passage_id=["same"] * len(t)), {"passage_id_is_unique"}),
        (lambda t: t.assign(document_id="d0"), {"several_documents"}),
        (lambda t: t.assign(start=[-1, *t["start"][1:]], end=[t["end"][0] - 1, *t["end"][1:]]), {"start_is_an_offset"}),
        (lambda t: t.assign(end=[0, *t["end"][1:]]), {"end_is_after_start", "offsets_span_the_text"}),
        (lambda t: t.assign(end=[t["end"][0] + 3, *t["end"][1:]]), {"offsets_span_the_text"}),
        (lambda t: retext(t, ["short"] * 5 + list(t["text"][5:])), {"few_short_passages"}),
        (lambda t: retext(t, ["x" * 3000, *t["text"][1:]]), {"few_overlong_passages"}),
        (lambda t: t.assign(content_hash=t["content_hash"].iloc[0]), {"few_copies"}),
        (lambda t: t.assign(title=""), {"most_titles_are_filled"}),
        (lambda t: retext(t, [t["text"][0] + "\ufffd", *t["text"][1:]]), {"text_decoded_cleanly"}),
        (lambda t: t.head(1), {"enough_passages", "several_documents"}),
    ],
)
def test_each_defect_of_passages_is_named(change, broken) -> None:
    assert failed(validate(passage_table(change(passages())), "passages", PASSAGE_PARAMETERS)) == broken


def test_examples_name_the_rows() -> None:
    table = passages().assign(start=[-7, *[0] * 19])
    outcome = next(
        o
        for o in validate(passage_table(table), "passages", PASSAGE_PARAMETERS).results
        if o.name == "start_is_an_offset"
    )
    assert outcome.unexpected_count == 1
    assert outcome.examples == ({"passage_id": "d0#0", "start": "-7"},)
    assert outcome.severity == "critical"
    assert outcome.column == "start"


def test_good_evaluation_set_meets_every_expectation() -> None:
    assert validate(evaluation_table(*evaluation_set()), "evaluation_set", EVALUATION_PARAMETERS).success


def test_evaluation_set_without_judgments_or_with_training_queries_fails() -> None:
    queries, judgments = evaluation_set()
    without = evaluation_table(queries, judgments.iloc[1:])
    assert failed(validate(without, "evaluation_set", EVALUATION_PARAMETERS)) == {"every_query_has_a_positive"}
    trained = evaluation_table(queries.assign(split=["train", *queries["split"][1:]]), judgments)
    assert failed(validate(trained, "evaluation_set", EVALUATION_PARAMETERS)) == {"no_training_queries"}


def test_small_evaluation_sets_warn_and_tiny_ones_fail() -> None:
    small = validate(evaluation_table(*evaluation_set(test=20)), "evaluation_set", EVALUATION_PARAMETERS)
    assert failed(small) == {"test_queries_separate_systems"}
    assert small.statistics["failed_critical"] == 0
    tiny = validate(evaluation_table(*evaluation_set(test=5, dev=1)), "evaluation_set", EVALUATION_PARAMETERS)
    assert {"enough_test_queries", "enough_dev_queries"} <= failed(tiny)
    assert tiny.statistics["failed_critical"] == 2


def test_evaluation_table_counts_positives_and_normalizes_text() -> None:
    queries = pd.DataFrame({"query_id": ["a", "b"], "text": ["  What  IS it ", "x"], "split": ["dev", "test"]})
    judgments = pd.DataFrame({"query_id": ["a", "a", "a"], "document_id": ["1", "2", "3"], "grade": [0, 2, 1]})
    table = evaluation_table(queries, judgments)
    expected = pd.DataFrame(
        {
            "query_id": ["a", "b"],
            "split": ["dev", "test"],
            "normalized_text": ["what is it", "x"],
            "words": [3, 1],
            "positives": [2, 0],
            "lowest_grade": [0, 0],
            "highest_grade": [2, 0],
        }
    )
    pd.testing.assert_frame_equal(table, expected)


def test_report_survives_json_and_escapes_html() -> None:
    table = passages().assign(passage_id=["<b>same</b>"] * 20)
    report = validate(passage_table(table), "passages", PASSAGE_PARAMETERS)
    again = ExpectationReport.from_dict(json.loads(json.dumps(report.to_dict())))
    assert again == report
    page = report_html(report)
    assert "passage_id_is_unique" in page
    assert "<b>same</b>" not in page
    assert "&lt;b&gt;same&lt;/b&gt;" in page


def test_what_cannot_be_measured_raises() -> None:
    with pytest.raises(ContractError, match="needs the columns text"):
        validate(passage_table(passages()).drop(columns="text"), "passages", PASSAGE_PARAMETERS)
    with pytest.raises(ContractError, match="min_passages"):
        validate(passage_table(passages()), "passages", {"max_characters": 10})
    with pytest.raises(ContractError, match="no expectation suite"):
        validate(passages(), "nothing", {})


def test_no_warning_nor_output_leaks(
    capfd: pytest.CaptureFixture[str], tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        validate(passage_table(passages()), "passages", PASSAGE_PARAMETERS)
    assert capfd.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.json")), ids=lambda path: path.stem)
def test_every_suite_names_and_grades_each_expectation(path) -> None:
    suite = json.loads(path.read_text(encoding="utf-8"))
    names = [expectation["meta"]["name"] for expectation in suite["expectations"]]
    assert suite["name"] == path.stem
    assert len(set(names)) == len(names)
    assert {expectation["severity"] for expectation in suite["expectations"]} == {"critical", "warning"}
