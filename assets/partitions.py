"""Partition definitions."""

import dagster as dg

DAYS = dg.DailyPartitionsDefinition(start_date="2026-01-01", end_offset=1)
"""One partition a UTC day, the running day included."""
