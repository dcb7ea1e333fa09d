"""TREC run files in and out, held against pytrec_eval's reading of them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import pytrec_eval

from models.errors import SourceError
from models.measures.metrics import collapse_to_documents, evaluate_run
from models.measures.trec_runs import export_trec_run, export_trec_runs, read_trec_run

QUERIES = ["q1", "q 2", "q3"]
DOCUMENTS = {"a", "b", "c d", "e%20f"}
JUDGMENTS = pd.DataFrame(
    [("q1", "a", 2), ("q1", "b", 1), ("q 2", "c d", 1), ("q3", "e%20f", 1)],
    columns=["query_id", "document_id", "grade"],
)
LINES = """\
q1 Q0 b 9 0.25 other
q1\tQ0\ta 7 1.5e-1 other

q1 Q0 nowhere 1 0.5 other
q%202 Q0 c%20d 1 -3 other
q3 Q0 e%20f 1 1 other
q9 Q0 a 1 1 other
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "other.run"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_run_is_ordered_by_its_scores_whatever_ranks_it_states(tmp_path: Path) -> None:
    run = read_trec_run(write(tmp_path, LINES), QUERIES, DOCUMENTS)
    assert (run.name, run.lines, run.other_queries, run.unknown_documents) == ("other", 6, 1, 1)
    of_first = run.ranking[run.ranking["query_id"] == "q1"]
    assert of_first["document_id"].tolist() == ["nowhere", "b", "a"]
    assert of_first["rank"].tolist() == [1, 2, 3]
    assert set(run.ranking["document_id"]) == {"nowhere", "b", "a", "c d", "e%20f"}
    assert read_trec_run(write(tmp_path, LINES), QUERIES, DOCUMENTS, "mine").name == "mine"


def test_what_was_exported_is_read_as_it_was(tmp_path: Path) -> None:
    ranking = read_trec_run(write(tmp_path, LINES), QUERIES, DOCUMENTS).ranking
    paths = export_trec_runs({"one/two": ranking}, tmp_path / "runs")
    again = read_trec_run(paths[0], QUERIES, DOCUMENTS)
    assert (again.name, again.unknown_documents) == ("one/two", 1)
    columns = ["query_id", "document_id", "rank"]
    pd.testing.assert_frame_equal(again.ranking[columns], ranking[columns])


def test_pytrec_eval_measures_the_exported_file_as_we_do(tmp_path: Path) -> None:
    ranking = read_trec_run(write(tmp_path, LINES), QUERIES, DOCUMENTS).ranking
    path = tmp_path / "out.run"
    export_trec_run(ranking, path, "a tag")
    with path.open() as file:
        theirs = pytrec_eval.parse_run(file)
    encoded = {
        str(query_id).replace(" ", "%20"): {
            document_id.replace(" ", "%20"): int(grade)
            for document_id, grade in zip(rows["document_id"], rows["grade"], strict=True)
        }
        for query_id, rows in JUDGMENTS.groupby("query_id")
    }
    result = pytrec_eval.RelevanceEvaluator(encoded, {"ndcg_cut.10"}).evaluate(theirs)
    ours = evaluate_run(collapse_to_documents(ranking), JUDGMENTS, ["nDCG@10"])
    for query_id, value in zip(ours["query_id"], ours["value"], strict=True):
        assert result[query_id.replace(" ", "%20")]["ndcg_cut_10"] == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("q1 Q0 a 1 1 x\nq1 Q0 b 2 0.5\n", r"other\.run:2: 5 fields instead of 6"),
        ("q1 Q0 a 1 high x\n", r"other\.run:1: the score 'high' is not a number"),
        ("q1 Q0 a 1 nan x\n", r"other\.run:1: the score 'nan' is not a number"),
        ("q1 Q0 a 1 2 x\n\nq1 Q0 a 2 1 x\n", r"other\.run:3: document a of query q1 stands in line 1 already"),
        ("q7 Q0 a 1 2 x\n", r"none of its 1 lines is about one of the 3 evaluated queries"),
        ("", r"none of its 0 lines"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(SourceError, match=problem):
        read_trec_run(write(tmp_path, text), QUERIES, DOCUMENTS)


def test_a_file_that_is_no_text_or_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "bytes.run").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "bytes.run", tmp_path / "none.run"):
        with pytest.raises(SourceError, match=f"{path.name} cannot be read as a run file"):
            read_trec_run(path, QUERIES, DOCUMENTS)
