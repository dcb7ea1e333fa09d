"""Words, forms and stems."""

from __future__ import annotations

import pytest

from models.text.words import count_words, find_words, forms_of, prefix_stems, stems, words


def forms(text: str) -> list[str]:
    return [form for word in find_words(text) for form in forms_of(word)]


def test_words_are_runs_of_letters_and_digits_and_single_characters_without_spaces() -> None:
    assert words("Snow_ball v2, don't") == ["Snow", "ball", "v2", "don", "t"]
    assert words("第一句 ab") == ["第", "一", "句", "ab"]
    assert words("รหัสผ่าน") == ["ร", "หั", "ส", "ผ่", "า", "น"]
    assert words("C++, C# and C") == ["C++", "C#", "and", "C"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Haft\u00adpflicht", ["haftpflicht"]),
        ("\ufeffone\u200bword\u2060", ["oneword"]),
        ("cafe\u0301 CAFÉ", ["café", "café"]),
        ("Straße STRASSE İstanbul", ["strasse", "strasse", "istanbul"]),
        ("ﬁle ＡＢＣ ½ ㎏", ["file", "abc", "1", "2", "kg"]),
        ("पासवर्ड बदलने", ["पासवर्ड", "बदलने"]),
        ("مُدَرِّس می\u200cخواهم", ["مدرس", "میخواهم"]),
        ("l'homme dell'acqua L\u2019été aujourd'hui", ["homme", "acqua", "été", "aujourdhui"]),
        ("об'єкт Ёлка", ["обєкт", "елка"]),
        ("重置密码", ["重置", "置密", "密码", "重", "置", "密", "码"]),
        ("データ", ["デー", "ータ"]),
        ("ﾃﾞｰﾀ", ["デー", "ータ"]),
        ("รหัส", ["รหั", "หัส"]),
        ("파일을 열기", ["파일", "일을", "열기"]),
        ("使用TCP协议", ["使用", "使", "用", "tcp", "协议", "协", "议"]),
        ("C++ C# g++ C++17", ["c++", "c#", "g++", "c++", "17"]),
        (".NET ASP.NET (.gitignore)", [".net", "net", "asp", "net", ".gitignore", "gitignore"]),
        ("v2.10.1 0.5", ["2.10.1", "2", "10", "1", "0.5", "0", "5"]),
        ("x1.2 3. Then", ["x1", "1", "2", "3", "then"]),
        ("Größe 2.5 ５.６", ["grösse", "2.5", "2", "5", "5.6", "5", "6"]),
        ("one. Two.", ["one", "two"]),
        ("Foo™ 👨‍👩‍👧", ["foo"]),
    ],
)
def test_forms_of_words(text: str, expected: list[str]) -> None:
    assert forms(text) == expected


@pytest.mark.parametrize("text", ["Größe C++ l’été naïve", "файл №2 об’єкт", "αρχείο – λόγος"])
def test_the_quick_way_finds_what_the_other_finds(text: str) -> None:
    with_a_mark = f"{text} e\u0301"
    assert forms(with_a_mark)[:-1] == forms(text)


def test_stems_join_the_forms_of_a_word_in_order() -> None:
    assert stems(["joining", "joined", "joins", "row"]) == ["join", "join", "join", "row"]
    assert stems([]) == []
    assert len(set(stems(["häuser", "haus"], "de"))) == 1
    assert len(set(stems(["файлы", "файлов", "файл"], "ru"))) == 1
    assert len(set(stems(["fichiers", "fichier"], "fr"))) == 1
    assert stems(["文件", "files"], "") == ["文件", "files"]


def test_prefix_stems_say_where_each_word_begins() -> None:
    assert prefix_stems("Reranking a Rerank") == [("rerank", 0), ("a", 10), ("rerank", 12)]
    assert prefix_stems("Straßen, STRASSEN") == [("strass", 0), ("strass", 9)]
    assert prefix_stems("Haft\u00adpflicht C++") == [("haftpf", 0), ("c++", 13)]
    assert prefix_stems("重置密码 ab 密") == [("重置", 0), ("置密", 1), ("密码", 2), ("ab", 5), ("密", 8)]
    assert prefix_stems("รหัส") == [("รหั", 0), ("หัส", 1)]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("How do I don't?", 4),
        ("Größe der Datei", 3),
        ("重置密码", 2),
        ("如何 重置TCP密码", 3),
        ("रहस्य का नाम", 3),
        ("–", 1),
    ],
)
def test_words_are_counted_in_any_script(text: str, count: int) -> None:
    assert count_words(text) == count
