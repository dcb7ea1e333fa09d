"""Weights of a query's candidates, fitted listwise: softmax cross entropy over the candidates of each query.

ListNet's top-one loss (Cao et al., ICML 2007) for a linear ranker of few features, so that some hundred judged queries
are enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Inputs = Mapping[str, NDArray[np.floating]]
"""Arrays of one length: `dense`, `lexical`, `retriever`, the score that the first stage ordered by, and where known the
logits of each model under its tier."""

_RIDGE = 1e-2
_CONSTANT = 1e-6
"""Standard deviation, as a share of the mean, up to which a feature is constant: what is left then is rounding."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Of some features, each of them standardized by the mean and scale of all candidates that were fitted on."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]


def feature(name: str, inputs: Inputs) -> NDArray[np.float64]:
    """A feature [n] of candidates: one of the inputs, or the logarithm of the BM25 score, `lexical_log`."""
    if name == "lexical_log":
        return np.log1p(np.asarray(inputs["lexical"], dtype=np.float64))
    return np.asarray(inputs[name], dtype=np.float64)


def fit_weights(features: Sequence[str], inputs: Sequence[Inputs], labels: Sequence[NDArray[np.float64]]) -> Weights:
    """Fit on the candidates of some queries, each with `labels` [n] that are 0 for what is not relevant, not all 0."""
    from scipy.optimize import minimize
    from scipy.special import log_softmax, softmax

    tables = [np.stack([feature(name, candidates) for name in features], axis=1) for candidates in inputs]
    everything = np.concatenate(tables)
    mean, scale = everything.mean(axis=0), everything.std(axis=0)
    varies = scale > np.maximum(_CONSTANT * np.abs(mean), np.finfo(np.float64).tiny)
    scale = np.where(varies, scale, 1.0)
    # A feature that is constant here gets no weight, so that other values of it decide nothing later.
    tables = [np.where(varies, (table - mean) / scale, 0.0) for table in tables]
    targets = [label / label.sum() for label in labels]

    def objective(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        loss, gradient = 0.0, np.zeros_like(weights)
        for table, target in zip(tables, targets, strict=True):
            scores = table @ weights
            loss -= float(target @ log_softmax(scores))
            gradient += table.T @ (softmax(scores) - target)
        count = len(tables)
        return loss / count + _RIDGE * float(weights @ weights), gradient / count + 2 * _RIDGE * weights

    optimum = minimize(objective, np.zeros(len(features)), jac=True, method="L-BFGS-B")
    return Weights(tuple(mean.tolist()), tuple(scale.tolist()), tuple(optimum.x.tolist()))
