"""What an index must find, as a blocking check."""

import dagster as dg

from assets import keys
from checks.blocking import blocking_check

recall = blocking_check(keys.DENSE_INDEX, "recall")

CHECKS: tuple[dg.AssetChecksDefinition, ...] = (recall,)
