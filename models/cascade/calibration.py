"""One calibrated score per tier: a learned combination of the first-stage scores and the cross-encoders' logits.

The weights are fitted listwise on the development queries (`models.cascade.listwise`), then Platt-scaled (Platt, 1999)
to the probability of being relevant, so that scores of different tiers can be compared. The tier without a model keeps
the order of the first stage, whose score is only scaled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.cascade.listwise import Inputs, feature, fit_weights
from models.cascade.windows import EarlyExit
from models.contracts.tiers import LEAN, MODEL_TIERS, TierSpec, model_tiers
from models.errors import ContractError

if TYPE_CHECKING:
    import pandas as pd

_CLIP = 30.0


@dataclass(frozen=True)
class TierScorer:
    """score = sigmoid(slope x (weights . standardized features) + offset)."""

    features: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    slope: float
    offset: float

    def logits(self, inputs: Inputs) -> NDArray[np.float64]:
        """Combined logits [n] in float64: what a ranking is sorted by, before the sigmoid can saturate."""
        table = np.stack([feature(name, inputs) for name in self.features], axis=1)
        combined = (table - np.array(self.mean)) / np.array(self.scale) @ np.array(self.weights)
        return self.slope * combined + self.offset

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TierScorer:
        """Read what `dataclasses.asdict` wrote."""
        lists: dict[str, Any] = {name: tuple(values[name]) for name in ("features", "mean", "scale", "weights")}
        return cls(**{**values, **lists})


@dataclass(frozen=True)
class AnswerThreshold:
    """Below which best score of a tier no passage answers (`models.cascade.answer_threshold`), and what that does on
    the queries that it was fitted on.

    Attributes:
        score: Calibrated probability of the best passage below which nothing answers.
        answered: Share of the answerable queries that stay answered.
        refused: Share of the same queries that are refused once their relevant documents are taken out.
    """

    score: float
    answered: float
    refused: float


@dataclass(frozen=True)
class Calibration:
    """The scorers of all tiers, and how well their probabilities hold on the queries they were fitted on."""

    tiers: Mapping[str, TierScorer]
    queries: int
    expected_calibration_error: Mapping[str, float]
    early_exit: EarlyExit = field(default_factory=EarlyExit)
    """Which candidates each model is asked about."""

    answer_thresholds: Mapping[str, AnswerThreshold] = field(default_factory=dict[str, AnswerThreshold])
    """By tier; empty in older bundles and where too few queries were there to fit them: then any passage may answer."""

    @property
    def models(self) -> tuple[TierSpec, ...]:
        """The tiers with a model that the release has, in the order in which they are asked."""
        return model_tiers(self.tiers)

    @property
    def without_windows(self) -> EarlyExit:
        """Each of the models is asked about all candidates."""
        return EarlyExit.of(self.models)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "early_exit": self.early_exit.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Read what `to_dict` wrote."""
        tiers = {name: TierScorer.from_dict(tier) for name, tier in values["tiers"].items()}
        early_exit = EarlyExit.from_dict(values["early_exit"])
        thresholds = {name: AnswerThreshold(**one) for name, one in values.get("answer_thresholds", {}).items()}
        return cls(tiers, values["queries"], values["expected_calibration_error"], early_exit, thresholds)


def probability(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sigmoid in float64, kept inside (0, 1) so that close scores near the ends stay apart."""
    return 1.0 / (1.0 + np.exp(-np.clip(logits, -_CLIP, _CLIP)))


def fit_calibration(scored: pd.DataFrame, judgments: pd.DataFrame) -> Calibration:
    """Fit every tier on the development queries.

    `scored` has `query_id, document_id, dense_score, lexical_score, retriever_score` and the logits of each model that
    the release has (`TierSpec.logit_column`), one row per candidate. Raises `ContractError` when no query has a
    relevant candidate.
    """
    relevant = judgments[judgments["grade"] > 0][["query_id", "document_id", "grade"]]
    table = scored.merge(relevant, on=["query_id", "document_id"], how="left").fillna({"grade": 0})
    groups = [rows for _, rows in table.groupby("query_id", sort=True) if rows["grade"].sum() > 0]
    if not groups:
        raise ContractError(
            "no development query has a relevant passage among its candidates",
            "Raise evaluation.max_dev_queries or evaluation.candidates, or check the judgments of the dev split.",
        )
    labels = [rows["grade"].to_numpy(float) for rows in groups]
    inputs = [candidate_inputs(rows) for rows in groups]
    tiers: dict[str, TierScorer] = {}
    errors: dict[str, float] = {}
    # The probability is fitted on all development queries: those whose positives were missed have none to show.
    everything = candidate_inputs(table)
    positive = (table["grade"] > 0).to_numpy().astype(np.float64)
    for tier in (LEAN, *(tier for tier in MODEL_TIERS if tier.logit_column in table)):
        ranker = _fit_ranker(tier.features, inputs, labels)
        tiers[tier.name] = scorer = _fit_probability(ranker, everything, positive)
        errors[tier.name] = expected_calibration_error(probability(scorer.logits(everything)), positive)
    return Calibration(tiers, len(groups), errors, EarlyExit.of(model_tiers(tiers)))


def candidate_inputs(table: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """The inputs that a table of scored candidates has."""
    columns = {"dense": "dense_score", "lexical": "lexical_score", "retriever": "retriever_score"}
    columns |= {tier.name: tier.logit_column for tier in MODEL_TIERS}
    return {name: table[column].to_numpy(float) for name, column in columns.items() if column in table}


def expected_calibration_error(scores: NDArray[np.float64], labels: NDArray[np.float64], bins: int = 10) -> float:
    """Mean distance of score and share of positives over equally filled bins (Naeini et al., 2015, adaptive bins)."""
    order = np.argsort(scores, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return float(sum(len(part) * abs(scores[part].mean() - labels[part].mean()) for part in parts) / len(scores))


def _fit_ranker(features: Sequence[str], inputs: Sequence[Inputs], labels: Sequence[NDArray[np.float64]]) -> TierScorer:
    fitted = fit_weights(features, inputs, labels)
    if tuple(features) == LEAN.features:
        # One feature only has an order, that of the first stage, whatever its candidates here would make of it.
        fitted = replace(fitted, weights=(float(fitted.weights[0] != 0.0),))
    return TierScorer(tuple(features), fitted.mean, fitted.scale, fitted.weights, 1.0, 0.0)


def _fit_probability(ranker: TierScorer, inputs: Inputs, positive: NDArray[np.float64]) -> TierScorer:
    from scipy.optimize import minimize

    scores = ranker.logits(inputs)
    # Platt's smoothed targets keep the fit finite when the classes are separable.
    hits = float(positive.sum())
    high, low = (hits + 1) / (hits + 2), 1 / (len(positive) - hits + 2)
    targets: NDArray[np.float64] = np.where(positive > 0, high, low)

    def objective(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        slope, offset = float(np.exp(parameters[0])), float(parameters[1])
        logits = slope * scores + offset
        loss = np.mean(np.logaddexp(0, logits) - targets * logits)
        difference = (probability(logits) - targets) / len(scores)
        return float(loss), np.array([slope * float(difference @ scores), float(difference.sum())])

    optimum = minimize(objective, np.array([0.0, -2.0]), jac=True, method="L-BFGS-B")
    # The slope is kept positive by fitting its logarithm: calibration must not turn the ranking around.
    return replace(ranker, slope=float(np.exp(optimum.x[0])), offset=float(optimum.x[1]))
