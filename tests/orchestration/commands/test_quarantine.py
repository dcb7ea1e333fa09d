"""`rerankops quarantine` as a process, over a reading of a small folder."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from models.corpus.chunking import load_tokenizer
from models.corpus.ingest import write_corpus
from models.corpus.sources import open_source
from models.retrieval.encoder import tokenizer_file
from models.settings import CorpusSettings, load_settings
from models.store.artifacts import ArtifactStore
from tests.commands import clean_environment, run_command


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home whose current quarantine has a document without text and a line that is no JSON."""
    folder, home = tmp_path / "beir", tmp_path / "home"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "d1", "text": "A pump."}\n{"_id": "d2", "text": ""}\n{[bold]\n')
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "What moves water?"}\n')
    (folder / "qrels" / "test.tsv").write_text("q1\td1\t1\n")
    settings = CorpusSettings(source="beir", path="x")
    source = open_source(settings, folder)
    store = ArtifactStore(str(home / "artifacts"), home / "cache")
    tokenizer = load_tokenizer(tokenizer_file(load_settings().encoder.model))
    store.point(
        store.get_or_create(
            "corpus/quarantined_rows",
            code_version="1",
            inputs={"source": source.fingerprint()},
            settings={},
            build=lambda scratch: write_corpus(source, settings, tokenizer, scratch),
        )
    )
    ours = {"RERANKOPS_HOME": str(home), "RERANKOPS_CORPUS__SOURCE": "beir", "RERANKOPS_CORPUS__PATH": str(folder)}
    return clean_environment(**ours)


def _quarantine(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command("quarantine", *arguments, env=environment)


def _told(environment: dict[str, str], *arguments: str) -> Any:
    done = _quarantine(environment, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_rows_are_listed_exported_corrected_and_the_correction_withdrawn(
    environment: dict[str, str], tmp_path: Path
) -> None:
    listed = _told(environment, "list", "--table", "documents")
    assert [(row["rule"], row["position"]) for row in listed["first"]] == [
        ("missing", "corpus.jsonl:2"),
        ("malformed", "corpus.jsonl:3"),
    ]
    assert _told(environment, "list", "--reason", "malformed", "--limit", "0")["rows"] == 1
    shown = _quarantine(environment, "list").stdout
    assert "corpus.jsonl:3" in shown
    assert "2 rows" in " ".join(shown.split())

    path = tmp_path / "broken.jsonl"
    assert _told(environment, "export", str(path))["rows"] == 2
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["row"]["text"] = "A valve."
    path.write_text("\n".join(map(json.dumps, lines)))
    assert len(_told(environment, "readmit", str(path), "--dry-run")["accepted"]) == 1
    assert _told(environment, "corrections") == []
    [built] = _told(environment, "readmit", str(path), "--note", "typed again")["accepted"]
    [correction] = _told(environment, "corrections")
    assert (correction["correction_id"], correction["state"]) == (built["correction_id"], "unread")
    assert built["correction_id"] in _quarantine(environment, "corrections").stdout

    _told(environment, "withdraw", built["correction_id"])
    assert _told(environment, "corrections") == []
    assert [item["state"] for item in _told(environment, "corrections", "--all")] == ["withdrawn"]


def test_bad_rows_are_named_and_nothing_is_kept(environment: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "broken.jsonl"
    _quarantine(environment, "export", str(path))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["row"]["text"] = 7
    path.write_text("\n".join(map(json.dumps, lines)))
    done = _quarantine(environment, "readmit", str(path))
    assert done.returncode == 1
    assert "broken.jsonl:1: documents row of corpus.jsonl:2: text: not text" in done.stderr
    assert "Traceback" not in done.stderr
    assert "--table passages: there is no such table" in _quarantine(environment, "list", "--table", "passages").stderr
