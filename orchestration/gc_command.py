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
    from models.garbage import Plan

_MIB = 1024**2


def gc(
    delete: Annotated[bool, typer.Option("--yes", "--delete", help="Delete; without it nothing is changed.")] = False,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """List what no release, gate decision or recent run refers to, and why the rest is kept; --yes deletes it."""
    settings = settings_with(overrides)
    with libraries_write_to(settings.home / "logs" / "commands.log"):
        from models.artifacts import ArtifactStore
        from models.database import open_database
        from models.garbage import References, collect, plan, references
        from models.ledger import Ledger
        from models.tracking import Tracking

        store, days = ArtifactStore.of(settings), settings.retention.days
        with open_database(settings) as database:

            def refers() -> References:
                return references(Ledger(database), Tracking.of(settings), settings.retention, datetime.now(UTC))

            found = collect(store, refers, days) if delete else plan(store, refers(), days)
    if as_json:
        print_json({"deleted": delete, **found.to_dict()})
    else:
        _show(found, deleted=delete)


def _show(found: Plan, *, deleted: bool) -> None:
    if found.artifacts:
        table = Table("artifact", "version", "MiB", "last used", title="Deleted" if deleted else "Would be deleted")
        for one in found.artifacts:
            last = f"{one.last_used:%Y-%m-%d %H:%M}" if one.last_used else "never"
            table.add_row(one.ref.asset, one.ref.data_version, f"{one.bytes / _MIB:.2f}", last)
        out.print(table)
    for folder in found.folders:
        out.print(f"{folder}: of a process that is gone", markup=False, soft_wrap=True)
    kept = Table("kept because", "artifacts", "MiB", title="Kept")
    counted: dict[str, list[int]] = defaultdict(list)
    for ref, reason in found.kept.items():
        counted[_kind(reason)].append(found.kept_bytes.get(ref, 0))
    for reason, sizes in sorted(counted.items()):
        kept.add_row(reason, str(len(sizes)), f"{sum(sizes) / _MIB:.2f}")
    out.print(kept)
    verb = "deleted" if deleted else "to delete"
    counts = (
        (len(found.artifacts), "artifacts"),
        (len(found.steps), "steps"),
        (len(found.results), "results of checks"),
        (len(found.leftovers) + len(found.folders), "leftovers"),
    )
    out.print(f"{verb}: {', '.join(f'{n} {what}' for n, what in counts)}; {found.freed_bytes / _MIB:.2f} MiB of disk")
    if not deleted and any(number for number, _ in counts):
        out.print("Nothing was changed. `rerankops gc --yes` deletes; --json gives the reason for each artifact.")


def _kind(reason: str) -> str:
    """A reason without the names in it, to count by."""
    return "made into one that is kept" if reason.startswith("made into ") else reason
