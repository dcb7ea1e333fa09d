"""Sentences and their places in a text."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.text.sentences import LONGEST, split_sentences

TEXTS = st.lists(st.sampled_from([*"abcdeAB.!?\n -[1]>。é一", " merge ", " frames "]), max_size=120).map("".join)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Some, e.g. Large ones. See Fig. 3 by J. Smith.", ["Some, e.g. Large ones.", "See Fig. 3 by J. Smith."]),
        ('He said "stop." Then left.', ['He said "stop."', "Then left."]),
        ("第一句。第二句\uff01", ["第一句。", "第二句\uff01"]),
        ("Title\n\n- first item\n- second item", ["Title", "- first item", "- second item"]),
        ("call pandas.merge now", ["call pandas.merge now"]),
        ("   ", []),
        ("Under Art. 6 Abs. 1 Nr. 4 it is kept. See No. 12.", ["Under Art. 6 Abs. 1 Nr. 4 it is kept.", "See No. 12."]),
        ("By Data Inc. Berlin for 5 Mio. Euro. Yes.", ["By Data Inc. Berlin for 5 Mio. Euro.", "Yes."]),
        ("Made by Acme Inc. The firm is old.", ["Made by Acme Inc.", "The firm is old."]),
        ("Am 3. Mai kam z. B. Herr K. Er blieb.", ["Am 3. Mai kam z. B. Herr K.", "Er blieb."]),
        ("Er mag z. B. Die Zeit. Gut.", ["Er mag z. B. Die Zeit.", "Gut."]),
        ("На ул. ленина, д. 5, г. Москва и т. д. ещё. Срок.", ["На ул. ленина, д. 5, г. Москва и т. д. ещё.", "Срок."]),
        ("El Sr. Pérez va a la pág. 5. ¿Dónde? Aquí.", ["El Sr. Pérez va a la pág. 5.", "¿Dónde?", "Aquí."]),
        ("M. Dupont est là. Il mange.", ["M. Dupont est là.", "Il mange."]),
        ("Of a canal.[3] The first.[4][note 1] It was.", ["Of a canal.[3]", "The first.[4][note 1]", "It was."]),
        ("यह एक वाक्य है। यह दूसरा है।", ["यह एक वाक्य है।", "यह दूसरा है।"]),
        ("هل تعمل الطابعة؟ نعم، تعمل.", ["هل تعمل الطابعة؟", "نعم، تعمل."]),
        ("ဒါက စာကြောင်းပါ။ နောက်တစ်ကြောင်း။", ["ဒါက စာကြောင်းပါ။", "နောက်တစ်ကြောင်း။"]),
        ("Release 2.10.1 is out. It works.", ["Release 2.10.1 is out.", "It works."]),
        ("1. First item.", ["1. First item."]),
    ],
)  # fmt: skip
def test_sentences(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in split_sentences(text)] == expected


@given(TEXTS)
def test_sentences_are_in_order_and_lose_only_white_space_and_rules(text: str) -> None:
    spans = list(split_sentences(text))

    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    kept = "".join(text[start:end] for start, end in spans)
    assert [c for c in kept if c.isalnum()] == [c for c in text if c.isalnum()]


def test_a_long_text_without_full_stops_is_cut_at_the_spaces_between_its_sentences() -> None:
    sentence = "โปรแกรมจะเปิดไฟล์ที่ผู้ใช้เลือก"
    text = " ".join([sentence] * 40)
    pieces = [text[start:end] for start, end in split_sentences(text)]
    assert max(map(len, pieces)) <= LONGEST
    assert " ".join(pieces) == text
    assert pieces[0].endswith(sentence)
