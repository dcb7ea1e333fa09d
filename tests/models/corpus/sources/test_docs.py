"""Every example of docs/sources.md, read as it stands there."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.corpus.sources import SOURCES, open_source
from models.settings import CorpusSettings, load_settings
from tests.corpus_tables import read_corpus
from tests.models.corpus.test_ingest import _tokenizer as tokenizer

TEXT = (Path(__file__).resolve().parents[4] / "docs" / "sources.md").read_text()
SECTIONS = {
    name: text for name, text in re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", TEXT, re.S | re.M) if name in SOURCES
}


@pytest.fixture
def _scifact(tmp_path: Path) -> Iterator[None]:
    """The names of the example stand for a small set of the same form: nothing can be fetched here."""
    import ir_datasets

    built = {}
    for query, name in (("q0", "beir/scifact"), ("q1", "beir/scifact/train"), ("q2", "beir/scifact/test")):
        files = {"docs": "d1\tA pump.\n", "queries": f"{query}\tWhat is {query}?\n", "qrels": f"{query} 0 d1 1\n"}
        for part, content in files.items():
            (tmp_path / f"{query}.{part}").write_text(content)
        built[name] = ir_datasets.create_dataset(*(str(tmp_path / f"{query}.{part}") for part in files))
    known = ir_datasets.registry._registered
    kept = {name: known[name] for name in built}
    known |= built
    yield
    known |= kept


def test_every_source_has_a_section() -> None:
    assert list(SECTIONS) == list(SOURCES)


@pytest.mark.parametrize("name", SECTIONS)
@pytest.mark.usefixtures("_scifact")
def test_the_example_is_read(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import config

    monkeypatch.setattr(config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    blocks = re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```$", SECTIONS[name], re.S | re.M)
    [toml] = [content for kind, _, content in blocks if kind == "toml"]
    for kind, file, content in blocks:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "sql":
            with sqlite3.connect(path) as connection:
                connection.executescript(content)
            connection.close()
        elif file:
            path.write_text(content)
    (tmp_path / "mine.toml").write_text(toml)
    monkeypatch.setenv("RERANKOPS_SETTINGS", str(tmp_path / "mine.toml"))
    settings = load_settings()
    tables = read_corpus(open_source(settings.corpus, settings.corpus_path), settings.corpus, tokenizer())
    assert tables.quarantined_rows.empty
    assert len(tables.passages) >= 1
    assert len(tables.queries) >= 1
    assert (tables.judgments["grade"] > 0).any()


def test_what_the_examples_state_of_access_and_time_is_what_is_read(tmp_path: Path) -> None:
    handbook = tmp_path / "handbook"
    handbook.mkdir()
    [front] = re.findall(r"^```markdown \S+\n(.*?)^```$", SECTIONS["folder"], re.S | re.M)
    (handbook / "pumps.md").write_text(front)
    (handbook / "public.md").write_text("---\naccess: []\n---\ntext")
    (handbook / "staff.txt").write_text("text")
    settings = CorpusSettings.model_validate({"source": "folder", "path": "x", "folder": {"access": ["staff"]}})
    rows = read_corpus(open_source(settings, handbook), settings, tokenizer()).passages.set_index("document_id")
    assert rows["access"].to_dict() == {"pumps.md": ["staff", "partners"], "public.md": [], "staff.txt": ["staff"]}
    assert rows.loc["pumps.md", "updated_at"] == "2024-05-01T00:00:00+00:00"
