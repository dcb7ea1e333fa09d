"""The serving bundle: one self-contained folder with everything that a release serves.

bundle.json                 `BundleFacts`: versions, settings and limits
passages.arrow, passage_texts.arrow   the passages, and which of them a text is (`models.corpus.mapped_passages`)
dense_index/ lexical_index/ encoder/ large/ and compact/ where the release has such a model
first_stage.json            how the passages that both indexes bring are ordered; older bundles have none: by reciprocal
                            ranks
engines/                    what computes the scores of the models
calibration.json            the scorers of all tiers
MODEL_CARD.md               what the models are, how they were made, what they do well and where not
golden.json                 `GoldenQuery`s: queries with the scores that a reloaded bundle must reproduce
report/                     evaluation.json, for people: it does not decide the bundle's version
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from models.cascade.calibration import Calibration
from models.errors import ArtifactError
from models.release.golden import GoldenQuery
from models.retrieval.fusion import FirstStage, read_first_stage
from models.settings import EncoderSettings, IndexSettings, TiersSettings
from models.store.artifacts import Artifact

FACTS_FILE = "bundle.json"
GOLDEN_FILE = "golden.json"
CALIBRATION_FILE = "calibration.json"
FORMAT = 4
_READ = (3, FORMAT)
"""Formats that are served: 3 has no first_stage.json."""


class BundleSettings(BaseModel):
    """The settings that a bundle was made with: the first three are served with, the others are for the record."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: EncoderSettings
    index: IndexSettings
    tiers: TiersSettings
    generator: dict[str, Any]
    evaluation: dict[str, Any]


class BundleFacts(BaseModel):
    """What bundle.json says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    corpus_version: str
    index_version: str
    versions: dict[str, str]
    """Data version of each artifact that the bundle is made of, by the names of `BundleParts`."""

    max_tokens: int
    candidates: int
    """Passages of a query that were scored in the evaluation."""

    settings: BundleSettings


@dataclass(frozen=True)
class Bundle:
    """A bundle that was written by `models.release.release_candidate`: its files, and what bundle.json says of them."""

    artifact: Artifact
    facts: BundleFacts

    @classmethod
    def open(cls, artifact: Artifact) -> Bundle:
        """Read bundle.json. Raises `ArtifactError` where it is of another format, or does not hold what it must."""
        values = artifact.read_json(FACTS_FILE)
        if values.get("format") not in _READ:
            raise ArtifactError(
                f"bundle format {values.get('format')} is not known", "Serve it with the version that made it."
            )
        try:
            return cls(artifact, BundleFacts.model_validate(values))
        except ValidationError as error:
            raise ArtifactError(f"{artifact.asset} {artifact.data_version}: {FACTS_FILE}: {error}") from error

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self.artifact.folder

    @cached_property
    def first_stage(self) -> FirstStage:
        """How what both indexes bring is ordered."""
        return read_first_stage(self.folder) or FirstStage(rrf_k=self.facts.settings.index.rrf_k)

    @cached_property
    def calibration(self) -> Calibration:
        """The scorers of all tiers."""
        return Calibration.from_dict(self.artifact.read_json(CALIBRATION_FILE))

    @cached_property
    def golden(self) -> tuple[GoldenQuery, ...]:
        """Queries with the scores that the offline evaluation gave."""
        return tuple(GoldenQuery(**values) for values in self.artifact.read_json(GOLDEN_FILE))

    def model_files(self, tier: str) -> dict[str, str]:
        """SHA-256 of each file of a tier's model and engine, by name."""
        return {
            name: entry.sha256
            for name, entry in self.artifact.manifest.files.items()
            if name.startswith((f"{tier}/", f"engines/{tier}/"))
        }
