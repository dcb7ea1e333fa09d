"""Combine the scores of the tiers into one ranking: what a model has scored stays above what it has not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.cascade.calibration import Calibration, TierScorer
from models.cascade.windows import in_turn
from models.contracts.messages import Tier


@dataclass(frozen=True)
class Scored:
    """Logits [n] of each tier's final score with the tier that gave it, before the sigmoid."""

    logits: NDArray[np.float64]
    tiers: tuple[Tier, ...]


def cascade(
    calibration: Calibration,
    inputs: Mapping[str, NDArray[np.floating]],
    compact_rows: NDArray[np.int64],
    large_rows: NDArray[np.int64],
) -> Scored:
    """Combine what each tier knows: rows in `large_rows` have the large model's logit, those in `compact_rows` the
    compact one's.

    What a model has scored stays above what it was not asked about, as in a cascade of rankers (Wang, Lin and Metzler,
    SIGIR 2011): a model that believes little of all the best candidates of a query would believe little of the others
    too. So where a score of the others is above the lowest of those, they are all lowered by the difference, and keep
    their order.

    Pure. `inputs` holds arrays of one length; the model logits of rows that a model did not score are not read.
    """
    logits = calibration.tiers["lean"].logits(inputs)
    tiers: list[Tier] = ["lean"] * len(logits)
    steps: tuple[tuple[Tier, TierScorer, NDArray[np.int64]], ...] = (
        ("compact", calibration.tiers["compact"], compact_rows),
        ("large", calibration.last, large_rows),
    )
    for tier, scorer, rows in steps:
        if len(rows):
            part = {name: np.asarray(values)[rows] for name, values in inputs.items()}
            logits[rows] = scorer.logits(part)
            for row in rows:
                tiers[row] = tier
    return Scored(in_turn(logits, tiers), tuple(tiers))
