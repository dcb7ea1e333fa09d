"""Manual pages as a corpus."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from models.contracts.rows import Document, RejectedRow
from models.corpus.sources import describe_source, open_source
from models.corpus.sources.man_pages import ManPagesSource
from models.errors import SourceError
from models.settings import CorpusSettings, ManPagesSettings

BODY = "This text says how it is done, at a length that makes it worth finding: more than eighty characters of it."


def write(folder: Path, name: str, summary: str, body: str = BODY) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    page = f".TH {path.stem} 1\n.SH NAME\n{path.stem} \\- {summary}\n.SH TEXT\n{body}\n".encode()
    path.write_bytes(gzip.compress(page) if path.suffix == ".gz" else page)
    return path


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    write(tmp_path, "man1/ls.1.gz", "list what a folder has")
    write(tmp_path, "man1/dir.1", "list what a folder has", BODY + " In another way.")
    write(tmp_path, "man8/short.8", "say nearly nothing here", "Short.")
    write(tmp_path, "de/man1/ls.1.gz", "den Inhalt eines Ordners auflisten", BODY + " Deutsch.")
    write(tmp_path, "zh_CN/man1/ls.1", "列出目录内容", BODY + " 中文")
    write(tmp_path, "zh_CN/cat1/ls.1", "列出目录内容", BODY)
    (tmp_path / "de/man1/list.1.gz").symlink_to("ls.1.gz")
    return tmp_path


def source(folder: Path, **values: Any) -> ManPagesSource:
    return ManPagesSource(folder, ManPagesSettings(folder=str(folder), **values))


def ids(corpus: ManPagesSource) -> list[str]:
    return [row.document_id for row in corpus.documents() if isinstance(row, Document)]


def test_pages_become_documents_queries_and_judgments(pages: Path) -> None:
    corpus = source(pages)
    documents = {row.document_id: row for row in corpus.documents() if isinstance(row, Document)}
    assert list(documents) == ["de/man1/ls.1", "en/man1/dir.1", "en/man1/ls.1", "zh_CN/man1/ls.1"]
    assert documents["de/man1/ls.1"].title == "ls.1(1)"
    assert documents["de/man1/ls.1"].source == "de"
    assert documents["de/man1/ls.1"].text == f"TEXT\n{BODY} Deutsch."
    queries = {query.text: query for query in corpus.queries()}
    assert list(queries) == ["den Inhalt eines Ordners auflisten", "list what a folder has", "列出目录内容"]
    assert {query.group for query in queries.values()} == {"man1/ls.1", "man1/dir.1"}
    judged = [judgment.document_id for judgment in corpus.judgments()]
    assert judged == ["de/man1/ls.1", "en/man1/dir.1", "en/man1/ls.1", "zh_CN/man1/ls.1"]


def test_languages_are_chosen_and_the_sample_is_stable(pages: Path) -> None:
    assert ids(source(pages, languages=["de"])) == ["de/man1/ls.1"]
    two = ids(source(pages, max_documents=2))
    assert len(two) == 2
    assert set(two) <= set(ids(source(pages)))
    with pytest.raises(SourceError, match=r"corpus\.man_pages\.languages: no pages in fr") as raised:
        list(source(pages, languages=["fr"]).documents())
    assert "de, en, zh_CN" in str(raised.value.hint)


def test_the_fingerprint_follows_what_pages_hold(pages: Path) -> None:
    before = source(pages).fingerprint()
    assert source(pages).fingerprint() == before
    assert source(pages, languages=["de"]).fingerprint() != before
    write(pages, "man1/dir.1", "list what a folder has", BODY + " Changed.")
    assert source(pages).fingerprint() != before


def test_a_damaged_file_costs_itself_and_none_at_all_is_an_error(pages: Path, tmp_path: Path) -> None:
    damaged = pages / "de/man1/bad.1.gz"
    damaged.write_bytes(gzip.compress(b"x" * 1000)[:-6])
    [row] = [row for row in source(pages).documents() if isinstance(row, RejectedRow)]
    assert (row.table, row.position, row.rule) == ("documents", "de/man1/bad.1", "unreadable")
    (tmp_path / "none").mkdir()
    with pytest.raises(SourceError, match="no manual page"):
        list(source(tmp_path / "none").documents())
    with pytest.raises(SourceError, match=r"corpus\.man_pages\.folder"):
        source(tmp_path / "nowhere")


def test_it_is_a_kind_of_source(pages: Path) -> None:
    settings = CorpusSettings(source="man-pages", man_pages=ManPagesSettings(folder=".", languages=["de"]))
    assert len(list(open_source(settings, pages).documents())) == 1
    assert describe_source(settings, pages).startswith(f"man-pages {pages}")


def test_pages_behind_a_link_out_of_the_folder_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "man"
    write(folder, "man1/ls.1", "list what a folder has")
    write(tmp_path / "outside", "man1/secret.1", "say what nobody may read")
    (folder / "man8").symlink_to(tmp_path / "outside" / "man1")
    (folder / "de").symlink_to(tmp_path / "outside")
    write(folder, "fr/man1/ls.1", "montrer ce que contient un dossier")
    (folder / "fr/man8").symlink_to(tmp_path / "outside" / "man1")
    (folder / "fr_CA").symlink_to("fr")
    assert ids(source(folder)) == ["en/man1/ls.1", "fr/man1/ls.1", "fr_CA/man1/ls.1"]
