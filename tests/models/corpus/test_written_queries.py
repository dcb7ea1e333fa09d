"""Queries that a language model writes: asked once, kept, and dropped where they do not find their document."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from models.contracts.tables import Judgments, Queries, check_table
from models.corpus.reading import read_source
from models.corpus.written_queries import clean
from models.errors import SourceError
from models.retrieval.encoder import tokenizer_file
from models.retrieval.round_trip import query_writing
from models.settings import Settings, load_settings
from models.store.artifacts import Artifact, ArtifactStore
from tests.chat_server import ChatServer, chat_server

DOCUMENTS = 24


def write_folder(folder: Path, judged: int = 0) -> None:
    """Notes about machines as JSONL, the first `judged` of them asked for in training queries."""
    rows = [
        {
            "document_id": f"d{n:02d}",
            "title": f"Machine{n}",
            "text": f"gear{n} of hall{n} turns wheel{n} every morning.",
        }
        for n in range(DOCUMENTS)
    ]
    queries = [{"query_id": f"q{n}", "text": f"Who turns wheel{n}?", "split": "train"} for n in range(judged)]
    judgments = [{"query_id": f"q{n}", "document_id": f"d{n:02d}", "grade": 1} for n in range(judged)]
    for name, table in (("documents", rows), ("queries", queries), ("judgments", judgments)):
        text = "".join(f"{json.dumps(row)}\n" for row in table)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def settings_of(folder: Path, url: str, *more: str) -> Settings:
    values = [
        "corpus.source=files",
        f"corpus.path={folder}",
        *(f"corpus.files.{name}={name}.jsonl" for name in ("documents", "queries", "judgments")),
        "training.pseudo_queries=on",
        'training.pseudo_kinds=["written"]',
        f"query_writer.url={url}",
        "query_writer.model=small",
        "query_writer.attempts=1",
        "query_writer.round_trip_rank=5",
    ]
    return load_settings([*values, *more], environ={})


def read(home: Path, settings: Settings, told: list[str] | None = None) -> dict[str, Artifact]:
    store = ArtifactStore(str(home / "store"), home / "cache")
    say = (lambda _: None) if told is None else told.append
    writing = query_writing(store, settings, say)
    return read_source(store, settings, tokenizer_file(settings.encoder.model), writing=writing)


def written(tables: dict[str, Artifact]) -> pd.DataFrame:
    queries = tables["queries"].read_table("queries.parquet")
    check_table(queries, Queries, "queries")
    judgments = tables["judgments"].read_table("judgments.parquet")
    check_table(judgments, Judgments, "judgments")
    return queries[queries["kind"] == "written"].merge(judgments, on="query_id")


def asked_about(server: ChatServer) -> list[str]:
    return [request["messages"][-1]["content"].rpartition("Passage: ")[2].split()[0] for request in server.requests]


def test_each_document_is_asked_about_once_and_what_retrieval_does_not_find_is_dropped(tmp_path: Path) -> None:
    write_folder(tmp_path)
    told: list[str] = []
    with chat_server(lost=("gear3 ", "gear7 ")) as server:
        settings = settings_of(tmp_path, server.url)
        rows = written(read(tmp_path, settings, told))
        assert sorted(asked_about(server)) == sorted(f"Machine{n}" for n in range(DOCUMENTS))
        assert set(rows["document_id"]) == {f"d{n:02d}" for n in range(DOCUMENTS)} - {"d03", "d07"}
        assert rows["text"].str.startswith("what about Machine").all()
        assert set(rows["split"]) == {"train", "dev", "test"} or len(set(rows["split"])) > 1
        assert any("24 queries written of 24 documents by small; retrieval brings 22" in line for line in told)

        # A second run, a change of the passages' cut, or another bound asks nothing again.
        read(tmp_path, settings)
        read(tmp_path, settings_of(tmp_path, server.url, "query_writer.round_trip_rank=0"))
        assert len(server.requests) == DOCUMENTS
        all_kept = written(read(tmp_path, settings_of(tmp_path, server.url, "query_writer.round_trip_rank=0")))
        assert len(all_kept) == DOCUMENTS - 2, "the same text for two documents is no query"
        read(tmp_path, settings_of(tmp_path, server.url, "query_writer.task=a complaint"))
        assert len(server.requests) == 2 * DOCUMENTS


def test_a_run_that_the_server_ended_goes_on_where_it_was(tmp_path: Path) -> None:
    write_folder(tmp_path)
    with chat_server() as server:
        one_by_one = settings_of(tmp_path, server.url, "query_writer.workers=1", "query_writer.documents=10")
        server.statuses = [200, 200, 200, 500]
        with pytest.raises(SourceError, match="Run again: what was written is kept"):
            read(tmp_path, one_by_one)
        before = len(server.requests)
        server.statuses = []
        assert len(written(read(tmp_path, one_by_one))) == 10
        asked = asked_about(server)
        assert set(asked[:3]).isdisjoint(asked[before:]), "what was answered is not asked again"
        assert len(set(asked)) == 10


def test_the_model_is_shown_judged_training_queries_alone(tmp_path: Path) -> None:
    write_folder(tmp_path, judged=4)
    with (tmp_path / "queries.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"query_id": "t", "text": "A secret of the test", "split": "test"}\n')
    with (tmp_path / "judgments.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"query_id": "t", "document_id": "d20", "grade": 1}\n')
    with chat_server() as server:
        tables = read(tmp_path, settings_of(tmp_path, server.url, "query_writer.examples=2"))
        prompts = [request["messages"][-1]["content"] for request in server.requests]
        assert all(prompt.count("Query: Who turns wheel") == 2 for prompt in prompts)
        assert all(prompt.endswith("\nQuery:") for prompt in prompts)
        assert not any("secret" in prompt for prompt in prompts)
        # Test stays with the judged query.
        queries = tables["queries"].read_table("queries.parquet")
        assert queries.loc[queries["split"] == "test", "kind"].tolist() == ["given"]


@pytest.mark.parametrize(
    ("answer", "query"),
    [
        ("how to oil the saw", "how to oil the saw"),
        ('\n  Query: "how to oil\tthe saw"\nAnd so on.', "how to oil the saw"),
        ("「水の出し方」", "「水の出し方」"),
        ("Note: oil", "Note: oil"),
        ("", ""),
        ("?!\n...", ""),
        ("x" * 301, ""),
    ],
)
def test_a_query_is_the_first_line_that_is_one(answer: str, query: str) -> None:
    assert clean(answer) == query
