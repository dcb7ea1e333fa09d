"""Hyperparameter search: trials on the development lists, a budget, a journal, and every trial in MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from models.errors import RerankOpsError
from models.records.mlflow_registry import Tracking
from models.settings import SEARCHABLE, SearchSettings
from models.training import search as hyperparameter_search
from models.training.search import METRIC, search
from tests.tiny_cross_encoder import examples, tiny_settings, write_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


def settings(**changes: Any) -> SearchSettings:
    return SearchSettings(**{"minutes": 10, "trials": 2, "pairs": 24, **changes})


def runs(tracking: Tracking) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking.uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, order_by=["attributes.start_time ASC"]))


def test_every_setting_that_may_be_searched_has_a_space() -> None:
    assert tuple(hyperparameter_search._SPACE) == SEARCHABLE


def test_the_settings_in_force_are_tried_first_and_the_search_goes_on_where_it_ended(
    base: Path, tmp_path: Path, tracking: Tracking
) -> None:
    training = tiny_settings(base, learning_rate=2e-4)
    arguments = examples(20), examples(6), tmp_path / "search" / "one.journal", tracking
    said: list[str] = []
    first = search(training, settings(), *arguments, said.append)
    assert [trial.number for trial in first.trials] == [0, 1]
    assert first.trials[0].values == {name: getattr(training, name) for name in SEARCHABLE}
    assert first.trials[0].values != first.trials[1].values
    scores = [trial.ndcg_at_10 for trial in first.trials]
    assert first.best.ndcg_at_10 == max(score for score in scores if score is not None)
    assert len(said) == 2
    second = search(training, settings(trials=1), *arguments)
    assert [trial.number for trial in second.trials] == [0, 1, 2]
    assert second.trials[:2] == first.trials
    logged = runs(tracking)
    assert len(logged) == 3
    assert [run.data.metrics[METRIC] for run in logged] == [trial.ndcg_at_10 for trial in second.trials]
    assert logged[1].data.params == {name: str(value) for name, value in second.trials[1].values.items()}


def test_a_trial_that_the_end_of_the_budget_falls_into_is_given_up(
    base: Path, tmp_path: Path, tracking: Tracking
) -> None:
    with pytest.raises(RerankOpsError, match=r"search\.minutes: no trial ended within 0.001 minutes"):
        search(
            tiny_settings(base),
            settings(minutes=1e-3, keys=["learning_rate"]),
            examples(20),
            examples(6),
            tmp_path / "one.journal",
            tracking,
        )
    (run,) = runs(tracking)
    assert METRIC not in run.data.metrics
    assert run.data.metrics["seconds"] > 0
