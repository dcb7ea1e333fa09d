"""A release or a rollback that is killed at one point, as a program: `action crash database registry`."""

from __future__ import annotations

import os
import signal
import sys

from models.records.database import Database
from models.records.ledger import Ledger, Release
from models.records.mlflow_registry import CHAMPION, PREVIOUS, Tracking
from models.release.releaser import Releaser
from tests.releases import versions_of


def die() -> None:
    """End as a machine does that loses its power."""
    os.kill(os.getpid(), signal.SIGKILL)


class DyingTracking(Tracking):
    """MLflow before the alias that the crash is about is moved."""

    crash: str

    def set_alias(self, alias: str, version: str | None) -> None:
        if (self.crash, alias) in (("activated", CHAMPION), ("champion moved", PREVIOUS)):
            die()
        super().set_alias(alias, version)


class DyingLedger(Ledger):
    """The ledger before a release becomes the current one."""

    def activate(self, release_id: str) -> Release:
        die()
        return super().activate(release_id)


def main(action: str, crash: str, database: str, registry: str) -> None:
    """Release bundle b3, or roll back, until `crash`."""
    tracking = DyingTracking(registry, None, "reranker")
    tracking.crash = crash
    ledger = (DyingLedger if crash == "begun" else Ledger)(Database(database))
    releaser = Releaser(ledger, tracking)
    if action == "rollback":
        releaser.rollback(actor="test", reason="test")
    else:
        gate = ledger.record_gate_decision(candidate_version="b3", champion_version=None, verdict="released", checks={})
        releaser.release(versions_of("b3", "3"), gate_decision_id=gate.decision_id, actor="test", reason="test")


if __name__ == "__main__":
    main(*sys.argv[1:])
