"""Fixtures that are slow to make, once per session and only where a test asks for them."""

from __future__ import annotations

import gc
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings as hypothesis_settings

from tests.docs_corpus import write_docs_corpus
from tests.sharing import make_once
from tests.small_bundle import Small, build_small, open_small

pytest_plugins = [
    "tests.collector",
    "tests.remembered",
    "tests.databases",
    "tests.heavy",
    "tests.object_storage",
    "tests.workers",
]

# How long an example takes says how busy the machine is, and nothing about what is tested.
hypothesis_settings.register_profile("rerankops", deadline=None)
hypothesis_settings.load_profile("rerankops")

# A shell ignores SIGINT for what it starts in the background. After a run, Dagster gives SIGTERM the handler of SIGINT;
# its helper processes inherit that and would not end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


if TYPE_CHECKING:
    from models.records.ledger import Ledger
    from models.records.mlflow_registry import Tracking
    from models.serving.loaded_bundle import LoadedBundle


@pytest.fixture(scope="session", autouse=True)
def _frozen() -> Iterator[None]:
    """Keep out of garbage collections what was frozen. A release that is closed unfreezes all of it, to collect its
    encoder; here that would be a second of every library, for each release of each test."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(gc, "unfreeze", lambda: None)
        yield


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that every worker of this run sees."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def small(shared_folder: Path) -> Small:
    """The small deployment, up to its first release candidate; read only, but for further candidates."""
    return open_small(make_once(shared_folder / "small", build_small))


@pytest.fixture(scope="session")
def loaded(small: Small) -> LoadedBundle:
    """The first candidate's bundle, loaded as serving does."""
    from models.serving.loaded_bundle import load_bundle

    return load_bundle(small.first.bundle)


@pytest.fixture(scope="session")
def docs_encoder(shared_folder: Path) -> Path:
    """The bundled bi-encoder cut down to two layers and to the word pieces of the corpus of `tests.docs_corpus`."""

    def make(folder: Path) -> None:
        from models.settings import Settings
        from models.weights import local_weights
        from tests.cut_model import write_cut_model

        write_docs_corpus(folder / "docs", documents=130)
        read = [path.read_text(encoding="utf-8") for path in sorted((folder / "docs").iterdir())]
        write_cut_model(local_weights(Settings().encoder.model), folder / "model", read, layers=2)

    return make_once(shared_folder / "docs-encoder", make) / "model"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """The ledger of an empty database of the test's own."""
    from models.records.database import Database
    from models.records.ledger import Ledger

    database = Database(f"sqlite:///{tmp_path / 'records.db'}")
    database.migrate()
    yield Ledger(database)
    database.close()


@pytest.fixture(scope="session")
def empty_mlflow(shared_folder: Path) -> Path:
    """A migrated MLflow database without contents: making one takes seconds, copying it does not."""

    def make(folder: Path) -> None:
        from mlflow import MlflowClient

        uri = f"sqlite:///{folder / 'mlflow.db'}"
        MlflowClient(tracking_uri=uri, registry_uri=uri).search_experiments()

    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    return make_once(shared_folder / "mlflow", make) / "mlflow.db"


@pytest.fixture
def tracking(empty_mlflow: Path, tmp_path: Path) -> Tracking:
    """An empty MLflow of the test's own."""
    from models.records.mlflow_registry import Tracking

    path = shutil.copyfile(empty_mlflow, tmp_path / "mlflow.db")
    return Tracking(f"sqlite:///{path}", (tmp_path / "mlartifacts").as_uri(), "reranker")
