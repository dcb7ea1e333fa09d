"""Contract results of immutable artifacts: computed once per content and code, remembered in the store."""

from __future__ import annotations

from functools import partial
from typing import Any

from models.contracts.tables import TABLES, violations
from models.errors import ContractError
from models.expectations.steps import CONTRACTS
from models.store.artifacts import Artifact, ArtifactStore

_EXAMPLES = 20


def contract_violations(store: ArtifactStore, artifact: Artifact, file: str) -> dict[str, Any]:
    """`{"count": n, "rows": n, "examples": [{column, check, value, row}]}` for one table of an artifact."""
    key = {"asset": artifact.asset, "data_version": artifact.data_version, "file": file}
    return CONTRACTS.remember(store, key, partial(count_violations, artifact, file))


def count_violations(artifact: Artifact, file: str) -> dict[str, Any]:
    """What `contract_violations` remembers."""
    table = artifact.read_table(file)
    broken = violations(table, TABLES[file])
    examples = [
        {
            "column": str(row["column"]),
            "check": str(row["check"]),
            "value": str(row["failure_case"])[:200],
            "row": str(row["index"]),
        }
        for row in broken.head(_EXAMPLES).to_dict("records")
    ]
    return {"count": len(broken), "rows": len(table), "examples": examples}


def require_contracts(store: ArtifactStore, artifact: Artifact) -> None:
    """Raise `ContractError` naming offending rows if a table of `artifact` breaks its contract."""
    for file in artifact.manifest.files:
        if file in TABLES:
            violations = contract_violations(store, artifact, file)
            if violations["count"]:
                rows = "\n".join(
                    f"  row {e['row']}: {e['column']}: {e['check']} (got {e['value']!r})"
                    for e in violations["examples"]
                )
                raise ContractError(
                    f"{artifact.asset}/{file} breaks its contract in {violations['count']} places:\n{rows}",
                    "Mend the asset that makes it, or the source rows, and materialize it again.",
                )
