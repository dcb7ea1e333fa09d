"""Against data sets that are registered here, with the library's own readers: nothing is fetched."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from models.contracts.rows import Document, Judgment, Query, RejectedRow
from models.corpus.sources import open_source
from models.corpus.sources.ir_datasets import IrDatasetsSource
from models.errors import SourceError
from models.settings import CorpusSettings, IrDatasetsSettings


class _TitledDoc(NamedTuple):
    doc_id: str
    title: str
    body: str

    def default_text(self) -> str:
        return f"{self.title} {self.body}"


def _register(name: str, folder: Path, **files: str) -> str:
    """A data set of TSV and TREC files, as a user of the library makes one."""
    import ir_datasets

    for part, content in files.items():
        (folder / f"{name}.{part}").write_text(content)
    paths = {part: str(folder / f"{name}.{part}") for part in files}
    ir_datasets.registry.register(
        name, ir_datasets.create_dataset(paths.get("docs"), paths.get("queries"), paths.get("qrels"))
    )
    return name


@pytest.fixture
def names(tmp_path: Path) -> Iterator[dict[str, str]]:
    import ir_datasets

    before = set(ir_datasets.registry)
    docs = "d1\tOne text.\nd2\tTwo texts.\n"
    yield {
        "docs": _register("rerankops-docs", tmp_path, docs=docs),
        "train": _register(
            "rerankops-train", tmp_path, queries="q1\tWho?\nq2\tWhat?\nq9\tWhy?\n", qrels="q1 0 d1 1\nq2 0 d1 1\n"
        ),
        "test": _register("rerankops-test", tmp_path, queries="q2\tWhat?\n", qrels="q2 0 d2 2\nq2 0 d1 -2\n"),
    }
    for name in set(ir_datasets.registry) - before:
        del ir_datasets.registry._registered[name]


def _source(**settings: Any) -> IrDatasetsSource:
    return IrDatasetsSource(IrDatasetsSettings(**settings))


def test_sets_of_splits_are_read(names: dict[str, str]) -> None:
    source = _source(documents=names["docs"], train=names["train"], test=names["test"])
    assert list(source.documents()) == [
        Document("d1", "", "One text.", "rerankops-docs"),
        Document("d2", "", "Two texts.", "rerankops-docs"),
    ]
    assert list(source.queries()) == [Query("q1", "Who?", "train"), Query("q2", "What?", "test")]
    judgments = list(source.judgments())
    assert [row for row in judgments if isinstance(row, Judgment)] == [
        Judgment("q2", "d2", 2),
        Judgment("q2", "d1", 0),
        Judgment("q1", "d1", 1),
    ]
    assert [(row.position, row.reason) for row in judgments if isinstance(row, RejectedRow)] == [
        ("rerankops-train judgments row 2", "leakage: query q2 is judged in test, which counts")
    ]
    assert list(source.documents()) == list(source.documents())


def test_one_set_is_split_by_rerankops(names: dict[str, str]) -> None:
    source = _source(documents=names["docs"], queries=names["train"])
    assert list(source.queries()) == [Query("q1", "Who?"), Query("q2", "What?")]
    assert list(source.judgments()) == [Judgment("q1", "d1", 1), Judgment("q2", "d1", 1)]


def test_documents_with_titles_and_without_a_field_text_are_read(names: dict[str, str]) -> None:
    import ir_datasets
    from ir_datasets.formats import BaseDocs

    class Docs(BaseDocs):
        def docs_iter(self) -> Iterator[_TitledDoc]:
            yield _TitledDoc("d1", "Head", "Body.")
            yield _TitledDoc("", "Head", "Body.")
            yield _TitledDoc("d3", "", "")

        def docs_cls(self) -> type:
            return _TitledDoc

    ir_datasets.registry.register("rerankops-titled", ir_datasets.Dataset(Docs()))
    first, second, third = _source(documents="rerankops-titled").documents()
    assert first == Document("d1", "Head", "Head Body.", "rerankops-titled")
    assert isinstance(second, RejectedRow)
    assert (second.position, second.reason) == ("rerankops-titled documents row 2", "doc_id: missing")
    assert isinstance(third, RejectedRow)
    assert third.reason == "text: missing"


def test_wrong_settings_are_named(names: dict[str, str]) -> None:
    with pytest.raises(SourceError, match=r"corpus\.ir_datasets\.documents is empty"):
        open_source(CorpusSettings(source="ir_datasets"), Path())
    with pytest.raises(SourceError, match=r"corpus\.ir_datasets\.documents: ir_datasets knows no 'klingon'"):
        _source(documents="klingon")
    with pytest.raises(SourceError, match=r"corpus\.ir_datasets\.documents: rerankops-train has no documents"):
        _source(documents=names["train"])
    with pytest.raises(SourceError, match=r"corpus\.ir_datasets\.dev: rerankops-docs has no queries"):
        _source(documents=names["docs"], dev=names["docs"])
    with pytest.raises(SourceError, match="queries and train are both set"):
        _source(documents=names["docs"], train=names["train"], queries=names["test"])


@pytest.mark.parametrize("docs", ["d1\tgood\nno tab\n", "d1\tgood\nd2\tcaf\xe9\n", None])
def test_what_the_library_cannot_read_is_a_source_error(
    tmp_path: Path, names: dict[str, str], docs: str | None
) -> None:
    source = _source(documents=names["docs"])
    file = tmp_path / "rerankops-docs.docs"
    if docs is None:
        file.unlink()
    else:
        file.write_bytes(docs.encode("latin-1"))
    with pytest.raises(SourceError, match="ir_datasets cannot read rerankops-docs") as error:
        list(source.documents())
    assert "IR_DATASETS_HOME" in error.value.hint


def test_fingerprint_follows_the_content_unless_it_is_published(tmp_path: Path, names: dict[str, str]) -> None:
    settings = {"documents": names["docs"], "queries": names["train"]}
    content, published = _source(**settings).fingerprint(), _source(**settings, published=True).fingerprint()
    (tmp_path / "rerankops-train.qrels").write_text("q1 0 d1 3\n")
    assert _source(**settings).fingerprint() != content
    assert _source(**settings, published=True).fingerprint() == published


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SourceError, match="the ir-datasets extra is not installed") as error:
        _source(documents="x")
    assert "rerankops[ir-datasets]" in error.value.hint
