"""Which defaults the development queries choose: `python -m bench.defaults [CORPUS] [--only GROUP,...] [--set K=V]`.

Trains and scores each variant of tokens, truncation and layers in one home below RERANKOPS_HOME (default var/defaults),
where what variants share is made once. Judged are all development queries of the corpus: scores are fitted on one half
and judged on the other, and the other way round. No variant is compared on test queries; 20 are evaluated because the
lifecycle asks for some, and their figures are read by nobody.

Adds nDCG@10 by system, the difference from the first variant of its group with interval, the cost of a pair and the
minutes of training to docs/benchmarks/defaults.json under CORPUS, and prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from bench.folders import DATA, FIGURES, ROOT
from bench.quality import SETTINGS, development_values
from bench.results import merge_into
from models.contracts.tiers import LEAN, MODEL_TIERS
from models.evaluation.report import compare
from models.evaluation.scored_candidates import pair_costs, seconds_per_pair
from models.measures.metrics import MAIN_MEASURE, mean_values
from models.settings import load_settings
from models.store import asset_names as names
from models.text.markdown import table_lines
from orchestration.separate_runs import run_to_evaluation, store_in

RESULTS = FIGURES / "defaults.json"
COMPACT, LARGE = (tier.name for tier in MODEL_TIERS)

GROUPS = ("tokens", "compact")
_COMPARED = {"tokens": LARGE, "compact": COMPACT}


def variants_of(group: str, pairs: int, tiny: str | None) -> dict[str, tuple[str, ...]]:
    """The settings of each variant of a group. The large models read as many tokens in training: `pairs` of 64."""

    def read(tokens: int, cut: str) -> tuple[str, ...]:
        count = pairs * 64 // tokens
        return f"training.max_tokens={tokens}", f"training.large_pairs={count}", f"training.passage_cut={cut}"

    if group == "tokens":
        return {
            "64 tokens by the query": read(64, "query"),
            "64 tokens from the start": read(64, "start"),
            "96 tokens by the query": read(96, "query"),
            "96 tokens from the start": read(96, "start"),
            "128 tokens by the query": read(128, "query"),
        }
    variants = {
        f"layers {layers}": (*read(64, "query"), f"training.compact_layers=[{layers}]")
        for layers in ("0,1,2,4,5", "0,1,4,5", "0,2,5", "0,5")
    }
    if tiny:
        for times in (1, 6):
            own = f"training.compact_base_model={tiny}", f"training.compact_pairs={times * pairs // 2}"
            variants[f"{Path(tiny).name}, {times * pairs // 2} pairs"] = (*read(64, "query"), *own)
    return variants


def main() -> None:
    """Run the variants, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="?", default="python-docs", help=f"any of {', '.join(SETTINGS)}")
    parser.add_argument("--only", default=",".join(GROUPS), help="groups, separated by commas")
    parser.add_argument("--pairs", type=int, default=16000, help="pairs of the large model, where they have 64 tokens")
    parser.add_argument("--tiny", help="weights of a small model, by path: further variants of the compact one")
    parser.add_argument("--variants", default="", help="variants of a group, separated by semicolons; else all")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of all variants")
    options = parser.parse_args()
    home = Path(os.environ.get("RERANKOPS_HOME") or ROOT / "var" / "defaults").resolve() / options.corpus
    common = [
        f"training.compact_pairs={options.pairs // 2}",
        "evaluation.max_dev_queries=100000",
        "evaluation.max_test_queries=20",
        *SETTINGS[options.corpus],
    ]
    if options.corpus != "python-docs":
        common += ["corpus.source=beir", f"corpus.path={DATA / options.corpus}"]
    for group in options.only.split(","):
        system, variants = _COMPARED[group], variants_of(group, options.pairs, options.tiny)
        if options.variants:
            variants = {name: variants[name] for name in options.variants.split(";")}
        models = [COMPACT, LARGE] if group == "compact" else [LARGE]
        rows, first = [], None
        for variant, overrides in variants.items():
            figures, per_query = measure(
                home, [*common, f"tiers.models={json.dumps(models)}", *options.set, *overrides]
            )
            first = per_query if first is None else first
            over = compare(per_query, first, system)
            figures |= {"over_first": [over.difference, over.low, over.high], "first": next(iter(variants))}
            merge_into(RESULTS, {options.corpus: {f"{group}, {options.pairs} pairs": {variant: figures}}})
            rows.append(row(variant, figures, system))
            print(rows[-1], flush=True)
        heads = (
            "variant",
            LEAN.name,
            COMPACT,
            LARGE,
            "tiered",
            f"{system} over the first (95 %)",
            "ms a pair",
            "minutes",
        )
        print("\n".join(table_lines(heads, rows)), flush=True)


def measure(home: Path, overrides: list[str]) -> tuple[dict[str, Any], pd.DataFrame]:
    """Figures of one variant, and the values of each development query."""
    if run_to_evaluation(home, overrides):
        sys.exit(f"the run in {home} failed with {' '.join(overrides)}")
    store, settings = store_in(home), load_settings(overrides)
    per_query = development_values(store, settings)
    scored = store.require(names.SCORED_CANDIDATES)
    gain = compare(per_query, per_query, "tiered", other_system=LEAN.name)
    means = {
        str(name): round(mean_values(values)[MAIN_MEASURE], 4)
        for name, values in per_query.drop(columns="system").groupby(per_query["system"])
    }
    return {
        "settings": overrides,
        "queries": int(per_query["query_id"].nunique()),
        "ndcg_at_10": means,
        "tiered_over_lean": [gain.difference, gain.low, gain.high],
        "pair_cost": pair_costs(scored),
        "ms_per_pair": {tier: round(1000 * seconds, 2) for tier, seconds in seconds_per_pair(scored).items()},
        "minutes": {tier.name: round(store.require(tier.asset).manifest.seconds / 60, 2) for tier in MODEL_TIERS},
    }, per_query


def row(variant: str, figures: dict[str, Any], system: str) -> tuple[str, ...]:
    """A line of the table."""
    means, (difference, low, high) = figures["ndcg_at_10"], figures["over_first"]
    return (
        variant,
        *(f"{means[name]:.4f}" if name in means else "" for name in (LEAN.name, COMPACT, LARGE, "tiered")),
        f"{difference:+.4f} ({low:+.4f} to {high:+.4f})",
        f"{figures['ms_per_pair'][system]:.1f}",
        f"{figures['minutes'][system]:.1f}",
    )


if __name__ == "__main__":
    main()
