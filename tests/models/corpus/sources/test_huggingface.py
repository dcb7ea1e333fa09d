"""Against data sets saved and laid out in local folders, with the real library: nothing is fetched."""

from __future__ import annotations

import importlib.util
import json
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.contracts.rows import Document, Judgment, Query, RejectedRow
from models.corpus.sources import open_source
from models.corpus.sources.huggingface import HuggingFaceSource
from models.errors import SourceError
from models.settings import CorpusSettings, HuggingFaceSettings, HuggingFaceTable

pytestmark = pytest.mark.heavy

DOCUMENTS = [{"_id": "d1", "title": "T", "text": "One."}, {"_id": "d2", "title": None, "text": "Two."}]
QUERIES = [{"_id": "q1", "text": "Who?"}, {"_id": "q2", "text": "What?"}, {"_id": "q9", "text": "Why?"}]
TRAIN = [{"query-id": "q1", "corpus-id": "d1", "score": 1}, {"query-id": "q2", "corpus-id": "d1", "score": 1}]
TEST = [{"query-id": "q2", "corpus-id": "d2", "score": 2}]
COLUMNS = {
    "documents.document_id": "_id",
    "queries.query_id": "_id",
    "judgments.query_id": "query-id",
    "judgments.document_id": "corpus-id",
    "grade": "score",
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import config

    monkeypatch.setattr(config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(config, "HF_HUB_OFFLINE", True)


def _save(folder: Path, kind: str) -> None:
    """The three tables in a way that `datasets` knows: saved by itself, or as data files of a kind."""
    from datasets import Dataset, DatasetDict

    if kind == "saved":
        Dataset.from_list(DOCUMENTS).save_to_disk(folder / "corpus")
        DatasetDict({"train": Dataset.from_list(QUERIES)}).save_to_disk(folder / "queries")
        splits: Any = {"train": Dataset.from_list(TRAIN), "held": Dataset.from_list(TEST)}
        DatasetDict(splits).save_to_disk(folder / "qrels")
        return
    for name, rows in {
        "corpus/train": DOCUMENTS,
        "queries/train": QUERIES,
        "qrels/train": TRAIN,
        "qrels/test": TEST,
    }.items():
        path = folder / f"{name}.{kind}"
        path.parent.mkdir(exist_ok=True)
        if kind == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            pq.write_table(pa.Table.from_pylist(rows), path)


def _source(folder: Path, **changes: Any) -> HuggingFaceSource:
    values: dict[str, Any] = {
        "documents": HuggingFaceTable(path="corpus"),
        "queries": HuggingFaceTable(path="queries"),
        "judgments": HuggingFaceTable(path="qrels"),
        "columns": COLUMNS,
    }
    return HuggingFaceSource(HuggingFaceSettings(**values | changes), folder)


@pytest.mark.parametrize("kind", ["saved", "jsonl", "parquet"])
def test_tables_are_read_and_split_by_their_judgments(tmp_path: Path, kind: str) -> None:
    _save(tmp_path, kind)
    source = _source(tmp_path, judgment_splits={"train": "train", "test": "held" if kind == "saved" else "test"})
    assert list(source.documents()) == [Document("d1", "T", "One.", "corpus"), Document("d2", "", "Two.", "corpus")]
    assert list(source.queries()) == [Query("q1", "Who?", "train"), Query("q2", "What?", "test")]
    judgments = list(source.judgments())
    assert [row for row in judgments if isinstance(row, Judgment)] == [Judgment("q2", "d2", 2), Judgment("q1", "d1", 1)]
    position = "qrels/train.jsonl:2" if kind == "jsonl" else "qrels/train:2"
    assert [row.position for row in judgments if isinstance(row, RejectedRow)] == [position]
    assert list(source.documents()) == list(source.documents())


def test_without_judgment_splits_rerankops_splits_all_queries(tmp_path: Path) -> None:
    _save(tmp_path, "jsonl")
    source = _source(tmp_path)
    assert list(source.queries()) == [Query("q1", "Who?"), Query("q2", "What?"), Query("q9", "Why?")]
    assert list(source.judgments()) == [Judgment("q1", "d1", 1), Judgment("q2", "d1", 1)]
    alone = _source(tmp_path, queries=HuggingFaceTable(), judgments=HuggingFaceTable())
    assert not list(alone.queries())
    assert not list(alone.judgments())


def test_bad_rows_are_rejected_with_their_place(tmp_path: Path) -> None:
    _save(tmp_path, "jsonl")
    rows = [{"_id": "a", "text": "x"}, {"_id": None, "text": "x"}, {"_id": "b", "text": " "}]
    (tmp_path / "corpus" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    good, *bad = _source(tmp_path).documents()
    assert good == Document("a", "", "x", "corpus")
    assert [(row.position, row.reason) for row in bad if isinstance(row, RejectedRow)] == [
        ("corpus/train.jsonl:2", "document_id: missing"),
        ("corpus/train.jsonl:3", "text: missing"),
    ]


def test_text_that_is_not_utf8_costs_its_row(tmp_path: Path) -> None:
    _save(tmp_path, "parquet")
    raw = pa.array([b"caf\xe9", b"good"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    pq.write_table(pa.table({"_id": ["a", "b"], "text": text}), tmp_path / "corpus" / "train.parquet")
    bad, good = _source(tmp_path).documents()
    assert good == Document("b", "", "good", "corpus")
    assert isinstance(bad, RejectedRow)
    assert (bad.position, bad.reason) == ("corpus:1", "text: not UTF-8")


@pytest.mark.parametrize("content", [b"{not json", b'{"_id": ', b"\xff\xfe\x00", b"[" * 50_000])
def test_a_line_of_a_folder_that_cannot_be_parsed_costs_itself(tmp_path: Path, content: bytes) -> None:
    _save(tmp_path, "jsonl")
    (tmp_path / "corpus" / "train.jsonl").write_bytes(content + b'\n{"_id": "a", "text": "x"}\n')
    bad, good = _source(tmp_path).documents()
    assert good == Document("a", "", "x", "corpus")
    assert isinstance(bad, RejectedRow)
    assert bad.position == "corpus/train.jsonl:1"


@pytest.mark.parametrize("content", [b"{not json", b"PAR1 and more", b""])
def test_what_the_library_cannot_read_is_a_source_error(tmp_path: Path, content: bytes) -> None:
    _save(tmp_path, "parquet")
    (tmp_path / "corpus" / "train.parquet").write_bytes(content)
    with pytest.raises(SourceError, match=r"corpus\.huggingface\.documents: corpus cannot be read"):
        list(_source(tmp_path).documents())


def test_a_saved_set_whose_offsets_are_damaged_is_a_source_error(tmp_path: Path) -> None:
    """Arrow maps the file into memory and believes it: reading such a text ended the process."""
    _save(tmp_path, "saved")
    path = tmp_path / "corpus" / "data-00000-of-00001.arrow"
    sound, damaged = (struct.pack("<3i", 0, len("One."), end) for end in (len("One.Two."), 1 << 30))
    data = path.read_bytes()
    assert data.count(sound) == 1
    path.write_bytes(data.replace(sound, damaged))
    with pytest.raises(SourceError, match=r"documents: corpus cannot be read: ArrowInvalid"):
        list(_source(tmp_path).documents())


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    _save(tmp_path, "saved")
    with pytest.raises(SourceError, match=r"corpus\.huggingface\.documents\.path is empty"):
        open_source(CorpusSettings(source="huggingface"), tmp_path)
    with pytest.raises(
        SourceError, match=r"documents: BeIR/scifact is no folder below .*, and on the Hub it needs a commit"
    ):
        _source(tmp_path, documents=HuggingFaceTable(path="BeIR/scifact", revision="main"))
    with pytest.raises(SourceError, match="'tset' is none of ours"):
        _source(tmp_path, judgment_splits={"tset": "test"})
    with pytest.raises(SourceError, match=r"corpus\.huggingface\.columns: 'id' is none of our columns"):
        _source(tmp_path, columns={"id": "_id"})
    with pytest.raises(
        SourceError, match=r"corpus \(documents\) has no column 'document_id'; it has: _id, title, text"
    ):
        list(_source(tmp_path, columns={}).documents())
    with pytest.raises(SourceError, match=r"judgments\.split: qrels has no split 'dev'"):
        list(_source(tmp_path, judgment_splits={"dev": "dev"}).judgments())
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="empty cannot be read"):
        list(_source(tmp_path, documents=HuggingFaceTable(path="empty")).documents())


def test_a_set_of_the_hub_that_cannot_be_reached_is_a_source_error(tmp_path: Path) -> None:
    _save(tmp_path, "jsonl")
    source = _source(tmp_path, documents=HuggingFaceTable(path="BeIR/scifact", revision="0" * 40))
    assert len(source.fingerprint()) == 64
    with pytest.raises(SourceError, match="BeIR/scifact cannot be read: ") as error:
        list(source.documents())
    assert "without a network, point path at a folder" in error.value.hint


def test_fingerprint_follows_content_and_settings(tmp_path: Path) -> None:
    _save(tmp_path, "jsonl")
    first = _source(tmp_path).fingerprint()
    assert _source(tmp_path).fingerprint() == first
    assert _source(tmp_path, judgment_splits={"test": "test"}).fingerprint() != first
    (tmp_path / "qrels" / "test.jsonl").write_text(json.dumps(TEST[0] | {"score": 3}) + "\n")
    assert _source(tmp_path).fingerprint() != first


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SourceError, match="the huggingface extra is not installed"):
        _source(tmp_path)


@pytest.mark.parametrize("how", ["file", "card"])
def test_data_outside_of_the_folder_is_not_read(tmp_path: Path, how: str) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "data" / "corpus"
    outside.mkdir()
    folder.mkdir(parents=True)
    (outside / "train.jsonl").write_text(json.dumps({"document_id": "d", "text": "secret"}) + "\n")
    if how == "file":
        (folder / "train.jsonl").symlink_to(outside / "train.jsonl")
    else:
        names = (
            "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: ../../outside/train.jsonl\n"
        )
        (folder / "README.md").write_text(f"---\n{names}---\n")
    source = HuggingFaceSource(HuggingFaceSettings(documents=HuggingFaceTable(path="corpus")), folder.parent)
    with pytest.raises(SourceError, match=f"corpus.huggingface.documents.path: .* leads out of {folder}"):
        list(source.documents())
