"""Questions that no passage answers, and questions that one does: `python -m bench.answerability [HOME]`.

Asks the champion of a home (`RERANKOPS_HOME` where left out) its own test queries whose relevant document is in the
corpus, and the test queries of the folders of RERANKOPS_DATA, which are about something else. Each is retrieved and
ranked without a deadline, and the extractive generator says whether a passage answers: by the score of the best one,
and by its sentences. The threshold was fitted on development queries alone. Figures go to
docs/benchmarks/answerability.json, the table to standard output.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.folders import DATA, FIGURES
from bench.results import merge_into
from models.contracts.messages import GenerateRequest
from models.evaluation.evaluation_set import split_of
from models.release.bundle import Bundle
from models.release.lookup import find_bundle
from models.serving.generator import generate_extractive, given_passages
from models.serving.loaded_bundle import LoadedBundle, load_bundle
from models.settings import Settings, load_settings
from models.store.artifacts import ArtifactStore

RESULTS = FIGURES / "answerability.json"
_NO_LIMIT_MS = 1e9


def main() -> None:
    """Measure one home, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", nargs="?", type=Path, help="a home with a release")
    parser.add_argument("--name", default="python-docs", help="what the figures are of")
    parser.add_argument("--most", type=int, default=200, help="questions of each set, at most")
    options = parser.parse_args()
    if options.home:
        os.environ["RERANKOPS_HOME"] = str(options.home.resolve())
    settings = load_settings()
    artifact = find_bundle(settings).artifact
    calibration, bundle = Bundle.open(artifact).calibration, load_bundle(artifact)
    test, judgments = split_of(ArtifactStore.of(settings).require("corpus/evaluation_set"), "test")
    judged = set(judgments.loc[judgments["grade"] > 0, "query_id"])
    own = test.loc[test["query_id"].isin(judged), "text"].tolist()[: options.most]
    sets = {"own test queries": own, **{name: outside(DATA / name, options.most) for name in sorted(folders())}}
    figures: dict[str, Any] = {
        "thresholds": {tier: asdict(one) for tier, one in calibration.answer_thresholds.items()},
        "development_queries": calibration.queries,
        "sets": {name: refused(bundle, settings, questions) for name, questions in sets.items()},
    }
    merge_into(RESULTS, {options.name: figures}, 1)
    print(table(figures))
    bundle.close()


def folders() -> list[str]:
    """The data sets of RERANKOPS_DATA."""
    return [path.parent.name for path in DATA.glob("*/queries.jsonl")]


def outside(folder: Path, most: int) -> list[str]:
    """Test queries of a BEIR folder."""
    rows = (folder / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]
    wanted = {row.split("\t")[0] for row in rows}
    with (folder / "queries.jsonl").open(encoding="utf-8") as lines:
        return [row["text"] for row in map(json.loads, lines) if row["_id"] in wanted][:most]


def refused(bundle: LoadedBundle, settings: Settings, questions: Iterable[str]) -> dict[str, float]:
    """Shares of questions that nothing answers: by the scores with the models and without them, and in all."""
    counts = {"questions": 0, "by_score": 0, "by_score_lean": 0, "refused": 0}
    for question in questions:
        candidates = bundle.retrieve(question, bundle.candidates)
        counts["questions"] += 1
        for key, budget_ms in (("by_score", _NO_LIMIT_MS), ("by_score_lean", 0.0)):
            ranking = bundle.rank_candidates(question, candidates, budget_ms)
            best = ranking.items[: settings.generator.passages]
            tier = ranking.items[0].scored_by
            asked = GenerateRequest(
                query=question,
                passages=given_passages([(bundle.passage(candidates[item.index]), item.score) for item in best]),
                min_score=None if tier is None else bundle.min_answer_score(tier),
                timeout_ms=_NO_LIMIT_MS,
            )
            generation = generate_extractive(asked, settings.generator).generation
            counts[key] += generation.reason.startswith("score")
            if budget_ms:
                counts["refused"] += generation.kind == "no_answer"
    total = counts.pop("questions")
    return {"questions": total, **{name: round(count / max(total, 1), 4) for name, count in counts.items()}}


def table(figures: Mapping[str, Any]) -> str:
    """The shares as Markdown."""
    lines = ["| questions | | refused by score | the same, lean | refused in all |", "| --- | --- | --- | --- | --- |"]
    for name, row in figures["sets"].items():
        shares = (f"{100 * row[key]:.1f} %" for key in ("by_score", "by_score_lean", "refused"))
        lines.append(f"| {name} | {row['questions']} | {' | '.join(shares)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
