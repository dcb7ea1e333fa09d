"""Automation conditions, freshness, retries, pools and owners."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import dagster as dg

from models.errors import ContractError, RerankOpsError, SettingsError

OWNERS = ["team:ranking"]

NO_CONFIG: dict[str, Any] = {}
"""Schema of an asset's own configuration. What a run is configured with goes to the resource `deployment`; without a
schema Dagster would take anything here and drop it in silence."""

_Condition = dg.AutomationCondition
_NEW_INPUT = (
    _Condition.any_deps_match(
        (_Condition.data_version_changed() & ~_Condition.executed_with_root_target()).with_label("content_changed")
        | _Condition.will_be_requested()
    )
).with_label("any_deps_changed")
_CHECKED = _Condition.all_checks_match(_Condition.check_passed(), blocking_only=True) | _Condition.will_be_requested()
_CHECKED_INPUTS = _Condition.all_deps_match(
    (_CHECKED & _Condition.all_deps_match(_CHECKED)) | _Condition.will_be_requested()
).with_label("blocking_checks_passed")

WHEN_INPUTS_CHANGE = (_Condition.eager().replace("any_deps_updated", _NEW_INPUT) & _CHECKED_INPUTS).with_label(
    "when inputs change, after their blocking checks passed"
)
"""Dagster's `eager` with two differences.

An input that was materialized again with the same content starts nothing: reading an unchanged corpus trains no models.

Plain `eager` ignores blocking checks that failed in another run. Here those of the inputs, and of what the inputs were
made from, must have passed, so that nothing is made of old and new halves while one of them waits for its check. Inputs
that are requested at the same tick are made in the same run, which runs their checks and stops behind a failed one; so
the whole graph follows a change in one run. (`all_deps_blocking_checks_passed` asks for the check to be requested,
which holds only for checks with a condition of their own, and would split that run.)
"""

READ_RETRIES = dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
"""For what reads a source or calls a service. Training and gates have none: they do not fail by chance."""


_CERTAIN_CAUSES = (
    ValueError, TypeError, LookupError, EOFError, ImportError, zlib.error, gzip.BadGzipFile, FileNotFoundError,
    PermissionError, IsADirectoryError, NotADirectoryError,
)  # fmt: skip
"""What a file, a value or a setting is to blame for."""


def is_certain(error: RerankOpsError) -> bool:
    """Whether an expected error will be the same however often it is tried.

    Rows that break a contract, a file that is not there, cut short or of another kind are certain. A connection that
    broke, or a disk that did not answer, stands behind the error that tells of it, and may pass.
    """
    if isinstance(error, ContractError | SettingsError):
        return True
    cause = error.__cause__ or error.__context__
    if isinstance(cause, RerankOpsError):
        return is_certain(cause)
    return cause is None or isinstance(cause, _CERTAIN_CAUSES)


@contextmanager
def no_retries_of_what_is_certain() -> Iterator[None]:
    """Around the body of an asset with retries, and what it reads: an error that is certain fails the step at once."""
    try:
        yield
    except RerankOpsError as error:
        if not is_certain(error):
            raise
        raise dg.Failure(description=str(error), allow_retries=False) from error


MODEL_POOL = "models"
"""Work that fills the machine: one at a time."""

REGISTRY_POOL = "registry"
"""Work that moves aliases: one at a time."""

WEEKLY = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=14), warn_window=timedelta(days=8))
"""A release is expected every week, by the retraining schedule."""

DAILY_FRESH = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=3), warn_window=timedelta(days=2))
