"""A released or registered bundle by any name that it has."""

from __future__ import annotations

from dataclasses import dataclass

from models.errors import ArtifactError, ReleaseError
from models.records.database import open_database
from models.records.ledger import Ledger
from models.records.mlflow_registry import Tracking
from models.settings import Settings
from models.store.artifacts import Artifact, ArtifactStore
from models.store.asset_names import RELEASE_CANDIDATE


@dataclass(frozen=True)
class NamedBundle:
    """A bundle with the release and the MLflow version that it was found under; empty where it was found otherwise."""

    artifact: Artifact
    release_id: str = ""
    model_version: str = ""

    def to_dict(self) -> dict[str, str]:
        """JSON values."""
        return {
            "bundle_version": self.artifact.data_version,
            "release_id": self.release_id,
            "version": self.model_version,
        }


def find_bundle(settings: Settings, name: str | None = None) -> NamedBundle:
    """The champion, or the bundle that `name` is: a release id, an MLflow version or alias, or a bundle version.

    Nothing is changed: a release that a crash left pending stays so. Raises `ReleaseError` where there is no champion,
    or nothing has that name.
    """
    with open_database(settings) as database:
        ledger = Ledger(database)
        release = ledger.current() if name is None else ledger.get(name)
    store = ArtifactStore.of(settings)
    if release is not None:
        artifact = store.open(RELEASE_CANDIDATE, release.bundle_version)
        return NamedBundle(artifact, release.release_id, release.model_version)
    if name is None:
        raise ReleaseError("nothing has been released yet", "Run `rerankops run`, or name a version with --model.")
    tracking = Tracking.of(settings)
    model = tracking.model_name
    registered = tracking.registered(model, alias=name) or tracking.registered(model, number=name)
    try:
        artifact = store.open(RELEASE_CANDIDATE, registered.data_version if registered else name)
        return NamedBundle(artifact, model_version=registered.version if registered else "")
    except ArtifactError as error:
        raise ReleaseError(
            f"no bundle is named {name!r}",
            "Give a release id, a version or an alias of the registered model, or the version of a bundle.",
        ) from error
