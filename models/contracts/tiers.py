"""The tiers of the cascade, as data: whatever is done once per tier iterates over these tuples.

A new model tier is a `TierSpec` in `MODEL_TIERS`, its name in `Tier` and in the type of `tiers.models`, and its
settings: `tiers.<name>_candidates`, and `training.<name>_layers`, `_base_model` and `_pairs` of the student that its
model is. Its training, asset, calibration, engine, place in the bundle and in reports follow. A release has those of
them that `tiers.models` names.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from models.settings import chosen

if TYPE_CHECKING:
    from models.settings import TiersSettings

Tier = Literal["cached", "large", "compact", "lean"]
"""What gave a score: the first stage (lean), a model, or the cache of what a model gave the same pair (cached)."""
TIER_NAMES: tuple[Tier, ...] = get_args(Tier)

FIRST_STAGES = ("bm25", "dense", "hybrid")
"""The rankings of retrieval, each a system of the evaluation: both searches, and their fusion by reciprocal ranks."""

_FIRST_STAGE = ("dense", "lexical", "lexical_log")


@dataclass(frozen=True, slots=True)
class TierSpec:
    """One tier.

    Attributes:
        name: Its name everywhere: in rankings, as the prefix of settings and columns, as the folder of its model in a
            bundle and of its engine below `engines/`.
        features: What its calibrated score combines (`models.cascade.listwise.feature`).
    """

    name: Tier
    features: tuple[str, ...]

    @property
    def logit_column(self) -> str:
        """Column of a table of scored candidates with the logits of its model."""
        return f"{self.name}_logit"

    @property
    def candidates_setting(self) -> str:
        """Setting that says how many candidates its model scores, at most."""
        return f"tiers.{self.name}_candidates"

    @property
    def student_settings(self) -> tuple[str, ...]:
        """Settings that a model distilled for this tier has of its own: layers, starting weights, pairs."""
        return tuple(f"training.{self.name}_{key}" for key in ("layers", "base_model", "pairs"))

    @property
    def part(self) -> str:
        """Name of its model among the artifacts of a bundle."""
        return f"{self.name}_reranker"

    @property
    def asset(self) -> str:
        """The asset that trains its model."""
        return f"training/{self.part}"


LEAN = TierSpec("lean", ("retriever",))
"""No model: the order of the first stage that fits the corpus (`models.retrieval.first_stage`)."""

MODEL_TIERS: tuple[TierSpec, ...] = (
    TierSpec("compact", (*_FIRST_STAGE, "compact")),
    # Without the compact model's logit: with it, some hundred development queries are too few to tell what the weaker
    # of two like models adds (docs/decisions/0013).
    TierSpec("large", (*_FIRST_STAGE, "large")),
)
"""All tiers with a model, in the order in which they are asked: each about the best of the one before."""

LAST = MODEL_TIERS[-1]
"""The strongest model: the teacher of the others, and what early exits are judged by."""

DISTILLED_TIERS = MODEL_TIERS[:-1]
"""All tiers whose models learn from that of the last one."""

TIERS = (LEAN, *MODEL_TIERS)


def model_tiers(names: Container[str]) -> tuple[TierSpec, ...]:
    """The tiers with a model that are among `names`, in the order in which they are asked."""
    return tuple(tier for tier in MODEL_TIERS if tier.name in names)


def released_tiers(settings: TiersSettings) -> tuple[TierSpec, ...]:
    """The tiers with a model that releases have by the settings, in the order in which they are asked."""
    return model_tiers(settings.models)


def distilled_tiers(settings: TiersSettings) -> tuple[TierSpec, ...]:
    """Those of them whose models learn from that of the last one."""
    return tuple(tier for tier in DISTILLED_TIERS if tier.name in settings.models)


def candidate_limits(settings: TiersSettings) -> dict[str, int]:
    """Candidates that each model scores, at most, by tier. Raises `SettingsError` where that is still to be chosen."""
    return {tier.name: chosen(getattr(settings, f"{tier.name}_candidates")) for tier in MODEL_TIERS}
