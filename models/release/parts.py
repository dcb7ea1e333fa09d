"""The artifacts that a serving bundle is made of."""

from __future__ import annotations

from dataclasses import dataclass

from models.store.artifacts import Artifact


@dataclass(frozen=True)
class BundleParts:
    """The artifacts that a bundle is made of."""

    passages: Artifact
    passage_embeddings: Artifact
    dense_index: Artifact
    lexical_index: Artifact
    large_reranker: Artifact
    compact_reranker: Artifact
    scoring_engines: Artifact
    score_calibration: Artifact
    offline_evaluation: Artifact
    evaluation_set: Artifact
    candidates: Artifact

    def versions(self) -> dict[str, str]:
        """Data version of each part, by name."""
        return {name: getattr(self, name).data_version for name in self.__dataclass_fields__}

    def artifacts(self) -> tuple[Artifact, ...]:
        """All parts."""
        return tuple(getattr(self, name) for name in self.__dataclass_fields__)
