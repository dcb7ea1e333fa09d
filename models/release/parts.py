"""The artifacts that a serving bundle is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from models.contracts.tiers import TierSpec, model_tiers, released_tiers
from models.settings import TiersSettings
from models.store.artifacts import Artifact


@dataclass(frozen=True)
class BundleParts:
    """The artifacts that a bundle is made of."""

    passages: Artifact
    passage_embeddings: Artifact
    dense_index: Artifact
    lexical_index: Artifact
    first_stage: Artifact
    rerankers: Mapping[str, Artifact]
    """The models that the release has, by tier."""

    scoring_engines: Artifact
    score_calibration: Artifact
    offline_evaluation: Artifact
    evaluation_set: Artifact
    candidates: Artifact

    @classmethod
    def of(cls, parts: Mapping[str, Artifact], settings: TiersSettings) -> BundleParts:
        """The parts by the names of `by_name`; of the models those that releases have by the settings."""
        models = {tier.name: parts[tier.part] for tier in released_tiers(settings)}
        others = {name: parts[name] for name in cls.__dataclass_fields__ if name != "rerankers"}
        return cls(rerankers=models, **others)

    def by_name(self) -> dict[str, Artifact]:
        """All parts: a model by `TierSpec.part`, the others by the name of their field."""
        parts: dict[str, Artifact] = {}
        for name in self.__dataclass_fields__:
            if name == "rerankers":
                # The last model first: the others are made from it.
                parts |= {tier.part: self.rerankers[tier.name] for tier in reversed(self.models)}
            else:
                parts[name] = getattr(self, name)
        return parts

    @property
    def models(self) -> tuple[TierSpec, ...]:
        """The tiers of the models, in the order in which they are asked."""
        return model_tiers(self.rerankers)

    def versions(self) -> dict[str, str]:
        """Data version of each part, by name."""
        return {name: artifact.data_version for name, artifact in self.by_name().items()}

    def artifacts(self) -> tuple[Artifact, ...]:
        """All parts."""
        return tuple(self.by_name().values())
