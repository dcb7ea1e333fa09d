"""Automation conditions, freshness, retries, pools and owners."""

from datetime import timedelta

import dagster as dg

OWNERS = ["team:ranking"]

WHEN_INPUTS_CHANGE = (
    dg.AutomationCondition.eager() & dg.AutomationCondition.all_deps_blocking_checks_passed()
).with_label("eager, after the blocking checks upstream passed")
"""Plain `eager` ignores failed blocking checks of another run."""

READ_RETRIES = dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
"""For what reads a source or calls a service. Training and gates have none: they do not fail by chance."""

MODEL_POOL = "models"
"""Work that fills the machine: one at a time."""

REGISTRY_POOL = "registry"
"""Work that moves aliases: one at a time."""

WEEKLY = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=14), warn_window=timedelta(days=8))
"""A release is expected every week, by the retraining schedule."""

DAILY_FRESH = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=3), warn_window=timedelta(days=2))
