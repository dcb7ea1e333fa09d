"""What fifty judged queries say: `python -m bench.judging NAME HOME`, chosen by disagreement or evenly.

The champion of a deployment ranks the test queries of its corpus. A person is stood in for by the judgments of the
corpus: of what is shown, it finds relevant what they say. Over many draws: how far the estimate is from that of all
queries, how wide its interval is and how often it holds the true value. Merged into docs/benchmarks/judging.json.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import numpy as np

from bench.folders import FIGURES
from models.evaluation.evaluation_set import split_of
from models.operations.judging import Draw, RankedQuery, differences_of, draw, estimate, rank_queries
from models.release.lookup import find_bundle
from models.serving.loaded_bundle import load_bundle
from models.serving.protocol import candidates_of
from models.settings import load_settings
from models.store.artifacts import ArtifactStore
from models.store.asset_names import EVALUATION_SET

RESULTS = FIGURES / "judging.json"
_COUNTS = (25, 50, 100)
_DRAWS = 200


def measure(queries: list[RankedQuery], grades: dict[str, dict[str, int]]) -> dict[str, Any]:
    """Errors and intervals of estimates from some of the queries, by how they are drawn and how many."""
    differences = differences_of(queries, grades)
    whole = estimate(queries, [Draw(query, 1.0) for query in queries], differences)
    rows = []
    for count in _COUNTS:
        for evenly in (False, True):
            drawn = [draw(queries, count, seed=seed, evenly=evenly) for seed in range(_DRAWS)]
            results = [estimate(queries, one_draw, differences, resamples=1000) for one_draw in drawn]
            values, lows, highs = (
                np.array([getattr(result, name) for result in results], dtype=float)
                for name in ("difference", "low", "high")
            )
            rows.append(
                {
                    "judged": count,
                    "drawn": "evenly" if evenly else "by disagreement",
                    "error": float(np.sqrt(np.mean((values - whole.difference) ** 2))),
                    "interval": float(np.mean(highs - lows)),
                    "holds": float(np.mean((lows <= whole.difference) & (whole.difference <= highs))),
                    "tells": float(np.mean((lows > 0) | (highs < 0))),
                    "documents": float(np.mean([sum(len(d.query.shown) for d in one_draw) for one_draw in drawn])),
                }
            )
    return {**whole.to_dict(), "draws": _DRAWS, "rows": rows}


def main() -> None:
    """Rank, draw, print and merge."""
    name, home = sys.argv[1], sys.argv[2]
    os.environ["RERANKOPS_HOME"] = home
    settings = load_settings()
    named = find_bundle(settings)
    store = ArtifactStore.of(settings)
    evaluation_set = store.open(EVALUATION_SET, named.artifact.manifest.inputs[EVALUATION_SET])
    table, judgments = split_of(evaluation_set, "test")
    text_of = dict(zip(table["query_id"], table["text"], strict=True))
    bundle = load_bundle(named.artifact)
    texts = list(dict.fromkeys(text_of.values()))
    queries = rank_queries(bundle, texts, candidates_of(bundle, settings.serving))
    bundle.close()
    relevant: dict[str, dict[str, int]] = {text: {} for text in texts}
    for query_id, document, grade in judgments[["query_id", "document_id", "grade"]].itertuples(index=False):
        relevant[text_of[query_id]][document] = int(grade)
    grades = {
        query.query_id: {document: relevant[query.text].get(document, 0) for document in query.shown}
        for query in queries
    }
    figures = measure(queries, grades)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps({**results, name: figures}, indent=1) + "\n", encoding="utf-8")
    print(f"{name}: {figures['difference']:+.4f} over {figures['queries']} queries, {figures['differing']} differ")
    for row in figures["rows"]:
        print(
            f"  {row['judged']:>3} {row['drawn']:<15} error {row['error']:.4f} interval {row['interval']:.4f} "
            f"holds {row['holds']:.0%} tells {row['tells']:.0%} documents {row['documents']:.0f}"
        )


if __name__ == "__main__":
    main()
