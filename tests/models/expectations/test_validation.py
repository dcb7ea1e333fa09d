"""Suites on small frames, run by the real Great Expectations without network."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import warnings

import pandas as pd
import pytest

from models.errors import ContractError
from models.expectations.tables import evaluation_table, facts, judgment_table, passage_table, query_table
from models.expectations.validation import (
    ACCEPTED,
    SUITES,
    ExpectationReport,
    parameter_names,
    suite_file,
    suite_text,
    validate,
    validate_with_page,
)

pytestmark = pytest.mark.heavy

PASSAGE_PARAMETERS = {"min_passages": 2, "max_characters": 2000}
EVALUATION_PARAMETERS = {"min_test_queries": 6, "min_dev_queries": 2, "max_mean_positives": 10}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def passages(count: int = 20) -> pd.DataFrame:
    words = ("alder", "birch", "cedar", "dogwood", "elm", "fir", "ginkgo", "hazel", "ivy", "juniper")
    texts = [
        f"The {words[i % 10]} number {i} grows beside the {words[i // 10]} and says something of {words[-i % 10]} {i}."
        for i in range(count)
    ]
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
            "text": [f"how does part{i} work" for i in range(test + dev)],
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
    assert [outcome.name for outcome in report.results] == [name for name in names if name not in report.left_out]


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        (lambda t: t.assign(passage_id=["same"] * len(t)), {"passage_id_is_unique"}),
        (lambda t: t.assign(document_id="d0"), {"several_documents"}),
        (lambda t: t.assign(start=[-1, *t["start"][1:]], end=[t["end"][0] - 1, *t["end"][1:]]), {"start_is_an_offset"}),
        (lambda t: t.assign(end=[0, *t["end"][1:]]), {"end_is_after_start", "offsets_span_the_text"}),
        (lambda t: t.assign(end=[t["end"][0] + 3, *t["end"][1:]]), {"offsets_span_the_text"}),
        (lambda t: retext(t, [*"abcde", *t["text"][5:]]), {"few_short_passages"}),
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
    pd.testing.assert_frame_equal(table.drop(columns="near_duplicate_of"), expected)
    assert table["near_duplicate_of"].tolist() == ["", ""]


def test_report_survives_json_and_the_page_is_great_expectations_own_without_network() -> None:
    table = passages().assign(passage_id=["<b>same</b>"] * 20)
    report, page = validate_with_page(passage_table(table), "passages", PASSAGE_PARAMETERS)
    again = ExpectationReport.from_dict(json.loads(json.dumps(report.to_dict())))
    assert again == report
    assert "Expectation Validation Result" in page
    assert "An id names one passage." in page
    assert "<b>same</b>" not in page
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=.https?:", page)


ACCEPTED_PASSAGES = PASSAGE_PARAMETERS | facts(passage_table(passages()))


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        (lambda t: t, set()),
        (lambda t: t.head(9), {"rows_as_accepted", "rows_near_accepted"}),
        (lambda t: t.head(17), {"rows_near_accepted"}),
        (lambda t: retext(t, [text[:50] for text in t["text"]]), {"length_as_accepted"}),
        (
            lambda t: retext(t, [*t["text"][:16], *[f"{t['text'][16]} {n}" for n in range(4)]]),
            {"few_near_duplicates"},
        ),
        (lambda t: retext(t, [*t["text"][:-2], *GERMAN[:2]]), {"languages_as_accepted"}),
        (
            lambda t: retext(t, [f"{GERMAN[n % 2]} {n * n}" for n in range(len(t))]),
            {"languages_as_accepted", "main_language_as_accepted", "few_near_duplicates", "length_as_accepted"},
        ),
    ],
)
def test_a_change_from_the_accepted_passages_is_named(change, broken) -> None:
    report = validate(passage_table(change(passages())), "passages", ACCEPTED_PASSAGES)
    assert failed(report) == broken
    assert report.left_out == ()


GERMAN = (
    "Die Erle wächst neben der Birke am Ufer und erzählt den Leuten etwas über den Wacholder im Garten.",
    "Der Ginkgo steht seit vielen Jahren vor dem Haus, und im Herbst werden seine Blätter leuchtend gelb.",
)


def test_offending_rows_are_shown_with_the_passage_they_repeat() -> None:
    table = passages()
    table = retext(table, [*table["text"][:-4], *[f"{table['text'][0]} {n}" for n in range(4)]])
    report = validate(passage_table(table), "passages", PASSAGE_PARAMETERS)
    outcome = next(item for item in report.results if item.name == "few_near_duplicates")
    assert not outcome.success
    alike = {f"d{n}#0" for n in (0, 16, 17, 18, 19)}
    assert {row["passage_id"] for row in outcome.examples} == alike
    assert {row["near_duplicate_of"] for row in outcome.examples} <= alike


def test_without_an_accepted_version_what_compares_with_it_is_left_out() -> None:
    report = validate(passage_table(passages()), "passages", PASSAGE_PARAMETERS)
    suite = json.loads(suite_file("passages").read_text())
    comparing = [
        item["meta"]["name"]
        for item in suite["expectations"]
        if any(name.startswith(ACCEPTED) for name in parameter_names(item))
    ]
    assert list(report.left_out) == comparing
    assert len(comparing) == 5


def _judged(count: int = 20) -> tuple[pd.DataFrame, pd.DataFrame, pd.Series]:
    queries, judgments = evaluation_set(test=count, dev=0)
    return queries, judgments, judgments["document_id"]


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        (lambda q, j, d: (q, j, d), set()),
        (lambda q, j, d: (q, j.head(12), d), {"queries_are_judged"}),
        (lambda q, j, d: (q, j.assign(grade=0), d), {"queries_are_judged", "some_queries_are_judged"}),
        (lambda q, j, d: (q, j, d.head(0)), {"queries_are_judged", "some_queries_are_judged"}),
        (lambda q, j, d: (q.assign(text="how does part1 work"), j, d), {"few_repeated_queries"}),
        (lambda q, j, d: (q.assign(text=[f"part{n}" for n in range(20)]), j, d), {"queries_read_like_questions"}),
        (lambda q, j, d: (q.assign(split="val"), j, d), {"split_is_known"}),
    ],
)
def test_each_defect_of_queries_is_named(change, broken) -> None:
    assert failed(validate(query_table(*change(*_judged())), "queries", {})) == broken


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        (lambda j, q, d: (j, q, d), set()),
        (lambda j, q, d: (j, q, d.tail(15)), {"judged_documents_exist"}),
        (lambda j, q, d: (j, q.head(15), d), {"judged_queries_exist"}),
        (lambda j, q, d: (j.assign(query_id="q0", document_id="d0"), q, d), {"pair_is_unique"}),
        (lambda j, q, d: (j.assign(grade=0), q, d), {"some_grades_are_positive"}),
        (lambda j, q, d: (j.assign(grade=101), q, d), {"grades_are_in_range"}),
        (lambda j, q, d: (j.head(0), q, d), {"some_judgments", "some_grades_are_positive"}),
    ],
)
def test_each_defect_of_judgments_is_named(change, broken) -> None:
    queries, judgments, documents = _judged()
    table = judgment_table(*change(judgments, queries, documents))
    assert failed(validate(table, "judgments", {})) == broken


def test_labels_are_held_against_the_accepted_balance() -> None:
    queries, judgments, documents = _judged()
    half = judgment_table(judgments.assign(grade=[0, 1] * 10), queries, documents)
    accepted = facts(half)
    assert accepted["accepted_mean_relevant"] == 0.5
    assert failed(validate(half, "judgments", accepted)) == set()
    all_relevant = judgment_table(judgments, queries, documents)
    assert failed(validate(all_relevant, "judgments", accepted)) == {
        "grades_balanced_as_accepted",
        "grades_high_as_accepted",
    }


def test_a_suite_file_reads_as_it_is_written() -> None:
    for path in SUITES.glob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert suite_text(json.loads(text)) == text, path.name


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
