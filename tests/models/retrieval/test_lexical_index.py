from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import ArtifactError
from models.retrieval import lexical_index
from models.retrieval.lexical_index import STATISTICS_FILE, LexicalIndex, read_texts
from models.store.tables import write_table
from models.text.stop_words import INDEX_STOP_WORDS
from models.text.tokenize import STOP_MARK, tokenize

TEXTS = [
    "Split arrays into random train and test subsets with train_test_split.",
    "LinAlgError is raised by linear algebra functions when a matrix is singular.",
    "The matrix product of two arrays, computed by numpy.matmul.",
    "Reads a comma-separated file into a DataFrame: pandas.read_csv(path)",
    "the of and",
    "",
    "Matrix, matrix, matrix: a text that repeats one word and another word.",
]
IDS = [f"p{row}" for row in range(len(TEXTS))]
WORDS = ["matrix", "train_test_split", "arrays", "LinAlgError", "the", "unheard", "read", "csv", "word", ""]


@pytest.fixture(scope="module")
def index() -> LexicalIndex:
    return LexicalIndex.build(TEXTS, IDS)


def terms(text: str) -> list[str]:
    return tokenize([text])[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The runners were running", ["runner", "were", "run"]),
        ("train_test_split", ["train_test_split", "train", "test", "split"]),
        ("_private __init__", ["privat", "init"]),
        ("LinAlgError", ["linalgerror", "lin", "alg", "error"]),
        ("HTTPServer", ["httpserver", "http", "server"]),
        ("numpy.linalg.norm", ["numpi", "linalg", "norm"]),
        ("int8 v2", ["int8", "int", "8", "v2", "2"]),
        ("DNAs Müller", ["dnas", "müller"]),
        ("Alzheimer's don\u2019t Alzheimer\u2019S", ["alzheim", "dont", "alzheim"]),
        ("ﬁle ＡＢＣ", ["file", "abc"]),
        ("is_valid", ["is_valid", "valid"]),
        ("the of and", []),
        ("", []),
        ("?! -- ...", []),
        ("___", []),
    ],
)
def test_terms_of_a_text(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


def test_an_identifier_is_found_by_its_words_and_a_text_of_words_by_the_identifier(index: LexicalIndex) -> None:
    rows, _ = index.search(["split train test", "linear algebra error", "read csv"], 1)
    assert rows[:, 0].tolist() == [0, 1, 3]
    assert set(terms("train test split")) < set(terms("train_test_split"))


def test_the_exact_identifier_outranks_its_scattered_words() -> None:
    texts = ["call train_test_split once", "train the model, then test it, then split wood", "nothing of the kind"]
    rows, _ = LexicalIndex.build(texts, ["a", "b", "c"]).search(["train_test_split"], 3)
    assert rows[0].tolist() == [0, 1, -1]


def bm25_by_hand(query: str, text: str, corpus: list[str], k1: float, b: float) -> float:
    """Lucene's BM25 without the constant factor (k1 + 1), after Kamphuis et al. (2020), word by word."""
    passages = [terms(passage) for passage in corpus]
    average = sum(map(len, passages)) / len(passages)
    words = terms(text)
    score = 0.0
    for term in terms(query):
        having = sum(term in passage for passage in passages)
        if having:
            idf = math.log(1 + (len(passages) - having + 0.5) / (having + 0.5))
            frequency = words.count(term)
            score += idf * frequency / (frequency + k1 * (1 - b + b * len(words) / average)) if frequency else 0.0
    return score


@pytest.mark.parametrize(("k1", "b"), [(0.9, 0.4), (1.2, 0.75), (2.0, 1.0), (0.5, 0.0)])
def test_scores_are_lucenes_bm25(k1: float, b: float) -> None:
    index = LexicalIndex.build(TEXTS, IDS, k1=k1, b=b)
    for query in ("matrix of arrays", "matrix matrix word", "train_test_split LinAlgError unheard"):
        expected = [bm25_by_hand(query, text, TEXTS, k1, b) for text in TEXTS]
        np.testing.assert_allclose(index.scores(query), expected, atol=1e-5)
        np.testing.assert_allclose(index.score(query, TEXTS), expected, atol=1e-5)


@given(query=st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join))
@settings(deadline=None, max_examples=60)
def test_an_indexed_text_scores_the_same_as_a_free_text(index: LexicalIndex, query: str) -> None:
    np.testing.assert_allclose(index.score(query, TEXTS), index.scores(query), atol=1e-4)


def test_a_free_text_is_scored_with_the_statistics_of_the_corpus(index: LexicalIndex) -> None:
    new = "A singular matrix that nobody indexed, of unknown vocabulary."
    result = index.score("singular matrix", [new, "unrelated", ""])
    assert result[0] == pytest.approx(bm25_by_hand("singular matrix", new, TEXTS, 0.9, 0.4), abs=1e-5)
    assert result[1:].tolist() == [0, 0]
    assert index.score("singular", []).shape == (0,)


@pytest.mark.parametrize("query", ["", "   ", "unheard xyzzy", "?!"])
def test_queries_without_a_known_word_find_nothing(index: LexicalIndex, query: str) -> None:
    assert not index.scores(query).any()
    assert not index.score(query, TEXTS).any()
    rows, scores = index.search([query], 3)
    np.testing.assert_array_equal(rows, -1)
    np.testing.assert_array_equal(scores, 0)


def test_a_query_of_stop_words_alone_finds_them_and_in_others_they_count_nothing(index: LexicalIndex) -> None:
    texts = ["To be or not to be.", "Whether the pump is to be mended.", "pumps"]
    index = LexicalIndex.build(texts, ["a", "b", "c"])
    assert index.search(["to be or not to be"], 3)[0].tolist() == [[0, 1, -1]]
    np.testing.assert_array_equal(index.scores("to be a pump"), index.scores("pump"))
    assert index.scores("pump")[0] == 0


def test_search_agrees_with_the_scores(index: LexicalIndex) -> None:
    rows, scores = index.search(["matrix arrays"], 10)
    every = index.scores("matrix arrays")
    result = rows[0][rows[0] >= 0]
    assert set(result.tolist()) == set(np.flatnonzero(every).tolist())
    np.testing.assert_array_equal(index.score_rows("matrix arrays", result), scores[0, : len(result)])
    assert (np.diff(scores[0]) <= 0).all()
    assert index.search([], 4)[0].shape == (0, 4)


def test_equal_passages_come_in_the_order_of_their_ids_also_at_the_cut() -> None:
    ids = [f"p{number:02}" for number in np.random.default_rng(0).permutation(40)]
    index = LexicalIndex.build([*["same words here"] * 39, "other"], ids)
    rows, scores = index.search(["words"], 5)
    assert [index.passage_ids[row] for row in rows[0]] == sorted(ids[:39])[:5]
    assert len(set(scores[0].tolist())) == 1


def test_only_allowed_rows_are_returned(index: LexicalIndex) -> None:
    scores = index.scores("matrix")
    allowed = np.ones(len(index), dtype=bool)
    allowed[index.top(scores, 1)[0]] = False
    expected = [row for row in index.top(scores, 10)[0].tolist() if allowed[row]]
    assert expected
    assert index.top(scores, 10, allowed)[0].tolist() == expected
    assert index.top(scores, 10, np.zeros(len(index), dtype=bool))[0].tolist() == []


def test_what_was_saved_is_loaded(index: LexicalIndex, tmp_path: Path) -> None:
    index.save(tmp_path)
    loaded = LexicalIndex.load(tmp_path)
    assert loaded.passage_ids == index.passage_ids
    for query in ("matrix arrays", "unheard", ""):
        np.testing.assert_array_equal(loaded.scores(query), index.scores(query))
        np.testing.assert_array_equal(loaded.score(query, TEXTS), index.score(query, TEXTS))


@pytest.mark.parametrize("texts", [[], ["", "the", "?"]])
def test_a_corpus_without_words_is_saved_and_loaded(tmp_path: Path, texts: list[str]) -> None:
    LexicalIndex.build(texts, [f"p{row}" for row in range(len(texts))]).save(tmp_path)
    loaded = LexicalIndex.load(tmp_path)
    assert loaded.scores("anything").tolist() == [0] * len(texts)
    np.testing.assert_array_equal(loaded.search(["anything"], 2)[0], -1)
    assert loaded.score("anything", ["anything"]).tolist() == [0]


def test_the_postings_are_those_that_bm25s_builds(index: LexicalIndex) -> None:
    import bm25s
    from bm25s.stopwords import STOPWORDS_EN

    assert frozenset(STOPWORDS_EN) == INDEX_STOP_WORDS
    tokenized = tokenize(TEXTS)
    words = index._vocabulary.to_pylist()
    content = [not word.startswith(STOP_MARK) for word in words]
    vocabulary = {term: index for index, term in enumerate(sorted(set().union(*tokenized)))}
    theirs = bm25s.BM25(k1=0.9, b=0.4, method="lucene")
    ids = [[vocabulary[term] for term in text] for text in tokenized]
    theirs.index((ids, vocabulary), create_empty_token=False, show_progress=False)
    weights, rows, starts = index._postings
    of_content = np.repeat(content, np.diff(starts))
    np.testing.assert_allclose(weights[of_content], theirs.scores["data"], rtol=1e-6)
    np.testing.assert_array_equal(rows[of_content], theirs.scores["indices"])
    np.testing.assert_array_equal(np.diff(starts)[content], np.diff(theirs.scores["indptr"]))
    assert [word for word in words if not word.startswith(STOP_MARK)] == list(vocabulary)
    assert index.words == len(words) > len(vocabulary)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_texts_that_come_one_by_one_are_indexed_as_all_at_once(
    index: LexicalIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    index.save(tmp_path / "whole")
    monkeypatch.setattr(lexical_index, "_BATCH", batch)
    LexicalIndex.build(iter(TEXTS), IDS).save(tmp_path / "parts")
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "parts" / path.name).read_bytes()


def test_the_texts_of_a_table_are_read_in_order(tmp_path: Path) -> None:
    table = pd.DataFrame({"title": ["", "Pumps", ""], "text": TEXTS[:3]})
    write_table(table, tmp_path / "passages.parquet")
    assert list(read_texts(tmp_path / "passages.parquet")) == [TEXTS[0], f"Pumps\n{TEXTS[1]}", TEXTS[2]]


_MEMORY = """
import sys
from pathlib import Path

import numpy as np

from models.retrieval.lexical_index import LexicalIndex; from models.text.tokenize import tokenize

def own():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

tokenize(["what is imported late"])
LexicalIndex.load(Path(sys.argv[2]))
before = own()
index = LexicalIndex.load(Path(sys.argv[1]))
loaded = own()
for number in range(300):
    index.search([f"word{number} word{7 * number} common"], 10)
print(loaded - before, own() - loaded)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory of a process is read as Linux tells it")
def test_an_index_takes_no_memory_of_its_own_and_searches_keep_it_flat(index: LexicalIndex, tmp_path: Path) -> None:
    count = 60_000
    words = np.random.default_rng(0).integers(0, 40_000, (count, 20))
    texts = (" ".join(["common", *(f"word{word}" for word in row)]) for row in words.tolist())
    LexicalIndex.build(texts, [f"document number {row}" for row in range(count)]).save(tmp_path / "large")
    index.save(tmp_path / "small")
    size = sum(path.stat().st_size for path in (tmp_path / "large").iterdir())
    assert size > 20_000_000
    program = [sys.executable, "-c", _MEMORY, str(tmp_path / "large"), str(tmp_path / "small")]
    completed = subprocess.run(
        program, check=True, cwd=Path(__file__).resolve().parents[3], capture_output=True, text=True
    )
    loaded, searched = map(int, completed.stdout.split())
    assert loaded < 1_000_000
    assert searched < 3_000_000


def test_the_files_hold_no_pickles_and_are_the_same_in_every_process(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from models.retrieval.lexical_index import LexicalIndex;"
        f"LexicalIndex.build({TEXTS!r}, {IDS!r}).save(Path(sys.argv[1]))"
    )
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / seed)],
            check=True,
            cwd=Path(__file__).resolve().parents[3],
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert {path.rpartition(".")[2] for path in names} == {"arrow", "npy", "json"}
    for name in names:
        content = (tmp_path / "1" / name).read_bytes()
        assert content == (tmp_path / "2" / name).read_bytes()
        if name.endswith(".npy"):
            assert np.load(tmp_path / "1" / name, allow_pickle=False).dtype != object


def test_missing_and_unlike_files_are_refused(index: LexicalIndex, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="missing"):
        LexicalIndex.load(tmp_path)
    index.save(tmp_path)
    (tmp_path / STATISTICS_FILE).unlink()
    with pytest.raises(ArtifactError, match=STATISTICS_FILE):
        LexicalIndex.load(tmp_path)
    with pytest.raises(ArtifactError, match="7 passages for 2"):
        LexicalIndex.build(TEXTS, ["a", "b"])


def test_an_index_made_before_languages_were_told_is_searched_as_english(index: LexicalIndex, tmp_path: Path) -> None:
    index.save(tmp_path)
    statistics = json.loads((tmp_path / STATISTICS_FILE).read_text())
    del statistics["languages"]
    (tmp_path / STATISTICS_FILE).write_text(json.dumps(statistics))
    loaded = LexicalIndex.load(tmp_path)
    assert loaded.scores("products").tolist() == index.scores("products").tolist()
    assert loaded.scores("products").any()


def test_repeated_query_words_count_as_often_as_they_stand(index: LexicalIndex) -> None:
    once, twice = index.scores("matrix"), index.scores("matrix matrix")
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-6)
    assert Counter(terms("matrix matrix")) == {"matrix": 2}


IN_LANGUAGES = {
    "de": "Das Programm öffnet die Dateien, die der Benutzer ausgewählt hat, und schließt sie nicht wieder.",
    "fr": "Le programme ouvre les fichiers que l'utilisateur a choisis et ne les ferme pas avant la fin.",
    "es": "El programa abre los archivos que el usuario ha elegido y no los cierra hasta el final.",
    "ru": "Программа открывает файлы, которые выбрал пользователь, и не закрывает их до конца.",
    "en": "The programs open files which the user has chosen, and none of them is closed before the end.",
    "zh": "程序打开用户选择的文件，直到结束才关闭。",
    "ja": "プログラムはユーザーが選択したファイルを開き、終了するまで閉じません。",
    "th": "โปรแกรมจะเปิดไฟล์ที่ผู้ใช้เลือกและไม่ปิดจนกว่าจะสิ้นสุด",
    "ko": "프로그램은 사용자가 선택한 파일을 열고 끝날 때까지 닫지 않습니다.",
    "hi": "प्रोग्राम उपयोगकर्ता की चुनी हुई फ़ाइलों को खोलता है और अंत तक बंद नहीं करता है।",
    "lo": "ໂປຣແກຣມຈະເປີດໄຟລ໌ທີ່ຜູ້ໃຊ້ເລືອກ",
    "km": "កម្មវិធីនឹងបើកឯកសារដែលអ្នកប្រើបានជ្រើសរើស",
    "my": "ပရိုဂရမ်သည် အသုံးပြုသူရွေးချယ်ထားသောဖိုင်များကို ဖွင့်သည်",
}
ASKED = {
    "de": "Datei öffnen", "fr": "ouvrir un fichier d'utilisateurs", "es": "abrir archivo elegido",
    "ru": "открыть файл пользователя", "en": "opening a chosen file", "zh": "打开文件", "ja": "ファイルを選択",
    "th": "เปิดไฟล์", "ko": "파일 열기", "hi": "फ़ाइल", "lo": "ເປີດໄຟລ໌", "km": "បើកឯកសារ", "my": "ဖိုင်",
}  # fmt: skip


@pytest.fixture(scope="module")
def mixed() -> LexicalIndex:
    return LexicalIndex.build(IN_LANGUAGES.values(), list(IN_LANGUAGES))


@pytest.mark.parametrize("language", IN_LANGUAGES)
def test_other_forms_of_a_word_find_the_passage_of_their_language(mixed: LexicalIndex, language: str) -> None:
    rows, _ = mixed.search([ASKED[language]], 1)
    assert mixed.passage_ids[rows[0, 0]] == language


def test_in_many_languages_a_free_text_scores_as_the_indexed_one(mixed: LexicalIndex, tmp_path: Path) -> None:
    mixed.save(tmp_path)
    loaded = LexicalIndex.load(tmp_path)
    assert set(loaded.languages) == {"de", "en", "es", "fr", "hi", "ru"}
    for query in ASKED.values():
        np.testing.assert_allclose(loaded.score(query, list(IN_LANGUAGES.values())), mixed.scores(query), atol=1e-5)


def test_the_forms_of_a_word_in_several_languages_weigh_as_one_word() -> None:
    german = ["Die Programme öffnen die Dateien, die der Benutzer nicht kennt."] * 20
    english = ["The programmes open what is not known to the user, and those of others."] * 2
    index = LexicalIndex.build([*german, *english], [f"p{row:02}" for row in range(22)])
    assert set(index.languages) == {"de", "en"}
    scores = index.scores("programme")
    assert scores[0] > 0
    # Were each form weighed alone, the one of two passages would count six times as much as that of twenty.
    assert 0.5 < scores[-1] / scores[0] < 2


def test_function_words_of_the_language_of_a_query_count_nothing_in_others() -> None:
    texts = [IN_LANGUAGES["de"], IN_LANGUAGES["en"] + " Die casting is not what they do."]
    index = LexicalIndex.build(texts, ["de", "en"])
    np.testing.assert_array_equal(index.scores("die Dateien"), index.scores("Dateien"))
    assert index.scores("casting")[1] > 0


def test_languages_that_are_set_are_not_told() -> None:
    texts = [IN_LANGUAGES["de"], IN_LANGUAGES["en"]]
    index = LexicalIndex.build(texts, ["de", "en"], languages=["de"])
    assert index.languages == ["de"]
    assert index.search(["programme"], 2)[0].tolist() == [
        [0, -1]
    ]  # German: programm, and the English text has programs
    assert LexicalIndex.build(texts, ["de", "en"], languages=["zh"]).search(["dateien"], 1)[0].tolist() == [[0]]


@pytest.mark.parametrize(
    ("query", "text", "other"),
    [
        ("重置密码", "重置密码需要管理员权限。", "服务器启动失败时，请先检查日志文件。"),
        ("पासवर्ड", "पासवर्ड बदलने के लिए सेटिंग खोलें।", "प्रिंटर में काग़ज़ फँस गया है।"),
        ("رمز", "رَمْز الدخول", "الطابعة لا تعمل اليوم."),
        ("รหัสผ่าน", "การเปลี่ยนรหัสผ่านต้องใช้สิทธิ์ผู้ดูแล", "เครื่องพิมพ์กระดาษติด"),
        (
            "Haftpflichtversicherung",
            "Die Haft\u00adpflicht\u00adver\u00adsiche\u00adrung deckt Schäden.",
            "Das Fahrrad.",
        ),
        ("password", "The pass\u200bword is new.", "The printer is out of paper."),
        ("STRASSE", "Die Straße ist offen.", "Der Hafen ist offen."),
        ("café", "the cafe\u0301", "the tea"),
        ("C", "C has pointers.", "C++ has templates."),
        ("C++", "C++ has templates.", "C has pointers."),
        ("C#", "C# has delegates.", "C has pointers."),
        (".NET", ".NET has a runtime.", "The net has a hole."),
        ("2.10.1", "Release 2.10.1 mends the login.", "Release 2.1.10 mends the logout."),
        ("2.10.1", "Mended in v2.10.1", "Mended in v2.1.10"),
        ("ABC-123/4", "Valve ABC-123/4 fits the small pump.", "Valve ABC-124/4 fits the large pump."),
        ("ABC123", "Valve ABC-123/4 fits the small pump.", "Valve ABD-124/5 fits no pump."),
        ("to be or not to be", "To be or not to be.", "The net has a hole."),
        ("１２３ ＡＢＣ", "abc 123", "abd 124"),
        ("٣", "page 3", "page 4"),
    ],
)
def test_a_word_is_found_however_it_is_written(query: str, text: str, other: str) -> None:
    index = LexicalIndex.build([other, text], ["a", "b"])
    scores = index.scores(query)
    assert scores[1] > scores[0]
