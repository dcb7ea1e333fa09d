"""Looks at corpus sources that change, rest, change back and go away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from models.corpus.source_changes import Look, Seen, look
from models.corpus.sources import open_source
from models.errors import SourceError
from models.settings import CorpusSettings

BEIR = CorpusSettings(source="beir")


class Watcher:
    """Looks one after the other, keeping what was seen as the sensor does: as text."""

    def __init__(self, settings: CorpusSettings, folder: Path, read_from: str) -> None:
        self.settings, self.folder, self.read_from = settings, folder, read_from
        self.cursor: str | None = None

    def look(self) -> Look:
        result = look(self.settings, self.folder, self.read_from, Seen.from_json(self.cursor))
        self.cursor = result.seen.to_json()
        return result

    def changes(self, looks: int = 3) -> int:
        """How many of the next looks tell a change."""
        return sum(self.look().changed for _ in range(looks))


def write(folder: Path, text: str) -> None:
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    (folder / "corpus.jsonl").write_text(f'{{"_id": "d", "title": "t", "text": "{text}"}}\n')
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "how?"}\n')
    (folder / "qrels" / "test.tsv").write_text("q\td\t1\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "data", "first")
    return tmp_path / "data"


@pytest.fixture
def watcher(folder: Path) -> Watcher:
    return Watcher(BEIR, folder, open_source(BEIR, folder).fingerprint())


def test_the_source_that_was_read_is_no_change(watcher: Watcher) -> None:
    assert watcher.changes() == 0
    assert "is the one that the corpus was read from" in watcher.look().message


def test_a_change_is_told_once_after_the_files_have_rested(watcher: Watcher, folder: Path) -> None:
    watcher.changes()
    write(folder, "second")
    result = watcher.look()
    assert not result.changed
    assert "waiting until they rest" in result.message
    write(folder, "second, and more")
    assert not watcher.look().changed, "it is still being written"
    result = watcher.look()
    assert result.changed
    assert result.seen.fingerprint == open_source(BEIR, folder).fingerprint() != watcher.read_from
    assert watcher.changes() == 0
    assert "requested already" in watcher.look().message


def test_content_is_read_only_when_files_have_changed(
    watcher: Watcher, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(
        "models.corpus.source_changes.open_source", lambda *given: opened.append("") or open_source(*given)
    )
    watcher.changes(10)
    assert len(opened) == 1
    os.utime(folder / "corpus.jsonl")
    assert watcher.changes(10) == 0, "the content is the same"
    assert len(opened) == 2


def test_a_change_of_the_same_size_and_time_is_seen(watcher: Watcher, folder: Path) -> None:
    watcher.changes()
    file = folder / "corpus.jsonl"
    before = file.stat()
    file.write_text(file.read_text().replace("first", "other"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert watcher.changes() == 1


def test_a_change_that_is_read_taken_back_and_made_again_is_told_each_time(watcher: Watcher, folder: Path) -> None:
    told: list[str] = []
    for text in ("second", "first", "second", "first"):
        write(folder, text)
        result = [watcher.look() for _ in range(2)][-1]
        assert result.changed
        told.append(f"{result.seen.changes}:{result.seen.fingerprint}")
        watcher.read_from = result.seen.fingerprint
        assert watcher.changes() == 0
    assert len(set(told)) == 4


def test_a_change_that_was_taken_back_before_it_was_read_is_told_when_it_comes_again(
    watcher: Watcher, folder: Path
) -> None:
    write(folder, "second")
    assert watcher.changes() == 1
    write(folder, "first")
    assert watcher.changes() == 0
    write(folder, "second")
    assert watcher.changes() == 1


def test_a_new_file_and_another_setting_are_looked_into(watcher: Watcher, folder: Path) -> None:
    watcher.changes()
    (folder / "qrels" / "train.tsv").write_text("q2\td\t1\n")
    assert watcher.changes() == 1
    seen = Seen.from_json(watcher.cursor)
    watcher.settings = BEIR.model_copy(update={"passage_tokens": 64})
    assert watcher.look().seen.files != seen.files
    assert watcher.changes() == 0, "the fingerprint is of the source, not of how it is cut"


def test_packages_are_asked_at_every_look(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = CorpusSettings.model_validate({"python_docs": {"packages": ["pluggy"]}})
    watcher = Watcher(settings, tmp_path, open_source(settings, tmp_path).fingerprint())
    assert watcher.changes() == 0
    watcher.settings = CorpusSettings.model_validate({"python_docs": {"packages": ["iniconfig"]}})
    assert watcher.changes() == 1


def test_a_source_that_is_gone_is_an_error(watcher: Watcher, folder: Path) -> None:
    watcher.changes()
    folder.rename(folder.with_name("elsewhere"))
    watcher.look()
    with pytest.raises(SourceError, match="no folder at"):
        watcher.look()


@pytest.mark.parametrize("cursor", [None, "", "an old cursor", "{}", '{"unknown": 1}', "[]"])
def test_an_unreadable_cursor_starts_anew(cursor: str | None) -> None:
    assert Seen.from_json(cursor) == Seen()
