"""Which languages a corpus is in."""

from __future__ import annotations

import numpy as np
import pytest

from models.text.languages import LANGUAGES, UNTOLD, Languages, count_votes, tell
from models.text.scripts import SCRIPTS, script_of
from models.text.tokenize import Tokenizer
from models.text.words import find_words, forms_of

TEXTS = {
    "en": "The command lists what is in a folder, with the names of all of its files.",
    "de": "Der Befehl listet auf, was in einem Ordner ist, mit den Namen von allen seinen Dateien.",
    "fr": "La commande liste ce qui est dans un dossier, avec les noms de tous ses fichiers.",
    "es": "La orden lista lo que hay en una carpeta, con los nombres de todos sus archivos.",
    "it": "Il comando elenca quello che è nella cartella, con i nomi di tutti i suoi file.",
    "pt": "O comando lista o que há em uma pasta, com os nomes de todos os seus arquivos.",
    "nl": "De opdracht toont wat er in een map is, met de namen van alle bestanden.",
    "sv": "Kommandot visar vad som finns i en mapp och namnen på alla filer, också när de är dolda.",
    "da": "Kommandoen viser, hvad der er i en mappe, og navnene på alle filer, også når de er skjult.",
    "pl": "Polecenie wypisuje to, co jest w katalogu, oraz nazwy wszystkich plików, które można czytać.",
    "cs": "Příkaz vypíše, co je ve složce, a jména všech souborů, které mohou být čteny.",
    "fi": "Komento näyttää mitä kansiossa on ja kaikki tiedostot, jotka ovat siinä.",
    "hu": "A parancs kiírja, hogy mi van egy mappában, és az összes fájl nevét is, ha kell.",
    "tr": "Komut bir klasörde ne var ise ve bu dosyaların adlarını listeler, daha çok bilgi için.",
    "ru": "Команда выводит всё, что есть в папке, и имена всех файлов, которые можно прочитать.",
    "uk": "Команда виводить те, що є в теці, та назви файлів, які можна прочитати.",
    "el": "Η εντολή δείχνει τι είναι στο φάκελο και τα ονόματα από όλα τα αρχεία.",
    "ar": "يعرض الأمر كل ما في المجلد من الملفات التي يمكن قراءتها أو كتابتها",
    "fa": "این فرمان هر چه را که در پوشه است با نام آن نشان می دهد",
    "hi": "यह आदेश फ़ोल्डर में जो कुछ है उस के नाम दिखाता है",
}


def told(text: str, wanted: tuple[str, ...] = ()) -> set[str]:
    forms = [form for word in find_words(text) for form in forms_of(word)]
    numbers = tell(count_votes([forms]), wanted)[0]
    return {LANGUAGES[number] for number in numbers if number != UNTOLD}


@pytest.mark.parametrize("language", TEXTS)
def test_a_sentence_tells_its_language(language: str) -> None:
    assert told(TEXTS[language]) == {language}


def test_what_has_too_few_function_words_is_not_told() -> None:
    assert told("pump valves, seal rings") == set()
    assert told("x, y = a, i, o, e") == set()
    assert told("程序打开用户选择的文件") == set()


def test_each_script_of_a_text_has_its_language() -> None:
    assert told(TEXTS["ru"] + TEXTS["en"]) == {"ru", "en"}
    assert told(TEXTS["de"], ("en", "ru")) == set()


@pytest.mark.parametrize(
    ("form", "script"),
    [("größe", "latin"), ("файл", "cyrillic"), ("αρχή", "greek"), ("3d", "latin"), ("42", ""), ("文件", ""),
     (".net", "latin"), ("फ़ाइल", "devanagari"), ("ملف", "arabic"), ("கோப்பு", "tamil"), ("ไฟล์", ""), ("tiếng", "latin")],
)  # fmt: skip
def test_script_of_a_word(form: str, script: str) -> None:
    assert script_of(form) == script


def test_a_language_of_less_than_one_percent_is_chance_and_the_most_frequent_reads_what_is_not_told() -> None:
    german, french = LANGUAGES.index("de"), LANGUAGES.index("fr")
    rows = np.full((1000, len(SCRIPTS)), UNTOLD)
    rows[:600, 0] = german
    rows[600:609, 0] = french
    languages = Languages.of(rows)
    assert languages.of_words_in("latin") == ("de",)
    assert languages.of_words_in("cyrillic") == ("ru",)
    assert set(languages.resolve(rows)[:, 0].tolist()) == {german}
    rows[609] = french
    assert Languages.of(rows).of_words_in("latin") == ("de", "fr")
    assert Languages.of(rows[:0]).of_words_in("latin") == ("en",)


def test_a_query_has_the_stems_of_all_languages_of_the_corpus() -> None:
    tokenizer = Tokenizer.of([TEXTS["de"], TEXTS["en"]])
    assert tokenizer.query("Dateien") == [("datei", "dateien")] or tokenizer.query("Dateien") == [("dateien", "datei")]
    passages = tokenizer.passages([TEXTS["de"], TEXTS["en"]])
    assert "datei" in passages[0]
    assert "file" in passages[1]
    assert tokenizer.query("was ist eine Datei")[-1] == ("datei",)


def test_words_that_callers_make_up_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.text.tokenize._REMEMBERED_CHARACTERS", 1000)
    tokenizer = Tokenizer.of(["the pumps of the house"])
    before = tokenizer.passages(["the pumps of the house"])
    for number in range(50):
        made_up = " ".join(f"zz{number}x{place}" for place in range(20))
        tokenizer.passages([made_up])
        tokenizer.query(made_up)
    assert sum(len(form) for form, _ in tokenizer._terms) < 2000
    assert tokenizer.passages(["the pumps of the house"]) == before
