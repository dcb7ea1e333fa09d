"""What a set of artifacts was made from: one version of each artifact and one value of each setting, or it is refused.

Within one run that is so by itself. Between runs it need not be: assets can be materialized one by one, each time with
another configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.errors import ArtifactError
from models.store.artifacts import Artifact

_HINT = "Run `rerankops run`, or materialize them in one run with one configuration, with what lies between."


def require_one_origin(artifacts: Sequence[Artifact], settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The settings that `artifacts` were made with, and `settings`, those of what is made of them, by dotted key.

    Raises `ArtifactError` where two of them go back to different versions of one artifact, or were made with different
    values of one setting; it names both.
    """
    versions = {artifact.asset: (artifact.data_version, "the current one") for artifact in artifacts}
    values = {key: (value, "this run") for key, value in (settings or {}).items()}
    for artifact in artifacts:
        for name, version in artifact.manifest.inputs.items():
            if "/" not in name:
                continue  # The digest of something outside, as a source or base weights: each asset has its own.
            known, holder = versions.setdefault(name, (version, f"that of {artifact.asset}"))
            if known != version:
                raise ArtifactError(f"{artifact.asset} was made from {name} {version}, {holder} is {known}", _HINT)
        for key, value in artifact.manifest.settings.items():
            known, holder = values.setdefault(key, (value, artifact.asset))
            if known != value:
                raise ArtifactError(f"{key}: {artifact.asset} was made with {value!r}, {holder} has {known!r}", _HINT)
    return {key: value for key, (value, _) in values.items()}
