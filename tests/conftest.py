"""Fixtures that are slow to make, once per session and only where a test asks for them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.small_bundle import Small, build_small

pytest_plugins = ["tests.databases", "tests.object_storage"]

if TYPE_CHECKING:
    from models.records.mlflow_registry import Tracking
    from models.serving.loaded_bundle import LoadedBundle


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The small deployment, up to its first release candidate; read only, but for further candidates."""
    return build_small(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def loaded(small: Small) -> LoadedBundle:
    """The first candidate's bundle, loaded as serving does."""
    from models.serving.loaded_bundle import load_bundle

    return load_bundle(small.first.bundle)


@pytest.fixture(scope="session")
def _empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated MLflow database without contents: making one takes seconds, copying it does not."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}", registry_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def tracking(_empty_mlflow: Path, tmp_path: Path) -> Tracking:
    """An empty MLflow of the test's own."""
    from models.records.mlflow_registry import Tracking

    path = shutil.copyfile(_empty_mlflow, tmp_path / "mlflow.db")
    return Tracking(f"sqlite:///{path}", (tmp_path / "mlartifacts").as_uri(), "reranker")
