"""What each ingredient is worth: the evaluation again without it.

What only changes how scores are combined is taken out of the scores that are there. What changes the models is trained
again with one setting changed (`RETRAINED`), each in its own run of the lifecycle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from models.cascade.calibration import Calibration, candidate_inputs, expected_calibration_error, probability
from models.cascade.offline import rerank
from models.cascade.windows import EarlyExit
from models.contracts.tiers import LAST, MODEL_TIERS, TIERS, distilled_tiers
from models.evaluation.report import Comparison, compare
from models.measures.metrics import MAIN_MEASURE, collapse_to_documents, evaluate_run
from models.measures.significance import holm
from models.settings import EvaluationSettings, TiersSettings

RETRAINED: Mapping[str, tuple[str, ...]] = {
    "passages read from the start": ("training.passage_cut=start",),
    "passages read by the query": ("training.passage_cut=query",),
    "hard negatives": ("training.random_share=1.0",),
    "false negatives kept": ("training.false_negative_margin=0.1",),
    "lists of several negatives": ("training.negatives=1",),
    "listwise loss": ("training.loss=bce",),
    "distillation": ("training.distillation=none",),
    "cross entropy as the listwise loss": ("training.loss=lambda",),
    "softmax as its target": ("training.distillation=margin_mse",),
}
"""Settings that take an ingredient out of the training, or put the next best in its place."""


def retrained(settings: TiersSettings) -> dict[str, tuple[str, ...]]:
    """Those of `RETRAINED` that change a model that releases have by the settings."""
    students = bool(distilled_tiers(settings))
    return {name: overrides for name, overrides in RETRAINED.items() if students or name not in _OF_STUDENTS}


_OF_STUDENTS = ("distillation", "softmax as its target")
_SYSTEMS = (*(tier.name for tier in MODEL_TIERS), "tiered")
_DEPTHS = (5, 10, 20, 50)


@dataclass(frozen=True, slots=True)
class Ablation:
    """The evaluation without `ingredient`: `comparison` is `variant` minus what has it, so a loss is its worth.

    p values are corrected for all ablations of a table together (Holm).
    """

    ingredient: str
    variant: str
    comparison: Comparison

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def ablate_scores(
    scored: pd.DataFrame,
    judgments: pd.DataFrame,
    calibration: Calibration,
    tiers: TiersSettings,
    settings: EvaluationSettings,
) -> list[Ablation]:
    """Take out of the scores what can be taken out: first-stage scores, calibration, tiers, depth of the candidates.

    `scored` are the candidates of the evaluated queries with all models' logits, `rank` from 1 in the order of
    the first stage.
    """
    full = rerank(scored, calibration, tiers)
    depths = [depth for depth in _DEPTHS if depth < int(scored["rank"].max())]
    last, others = LAST.name, calibration.models[:-1]
    without_last = replace(calibration, early_exit=EarlyExit.of(others))
    variants: list[tuple[str, str, str, pd.DataFrame]] = [
        *(
            ("first-stage scores", f"{tier.name} logit alone", tier.name, _by_column(scored, tier.logit_column))
            for tier in reversed(calibration.models)
        ),
        ("first-stage scores", "tiers by their logits alone", "tiered", _by_tiers(scored, full["tiered"])),
        ("calibration", "tiers mixed uncalibrated", "tiered", rerank(scored, _raw(calibration), tiers)["tiered"]),
        *(
            (f"{last} tier", f"{tier.name} tier last", "tiered", rerank(scored, without_last, tiers)["tiered"])
            for tier in others[-1:]
        ),
        ("all cross-encoders", "lean order", "tiered", full["lean"]),
        ("stopping after the best", f"{last} for all candidates", "tiered", full[last]),
        *(
            (
                "depth of the candidates",
                f"best {depth} of {int(scored['rank'].max())}",
                "tiered",
                rerank(scored[scored["rank"] <= depth], calibration, tiers)["tiered"],
            )
            for depth in depths
        ),
    ]
    whole = {name: _measured(full[name], judgments) for name in _SYSTEMS if name in full}
    ablations = [
        Ablation(
            ingredient,
            variant,
            compare(
                _measured(ranking, judgments),
                whole[reference],
                "ablated",
                settings=settings,
                candidate=variant,
                baseline=reference,
            ),
        )
        for ingredient, variant, reference, ranking in variants
    ]
    return corrected(ablations)


def compare_retrained(
    tables: Mapping[str, pd.DataFrame],
    baseline: pd.DataFrame,
    settings: EvaluationSettings,
    systems: Sequence[str] | None = None,
) -> list[Ablation]:
    """Per-query tables of retrained variants, by ingredient, against that of the whole training, each on the same
    queries and for each system, by default each model and tiered: what tiered does not ask a model for, its own ranking
    shows. The large model is left out where the variant is trained after it."""
    ablations = []
    measured = set(baseline["system"])
    systems = [name for name in _SYSTEMS if name in measured] if systems is None else systems
    for name, table in tables.items():
        variant = ", ".join(RETRAINED.get(name, (name,)))
        for system in systems:
            if system == LAST.name and name in _OF_STUDENTS:
                continue
            ablations.append(
                Ablation(
                    name,
                    variant,
                    compare(table, baseline, system, settings=settings, candidate=variant, baseline=system),
                )
            )
    return corrected(ablations)


def corrected(ablations: Sequence[Ablation]) -> list[Ablation]:
    """The same with p values corrected for there being so many."""
    p_values = holm([ablation.comparison.p_value for ablation in ablations]).tolist() if ablations else []
    return [
        replace(ablation, comparison=replace(ablation.comparison, p_corrected=p))
        for ablation, p in zip(ablations, p_values, strict=True)
    ]


def calibration_errors(
    scored: pd.DataFrame, judgments: pd.DataFrame, calibration: Calibration
) -> dict[str, dict[str, float]]:
    """Expected calibration error of each scorer on the candidates of these queries, with and without calibration."""
    relevant = judgments.loc[judgments["grade"] > 0, ["query_id", "document_id"]].assign(label=1.0)
    table = scored.merge(relevant, on=["query_id", "document_id"], how="left").fillna({"label": 0.0})
    inputs, labels = candidate_inputs(table), table["label"].to_numpy(dtype=float)
    return {
        kind: {
            name: expected_calibration_error(probability(tier.logits(inputs)), labels)
            for name, tier in scorers.tiers.items()
        }
        for kind, scorers in (("calibrated", calibration), ("uncalibrated", _raw(calibration)))
    }


def _raw(calibration: Calibration) -> Calibration:
    tiers = {name: replace(tier, slope=1.0, offset=0.0) for name, tier in calibration.tiers.items()}
    return replace(calibration, tiers=tiers)


def _by_column(scored: pd.DataFrame, column: str) -> pd.DataFrame:
    return _ranked(scored.sort_values(["query_id", column, "passage_id"], ascending=[True, False, True]))


def _by_tiers(scored: pd.DataFrame, tiered: pd.DataFrame) -> pd.DataFrame:
    """What the last model scored by its logit, behind it what each model before did by its, then the rest as it was."""
    key = ["query_id", "passage_id"]
    table = tiered[[*key, "tier", "rank"]].merge(scored.drop(columns="rank"), on=key)
    level = table["tier"].map({tier.name: level for level, tier in enumerate(TIERS)})
    models = [tier for tier in MODEL_TIERS if tier.logit_column in table]
    by_tier = [(table["tier"] == tier.name, table[tier.logit_column]) for tier in models]
    score = np.select([rows for rows, _ in by_tier], [logits for _, logits in by_tier], -table["rank"])
    ordered = table.assign(level=level, score=score).sort_values(
        ["query_id", "level", "score", "passage_id"], ascending=[True, False, False, True]
    )
    return _ranked(ordered)


def _ranked(ordered: pd.DataFrame) -> pd.DataFrame:
    table = ordered[["query_id", "passage_id", "document_id"]].reset_index(drop=True)
    return table.assign(rank=table.groupby("query_id").cumcount() + 1)


def _measured(ranking: pd.DataFrame, judgments: pd.DataFrame) -> pd.DataFrame:
    table = evaluate_run(collapse_to_documents(ranking), judgments, [MAIN_MEASURE])
    return table.assign(system="ablated")
