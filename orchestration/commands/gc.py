"""`rerankops gc`: what nothing refers to any more, told or deleted."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from orchestration.options import Json, Set, print_json, settings_with
from orchestration.terminal import libraries_write_to, out

if TYPE_CHECKING:
    from models.operations.garbage_collection import Plan

_MIB = 1024**2


def gc(
    delete: Annotated[bool, typer.Option("--yes", "--delete", help="Delete; without it nothing is changed.")] = False,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """List what no release, gate decision, evaluation or recent run refers to, and why the rest is kept; --yes deletes
    it."""
    settings = settings_with(overrides)
    with libraries_write_to(settings.home / "logs" / "commands.log"):
        from models.operations.garbage_collection import (
            NO_REFERENCES,
            References,
            collect,
            evaluation_stores,
            old_pages,
            plan,
            references,
        )
        from models.records.database import open_database
        from models.records.ledger import Ledger
        from models.records.mlflow_registry import Tracking
        from models.store.artifacts import ArtifactStore

        store, days = ArtifactStore.of(settings), settings.retention.days
        with open_database(settings) as database:

            def refers() -> References:
                return references(Ledger(database), Tracking.of(settings), settings.retention, datetime.now(UTC))

            planned = collect(store, refers, days) if delete else plan(store, refers(), days)
        evaluations = {
            location: collect(evaluations_of, lambda: NO_REFERENCES, days)
            if delete
            else plan(evaluations_of, NO_REFERENCES, days)
            for location, evaluations_of in evaluation_stores(settings).items()
        }
        pages = old_pages(settings)
        if delete:
            for page in pages:
                page.unlink(missing_ok=True)
    if as_json:
        others = {location: plan.to_dict() for location, plan in evaluations.items()}
        told = {**planned.to_dict(), "evaluations": others, "pages": [str(page) for page in pages]}
        print_json({"deleted": delete, **told})
        return
    something = [_show(planned, deleted=delete)]
    for location, evaluation in evaluations.items():
        command = "pretrain" if settings.home / location == settings.pretrainings else "evaluate"
        out.print(f"\n{settings.home / location}: of `rerankops {command}`", markup=False, soft_wrap=True)
        something.append(_show(evaluation, deleted=delete))
    for page in pages:
        out.print(f"{page}: {'deleted' if delete else 'would be deleted'}", markup=False, soft_wrap=True)
    if not delete and (any(something) or pages):
        out.print("Nothing was changed. `rerankops gc --yes` deletes; --json gives the reason for each artifact.")


def _show(planned: Plan, *, deleted: bool) -> bool:
    """Print a plan; returns whether there is something to delete."""
    if planned.artifacts:
        table = Table("artifact", "version", "MiB", "last used", title="Deleted" if deleted else "Would be deleted")
        for artifact in planned.artifacts:
            last = f"{artifact.last_used:%Y-%m-%d %H:%M}" if artifact.last_used else "never"
            table.add_row(artifact.ref.asset, artifact.ref.data_version, f"{artifact.bytes / _MIB:.2f}", last)
        out.print(table)
    for folder in planned.folders:
        out.print(f"{folder}: of a process that is gone", markup=False, soft_wrap=True)
    kept = Table("kept because", "artifacts", "MiB", title="Kept")
    counted: dict[str, list[int]] = defaultdict(list)
    for ref, reason in planned.kept.items():
        counted[_kind(reason)].append(planned.kept_bytes.get(ref, 0))
    for reason, sizes in sorted(counted.items()):
        kept.add_row(reason, str(len(sizes)), f"{sum(sizes) / _MIB:.2f}")
    out.print(kept)
    verb = "deleted" if deleted else "to delete"
    counts = (
        (len(planned.artifacts), "artifacts"),
        (len(planned.steps), "steps"),
        (len(planned.results), "results of checks"),
        (len(planned.leftovers) + len(planned.folders), "leftovers"),
    )
    out.print(f"{verb}: {', '.join(f'{n} {what}' for n, what in counts)}; {planned.freed_bytes / _MIB:.2f} MiB of disk")
    return any(number for number, _ in counts)


def _kind(reason: str) -> str:
    """A reason without the names in it, to count by."""
    return "made into one that is kept" if reason.startswith("made into ") else reason
