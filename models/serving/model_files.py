"""Where the models of a bundle are, and what their files must be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from models.errors import ArtifactError
from models.store.durable_files import digest_file


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What is needed to load the models of the bundle in `folder`; `digests` has the SHA-256 of their files."""

    folder: Path
    max_tokens: int
    threads: int
    digests: Mapping[str, str]

    def verify(self) -> None:
        """Compare every file with its digest. Raises `ArtifactError` naming the one that differs."""
        for name, expected in self.digests.items():
            path = self.folder / name
            if not path.is_file() or digest_file(path) != expected:
                raise ArtifactError(f"{name} of the bundle is missing or differs from its digest")
