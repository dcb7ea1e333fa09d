"""Texts are cut behind the tokens that a model reads."""

from __future__ import annotations

import pytest

from models.serving.document_reading import DocumentReading, TextTooLong, TokenCut
from models.serving.loaded_bundle import LoadedBundle
from tests.small_bundle import BUDGET_MS, Small

TEXTS = ["Oil the loom every week.", "", "水 🧽 e\u0301 soda", "soda " * 300, "x" * 9000]


def test_a_cut_holds_the_first_tokens_and_no_more(small: Small) -> None:
    from tokenizers import Tokenizer

    folder = small.first.bundle.path("large/tokenizer.json").parent
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    cut = TokenCut(folder).cut(TEXTS, 4, float("inf"), lambda text: "never")
    for text, beginning in zip(TEXTS, cut, strict=True):
        assert text.startswith(beginning)
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(beginning, add_special_tokens=False).ids[:4] == ids[:4] or len(beginning) == 128
        assert len(tokenizer.encode(beginning, add_special_tokens=False).ids) <= 4


def test_what_is_not_reached_in_time_is_estimated(small: Small) -> None:
    folder = small.first.bundle.path("large/tokenizer.json").parent
    times = iter([0.0, 2.0])
    cut = TokenCut(folder).cut(["a b c d"] * 70, 2, 1.0, lambda text: text[:1], lambda: next(times))
    assert cut == ["a b"] * 64 + ["a"] * 6


def test_a_bundle_reads_as_much_as_it_is_told(loaded: LoadedBundle) -> None:
    query, texts = "how is the loom oiled", ["Oil the loom. Then wash it.", "Oil the loom. Mice."]
    for reading in (DocumentReading(tokens=4), DocumentReading(pair_tokens=13)):
        first, second = loaded.rank_documents(query, texts, BUDGET_MS, None, reading).items
        assert first.score == pytest.approx(second.score, abs=1e-6)
    lean = loaded.rank_documents(query, texts, 0.0, None, DocumentReading(tokens=1)).items
    assert sorted(item.index for item in lean) == [0, 1]
    assert loaded.documents_ms(query, ["soda " * 300], DocumentReading(tokens=3)) < loaded.documents_ms(
        query, ["soda " * 300]
    )


def test_a_text_that_must_not_be_cut_is_refused_by_its_index(loaded: LoadedBundle) -> None:
    reading = DocumentReading(truncate=False)
    assert loaded.rank_documents("loom", ["Oil it.", ""], BUDGET_MS, None, reading).items
    for text in ("soda " * 300, "x " * 100_000):
        with pytest.raises(TextTooLong) as refused:
            loaded.rank_documents("loom", ["Oil it.", text], BUDGET_MS, None, reading)
        assert refused.value.index == 1


def test_every_pair_is_scored_by_the_last_model_where_asked(loaded: LoadedBundle) -> None:
    texts = [f"Oil loom number {number}." for number in range(30)]
    ranking = loaded.rank_documents("loom", texts, BUDGET_MS, None, DocumentReading(every_pair=True))
    assert {item.scored_by for item in ranking.items} == {"large"}
    assert loaded.documents_ms("loom", texts, DocumentReading(every_pair=True)) >= loaded.documents_ms("loom", texts)
