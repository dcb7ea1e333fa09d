"""What must hold: data contracts, expectations, leakage and drift, as Dagster asset checks."""

import dagster as dg


def all_checks() -> list[dg.AssetChecksDefinition]:
    """Every asset check of the code location."""
    from checks import contracts, drift, expectations, gate, index, leakage

    return [*contracts.CHECKS, *leakage.CHECKS, *expectations.CHECKS, *index.CHECKS, *drift.CHECKS, *gate.CHECKS]
