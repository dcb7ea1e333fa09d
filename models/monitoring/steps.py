"""The computations of monitoring: a day's decisions, and the report on them."""

from models.store import asset_names as names
from models.store.steps import Step

DECISION_LOG = Step(names.DECISION_LOG, "models.monitoring.decision_log:write_log")
DRIFT_REPORT = Step(names.DRIFT_REPORT, "models.monitoring.report:write_report", ("monitoring",))
