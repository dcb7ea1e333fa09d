"""Words and stems."""

from __future__ import annotations

from models.text.words import prefix_stems, stems, words


def test_words_are_runs_of_letters_and_digits_and_single_characters_without_spaces() -> None:
    assert words("Snow_ball v2, don't") == ["Snow", "ball", "v2", "don", "t"]
    assert words("第一句 ab") == ["第", "一", "句", "ab"]


def test_stems_join_the_forms_of_a_word_in_order() -> None:
    assert stems(["joining", "joined", "joins", "row"]) == ["join", "join", "join", "row"]
    assert stems([]) == []


def test_prefix_stems_say_where_each_word_begins() -> None:
    assert prefix_stems("Reranking a Rerank") == [("rerank", 0), ("a", 10), ("rerank", 12)]
