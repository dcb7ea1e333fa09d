from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from models.contracts.rows import Document, Judgment, Query, RejectedRow
from models.corpus.sources import open_source
from models.corpus.sources.beir import BeirSource
from models.errors import SourceError
from models.settings import CorpusSettings

HEADER = "query-id\tcorpus-id\tscore\n"
DATA = Path(os.environ.get("RERANKOPS_DATA") or Path(__file__).resolve().parents[5] / "shared" / "data")


def _write(
    folder: Path, corpus: list[Any], queries: list[Any], qrels: dict[str, str], *, gz: bool = False
) -> BeirSource:
    for name, rows in (("corpus.jsonl", corpus), ("queries.jsonl", queries)):
        text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
        if gz:
            (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (folder / name).write_text(text, encoding="utf-8")
    (folder / "qrels").mkdir()
    for split, text in qrels.items():
        (folder / "qrels" / f"{split}.tsv").write_text(text, encoding="utf-8")
    return BeirSource(folder)


def _rejected(rows: Any) -> list[tuple[str, str]]:
    return [(row.position, row.reason) for row in rows if isinstance(row, RejectedRow)]


@pytest.mark.parametrize("gz", [False, True])
def test_a_folder_is_read(tmp_path: Path, gz: bool) -> None:
    source = _write(
        tmp_path,
        [
            {"_id": "d1", "title": "T", "text": "One.", "metadata": {"year": 2020}},
            {"_id": 2, "text": "Two."},
            {"_id": "d3", "title": "Only a title", "text": ""},
        ],
        [{"_id": "q1", "text": "Who?"}, {"_id": "q2", "text": "What?"}, {"_id": "unjudged", "text": "Why?"}],
        {"train": HEADER + "q1\td1\t2\n", "test": HEADER + "q2\t2\t1\n\nq2\td3\t0\n"},
        gz=gz,
    )
    name = tmp_path.name
    assert list(source.documents()) == [
        Document("d1", "T", "One.", name),
        Document("2", "", "Two.", name),
        Document("d3", "", "Only a title", name),
    ]
    assert list(source.queries()) == [Query("q1", "Who?", "train"), Query("q2", "What?", "test")]
    assert list(source.judgments()) == [Judgment("q2", "2", 1), Judgment("q2", "d3", 0), Judgment("q1", "d1", 2)]
    assert list(source.documents()) == list(source.documents())


def test_a_query_judged_in_several_files_belongs_to_the_one_furthest_from_training(tmp_path: Path) -> None:
    queries = [{"_id": f"q{n}", "text": f"Question {n}?"} for n in range(3)]
    source = _write(
        tmp_path,
        [{"_id": "d", "text": "Text."}],
        queries,
        {
            "train": HEADER + "q0\td\t1\nq1\td\t1\nq2\td\t1\n",
            "dev": HEADER + "q0\td\t1\nq1\td\t1\n",
            "test": HEADER + "q0\td\t3\n",
        },
    )
    assert [(q.query_id, q.split) for q in source.queries() if isinstance(q, Query)] == [
        ("q0", "test"),
        ("q1", "dev"),
        ("q2", "train"),
    ]
    judgments = list(source.judgments())
    assert [j for j in judgments if isinstance(j, Judgment)] == [
        Judgment("q0", "d", 3),
        Judgment("q1", "d", 1),
        Judgment("q2", "d", 1),
    ]
    assert _rejected(judgments) == [
        ("qrels/dev.tsv:2", "leakage: query q0 is judged in test, which counts"),
        ("qrels/train.tsv:2", "leakage: query q0 is judged in test, which counts"),
        ("qrels/train.tsv:3", "leakage: query q1 is judged in dev, which counts"),
    ]


def test_bad_rows_are_rejected_with_reason_and_position(tmp_path: Path) -> None:
    source = _write(
        tmp_path,
        [
            {"_id": "d", "text": "Text."},
            "{not json",
            {"title": "no id", "text": "x"},
            {"_id": "e", "title": " ", "text": None},
            {"_id": "f", "text": ["a", "list"]},
            "[1, 2]",
            {"_id": True, "text": "x"},
        ],
        [{"_id": "q", "text": "Who?"}, {"_id": "r", "text": ""}, {"text": "Who?"}],
        {"test": HEADER + "q\td\t1\nq\td\tmuch\nq\td\nq\td\t1.5\n\td\t1\n"},
    )
    assert [index for index, _ in _rejected(source.documents())] == [f"corpus.jsonl:{n}" for n in range(2, 8)]
    reasons = [reason for _, reason in _rejected(source.documents())]
    assert reasons[0].startswith("not JSON")
    assert reasons[1:] == [
        "_id: missing",
        "neither title nor text",
        "text: not text",
        "a JSON object is expected, not list",
        "_id: neither text nor an integer",
    ]
    assert _rejected(source.queries()) == [("queries.jsonl:2", "text: missing"), ("queries.jsonl:3", "_id: missing")]
    assert _rejected(source.judgments()) == [
        ("qrels/test.tsv:3", "grade: not an integer"),
        ("qrels/test.tsv:4", "2 tab-separated fields instead of 3"),
        ("qrels/test.tsv:5", "grade: not an integer"),
        ("qrels/test.tsv:6", "query_id: missing"),
    ]
    assert sum(isinstance(row, Document) for row in source.documents()) == 1


@pytest.mark.parametrize("first", ["q\td\t1\n", "q\td\tmuch\n", "q\td\n", "query-id\n"])
def test_qrels_without_a_header_lose_no_row(tmp_path: Path, first: str) -> None:
    source = _write(tmp_path, [{"_id": "d", "text": "x"}], [{"_id": "q", "text": "y?"}], {"test": first + "q\td\t2\n"})
    assert len(list(source.judgments())) == 2
    assert list(source.judgments())[1] == Judgment("q", "d", 2)


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    source = _write(tmp_path, [{"_id": "d", "text": "x"}], [{"_id": "q", "text": "y?"}], {"test": HEADER + "q\td\t1\n"})
    before = source.fingerprint()
    assert BeirSource(tmp_path).fingerprint() == before
    (tmp_path / "qrels" / "test.tsv").write_text(HEADER + "q\td\t2\n")
    assert BeirSource(tmp_path).fingerprint() != before


def test_missing_parts_are_named(tmp_path: Path) -> None:
    settings = CorpusSettings(source="beir", path="x")
    with pytest.raises(SourceError, match=r"corpus\.path: no folder at .*nowhere"):
        open_source(settings, tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"corpus\.path: no file corpus\.jsonl or corpus\.jsonl\.gz"):
        open_source(settings, tmp_path)
    (tmp_path / "corpus.jsonl").touch()
    (tmp_path / "queries.jsonl").touch()
    with pytest.raises(SourceError, match=r"no qrels/train\.tsv"):
        open_source(settings, tmp_path)


@pytest.mark.skipif(not (DATA / "squad-v1.1-dev").is_dir(), reason="needs the SQuAD folder below RERANKOPS_DATA")
def test_squad_is_read_whole() -> None:
    source = BeirSource(DATA / "squad-v1.1-dev")
    documents = {row.document_id for row in source.documents() if isinstance(row, Document)}
    queries = {row.query_id: row.split for row in source.queries() if isinstance(row, Query)}
    judgments = [row for row in source.judgments() if isinstance(row, Judgment)]
    assert (len(documents), len(queries), len(judgments)) == (2067, 10570, 10570)
    assert [list(queries.values()).count(split) for split in ("train", "dev", "test")] == [6437, 1279, 2854]
    assert {row.document_id for row in judgments} <= documents
    assert {row.query_id for row in judgments} == queries.keys()
    articles = {split: set() for split in ("train", "dev", "test")}
    for row in judgments:
        articles[queries[row.query_id]].add(row.document_id.rpartition("_")[0])
    assert not articles["train"] & articles["test"]


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv", "qrels"])
def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path, name: str) -> None:
    """Else whoever may put a link there has any file read, and its lines kept in quarantine."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    _write(folder, [{"_id": "d", "text": "t"}], [{"_id": "q", "text": "t"}], {"test": HEADER + "q\td\t1\n"})
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match=f"{name.partition('.')[0]}.* leads out of {folder}"):
        BeirSource(folder)
    (tmp_path / "elsewhere").rename(folder / "within")
    (folder / name).unlink()
    (folder / name).symlink_to("within" if "/" not in name else "../within")
    (tmp_path / "alias").symlink_to(folder)
    assert len(list(BeirSource(tmp_path / "alias").documents())) == 1
