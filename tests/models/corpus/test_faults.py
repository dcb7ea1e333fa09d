"""Faults of what is read and of the disk: a clear error or a quarantined row, and nothing half-written."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models.corpus.chunking import load_tokenizer
from models.corpus.ingest import write_corpus
from models.corpus.quarantine import QuarantinedRow, export_rows, quarantined_rows
from models.corpus.sources import open_source
from models.errors import ArtifactError, SourceError
from models.retrieval.encoder import tokenizer_file
from models.settings import CorpusSettings, load_settings
from models.store.artifacts import Artifact, ArtifactStore

NOBODY = 65534
DOCUMENT = b'{"_id": "d%d", "text": "A pump number %d moves a liquid."}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good BEIR folder."""
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(b"".join(DOCUMENT % (n, n) for n in range(2000))))
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "What moves water?"}\n')
    (folder / "qrels" / "test.tsv").write_text("q1\td1\t1\n")
    return folder


def _read(folder: Path, store: Path) -> Artifact:
    settings = CorpusSettings(source="beir", path="x", max_decompressed_bytes=1_000_000)
    source = open_source(settings, folder)
    tokenizer = load_tokenizer(tokenizer_file(load_settings().encoder.model))
    return ArtifactStore(str(store), store / "cache").get_or_create(
        "corpus/quarantined_rows",
        code_version="1",
        inputs={"source": source.fingerprint()},
        settings={},
        build=lambda scratch: write_corpus(source, settings, tokenizer, scratch),
    )


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _cut(folder: Path) -> None:
    path = folder / "corpus.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-200])


def _damage(folder: Path) -> None:
    path = folder / "corpus.jsonl.gz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def _bomb(folder: Path) -> None:
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(b"x" * 50_000_000))


def _not_gzip(folder: Path) -> None:
    (folder / "corpus.jsonl.gz").write_bytes(b"plain")


def _no_queries(folder: Path) -> None:
    (folder / "queries.jsonl").unlink()
    (folder / "queries.jsonl").mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_cut, r"corpus\.jsonl\.gz cannot be read: Compressed file ended"),
        (_damage, r"corpus\.jsonl\.gz cannot be read: "),
        (_bomb, r"corpus\.jsonl\.gz expands to more than 1,000,000 bytes"),
        (_not_gzip, r"corpus\.jsonl\.gz cannot be read: Not a gzipped file"),
        (_no_queries, r"corpus\.path: no file queries\.jsonl"),
    ],
)
def test_a_file_that_cannot_be_read_to_its_end_is_named_and_nothing_is_written(
    folder: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(folder)
    with pytest.raises(SourceError, match=message) as caught:
        _read(folder, tmp_path / "store")
    assert caught.value.hint
    assert _files(tmp_path / "store") == []


def test_rows_in_another_encoding_are_quarantined_and_the_rest_is_read(folder: Path, tmp_path: Path) -> None:
    lines = [
        b'{"_id": "d1", "text": "A pump."}\n',
        '{"_id": "d2", "text": "Ein Kühler."}\n'.encode("latin-1"),
        '{"_id": "d3", "text": "x"}'.encode("utf-16"),
    ]
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(b"".join(lines)))
    rows = quarantined_rows(_read(folder, tmp_path / "store"))
    assert [(row.rule, row.position) for row in rows] == [
        ("encoding", "corpus.jsonl.gz:2"),
        ("encoding", "corpus.jsonl.gz:3"),
    ]


@pytest.fixture
def other_user(tmp_path: Path) -> Iterator[None]:
    """Another user than the owner of the files, where this one may do everything."""
    if os.geteuid() != 0:
        yield
        return
    for parent in [tmp_path, *tmp_path.parents][:-2]:
        parent.chmod(parent.stat().st_mode | 0o055)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("locked", ["corpus.jsonl.gz", "qrels", "qrels/test.tsv", ""])
def test_a_file_or_folder_that_may_not_be_read_is_named(
    folder: Path, locked: str, other_user: None, request: pytest.FixtureRequest
) -> None:
    owner = os.geteuid()
    os.seteuid(0) if owner == NOBODY else None
    path = folder / locked
    mode = path.stat().st_mode
    path.chmod(0)
    os.seteuid(owner)
    try:
        with pytest.raises(SourceError, match=r"cannot be read: .*Permission denied") as caught:
            open_source(CorpusSettings(source="beir", path="x"), folder).fingerprint()
        assert str(path) in caught.value.message
        assert "Let the user that RerankOps runs as read it" in caught.value.hint
    finally:
        os.seteuid(0) if owner == NOBODY else None
        path.chmod(mode)
        os.seteuid(owner)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small disk takes root; tests/models/test_corpus.py limits the size of files instead")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_named_leaves_nothing_half_written_and_is_got_over(folder: Path, small_disk: Path) -> None:
    words = "".join(f"{n * 7919 % 104729:x} " for n in range(200_000))
    lines = [json.dumps({"_id": f"d{n}", "text": words[n * 300 : n * 300 + 300]}) for n in range(2500)]
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    with pytest.raises(ArtifactError, match=r"cannot be written: .*No space left on device") as caught:
        _read(folder, small_disk / "store")
    assert "Free space on that disk" in caught.value.hint
    assert _files(small_disk) == []
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert not _read(folder, small_disk / "store").reused


def test_an_export_to_a_full_disk_leaves_what_was_there(small_disk: Path) -> None:
    rows = [QuarantinedRow("queries", "malformed", "not JSON", f"q.jsonl:{n}", "x" * 9000, "0" * 24) for n in range(99)]
    export_rows(rows[:2], small_disk / "rows.jsonl")
    before = (small_disk / "rows.jsonl").read_bytes()
    with pytest.raises(ArtifactError, match=r"rows\.jsonl cannot be written: .*No space left on device"):
        export_rows(rows, small_disk / "rows.jsonl")
    assert _files(small_disk) == [small_disk / "rows.jsonl"]
    assert (small_disk / "rows.jsonl").read_bytes() == before
