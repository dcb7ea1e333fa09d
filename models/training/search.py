"""Hyperparameter search: training settings tried on the development queries within a time budget.

Optuna (Akiba et al., 2019) proposes them by tree-structured Parzen estimators (Bergstra et al., 2011). The test queries
are never looked at.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import RerankOpsError, SettingsError
from models.records.mlflow_registry import Tracking
from models.settings import SearchSettings, TrainingSettings
from models.training.fine_tuning import train_large

if TYPE_CHECKING:
    import optuna
    import pandas as pd

METRIC = "development_ndcg_at_10"
_NEVER_STOP = 20
_MEASUREMENTS = 4

Told = Callable[[str], None]
_Suggest = Callable[["optuna.Trial", str, Any], Any]


@dataclass(frozen=True)
class Trial:
    """One training: the `values` tried by key, and what they gave. `ndcg_at_10` is None where time ran out."""

    number: int
    values: Mapping[str, Any]
    ndcg_at_10: float | None
    seconds: float


@dataclass(frozen=True)
class SearchResult:
    """The trials of a search, and the best of them."""

    trials: list[Trial]
    best: Trial

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


class _OutOfTime(Exception):
    """The budget ended inside a trial."""


def search(
    training: TrainingSettings,
    settings: SearchSettings,
    examples: pd.DataFrame,
    development: pd.DataFrame,
    journal: Path,
    tracking: Tracking,
    say: Told = lambda _: None,
) -> SearchResult:
    """Train the large model on `settings.pairs` pairs with one proposal after the other, for `settings.minutes`.

    The first trial has the settings in force. `journal`, a file for these examples and settings, keeps the trials:
    a search that was ended or killed goes on with what it knows. Every trial is a run in MLflow. A trial that
    the end of the budget falls into is given up. Raises `RerankOpsError` when not one trial fits into the budget.
    """
    study = _open_study(training, journal)
    space = {name: _SPACE[name] for name in settings.keys}
    if not study.trials:
        study.enqueue_trial({name: getattr(training, name) for name in space})
    deadline = time.monotonic() + 60 * settings.minutes
    done = 0
    while time.monotonic() < deadline and (not settings.trials or done < settings.trials):
        trial = study.ask()
        values = {name: suggest(trial, name, getattr(training, name)) for name, suggest in space.items()}
        tried = _try(training, values, settings, examples, development, trial.number, deadline)
        _tell(study, trial, tried)
        _log(tracking, study.study_name, tried)
        score = "out of time" if tried.ndcg_at_10 is None else f"nDCG@10 {tried.ndcg_at_10:.4f}"
        say(f"trial {tried.number}: {score} in {tried.seconds:.0f} s, {values}")
        done += 1
    trials = [_of_study(trial) for trial in study.trials if trial.params]
    finished = [trial for trial in trials if trial.ndcg_at_10 is not None]
    if not finished:
        raise RerankOpsError(
            f"search.minutes: no trial ended within {settings.minutes:g} minutes",
            "Give it more minutes, or make search.pairs smaller.",
        )
    return SearchResult(trials, max(finished, key=lambda trial: (trial.ndcg_at_10 or 0.0, -trial.number)))


def _open_study(training: TrainingSettings, journal: Path) -> optuna.Study:
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise SettingsError("search needs the library optuna", "Run: pip install 'rerankops[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal.parent.mkdir(parents=True, exist_ok=True)
    return optuna.create_study(
        study_name=journal.stem,
        storage=JournalStorage(JournalFileBackend(str(journal))),
        sampler=optuna.samplers.TPESampler(seed=training.seed),
        direction="maximize",
        load_if_exists=True,
    )


def _try(
    training: TrainingSettings,
    values: Mapping[str, Any],
    settings: SearchSettings,
    examples: pd.DataFrame,
    development: pd.DataFrame,
    number: int,
    deadline: float,
) -> Trial:
    measured = {"early_stopping": _NEVER_STOP, "evaluations": _MEASUREMENTS, "large_pairs": settings.pairs}
    tried = TrainingSettings.model_validate({**training.model_dump(), **measured, **values})

    def stop_in_time(step: int, steps: int) -> None:
        if time.monotonic() > deadline:
            raise _OutOfTime

    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            report = train_large(examples, tried, Path(folder), stop_in_time, development=development)
        except _OutOfTime:
            return Trial(number, values, None, time.monotonic() - started)
    return Trial(number, values, max(value for _, value in report.development), time.monotonic() - started)


def _tell(study: optuna.Study, trial: optuna.Trial, tried: Trial) -> None:
    import optuna

    trial.set_user_attr("seconds", tried.seconds)
    if tried.ndcg_at_10 is None:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    else:
        study.tell(trial, tried.ndcg_at_10)


def _of_study(trial: optuna.trial.FrozenTrial) -> Trial:
    score = float(trial.value) if trial.value is not None else None
    return Trial(trial.number, dict(trial.params), score, float(trial.user_attrs.get("seconds", 0.0)))


def _log(tracking: Tracking, study: str, tried: Trial) -> None:
    metrics = {"seconds": tried.seconds}
    if tried.ndcg_at_10 is not None:
        metrics[METRIC] = tried.ndcg_at_10
    tags = {"rerankops.search": study, "rerankops.trial": str(tried.number)}
    tracking.log_run(f"search trial {tried.number}", params=tried.values, metrics=metrics, tags=tags)


def _number(low: float, high: float, log: bool = False) -> _Suggest:
    def suggest(trial: optuna.Trial, name: str, current: Any) -> float:
        return trial.suggest_float(name, min(low, current), max(high, current), log=log)

    return suggest


def _one_of(*choices: Any) -> _Suggest:
    def suggest(trial: optuna.Trial, name: str, current: Any) -> Any:
        return trial.suggest_categorical(name, list(dict.fromkeys([*choices, current])))

    return suggest


_SPACE: Mapping[str, _Suggest] = {
    "learning_rate": _number(2e-5, 1e-3, log=True),
    "head_learning_rate": _number(1e-3, 1e-1, log=True),
    "warmup_share": _number(0.0, 0.3),
    "batch_queries": _one_of(2, 4, 8, 16),
    "frozen_layers": _one_of(0, 1, 2, 3),
    "loss": _one_of("listwise", "lambda", "bce"),
}
"""What may be searched, the keys of `models.settings.SEARCHABLE`, and where; the setting in force is always within."""
