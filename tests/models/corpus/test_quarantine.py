from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from models.corpus.chunking import load_tokenizer
from models.corpus.corrections import corrections_in_force, corrections_of, withdraw
from models.corpus.ingest import write_corpus
from models.corpus.quarantine import (
    QuarantinedRow,
    count_rows,
    export_rows,
    outcomes,
    quarantined_rows,
    readmit,
    select_rows,
)
from models.corpus.sources import open_source
from models.errors import ArtifactError, ContractError, RerankOpsError
from models.records.database import Database
from models.retrieval.encoder import tokenizer_file
from models.settings import CorpusSettings, load_settings
from models.store.artifacts import Artifact, ArtifactStore
from tests.databases import database, database_url, new_database_url, postgresql_server

__all__ = ["database", "database_url", "new_database_url", "postgresql_server"]

CORPUS = """\
{"_id": "d1", "title": "Pumps", "text": "A pump moves a liquid."}
{"_id": "d2", "text": ""}
{"_id": "d1", "text": "Another pump."}
{broken
"""
QUERIES = '{"_id": "q1", "text": "What moves water?"}\n{"_id": "q2", "text": 5}\n'
QRELS = "q1\td1\t1\nq2\td1\thigh\n"
SETTINGS = CorpusSettings(source="beir", path="x")


@dataclass
class Corpus:
    """A small BEIR folder with four broken rows, and its readings."""

    folder: Path
    store: ArtifactStore
    database: Database

    def read(self) -> Artifact:
        """The quarantine of a reading with the corrections in force."""
        corrections = corrections_in_force(self.database, "beir")
        source = open_source(SETTINGS, self.folder, corrections)
        tokenizer = load_tokenizer(tokenizer_file(load_settings().encoder.model))
        return self.store.get_or_create(
            "corpus/quarantined_rows",
            code_version="1",
            inputs={"source": source.fingerprint()},
            settings={},
            build=lambda folder: write_corpus(source, SETTINGS, tokenizer, folder, corrections=corrections),
        )

    def correct(self, artifact: Artifact, rows: dict[str, Any], **options: Any) -> Any:
        """Re-admit rows by their position."""
        path = self.folder.parent / "corrected.jsonl"
        result = {row.position: row.row_id for row in quarantined_rows(artifact)}
        lines = [json.dumps({"row_id": result[position], "row": row}) for position, row in rows.items()]
        path.write_text("\n".join(lines))
        return readmit(path, "beir", artifact, self.database, actor="ann", **options)


@pytest.fixture
def corpus(tmp_path: Path, database: Database) -> Corpus:
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(CORPUS)
    (folder / "queries.jsonl").write_text(QUERIES)
    (folder / "qrels" / "test.tsv").write_text(QRELS)
    return Corpus(folder, ArtifactStore(str(tmp_path / "store"), tmp_path / "cache"), database)


def test_rows_are_listed_with_rule_reason_and_place(corpus: Corpus) -> None:
    rows = quarantined_rows(corpus.read())
    assert [(row.table, row.rule, row.position) for row in rows] == [
        ("documents", "missing", "corpus.jsonl:2"),
        ("documents", "duplicate_id", "corpus.jsonl:3"),
        ("documents", "malformed", "corpus.jsonl:4"),
        ("queries", "wrong_type", "queries.jsonl:2"),
        ("judgments", "wrong_type", "qrels/test.tsv:2"),
    ]
    assert rows[0].values == {"_id": "d2", "text": ""}
    assert (rows[2].values, rows[2].row) == (None, "{broken")
    assert len({row.row_id for row in rows}) == 5
    assert [row.row_id for row in quarantined_rows(corpus.read())] == [row.row_id for row in rows]
    assert count_rows(rows)[0] == {"table": "documents", "rule": "duplicate_id", "rows": 1}
    assert [row.position for row in select_rows(rows, "wrong_type", "queries")] == ["queries.jsonl:2"]
    assert [row.position for row in select_rows(rows, "repeats d1")] == ["corpus.jsonl:3"]


def test_rows_are_exported_whole_or_not_at_all(corpus: Corpus, tmp_path: Path) -> None:
    rows = quarantined_rows(corpus.read())
    for suffix in ("jsonl", "csv", "parquet"):
        export_rows(rows, tmp_path / "out" / f"rows.{suffix}")
    lines = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    assert lines == [row.record() for row in rows]
    with (tmp_path / "out" / "rows.csv").open(newline="") as file:
        assert [row["row"] for row in csv.DictReader(file)] == [row.row for row in rows]
    assert list(pd.read_parquet(tmp_path / "out" / "rows.parquet")["digest"]) == [row.digest for row in rows]
    assert len(list((tmp_path / "out").iterdir())) == 3
    with pytest.raises(RerankOpsError, match=r"rows\.xlsx is of no known kind"):
        export_rows(rows, tmp_path / "rows.xlsx")
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="cannot be written"):
        export_rows(rows, tmp_path / "file" / "rows.csv")


def test_corrected_rows_are_read_by_the_next_reading_and_the_others_stay_in_quarantine(corpus: Corpus) -> None:
    first = corpus.read()
    done = corpus.correct(
        first,
        {
            "corpus.jsonl:2": {"_id": "d2", "text": "A valve stops a flow."},
            "corpus.jsonl:3": {"document_id": "d3", "text": "Another pump.", "source": "ours"},
            "corpus.jsonl:4": None,
            "queries.jsonl:2": {"_id": "q2", "text": "What stops a flow?"},
            "qrels/test.tsv:2": {"query_id": "q2", "document_id": "d2", "grade": 2},
        },
        note="typed again",
    )
    assert (len(done.accepted), done.unchanged, done.known) == (4, 1, 0)
    second = corpus.read()
    assert not second.reused
    assert [row.position for row in quarantined_rows(second)] == ["corpus.jsonl:4"]
    assert {result["state"] for result in outcomes(second).values()} == {"applied"}
    passages = second.read_table("passages.parquet")
    assert dict(zip(passages["document_id"], passages["text"], strict=True)) == {
        "d1": "A pump moves a liquid.",
        "d2": "A valve stops a flow.",
        "d3": "Another pump.",
    }
    judgments = second.read_table("judgments.parquet")
    assert judgments.to_numpy().tolist() == [["q1", "d1", 1], ["q2", "d2", 2]]
    assert list(second.read_table("queries.parquet")["split"]) == ["test", "test"]
    stored = corrections_of(corpus.database, "beir")[0]
    assert (stored.actor, stored.note, stored.position) == ("ann", "typed again", "corpus.jsonl:2")
    rows = {row.position: row for row in quarantined_rows(first)}
    assert stored.replaces == {
        "row_id": rows["corpus.jsonl:2"].row_id,
        "rule": "missing",
        "reason": "neither title nor text",
        "quarantine": first.data_version,
    }
    again = corpus.correct(first, {"corpus.jsonl:2": {"_id": "d2", "text": "A valve stops a flow."}})
    assert (again.accepted, again.known) == ((), 1)


def test_a_correction_lapses_with_the_row_that_it_is_of(corpus: Corpus) -> None:
    corpus.correct(corpus.read(), {"corpus.jsonl:2": {"_id": "d2", "text": "A valve."}})
    mended = CORPUS.replace('"d2", "text": ""', '"d2", "text": "A valve stops a flow."')
    (corpus.folder / "corpus.jsonl").write_text(mended)
    rows = corpus.read()
    assert "A valve stops a flow." in set(rows.read_table("passages.parquet")["text"])
    [outcome] = outcomes(rows).values()
    assert (outcome["state"], outcome["message"]) == ("lapsed", "corpus.jsonl:2 has another row now")


def test_a_correction_that_breaks_a_rule_in_its_turn_is_quarantined_and_can_be_corrected_again(corpus: Corpus) -> None:
    corpus.correct(corpus.read(), {"qrels/test.tsv:2": {"query_id": "q1", "document_id": "nowhere", "grade": 1}})
    second = corpus.read()
    [row] = [row for row in quarantined_rows(second) if row.table == "judgments"]
    assert (row.rule, row.position) == ("unknown_reference", "qrels/test.tsv:2")
    corpus.correct(second, {"qrels/test.tsv:2": {"query_id": "q1", "document_id": "d1", "grade": 0}})
    assert len(corrections_of(corpus.database, "beir")) == 1
    replaced, now = corrections_of(corpus.database, "beir", withdrawn=True)
    assert replaced.withdrawn_note == f"replaced by {now.correction_id}"
    assert replaced.digest == now.digest
    third = corpus.read()
    assert [row.rule for row in quarantined_rows(third) if row.table == "judgments"] == ["duplicate_id"]


def test_nothing_is_kept_of_a_file_with_one_bad_row_and_every_bad_one_is_named(corpus: Corpus, tmp_path: Path) -> None:
    artifact = corpus.read()
    rows = {row.position: row.row_id for row in quarantined_rows(artifact)}
    good = {"row_id": rows["corpus.jsonl:2"], "row": {"_id": "d2", "text": "A valve."}}
    bad = [
        {"row_id": "0" * 16, "row": {}},
        {"row_id": rows["corpus.jsonl:3"], "row": {"_id": "d\n3", "text": "x"}},
        {"row_id": rows["corpus.jsonl:4"], "row": "no object"},
        {"row_id": rows["queries.jsonl:2"], "row": {"_id": "q2", "text": " "}},
        {"row_id": rows["qrels/test.tsv:2"], "row": {"query_id": "q2", "document_id": "d1", "grade": 1000}},
        good,
    ]
    path = tmp_path / "corrected.jsonl"
    path.write_text("\n".join(["{no json", *map(json.dumps, [good, *bad])]))
    with pytest.raises(ContractError) as caught:
        readmit(path, "beir", artifact, corpus.database, actor="ann")
    message = caught.value.message
    assert "breaks the contracts in 7 lines; nothing was re-admitted" in message
    for line in (
        "corrected.jsonl:1: not JSON",
        "corrected.jsonl:3: row_id '0000000000000000' is in quarantine no more, or never was",
        "corrected.jsonl:4: documents row of corpus.jsonl:3: an id must have 1 to 500 characters",
        "corrected.jsonl:5: documents row of corpus.jsonl:4: row must be an object with the columns _id, title, text",
        "corrected.jsonl:6: queries row of queries.jsonl:2: text: missing",
        "corrected.jsonl:7: judgments row of qrels/test.tsv:2: grade 1000 is not in 0 to 100",
        "corrected.jsonl:8: a line above corrects the row of corpus.jsonl:2 too",
    ):
        assert line in message
    assert corrections_of(corpus.database, "beir") == []


def test_a_dry_run_keeps_nothing(corpus: Corpus) -> None:
    done = corpus.correct(corpus.read(), {"corpus.jsonl:2": {"_id": "d2", "text": "A valve."}}, dry_run=True)
    assert len(done.accepted) == 1
    assert corrections_of(corpus.database, "beir") == []


def test_a_withdrawn_correction_is_read_no_more_and_kept_for_the_record(corpus: Corpus) -> None:
    before = corpus.read()
    [built] = corpus.correct(before, {"corpus.jsonl:2": {"_id": "d2", "text": "A valve."}}).accepted
    with pytest.raises(RerankOpsError, match="no correction c-none is in force"):
        withdraw(corpus.database, [built.correction_id, "c-none"], actor="bob")
    assert len(corrections_of(corpus.database, "beir")) == 1
    withdraw(corpus.database, [built.correction_id], actor="bob", note="wrong text")
    after = corpus.read()
    assert after.reused
    assert after.data_version == before.data_version
    [kept] = corrections_of(corpus.database, "beir", withdrawn=True)
    assert (kept.withdrawn_by, kept.withdrawn_note, kept.row) == ("bob", "wrong text", built.row)
    corpus.correct(before, {"corpus.jsonl:2": {"_id": "d2", "text": "A valve."}})
    assert len(corrections_of(corpus.database, "beir", withdrawn=True)) == 2


@pytest.mark.parametrize(
    "change", ["UPDATE corrections SET row = '{}'", "UPDATE corrections SET actor = 'eve'", "DELETE FROM corrections"]
)
def test_the_record_of_corrections_cannot_be_changed(corpus: Corpus, change: str) -> None:
    corpus.correct(corpus.read(), {"corpus.jsonl:2": {"_id": "d2", "text": "A valve."}})
    with pytest.raises(IntegrityError, match="append-only"), corpus.database.session() as session:
        session.execute(text(change))


def test_a_source_without_raw_rows_has_nothing_to_correct(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(RerankOpsError, match="a python-docs source has no rows to correct"):
        readmit(tmp_path / "x.jsonl", "python-docs", corpus.read(), corpus.database, actor="ann")


@pytest.mark.parametrize(
    "text", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "\uff1d1", "|calc", "%0a=1"]
)
def test_no_cell_of_an_exported_table_is_a_formula(tmp_path: Path, text: str) -> None:
    row = QuarantinedRow("documents", "malformed", text, f"{text}.md:1", text, "0" * 24)
    export_rows([row], tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        (cells,) = csv.DictReader(file)
    assert [cells[name] for name in ("reason", "position", "row")] == [f"'{text}", f"'{text}.md:1", f"'{text}"]
    assert cells["digest"] == "0" * 24
    export_rows([row], tmp_path / "rows.jsonl")
    assert json.loads((tmp_path / "rows.jsonl").read_text(encoding="utf-8"))["text"] == text, "which is no table"
