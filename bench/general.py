"""A general start on a corpus that it was not made from: `python -m bench.general [CORPUS...]`.

For each corpus, two models are pretrained on the others (`rerankops pretrain`) and released on it as they are: nothing
is trained, score calibration and the first stage are fitted on its development queries, and all is measured on its test
queries. --demo names the home of a deployment whose models are measured beside them. Corpora are prepared once for all
trainings; a call that was ended goes on. Folders of RERANKOPS_DATA are cut to --documents documents, those relevant to
the chosen queries among them. Figures go to `general_start` of docs/benchmarks/corpora.json, the table to standard
output.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bench.beir_part import sampled_judgments, write_part
from bench.folders import DATA, FIGURES, ROOT
from bench.results import merge_into
from models.contracts.tiers import FIRST_STAGES, LAST, LEAN
from models.evaluation.offline import make_offline_evaluation
from models.evaluation.report import compare
from models.evaluation.score_calibration import make_score_calibration
from models.evaluation.scored_candidates import make_scored_candidates
from models.measures.metrics import MAIN_MEASURE
from models.settings import Settings, load_settings
from models.store.artifacts import Artifact, ArtifactStore
from models.training.engine_selection import make_scoring_engines
from models.training.large_reranker import make_large_reranker
from models.training.pretraining import PreparedCorpus, corpora_settings, prepare, pretrain, pretraining_store
from models.training.steps import LARGE_RERANKER

RESULTS = FIGURES / "corpora.json"
FOLDERS = ("scifact", "squad-v1.1-dev", "medquad-liveqa-open")
CORPORA = (*FOLDERS, "python-docs", "man-pages-en")
SYSTEMS = (LAST.name, "tiered")


def main() -> None:
    """Measure each corpus, print and write."""
    parser = argparse.ArgumentParser(description="A general start, leave one corpus out.")
    parser.add_argument("corpus", nargs="*", default=CORPORA, help=f"corpora to leave out, of {', '.join(CORPORA)}")
    parser.add_argument("--mixture", nargs="*", default=CORPORA, choices=CORPORA, help="all corpora")
    parser.add_argument("--home", type=Path, default=ROOT / "var" / "general", help="where everything is kept")
    parser.add_argument("--demo", type=Path, help="home of a deployment whose models are measured too")
    parser.add_argument("--documents", type=int, default=1500, help="documents of a corpus")
    parser.add_argument("--train", type=int, default=800, help="training queries of a corpus, at most")
    parser.add_argument("--dev", type=int, default=120, help="development queries, at most")
    parser.add_argument("--test", type=int, default=300, help="test queries, at most")
    parser.add_argument("--pairs", type=int, default=4000, help="pairs of the large model")
    parser.add_argument("--compact-pairs", type=int, default=2000, help="pairs of the compact model")
    parser.add_argument("--set", action="append", default=[], help="a setting: section.key=value", dest="overrides")
    options = parser.parse_args()
    if not set(options.corpus) <= set(options.mixture):
        parser.error(f"corpora to leave out are of {', '.join(options.mixture)}")
    os.environ["RERANKOPS_HOME"] = str(options.home.resolve())
    figures = {}
    for name in options.corpus:
        started = time.monotonic()
        settings = _settings(options, name)
        start = pretrain(settings, _say)
        models = {"general": {tier: start.folder / tier for tier in start.models}}
        if options.demo:
            models["demo"] = _models_of(options.demo)
        corpus_settings = corpora_settings(settings)[name]
        corpus = prepare(pretraining_store(settings), name, corpus_settings, _say)
        figures[name] = {
            **_measure(corpus, corpus_settings, models),
            "pairs": {tier: model.summary["pairs"] for tier, model in start.models.items()},
            "corpora": list(start.facts["corpora"]),
            "minutes": round((time.monotonic() - started) / 60, 1),
        }
        merge_into(RESULTS, {"general_start": {name: figures[name]}})
    print(_table(figures))


def _settings(options: argparse.Namespace, left_out: str) -> Settings:
    """The settings of a pretraining without one corpus."""
    home = options.home.resolve()
    values = {
        "pretraining.corpora": {name: _corpus(name, options) for name in options.mixture},
        "pretraining.exclude": [left_out],
        "pretraining.pairs": options.pairs,
        "pretraining.compact_pairs": options.compact_pairs,
        "pretraining.folder": str(home / f"without-{left_out}"),
        "training.max_queries": options.train,
        "evaluation.max_dev_queries": options.dev,
        "evaluation.max_test_queries": options.test,
    }
    return load_settings(options.overrides, values=values)


def _corpus(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """What the settings say of a corpus; a folder of RERANKOPS_DATA is cut first."""
    if name == "python-docs":
        return {"source": name, "python_docs": {"max_documents": options.documents}}
    if name == "man-pages-en":
        limits = {"max_documents": options.documents, "max_body_characters": 1500}
        return {"source": "man-pages", "man_pages": {"languages": ["en"], **limits}}
    sizes = (options.documents, options.train, options.dev, options.test)
    folder = options.home.resolve() / "corpora" / "-".join([name, *map(str, sizes)])
    if not folder.is_dir():
        # Where there is no split for development, it is carved out of train later.
        wanted = {"train": options.train, "dev": options.dev, "test": options.test}
        sampled = {split: sampled_judgments(DATA / name, split, most) for split, most in wanted.items()}
        judgments = {split: table for split, table in sampled.items() if table is not None}
        write_part(DATA / name, folder, options.documents, judgments)
    return {"source": "beir", "path": str(folder)}


def _models_of(home: Path) -> dict[str, Path]:
    """The current models of a deployment, by tier."""
    store = ArtifactStore(str(home.resolve() / "artifacts"), home.resolve() / "cache")
    return {LAST.name: store.require(LARGE_RERANKER.name).folder}


def _measure(corpus: PreparedCorpus, settings: Settings, models: Mapping[str, Mapping[str, Path]]) -> dict[str, Any]:
    """All systems with each pair of models on the test queries of a corpus, and what the models gain."""
    evaluations = {name: _release(corpus, settings, folders) for name, folders in models.items()}
    tables = {name: evaluation.read_table("per_query.parquet") for name, (evaluation, _) in evaluations.items()}
    first, _ = evaluations["general"]
    best = max(FIRST_STAGES, key=lambda name: first.summary[f"ndcg_at_10_{name}"])
    figures: dict[str, Any] = {
        "passages": int(corpus.passages.summary["passages"]),
        "development_queries": int(corpus.evaluation_set.summary["queries_dev"]),
        "test_queries": int(first.summary["queries"]),
        "best_first_stage": best,
        "ndcg_at_10": {name: round(first.summary[f"ndcg_at_10_{name}"], 4) for name in (best, LEAN.name)},
    }
    for name, (evaluation, lean_alone) in evaluations.items():
        own = tables[name]
        figures[name] = {
            "ndcg_at_10": {system: round(evaluation.summary[f"ndcg_at_10_{system}"], 4) for system in SYSTEMS},
            "lean_alone": lean_alone,
            "gain_over_lean": {system: _gain(own, system, own, LEAN.name) for system in SYSTEMS},
            "gain_over_first_stage": {system: _gain(own, system, own, best) for system in SYSTEMS},
        }
        if name != "general":
            gains = {system: _gain(tables["general"], system, own, system) for system in SYSTEMS}
            figures["general"][f"gain_over_{name}"] = gains
    return figures


def _gain(table: pd.DataFrame, system: str, other: pd.DataFrame, baseline: str) -> list[float]:
    """Mean difference of nDCG@10 with its 95 % interval."""
    gain = compare(table, other, system, MAIN_MEASURE, other_system=baseline, candidate=system, baseline=baseline)
    return [round(value, 4) for value in (gain.difference, gain.low, gain.high)]


def _release(corpus: PreparedCorpus, settings: Settings, folders: Mapping[str, Path]) -> tuple[Artifact, bool]:
    """The evaluation of models as they are on a corpus, and whether its release would ask none of them."""
    store = pretraining_store(settings)
    changes: dict[str, Any] = {"base_model": str(folders[LAST.name]), "large_pairs": 0}
    own = settings.model_copy(update={"training": settings.training.model_copy(update=changes)})
    models = {LAST.name: make_large_reranker(store, own, corpus.training_examples)}
    given = corpus.passages, corpus.candidates, corpus.evaluation_set
    engines = make_scoring_engines(store, own, *given, models)
    scored = make_scored_candidates(
        store, own, corpus.evaluation_set, corpus.passages, corpus.candidates, models, engines, _counted("pairs scored")
    )
    calibration = make_score_calibration(store, own, corpus.evaluation_set, scored)
    evaluation = make_offline_evaluation(
        store, own, corpus.evaluation_set, corpus.passages, corpus.candidates, scored, calibration
    )
    return evaluation, bool(calibration.summary["lean_alone"])


def _table(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown."""
    names = [name for name in ("general", "demo") if any(name in row for row in figures.values())]
    shown = [(name, system) for name in names for system in SYSTEMS]
    heads = ["left out", "test queries", "best first stage", "lean"]
    heads += [f"{name} start, {system}, over lean" for name, system in shown]
    heads += ["general start, tiered, over the best first stage"]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for corpus, row in figures.items():
        best = row["best_first_stage"]
        cells = [corpus, str(row["test_queries"]), f"{best} {row['ndcg_at_10'][best]:.3f}"]
        cells.append(f"{row['ndcg_at_10'][LEAN.name]:.3f}")
        cells += [_cell(row[name]["gain_over_lean"][system]) if name in row else "" for name, system in shown]
        cells.append(_cell(row["general"]["gain_over_first_stage"]["tiered"]))
        lines.append(f"| {' | '.join(cells)} |")
    means = [
        f"{name} start, {system}: {sum(gains) / len(gains):+.3f}"
        for name, system in shown
        if (gains := [row[name]["gain_over_lean"][system][0] for row in figures.values() if name in row])
    ]
    return "\n".join([*lines, "", f"Mean gain over lean: {'; '.join(means)}."])


def _cell(gain: list[float]) -> str:
    difference, low, high = gain
    return f"{difference:+.3f} ({low:+.3f} to {high:+.3f})"


_told: dict[str, int] = {}


def _say(what: str, done: int, total: int) -> None:
    """A line for each half of what is counted."""
    step = 2 * done // max(total, 1)
    if step > _told.get(what, 0):
        print(f"{time.strftime('%H:%M:%S')} {what}: {done} of {total}", flush=True)
    _told[what] = step


def _counted(what: str) -> Any:
    return lambda done, total: _say(what, done, total)


if __name__ == "__main__":
    main()
