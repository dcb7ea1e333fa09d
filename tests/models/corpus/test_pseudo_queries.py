"""Queries made from the text: what they are, how they are marked, and that their text is hidden in training."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest

from models.contracts.tables import Judgments, Queries, check_table
from models.corpus.passage_table import PassageTable
from models.corpus.pseudo_queries import add_pseudo_queries, hide_answers, make_queries
from models.store.tables import write_table

PUMP = """\
A pump moves a liquid from a low place to a high one.

Before the first use

Fill the housing with water, or the seal runs dry within a minute. See table 4.

The shaft turns at 1,450 revolutions per minute under load. Call us.
"""
NOTICE = "This handbook is printed on paper from managed forests."


def write(folder: Path, documents: dict[str, tuple[str, list[str]]], judged: bool = False) -> None:
    rows = [
        (f"{name}#{index}", name, title, text)
        for name, (title, pieces) in sorted(documents.items())
        for index, text in enumerate(pieces)
    ]
    write_table(pd.DataFrame(rows, columns=["passage_id", "document_id", "title", "text"]), folder / "passages.parquet")
    queries = [("q1", "What moves water?", "test")] if judged else []
    judgments = [("q1", "a", 1)] if judged else []
    write_table(pd.DataFrame(queries, columns=["query_id", "text", "split"]).astype("str"), folder / "queries.parquet")
    table = pd.DataFrame(judgments, columns=["query_id", "document_id", "grade"])
    types = {"query_id": "str", "document_id": "str", "grade": "int64"}
    write_table(table.astype(types), folder / "judgments.parquet")


def handbook(count: int) -> dict[str, tuple[str, list[str]]]:
    return {
        f"d{index:03d}": (
            f"Machine number {index}",
            [f"The machine of number {index} stands in hall {index % 7}. It weighs {index} tons and needs no oil."],
        )
        for index in range(count)
    }


def made(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    return pd.read_parquet(folder / "queries.parquet"), pd.read_parquet(folder / "judgments.parquet")


def test_a_document_gives_a_title_a_heading_its_first_sentence_another_and_keywords(tmp_path: Path) -> None:
    write(tmp_path, {"pump": ("Pumps and their care", [PUMP]), "x": ("Pump", ["No. 4711 0815"])})
    result = {query.query_id.split("/")[1]: query.text for query, _ in make_queries(_table(tmp_path), 9)}
    assert result["title"] == "Pumps and their care"
    assert result["heading"] == "Before the first use"
    assert result["sentence"] == "A pump moves a liquid from a low place to a high one."
    assert result["cloze"] in {
        "Fill the housing with water, or the seal runs dry within a minute.",
        "The shaft turns at 1,450 revolutions per minute under load.",
    }
    assert len(result["keywords"].split()) == 3
    assert len(result) == 5, "a title of one word and numbers are no queries"


def test_keywords_are_words_that_few_documents_have_in_their_order(tmp_path: Path) -> None:
    common = "Every machine stands in the hall and needs some oil."
    texts = {f"d{n:02d}": ("", [f"{common} Bolt{'abcdefghijklmnopqrst'[n]} and a cap."]) for n in range(20)}
    texts["d00"] = (
        "",
        [f"The Sprocket drives the crankshaft. {common} The crankshaft, the sprocket and the GASKET, its gasket."],
    )
    texts["d01"] = ("", ["東京タワーの高さは三百三十三メートルです。"])
    write(tmp_path, texts)
    made_of = {
        judgment.document_id: query.text
        for query, judgment in make_queries(_table(tmp_path), 99)
        if "/keywords/" in query.query_id
    }
    assert made_of == {"d00": "Sprocket crankshaft GASKET"}, "one rare word is no query, nor is what has no spaces"


def _table(folder: Path) -> PassageTable:
    return PassageTable(folder / "passages.parquet")


def test_a_corpus_without_judgments_gets_queries_for_all_splits(tmp_path: Path) -> None:
    write(tmp_path, handbook(200))
    counts = add_pseudo_queries(tmp_path, "auto", 1000, 0.2, 0.2)
    queries, judgments = made(tmp_path)
    check_table(queries, Queries, "queries")
    check_table(judgments, Judgments, "judgments")
    assert set(queries["kind"]) == {"title", "sentence", "cloze"}
    assert set(queries["split"]) == {"train", "dev", "test"}
    assert queries["query_id"].str.startswith("pseudo/").all()
    assert sorted(judgments["query_id"]) == sorted(queries["query_id"])
    assert counts["queries"] == len(queries) == sum(counts[f"queries_{name}"] for name in ("train", "dev", "test"))
    assert counts["pseudo_queries_title"] == 200
    # The queries of a document stay together: one of them would tell the answer of the other.
    joined = queries.merge(judgments, on="query_id")
    assert joined.groupby("document_id")["split"].nunique().max() == 1


def test_judged_splits_keep_to_given_queries_and_pseudo_queries_take_the_others(tmp_path: Path) -> None:
    write(tmp_path, handbook(200), judged=True)
    given, _ = made(tmp_path)
    assert given["split"].tolist() == ["test"]
    add_pseudo_queries(tmp_path, "auto", 1000, 0.3, 0.3)
    queries, judgments = made(tmp_path)
    assert queries.loc[queries["split"] == "test", ["query_id", "kind"]].to_numpy().tolist() == [["q1", "given"]]
    assert set(queries.loc[queries["kind"] != "given", "split"]) == {"train", "dev"}
    assert len(judgments) == len(queries)

    split = given.assign(split="train")
    expected: dict[Literal["auto", "on"], set[str]] = {"auto": set(), "on": {"train", "dev", "test"}}
    for mode, splits in expected.items():
        folder = tmp_path / mode
        folder.mkdir()
        write(folder, handbook(200), judged=True)
        split.to_parquet(folder / "queries.parquet")
        before = [path.read_bytes() for path in sorted(folder.iterdir())]
        counts = add_pseudo_queries(folder, mode, 1000, 0.3, 0.3)
        queries, _ = made(folder)
        assert set(queries.loc[queries["query_id"] != "q1", "split"]) == splits
        assert bool(counts) == (mode == "on")
        if mode == "auto":
            assert [path.read_bytes() for path in sorted(folder.iterdir())] == before


def test_texts_of_several_documents_or_of_a_given_query_are_no_queries(tmp_path: Path) -> None:
    documents = {
        "a": ("What moves water?", [NOTICE]),
        "b": ("Pumps and their care", [NOTICE]),
        "c": ("House rules", [NOTICE]),
        "d": ("House Rules", ["Sweep the hall before you leave it in the evening."]),
    }
    write(tmp_path, documents, judged=True)
    add_pseudo_queries(tmp_path, "on", 9, 0.3, 0.3)
    queries, _ = made(tmp_path)
    assert set(queries.loc[queries["kind"] != "given", "text"]) == {
        "Pumps and their care", "Sweep the hall before you leave it in the evening.", "Sweep hall leave"
    }  # fmt: skip


def test_the_documents_are_a_stable_sample(tmp_path: Path) -> None:
    for name, count in (("few", 40), ("many", 60)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, handbook(count))
    few, many = (
        {judgment.document_id for _, judgment in make_queries(_table(tmp_path / name), 10)} for name in ("few", "many")
    )
    assert len(few) == len(many) == 10
    smallest = sorted(handbook(60), key=lambda name: hashlib.sha256(name.encode()).digest())[:10]
    assert many == set(smallest)
    assert few >= many & set(handbook(40))


@pytest.mark.parametrize(
    "text", ["", "\n\n", "a", "?" * 50, "word " * 500, "\u202e\x00 \ufffd. " * 9, "水は低い。" * 40]
)
def test_any_text_gives_queries_under_the_contract(tmp_path: Path, text: str) -> None:
    write(tmp_path, {f"d{index}": (f"{text[:40]} {index}", [text or " "]) for index in range(4)})
    add_pseudo_queries(tmp_path, "auto", 9, 0.2, 0.2)
    queries, judgments = made(tmp_path)
    check_table(queries, Queries, "queries")
    check_table(judgments, Judgments, "judgments")


def test_in_training_the_text_of_a_query_is_taken_out_of_its_passages() -> None:
    rows = [
        ("t", "House rules", "House rules\nSweep the hall.", 1.0),
        ("t", "House rules", "Other title\nOil the saw.", 0.0),
        ("t", "House rules", "Without a title.", 0.0),
        ("g", "House rules", "House rules\nSweep the hall.", 1.0),
    ]
    rows += [(f"c{n}", "Oil the saw daily.", "A title\nIt cuts. Oil the\n saw daily. Rest.", 1.0) for n in range(400)]
    rows += [("c0", "Oil the saw daily.", "Oil the saw daily.", 0.0), ("c0", "Oil it daily.", "Oil it daily.", 1.0)]
    examples = pd.DataFrame(rows, columns=["query_id", "query", "passage", "label"])
    kinds = pd.Series({"t": "title", "g": "given", **{f"c{n}": "cloze" for n in range(400)}})
    passages = hide_answers(examples, kinds)["passage"].tolist()
    assert passages[:4] == ["Sweep the hall.", "Oil the saw.", "Without a title.", "House rules\nSweep the hall."]
    hidden = sum("saw daily" not in passage for passage in passages[4:404])
    assert 330 < hidden < 390, "in a tenth of the passages it stays"
    assert "A title\nIt cuts.  Rest." in passages[4:404]
    assert passages[404:] == ["Oil the saw daily.", "Oil it daily."], "a negative, and a passage that is nothing else"


def test_examples_of_given_queries_stay_as_they_are() -> None:
    examples = pd.DataFrame([("q", "a", "a\nb", 1.0)], columns=["query_id", "query", "passage", "label"])
    assert hide_answers(examples, pd.Series({"q": "given"})) is examples
