"""The executor of all runs: one process per run, so that heavy imports are paid once and models share the machine."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.errors import raise_execution_interrupts

from models.settings import load_settings
from orchestration.liveness import alive, alone

if TYPE_CHECKING:
    from dagster._core.execution.context.system import PlanOrchestrationContext
    from dagster._core.execution.plan.plan import ExecutionPlan
    from dagster._core.execution.retries import RetryMode


ROLLBACK = "rollback"


class _Alive(dg.Executor):
    """Another executor, with the run marked as alive while it works."""

    def __init__(self, inner: dg.Executor) -> None:
        self._inner = inner

    @property
    def retries(self) -> "RetryMode":
        """How the steps are retried."""
        return self._inner.retries

    def execute(
        self, plan_context: "PlanOrchestrationContext", execution_plan: "ExecutionPlan"
    ) -> Iterator[dg.DagsterEvent]:
        """Execute the steps, yielding their events."""
        settings = load_settings()
        with ExitStack() as held:
            held.enter_context(alive(settings, plan_context.run_id))
            if plan_context.job_name != ROLLBACK:  # It moves the ledger alone, and is in a hurry.
                # Else Dagster would note that a run is to end while it waits, and end it before its first step only.
                with raise_execution_interrupts():
                    held.enter_context(alone(settings, plan_context.log.info))
            yield from self._inner.execute(plan_context, execution_plan)


@dg.executor(name="in_process", config_schema=dg.in_process_executor.config_schema.as_field())
def one_process(context: dg.InitExecutorContext) -> dg.Executor:
    """All steps in the process of the run, which is marked as alive."""
    create = dg.in_process_executor.executor_creation_fn
    assert create is not None
    return _Alive(create(context))
