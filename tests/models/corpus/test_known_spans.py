from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from models.contracts.rows import Document
from models.corpus.known_spans import DOCUMENTS_FILE, KnownSpans, Span, digest_table, text_digest
from models.store.tables import write_table


def write_folder(folder: Path, spans: dict[str, list[Span]]) -> Path:
    rows = [(name, *span) for name in sorted(spans) for span in spans[name]]
    write_table(pd.DataFrame(rows, columns=["document_id", "start", "end"]), folder / "passages.parquet")
    digests = ((name, text_digest(Document(name, "", f"text of {name}", ""))) for name in spans)
    write_table(digest_table(digests), folder / DOCUMENTS_FILE)
    return folder


SPANS: dict[str, list[Span]] = {"b": [(0, 4), (3, 9)], "a": [(0, 9)], "c": [(2, 5), (6, 7), (8, 9)]}


@pytest.mark.parametrize("name", SPANS)
def test_an_unchanged_text_has_the_spans_it_had(tmp_path: Path, name: str) -> None:
    known = KnownSpans(write_folder(tmp_path, SPANS))
    assert known.find(Document(name, "another title", f"text of {name}", "elsewhere")) == SPANS[name]


@pytest.mark.parametrize(("name", "text"), [("a", "text of b"), ("a", "text of a "), ("new", "text of a")])
def test_what_is_new_or_changed_has_none(tmp_path: Path, name: str, text: str) -> None:
    assert KnownSpans(write_folder(tmp_path, SPANS)).find(Document(name, "", text, "")) is None


def test_without_an_earlier_reading_nothing_is_known(tmp_path: Path) -> None:
    document = Document("a", "", "text of a", "")
    assert KnownSpans(None).find(document) is None
    empty = pd.DataFrame({"document_id": pd.Series([], dtype="str"), "start": [], "end": []})
    write_table(empty.astype({"start": "int64", "end": "int64"}), tmp_path / "passages.parquet")
    write_table(digest_table([]), tmp_path / DOCUMENTS_FILE)
    assert KnownSpans(tmp_path).find(document) is None


def test_the_order_of_reading_does_not_change_the_table() -> None:
    pd.testing.assert_frame_equal(digest_table([("b", "1"), ("a", "2")]), digest_table([("a", "2"), ("b", "1")]))
