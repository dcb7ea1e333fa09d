"""Partition definitions, and which partition a check looks at."""

import dagster as dg

DAYS = dg.DailyPartitionsDefinition(start_date="2026-01-01", end_offset=1)
"""One partition a UTC day, the running day included."""


def checked_partition(context: dg.AssetCheckExecutionContext, asset: dg.AssetKey) -> str | None:
    """The partition that a check of `asset` looks at: the run's, else the one that was materialized last.

    None for an asset without partitions, or one that was never materialized. (`partitions_def` of a check is a preview
    feature of Dagster 1.13.)
    """
    if context.has_partition_key:
        return context.partition_key
    event = context.instance.get_latest_materialization_event(asset)
    return None if event is None or event.asset_materialization is None else event.asset_materialization.partition
