"""What the gate stops: `python -m bench.gate NAME HOME [--former 250] [--set section.key=value ...]`.

HOME is a deployment that has released, made with these settings.

Its true models are judged, and candidates that were broken on purpose: logits of noise (three seeds), a checkpoint with
the values of each tensor in random places, a tokenizer whose word ids are permuted, passages with the vectors of
others, and a tenth of the budget. Each is calibrated, evaluated, bundled, loaded, profiled and judged by the code that
judges a real one; each but one is judged as the first release, so that no champion helps to refuse it. The candidate
with the broken first stage is held against the true models as champion. Broken models are judged with
`tiers.lean_alone` at "never", so that the gate's rules are what stops them; the last row leaves it at "auto", as
deployments do: models that add nothing are left out of the release.

What lies between a broken artifact and its bundle and would have to be trained again is copied, with the broken
artifact named as its input. Everything is made in HOME's artifact store and nothing is pointed at.

Then the power of the rules by simulation from the stored values of each query: samples of queries are drawn, with
replacement, of which the true gain, or that there is no loss against a champion, is known. With `--former` also the
gains on the test queries that no default was ever chosen on.

Adds to docs/benchmarks/gate.json and prints tables for docs/benchmarks/gate.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.folders import FIGURES
from bench.results import merge_into
from models.contracts.tiers import FIRST_STAGES, LEAN, MODEL_TIERS, released_tiers
from models.corpus.splits import sample_by_hash
from models.evaluation.offline import make_offline_evaluation
from models.evaluation.report import compare, read_report
from models.evaluation.score_calibration import make_score_calibration
from models.evaluation.scored_candidates import make_scored_candidates
from models.measures.metrics import MAIN_MEASURE
from models.measures.significance import bootstrap_interval, paired_randomization_test
from models.records.database import Database
from models.records.ledger import Ledger
from models.release.evidence import Exhibits, gather
from models.release.gate import GateDecision, decide
from models.release.parts import BundleParts
from models.release.release_candidate import make_release_candidate
from models.release.releaser import bundle_versions
from models.retrieval.candidates import make_candidates
from models.retrieval.dense_index import make_dense_index
from models.serving.champion import make_champion_evaluation
from models.serving.latency_profile import make_latency_profile
from models.settings import Settings, load_settings
from models.store import asset_names as names
from models.store.artifacts import Artifact, ArtifactStore
from models.store.tables import write_table
from models.text.markdown import table_lines
from models.training.corpus_defaults import settings_in_force
from models.training.engine_selection import make_scoring_engines
from tests.shuffled_weights import shuffle_weights

RESULTS = FIGURES / "gate.json"
NOISE_SEEDS = (0, 1, 2)
SIZES = (40, 250, 400, 716, 1500)
"""Test queries: of the preset tiny, of the former default, and more."""
_SIMULATED = 400
_RESAMPLES = 1000
_COPIED = (names.TRAINING_EXAMPLES, names.LOGGED_LISTS, *(tier.asset for tier in reversed(MODEL_TIERS)))
"""What would be trained again behind another first stage, in the order in which it is made."""

Change = Callable[[Path], None]


@dataclass(frozen=True)
class Bench:
    """A deployment, what its release was made of, and how candidates beside it are made."""

    settings: Settings
    store: ArtifactStore
    true: Mapping[str, Artifact]

    @property
    def asked(self) -> Settings:
        """The settings, under which the models are asked whether they pay or not."""
        tiers = self.settings.tiers.model_copy(update={"lean_alone": "never"})
        return self.settings.model_copy(update={"tiers": tiers})

    @classmethod
    def open(cls, settings: Settings) -> Bench:
        """The current artifacts of a deployment."""
        store = ArtifactStore.of(settings)
        wanted = (
            names.PASSAGES, names.QUERIES, names.EVALUATION_SET, names.PASSAGE_EMBEDDINGS, names.DENSE_INDEX,
            names.LEXICAL_INDEX, names.FIRST_STAGE, names.CANDIDATES, *_COPIED, names.SCORING_ENGINES,
            names.SCORED_CANDIDATES, names.SCORE_CALIBRATION, names.OFFLINE_EVALUATION, names.RELEASE_CANDIDATE,
        )  # fmt: skip
        return cls(settings_in_force(store, settings), store, {name: store.require(name) for name in wanted})

    def broken(self, name: str, sabotage: str, changed: Mapping[str, Artifact], change: Change | None) -> Artifact:
        """A copy of the true artifact `name` whose inputs are those of `changed`, its files changed by `change`."""
        artifact = self.true[name]
        inputs = {
            key: changed[key].data_version if key in changed else version
            for key, version in artifact.manifest.inputs.items()
        }

        def build(folder: Path) -> dict[str, Any]:
            for file in artifact.manifest.files:
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(artifact.path(file), folder / file)
            # Another content has another version, also where only what it was made of is another.
            (folder / "sabotage.txt").write_text(sabotage)
            if change is not None:
                change(folder)
            return dict(artifact.summary)

        return self.store.get_or_create(
            name,
            code_version=artifact.manifest.code_version,
            inputs={**inputs, "sabotage": sabotage},
            settings=artifact.manifest.settings,
            build=build,
        )

    def judged(self, changed: Mapping[str, Artifact], ledger: Ledger, settings: Settings | None = None) -> GateDecision:
        """The gate's decision on the candidate of `changed` artifacts: what follows from them is made here."""
        settings = settings or self.settings
        artifacts = {**self.true, **changed}
        passages, evaluation_set = artifacts[names.PASSAGES], artifacts[names.EVALUATION_SET]
        rerankers = {tier.name: artifacts[tier.asset] for tier in released_tiers(settings.tiers)}
        if names.SCORED_CANDIDATES not in changed:
            artifacts[names.SCORING_ENGINES] = make_scoring_engines(
                self.store, settings, passages, artifacts[names.CANDIDATES], evaluation_set, rerankers
            )
            artifacts[names.SCORED_CANDIDATES] = make_scored_candidates(
                self.store,
                settings,
                evaluation_set,
                passages,
                artifacts[names.CANDIDATES],
                rerankers,
                artifacts[names.SCORING_ENGINES],
            )
        scored = artifacts[names.SCORED_CANDIDATES]
        calibration = make_score_calibration(self.store, settings, evaluation_set, scored)
        evaluation = make_offline_evaluation(
            self.store, settings, evaluation_set, passages, artifacts[names.CANDIDATES], scored, calibration
        )
        artifacts |= {names.SCORE_CALIBRATION: calibration, names.OFFLINE_EVALUATION: evaluation}
        parts = BundleParts.of({name.split("/")[1]: artifact for name, artifact in artifacts.items()}, settings.tiers)
        bundle = make_release_candidate(self.store, settings, parts, scored)
        exhibits = Exhibits(
            bundle,
            evaluation,
            make_champion_evaluation(self.store, settings, ledger.current(), evaluation_set),
            make_latency_profile(self.store, settings, bundle, evaluation_set),
        )
        return decide(gather(self.store, ledger, exhibits, settings, None), settings)


def noise(seed: int) -> Change:
    """Replaces the logits of all models by standard normal values."""

    def change(folder: Path) -> None:
        table = pd.read_parquet(folder / "scored.parquet")
        generator = np.random.default_rng(seed)
        columns = [tier.logit_column for tier in MODEL_TIERS if tier.logit_column in table]
        logits = {column: generator.normal(size=len(table)).astype(np.float32) for column in columns}
        write_table(table.assign(**logits), folder / "scored.parquet")

    return change


def permute_words(folder: Path) -> None:
    """Gives each word piece of the tokenizer the id of another; special tokens keep theirs."""
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = values["model"]["vocab"]
    words = [word for word in vocabulary if not (word.startswith("[") and word.endswith("]"))]
    ids = np.random.default_rng(0).permutation([vocabulary[word] for word in words]).tolist()
    values["model"]["vocab"] = {**vocabulary, **dict(zip(words, ids, strict=True))}
    path.write_text(json.dumps(values), encoding="utf-8")


def roll_vectors(folder: Path) -> None:
    """Gives each passage the vector of another, from the other half of the corpus."""
    vectors: NDArray[np.float32] = np.load(folder / "embeddings.npy")
    np.save(folder / "embeddings.npy", np.roll(vectors, len(vectors) // 2, axis=0))


def candidates(bench: Bench, empty: Ledger, champion: Ledger) -> dict[str, tuple[str, Callable[[], GateDecision]]]:
    """By name: the rule that is meant for a candidate, none for the true one, and what judges it."""

    def models(sabotage: str, change: Change) -> GateDecision:
        changed: dict[str, Artifact] = {}
        for tier in reversed(released_tiers(bench.settings.tiers)):
            changed[tier.asset] = bench.broken(tier.asset, sabotage, changed, change)
        return bench.judged(changed, empty, bench.asked)

    def first_stage() -> GateDecision:
        store, settings, true = bench.store, bench.settings, bench.true
        vectors = bench.broken(names.PASSAGE_EMBEDDINGS, "vectors of other passages", {}, roll_vectors)
        changed = {names.PASSAGE_EMBEDDINGS: vectors}
        passages, queries, evaluation_set = (
            true[name] for name in (names.PASSAGES, names.QUERIES, names.EVALUATION_SET)
        )
        dense = make_dense_index(store, settings, passages, queries, vectors)
        changed[names.DENSE_INDEX] = dense
        lexical = true[names.LEXICAL_INDEX]
        # The order that was chosen for the true vectors: a choice anew would leave the broken ones out.
        order = bench.broken(names.FIRST_STAGE, "chosen for the true vectors", changed, None)
        changed[names.FIRST_STAGE] = order
        changed[names.CANDIDATES] = make_candidates(
            store, settings, passages, queries, evaluation_set, vectors, dense, lexical, order
        )
        for name in _COPIED:
            changed[name] = bench.broken(name, "behind a broken first stage", changed, None)
        return bench.judged(changed, champion, bench.asked)

    def budget() -> GateDecision:
        tiers = bench.asked.tiers
        tenth = tiers.model_copy(update={"budget_ms": tiers.budget_ms / 10})
        return bench.judged({}, empty, bench.settings.model_copy(update={"tiers": tenth}))

    def noisy(seed: int, settings: Settings) -> GateDecision:
        scored = bench.broken(names.SCORED_CANDIDATES, f"noise {seed}", {}, noise(seed))
        return bench.judged({names.SCORED_CANDIDATES: scored}, empty, settings)

    return {
        "true models": ("", lambda: bench.judged({}, empty)),
        **{f"noise, seed {seed}": ("gain", lambda seed=seed: noisy(seed, bench.asked)) for seed in NOISE_SEEDS},
        "shuffled checkpoint": ("gain", lambda: models("shuffled checkpoint", shuffle_weights)),
        "wrong tokenizer": ("gain", lambda: models("wrong tokenizer", permute_words)),
        "broken first stage": ("champion_loss", first_stage),
        "a tenth of the budget": ("degraded_share", budget),
        "noise, seed 0, left out": ("", lambda: noisy(NOISE_SEEDS[0], bench.settings)),
    }


def simulated_power(per_query: pd.DataFrame, settings: Settings) -> dict[str, dict[str, float]]:
    """How often the rules let candidates through, by number of test queries and by what is true of the candidate.

    Samples of queries are drawn with replacement. The differences of a gain are those of tiered and lean, moved to the
    true gain; those of an equal candidate are those of the two models, or of the only one and tiered, moved to
    0: they rank about as well as each other, and two models differ as two trainings do or more.
    """
    main = per_query[per_query["measure"] == MAIN_MEASURE].pivot(index="query_id", columns="system", values="value")
    gains = (main["tiered"] - main[LEAN.name]).to_numpy(dtype=float)
    alike = [tier.name for tier in MODEL_TIERS if tier.name in main]
    apart = (main[alike[-1]] - main[alike[0] if len(alike) > 1 else "tiered"]).to_numpy(dtype=float)
    gate, confidence = settings.gate, settings.evaluation.confidence
    generator = np.random.default_rng(0)
    table: dict[str, dict[str, float]] = {}
    for size in SIZES:
        shares = {"equal candidate passes champion_loss": 0.0}
        for _ in range(_SIMULATED):
            sample = generator.choice(apart - apart.mean(), size)
            low, _ = bootstrap_interval(sample, confidence, _RESAMPLES)
            shares["equal candidate passes champion_loss"] += low >= -gate.max_champion_loss
        for true in (0.0, gate.min_gain, 2 * gate.min_gain, float(gains.mean())):
            name = f"true gain {true:+.3f} passes gain and gain_p_value"
            shares[name] = 0.0
            for _ in range(_SIMULATED):
                sample = generator.choice(gains - gains.mean() + true, size)
                if sample.mean() >= gate.min_gain:
                    p = paired_randomization_test(sample, np.zeros(size), _RESAMPLES, 0, "greater")
                    shares[name] += p <= gate.max_p_value
        table[str(size)] = {name: share / _SIMULATED for name, share in shares.items()}
    return table


def unseen(per_query: pd.DataFrame, former: int, settings: Settings) -> dict[str, Any]:
    """The systems on the test queries outside the sample of `former` that defaults were once chosen on, and the gains.

    The sample is that of `models.corpus.splits.sample_by_hash`, which was evaluated when `evaluation.max_test_queries`
    was `former`.
    """
    ids = pd.DataFrame({"query_id": sorted(set(per_query["query_id"]))})
    seen = set(sample_by_hash(ids, former)["query_id"])
    rows = per_query[~per_query["query_id"].isin(seen)]
    means = rows[rows["measure"] == MAIN_MEASURE].groupby("system")["value"].mean()
    best = str(means[list(FIRST_STAGES)].idxmax())

    def gain(system: str, baseline: str) -> list[float]:
        over = compare(rows, rows, system, settings=settings.evaluation, other_system=baseline)
        return [over.difference, over.low, over.high, over.p_gain]

    return {
        "queries": rows["query_id"].nunique(),
        "ndcg_at_10": means.to_dict(),
        "best_first_stage": best,
        "tiered_over_lean": gain("tiered", LEAN.name),
        "tiered_over_first_stage": gain("tiered", best),
        "lean_over_first_stage": gain(LEAN.name, best),
    }


def main() -> None:
    """Judge the candidates of one deployment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("home", type=Path)
    parser.add_argument("--former", type=int, default=0, help="test queries that defaults were once chosen on")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    os.environ["RERANKOPS_HOME"] = str(arguments.home.absolute())
    bench = Bench.open(load_settings(arguments.overrides))
    report = read_report(bench.true[names.OFFLINE_EVALUATION].folder)
    rows, outcomes = [], {}
    with tempfile.TemporaryDirectory() as folder:
        ledgers = []
        for name in ("empty", "champion"):
            database = Database(f"sqlite:///{folder}/{name}.db")
            database.migrate()
            ledgers.append(Ledger(database))
        bundle = bench.true[names.RELEASE_CANDIDATE]
        begun = ledgers[1].begin(bundle_versions(bundle, "1"), actor="bench", reason="the true models")
        ledgers[1].activate(begun.release_id)
        for name, (rule, judge) in candidates(bench, *ledgers).items():
            started = time.perf_counter()
            decision = judge()
            refusing = [check.name for check in decision.checks if check.refuses]
            values = {check.name: check.value for check in decision.checks if isinstance(check.value, float)}
            outcomes[name] = {"verdict": decision.verdict, "refused_by": refusing, "meant": rule, "values": values}
            row = (name, decision.verdict, ", ".join(refusing), rule, f"{values.get('gain', float('nan')):+.4f}")
            print(f"{row}, {time.perf_counter() - started:.0f} s", flush=True)
            rows.append(row)
        for ledger in ledgers:
            ledger.database.close()
    print("\n".join(table_lines(("candidate", "verdict", "refused by", "meant for it", "gain over the best"), rows)))
    power = simulated_power(report.per_query, bench.settings)
    columns = list(next(iter(power.values())))
    print(
        "\n".join(
            table_lines(("queries", *columns), [(n, *(f"{p:.2f}" for p in row.values())) for n, row in power.items()])
        )
    )
    on_unseen = unseen(report.per_query, arguments.former, bench.settings) if arguments.former else None
    print(json.dumps(on_unseen, indent=1))
    gain, over = report.gains["tiered"], report.gains_over_first_stage["tiered"]
    lean = report.gains_over_first_stage[LEAN.name]
    merge_into(
        RESULTS,
        {
            "corpora": {
                arguments.name: {
                    "settings": arguments.overrides,
                    "candidates": outcomes,
                    "power": power,
                    "unseen": on_unseen,
                    "queries": report.queries,
                    "ndcg_at_10": {name: result.means[MAIN_MEASURE] for name, result in report.systems.items()},
                    "best_first_stage": report.best_first_stage,
                    "best_without_model": report.best_without_model,
                    "gain": [gain.difference, gain.low, gain.high, gain.p_gain],
                    "gain_over_first_stage": [over.difference, over.low, over.high],
                    "lean_over_first_stage": [lean.difference, lean.low, lean.high],
                }
            }
        },
    )


if __name__ == "__main__":
    main()
