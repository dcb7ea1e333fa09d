"""The first stage that fits a corpus, against those that are fixed: `python -m bench.first_stage [CORPUS...]`.

Everything is chosen on the development queries and shown on the test queries, with 95 % intervals of the differences,
and how many of the relevant documents are among the best 20, 50 and 100. A corpus is `deployment`, the one of
RERANKOPS_HOME, or the name of a folder of RERANKOPS_DATA, of which --documents documents are read, those relevant to
the queries that are asked among them. Behind a `+` stands what is changed: `squad-v1.1-dev+typos` asks the same
questions with a slip in every other long word. `questions` is made of the questions of MedQuAD, as in a list of
frequent ones: each is a passage, and is asked for in other words ("signs" for "symptoms"). Figures go to
docs/benchmarks/first_stage.json.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from bench.beir_part import sampled_judgments, write_part
from bench.folders import DATA, FIGURES, ROOT
from bench.results import merge_into
from bench.rewording import content_words, function_words
from models.contracts.tiers import FIRST_STAGES, LEAN
from models.corpus.splits import sample_by_hash
from models.evaluation.evaluation_set import split_of
from models.evaluation.report import compare
from models.measures.metrics import MAIN_MEASURE, collapse_to_documents, evaluate_run, mean_values
from models.retrieval.candidates import build_candidates, first_stage_rankings
from models.retrieval.first_stage import choose_first_stage
from models.retrieval.fusion import FirstStage
from models.retrieval.retriever import open_retriever
from models.settings import IndexSettings, as_environment
from models.store import asset_names as names
from models.store.artifacts import ArtifactStore

RESULTS = FIGURES / "first_stage.json"
MEASURES = (MAIN_MEASURE, "R@20", "R@50", "R@100")
_ENOUGH = (20, 40, 80, 160)
"""Development queries that the choice is repeated with."""


def main() -> None:
    """Measure each corpus, print and write."""
    parser = argparse.ArgumentParser(description="The first stage that fits a corpus.")
    parser.add_argument("corpus", nargs="*", default=["deployment"])
    parser.add_argument("--documents", type=int, default=1500, help="documents of a folder of RERANKOPS_DATA")
    parser.add_argument("--dev", type=int, default=240, help="development queries, at most")
    parser.add_argument("--test", type=int, default=500, help="test queries, at most")
    parser.add_argument("--name", default="", help="what `deployment` is called in the figures")
    options = parser.parse_args()
    base = Path(os.environ.get("RERANKOPS_HOME") or ROOT / "var").resolve()
    for corpus in options.corpus:
        name, _, changed = corpus.partition("+")
        home = base if name == "deployment" else base / f"{name}-{options.documents}"
        if name != "deployment":
            make_indexes(name, home, options.documents, options.dev, options.test)
        figures = measure(home, CHANGES[changed])
        merge_into(RESULTS, {corpus.replace("deployment", options.name or "deployment"): figures})
        print(corpus, json.dumps(figures), flush=True)


def make_indexes(corpus: str, home: Path, documents: int, dev: int, test: int) -> None:
    """The indexes of a part of a corpus in `home`; what is there already is not made again."""
    folder = home / "corpus"
    if not folder.is_dir():
        if corpus == "questions":
            write_questions(DATA / "medquad-liveqa-open", folder, documents, dev, test)
        else:
            cut_part(DATA / corpus, folder, documents, dev, test)
    overrides = ["corpus.source=beir", f"corpus.path={folder}", f"evaluation.max_dev_queries={dev}"]
    program = [sys.executable, "-m", "orchestration.cli", "run", "--select", f'+key:"{names.FIRST_STAGE}"']
    environment = {**os.environ, **as_environment(overrides), "RERANKOPS_HOME": str(home)}
    if subprocess.run(program, cwd=ROOT, env=environment, check=False).returncode:
        sys.exit(f"{corpus}: the run in {home} failed")


def cut_part(source: Path, folder: Path, documents: int, dev: int, test: int) -> None:
    """Some documents of a folder in BEIR's layout, the queries of its training split where it has none for dev."""
    of_dev = sampled_judgments(source, "dev", dev)
    if of_dev is None:
        of_dev = sampled_judgments(source, "train", dev)
    sampled = {"dev": of_dev, "test": sampled_judgments(source, "test", test)}
    write_part(source, folder, documents, {split: table for split, table in sampled.items() if table is not None})


def write_questions(source: Path, folder: Path, documents: int, dev: int, test: int) -> None:
    """Questions as passages, all of a topic together; asked for in other words, a topic in one split alone."""
    with gzip.open(source / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        topic_of = {str(record["_id"]): record["title"] for record in map(json.loads, lines)}
    queries = [json.loads(line) for line in (source / "queries.jsonl").read_text(encoding="utf-8").splitlines()]
    judged = pd.read_csv(source / "qrels" / "train.tsv", sep="\t", dtype=str).drop_duplicates("query-id")
    answer_of = dict(zip(judged["query-id"], judged["corpus-id"], strict=True))
    table = pd.DataFrame(
        [
            (query["_id"], query["text"], topic_of[answer_of[query["_id"]]])
            for query in queries
            if query["_id"] in answer_of
        ],
        columns=["query_id", "text", "topic"],
    ).drop_duplicates("text")
    table = table[table.groupby("topic")["text"].transform("size") >= 4]
    topics = sample_by_hash(pd.DataFrame({"query_id": table["topic"].unique()}), len(table))["query_id"].tolist()
    order = {topic: place for place, topic in enumerate(topics)}
    table = table.assign(place=table["topic"].map(order)).sort_values(["place", "query_id"]).head(documents)
    asked = table.assign(text=[content_words(function_words(text)) for text in table["text"]])
    asked = asked[[content_words(text) != text for text in table["text"]]]
    splits = {"dev": asked[asked["place"] % 2 == 0].head(dev), "test": asked[asked["place"] % 2 == 1].head(test)}
    (folder / "qrels").mkdir(parents=True)
    lines_of = {
        "corpus.jsonl": [
            {"_id": f"d{name}", "title": "", "text": text} for name, text in table[["query_id", "text"]].to_numpy()
        ],
        "queries.jsonl": [
            {"_id": name, "text": text}
            for part in splits.values()
            for name, text in part[["query_id", "text"]].to_numpy()
        ],
    }
    for name, records in lines_of.items():
        (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    for split, part in splits.items():
        rows = [f"{name}\td{name}\t1\n" for name in part["query_id"]]
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows), encoding="utf-8")


def measure(home: Path, change: Callable[[str], str]) -> dict[str, Any]:
    """The choice on the development queries of a deployment, and all first stages on its test queries."""
    store = ArtifactStore(str(home / "artifacts"), home / "cache")
    passages, embeddings, dense, lexical, evaluation_set = (
        store.require(name)
        for name in (
            names.PASSAGES, names.PASSAGE_EMBEDDINGS, names.DENSE_INDEX, names.LEXICAL_INDEX, names.EVALUATION_SET,
        )
    )  # fmt: skip
    settings = IndexSettings()
    retriever = open_retriever(passages, embeddings, dense, lexical, settings)
    (dev, of_dev), (test, of_test) = (_asked(*split_of(evaluation_set, name), change) for name in ("dev", "test"))
    pool = build_candidates(dev, retriever, 2 * settings.depth, depth=settings.depth)
    chosen = choose_first_stage(pool, of_dev, settings)
    vectors = retriever.encode(test["text"].tolist())
    brought = build_candidates(test, retriever, 2 * settings.depth, vectors=vectors, depth=settings.depth)
    rankings = {
        **first_stage_rankings(test, retriever, settings.depth, vectors),
        LEAN.name: ordered(brought, chosen.first_stage),
    }
    tables = {
        name: evaluate_run(collapse_to_documents(ranking), of_test, MEASURES).assign(system=name)
        for name, ranking in rankings.items()
    }
    systems = {name: mean_values(table) for name, table in tables.items()}
    best = max(FIRST_STAGES, key=lambda name: systems[name][MAIN_MEASURE])
    return {
        "passages": len(retriever.passage_ids),
        "development_queries": chosen.queries,
        "test_queries": len(test),
        "chosen": chosen.first_stage.method,
        "weights": {name: round(weight, 4) for name, weight in chosen.first_stage.weights.items()},
        "development": _rounded(chosen.figures),
        "test": {name: _rounded(means) for name, means in systems.items()},
        "best_fixed": best,
        "over_hybrid": _gains(tables[LEAN.name], tables["hybrid"], "hybrid"),
        "over_best": _gains(tables[LEAN.name], tables[best], best),
        "by_development_queries": _by_queries(pool, of_dev, brought, of_test, settings),
    }


def ordered(brought: pd.DataFrame, first_stage: FirstStage) -> pd.DataFrame:
    """All that both searches brought, in the order of a first stage; `retriever_score` is that of reciprocal ranks."""
    scores = brought["retriever_score"]
    if first_stage.weights:
        scores = first_stage.scores([], brought["dense_score"].to_numpy(), brought["lexical_score"].to_numpy())
    ranked = brought.assign(score=scores).sort_values(
        ["query_id", "score", "passage_id"], ascending=[True, False, True], ignore_index=True
    )
    return ranked.assign(rank=ranked.groupby("query_id").cumcount() + 1)


def _asked(
    queries: pd.DataFrame, judgments: pd.DataFrame, change: Callable[[str], str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    relevant = judgments.loc[judgments["grade"] > 0, "query_id"]
    asked = queries.loc[queries["query_id"].isin(relevant)].reset_index(drop=True)
    asked = asked.assign(text=[change(text) for text in asked["text"]])
    return asked, judgments.loc[judgments["query_id"].isin(asked["query_id"])].reset_index(drop=True)


def _by_queries(
    pool: pd.DataFrame, of_dev: pd.DataFrame, brought: pd.DataFrame, of_test: pd.DataFrame, settings: IndexSettings
) -> dict[str, Any]:
    """What fewer development queries would have chosen, and its nDCG@10 on the test queries."""
    by_hash = sample_by_hash(pool[["query_id"]].drop_duplicates(), pool["query_id"].nunique())["query_id"].tolist()
    outcomes = {}
    for count in (count for count in _ENOUGH if count < len(by_hash)):
        few = by_hash[:count]
        chosen = choose_first_stage(
            pool[pool["query_id"].isin(few)], of_dev[of_dev["query_id"].isin(few)], settings
        ).first_stage
        run = collapse_to_documents(ordered(brought, chosen))
        mean = mean_values(evaluate_run(run, of_test, [MAIN_MEASURE]))[MAIN_MEASURE]
        outcomes[str(count)] = [chosen.method, round(mean, 4)]
    return outcomes


def _gains(table: pd.DataFrame, other: pd.DataFrame, name: str) -> dict[str, list[float]]:
    gains = {}
    for measure_name in MEASURES:
        gain = compare(table, other, LEAN.name, measure_name, other_system=name, candidate=LEAN.name, baseline=name)
        values = asdict(gain)
        gains[measure_name] = [round(values[key], 4) for key in ("difference", "low", "high")]
    return gains


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def typos(text: str) -> str:
    """Every other word of four letters and more with two neighbouring letters swapped, as hands do; by hash."""
    words, long = text.split(), 0
    for place, word in enumerate(words):
        if len(word) < 4:
            continue
        long += 1
        if long % 2:
            at = 1 + hashlib.sha256(word.encode()).digest()[0] % (len(word) - 2)
            words[place] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return " ".join(words)


CHANGES: dict[str, Callable[[str], str]] = {"": lambda text: text, "typos": typos}


if __name__ == "__main__":
    main()
