"""MLflow: experiment runs and the model registry. Nothing else calls MLflow.

Registered models are folders of the artifact store (safetensors, JSON, FAISS), never pickles. A version of
`storage.model_name` is a whole serving bundle; its aliases are `champion`, `challenger` and `previous`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from models.settings import Settings
from models.store.artifacts import Artifact, object_place

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
_EXPERIMENT = "rerankops"
_DESCRIPTION = 4900
"""Characters; MLflow's database holds 5000."""
_ARTIFACTS = "/mlflow/artifacts"
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Columns of MLflow's database that hold a place, of its schema up to 3.17."""
_BUSY_TIMEOUT_S = 30.0
_SERVERS = ("http", "https")
VERSION_TAG, ASSET_TAG = "rerankops.data_version", "rerankops.asset"


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model, and the artifact that it is."""

    name: str
    version: str
    aliases: tuple[str, ...]
    asset: str
    data_version: str
    run_id: str | None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "aliases": list(self.aliases)}


def follow_home(database: Path, artifacts: str) -> None:
    """Let a database that was moved or copied with its home name places in the home where it is now.

    MLflow keeps the whole address of an experiment's files, and writes there: into the home from which this one was
    copied. `artifacts` is the file URL of the folder of files, `<home>/mlflow/artifacts`.
    """
    import sqlite3
    from contextlib import closing

    if not database.is_file():
        return
    with closing(sqlite3.connect(database, timeout=_BUSY_TIMEOUT_S)) as connection, connection:
        try:
            query = "SELECT artifact_location FROM experiments WHERE name = ?"
            row = connection.execute(query, (_EXPERIMENT,)).fetchone()
        except sqlite3.DatabaseError:  # it is made at this moment, or damaged, which MLflow tells
            return
        if row is None or not str(row[0]).endswith(_ARTIFACTS) or _same_folder(row[0], artifacts):
            return
        before, now = str(row[0]).removesuffix(_ARTIFACTS), artifacts.removesuffix(_ARTIFACTS)
        for table, column in _ADDRESSES:
            if column in {fields[1] for fields in connection.execute(f"PRAGMA table_info({table})")}:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                    (now, len(before) + 1, len(before) + 1, f"{before}/"),
                )


def _same_folder(address: str, other: str) -> bool:
    """Whether two file URLs lead to one folder, as through a link."""
    paths = [Path(url2pathname(urlsplit(url).path)) for url in (address, other)]
    return address == other or (all(path.exists() for path in paths) and paths[0].samefile(paths[1]))


@dataclass(frozen=True)
class Tracking:
    """One MLflow server or database."""

    uri: str
    artifact_root: str | None
    model_name: str

    @classmethod
    def of(cls, settings: Settings) -> Tracking:
        """The tracking of a deployment; the folder of the default SQLite store is made."""
        local = not settings.storage.mlflow_uri
        folder = settings.home / "mlflow"
        artifacts = (folder / "artifacts").as_uri()
        if local:
            folder.mkdir(parents=True, exist_ok=True)
            follow_home(folder / "mlflow.db", artifacts)
        return cls(settings.mlflow_uri, artifacts if local else None, settings.storage.model_name)

    def log_run(
        self,
        name: str,
        *,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        tags: Mapping[str, str] | None = None,
        history: Mapping[str, Sequence[tuple[int, float]]] | None = None,
        files: Sequence[Path] = (),
    ) -> str:
        """Log one finished run with its parameters, metrics, metric histories (step, value) and files; returns
        its id."""
        import time

        from mlflow.entities import Metric, Param, RunTag

        client = self._client()
        run = client.create_run(self._experiment(client), run_name=name)
        now = int(time.time() * 1000)
        points = [Metric(key, float(value), now, 0) for key, value in metrics.items()]
        points += [Metric(key, value, now, step) for key, values in (history or {}).items() for step, value in values]
        client.log_batch(
            run.info.run_id,
            metrics=points,
            params=[Param(key, str(value)[:500]) for key, value in params.items()],
            tags=[RunTag(key, value) for key, value in (tags or {}).items()],
        )
        for file in files:
            client.log_artifact(run.info.run_id, str(file))
        client.set_terminated(run.info.run_id)
        return run.info.run_id

    def ensure_version(self, name: str, artifact: Artifact, run_id: str | None = None, *, above: int = 0) -> str:
        """The version of registered model `name` that is this artifact; registered now if it never was, under a number
        above `above`: a registry that was lost gives no number of its releases a second time."""
        from mlflow.exceptions import MlflowException

        client = self._client()
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        versions = client.search_model_versions(f"name = '{name}' and tags.`{VERSION_TAG}` = '{artifact.data_version}'")
        if versions:
            return str(max(int(version.version) for version in versions))
        tags = {VERSION_TAG: artifact.data_version, ASSET_TAG: artifact.asset}
        source = self._source_of(artifact)
        created = client.create_model_version(name, source, run_id=run_id, tags=tags)
        while int(created.version) <= above:
            client.delete_model_version(name, str(created.version))
            created = client.create_model_version(name, source, run_id=run_id, tags=tags)
        return str(created.version)

    def set_alias(self, alias: str, version: str | None) -> None:
        """Point an alias of the bundle model at a version, or remove it. Idempotent."""
        client = self._client()
        if version is None:
            client.delete_registered_model_alias(self.model_name, alias)
        else:
            client.set_registered_model_alias(self.model_name, alias, version)

    def alias(self, alias: str) -> str | None:
        """The version that an alias of the bundle model points at."""
        from mlflow.exceptions import MlflowException

        try:
            return str(self._client().get_model_version_by_alias(self.model_name, alias).version)
        except MlflowException:
            return None

    def names(self) -> list[str]:
        """The registered models."""
        return sorted(model.name for model in self._client().search_registered_models())

    def registered(self, name: str, *, number: str = "", alias: str = "") -> RegisteredVersion | None:
        """A version of a registered model by its number or an alias; None where there is none of ours."""
        from mlflow.exceptions import MlflowException

        client = self._client()
        try:
            registered = (
                client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
            )
        except MlflowException:
            return None
        data_version = registered.tags.get(VERSION_TAG)
        if data_version is None:
            return None
        aliases = tuple(sorted(registered.aliases))
        return RegisteredVersion(
            name, str(registered.version), aliases, registered.tags[ASSET_TAG], data_version, registered.run_id or None
        )

    def aliases(self) -> dict[str, str]:
        """Data version of the bundle that each alias of the bundle model points at."""
        from mlflow.exceptions import MlflowException

        client = self._client()
        try:
            aliases = client.get_registered_model(self.model_name).aliases
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return {}
        versions = {alias: client.get_model_version(self.model_name, str(number)) for alias, number in aliases.items()}
        return {alias: version.tags[VERSION_TAG] for alias, version in versions.items() if VERSION_TAG in version.tags}

    def describe_version(self, version: str, text: str, name: str = "") -> None:
        """Give a version of the bundle model, or of model `name`, its description, cut at a line where the registry's
        column would not hold it."""
        shown = text if len(text) <= _DESCRIPTION else text[: text.rindex("\n", 0, _DESCRIPTION)]
        self._client().update_model_version(name or self.model_name, version, shown)

    def _source_of(self, artifact: Artifact) -> str:
        """The address of an artifact. A server refuses those of files, which it may not see, and keeps any other."""
        if urlsplit(self.uri).scheme in _SERVERS:
            return f"rerankops:/{object_place(artifact.asset, artifact.data_version)}"
        return artifact.folder.absolute().as_uri()

    def _client(self) -> MlflowClient:
        import os

        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # MLflow's own are minutes, for each call of a server that is away.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def _experiment(self, client: MlflowClient) -> str:
        experiment = client.get_experiment_by_name(_EXPERIMENT)
        return (
            experiment.experiment_id
            if experiment
            else client.create_experiment(_EXPERIMENT, artifact_location=self.artifact_root)
        )
