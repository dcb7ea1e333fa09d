"""Extractive answers quote exactly, invent nothing, and say so when nothing answers."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.contracts.messages import GenerateRequest
from models.contracts.rows import Passage
from models.serving.answer import NO_ANSWER, content_terms, extractive_answer
from models.serving.generator import generate_extractive, given_passages
from models.settings import GeneratorSettings
from models.text.tokenize import Tokenizer

SETTINGS = GeneratorSettings(passages=3, max_sentences=3)


def passage(text: str, name: str = "p", start: int = 0) -> Passage:
    return Passage(f"{name}:0", name, name.title(), text, start, start + len(text), "test")


JOIN = passage(
    "DataFrame.join combines columns of two frames. It aligns rows on the index, e.g. Dates or names.\n\n"
    ">>> left.join(right)\n\nSort the index first when speed matters.",
    "join",
    start=700,
)
MERGE = passage("Merge combines two frames on key columns. The key columns are named by `on`.", "merge")
WEATHER = passage("Rain falls in spring. Snow falls in winter.", "weather")


def test_the_answer_is_made_of_exact_quotes_with_document_offsets() -> None:
    answer = extractive_answer(
        "how to combine columns of two frames", given_passages([(JOIN, 0.9), (MERGE, 0.7)]), SETTINGS
    )

    first = answer.citations[0]
    assert first.quote == "DataFrame.join combines columns of two frames."
    assert (first.start, first.end) == (700, 700 + len(first.quote))
    assert answer.text.startswith("DataFrame.join combines columns of two frames. [1]")
    assert [int(mark) for mark in re.findall(r"\[(\d+)\]", answer.text)] == list(range(1, len(answer.citations) + 1))


def test_a_question_that_nothing_answers_gets_no_citations() -> None:
    answer = extractive_answer("quarterly revenue of the bakery", given_passages([(WEATHER, 0.02)]), SETTINGS)

    assert answer.text == NO_ANSWER
    assert answer.citations == []
    assert extractive_answer("anything", [], SETTINGS).text == NO_ANSWER


@pytest.mark.parametrize(
    ("min_score", "kind", "reason"), [(None, "answer", ""), (0.6, "answer", ""), (0.61, "no_answer", "score")]
)
def test_below_the_threshold_of_the_release_no_passage_answers(min_score: float | None, kind: str, reason: str) -> None:
    asked = GenerateRequest(
        query="precipitation seasons",
        passages=given_passages([(WEATHER, 0.6), (JOIN, 0.1)]),
        min_score=min_score,
        timeout_ms=1000,
    )
    answer = generate_extractive(asked, SETTINGS)
    assert (answer.generation.kind, answer.generation.reason.partition(":")[0]) == (kind, reason)
    assert (answer.answer == NO_ANSWER) == (kind == "no_answer") == (not answer.citations)


def test_the_reason_tells_no_score_from_no_sentence_and_no_passage() -> None:
    asked = GenerateRequest(query="quarterly revenue", passages=given_passages([(WEATHER, 0.02)]), timeout_ms=1000)
    reasons = [
        generate_extractive(asked.model_copy(update=change), SETTINGS).generation.reason.partition(":")[0]
        for change in ({}, {"min_score": 0.03}, {"passages": []})
    ]
    assert reasons == ["sentence", "score", "no_passage"]


def test_a_likely_passage_answers_without_shared_words() -> None:
    answer = extractive_answer("precipitation seasons", given_passages([(WEATHER, 0.9)]), SETTINGS)

    assert answer.citations[0].quote == "Rain falls in spring."


def test_the_scoring_callable_decides_between_equal_overlaps() -> None:
    text = "Frames hold columns of data. Frames hold rows of data."

    def prefers_rows(query: str, sentences: Sequence[str]) -> list[float]:
        return [1.0 if "rows" in sentence else 0.0 for sentence in sentences]

    first = GeneratorSettings(passages=1, max_sentences=1)
    assert "columns" in extractive_answer("frames data", given_passages([(passage(text), 0.3)]), first).text
    assert "rows" in extractive_answer("frames data", given_passages([(passage(text), 0.3)]), first, prefers_rows).text


def test_a_callable_that_drops_a_sentence_is_refused() -> None:
    with pytest.raises(ValueError, match="sentences need"):
        extractive_answer("frames", given_passages([(JOIN, 0.9)]), SETTINGS, lambda query, sentences: [0.5])


def test_repeated_sentences_are_said_once() -> None:
    twin = passage("Merge combines two frames on key columns.", "twin")
    answer = extractive_answer("combine frames on key columns", given_passages([(MERGE, 0.9), (twin, 0.9)]), SETTINGS)

    quotes = [citation.quote for citation in answer.citations]
    assert quotes.count("Merge combines two frames on key columns.") == 1


def test_only_the_best_passages_are_drawn_on() -> None:
    first = GeneratorSettings(passages=1, max_sentences=5)
    answer = extractive_answer("two frames columns", given_passages([(JOIN, 0.9), (MERGE, 0.9)]), first)

    assert {citation.document_id for citation in answer.citations} == {"join"}


def test_code_and_headings_are_no_sentences() -> None:
    text = "Parameters\n----------\nThe axis to join along.\n\n>>> join(axis=0, how='the axis')"
    answer = extractive_answer("axis to join along", given_passages([(passage(text), 0.9)]), SETTINGS)

    assert [citation.quote for citation in answer.citations] == ["The axis to join along."]


def test_stop_words_alone_still_ask_something() -> None:
    tokenizer = Tokenizer.of([])
    assert content_terms("what is it", tokenizer) == content_terms("it is what", tokenizer) != frozenset()


@pytest.mark.parametrize(
    ("query", "text", "quote"),
    [
        (
            "Wo werden Dateien gespeichert?",
            "Der Server ist alt. Die Datei wird auf der Platte gespeichert.",
            "Die Datei",
        ),
        ("Где хранится журнал?", "Сервер стоит в подвале дома. Журналы хранятся на сервере по адресу.", "Журналы"),
        ("如何重置密码", "服务器启动失败时请检查日志。重置密码需要管理员权限。", "重置密码"),
        ("เปลี่ยนรหัสผ่าน", "เครื่องพิมพ์กระดาษติดอยู่ข้างใน\n\nการเปลี่ยนรหัสผ่านต้องใช้สิทธิ์", "การเปลี่ยน"),
    ],
)
def test_an_answer_is_found_in_the_language_of_the_question(query: str, text: str, quote: str) -> None:
    answer = extractive_answer(query, given_passages([(passage(text), 0.3)]), GeneratorSettings(max_sentences=1))
    assert [citation.quote[: len(quote)] for citation in answer.citations] == [quote]


TEXTS = st.lists(st.sampled_from([*"abcdeAB.!?\n -[1]>。é一", " merge ", " frames "]), max_size=120).map("".join)


@given(query=TEXTS, texts=st.lists(TEXTS, max_size=4), scores=st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_no_text_is_invented(query: str, texts: list[str], scores: list[float]) -> None:
    records = [passage(text, f"d{number}", start=number * 1000) for number, text in enumerate(texts)]
    answer = extractive_answer(query, given_passages(list(zip(records, scores, strict=False))), SETTINGS)

    by_id = {record.passage_id: record for record in records}
    for citation in answer.citations:
        record = by_id[citation.passage_id]
        assert citation.quote == record.text[citation.start - record.start : citation.end - record.start]
    said = [f"{' '.join(citation.quote.split())} [{number}]" for number, citation in enumerate(answer.citations, 1)]
    assert answer.text == (" ".join(said) or NO_ANSWER)
    assert len(answer.citations) <= SETTINGS.max_sentences
