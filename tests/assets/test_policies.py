"""Which errors of assets with retries are tried again."""

import gzip
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from assets.policies import READ_RETRIES, is_certain, no_retries_of_what_is_certain
from assets.resources import ArtifactIOManager
from models.corpus.sources.base import unreadable
from models.corpus.sources.lines import read_lines
from models.errors import ArtifactError, ContractError, RerankOpsError, SourceError
from models.records.database import Database, DatabaseError
from tests.checks import corpus_tables
from tests.deployments import use_home, write_artifact


def _raised(call: Callable[[], object], kind: type[RerankOpsError]) -> RerankOpsError:
    with pytest.raises(kind) as caught:
        call()
    return caught.value


def test_what_a_file_or_a_row_is_to_blame_for_is_certain(tmp_path: Path) -> None:
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"x" * 10_000)[:-9])
    (tmp_path / "plain.gz").write_bytes(b"plain")
    for name in ("cut.gz", "plain.gz", "none.txt"):
        assert is_certain(_raised(lambda name=name: list(read_lines(tmp_path / name)), SourceError)), name
    assert is_certain(ContractError("rows"))
    assert is_certain(SourceError("no such column"))


def test_what_may_pass_is_not_certain(tmp_path: Path) -> None:
    def fail(cause: Exception) -> None:
        try:
            raise cause
        except OSError as error:
            raise unreadable(tmp_path, error) from error

    for cause in (ConnectionResetError("gone"), TimeoutError("late"), OSError(5, "Input/output error")):
        assert not is_certain(_raised(lambda cause=cause: fail(cause), SourceError)), cause
    away = Database("postgresql+psycopg://nobody@127.0.0.1:1/none?connect_timeout=2")
    assert not is_certain(_raised(away.migrate, DatabaseError))


@pytest.mark.parametrize(
    ("error", "attempts"), [(ContractError("rows"), 1), (SourceError("no file"), 1), (ArtifactError("flaky"), 3)]
)
def test_only_what_may_pass_is_tried_again(error: RerankOpsError, attempts: int) -> None:
    tried = []

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=READ_RETRIES.max_retries))
    @no_retries_of_what_is_certain()
    def reads() -> None:
        tried.append(1)
        if isinstance(error, ArtifactError):
            raise error from TimeoutError("late")
        raise error

    with dg.DagsterInstance.ephemeral() as instance:
        assert not dg.materialize([reads], instance=instance, raise_on_error=False).success
    assert len(tried) == attempts


@pytest.mark.heavy
def test_an_input_that_breaks_its_contract_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = use_home(tmp_path, monkeypatch)
    broken = corpus_tables.quarantined_rows(1).assign(rule="bad luck")
    store = deployment.store()
    store.point(write_artifact(store, "upstream", {"quarantined_rows.parquet": broken}))

    @dg.asset(
        ins={"upstream": dg.AssetIn("upstream")}, retry_policy=dg.RetryPolicy(max_retries=READ_RETRIES.max_retries)
    )
    def reads(upstream: object) -> None:
        raise AssertionError("it has no input")

    resources = {"deployment": deployment, "io_manager": ArtifactIOManager(deployment=deployment)}
    with dg.DagsterInstance.ephemeral() as instance:
        assets = [dg.AssetSpec("upstream"), reads]
        result = dg.materialize(assets, resources=resources, instance=instance, raise_on_error=False)
    assert not [event for event in result.all_events if event.is_step_up_for_retry]
    [failure] = [event for event in result.all_events if event.is_step_failure]
    assert "breaks its contract" in str(failure.step_failure_data.user_failure_data)
