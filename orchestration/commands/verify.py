"""`rerankops verify`: whether the store holds what its manifests say."""

from __future__ import annotations

import typer
from rich.table import Table

from orchestration.options import Json, Set, print_json, settings_with
from orchestration.terminal import libraries_write_to, out


def verify(overrides: Set = None, as_json: Json = False) -> None:
    """Read every file of the artifact store and compare it with its digest; exit code 1 where one is damaged."""
    settings = settings_with(overrides)
    with libraries_write_to(settings.home / "logs" / "commands.log"):
        from models.operations.verification import verify_store
        from models.records.database import open_database
        from models.records.ledger import Ledger
        from models.store.artifacts import ArtifactStore

        with open_database(settings) as database:
            verification = verify_store(ArtifactStore.of(settings), Ledger(database))
    if as_json:
        print_json(verification.to_dict())
    else:
        if verification.damaged:
            table = Table("artifact", "version", "file", "problem", "release", title="Damaged")
            for damage in verification.damaged:
                table.add_row(damage.asset, damage.data_version, damage.file, damage.problem, damage.release_id or "")
            out.print(table)
            out.print("Delete the folders objects/<artifact>/<version> of these and run again: they are made anew.")
        out.print(
            f"{verification.artifacts} artifacts, {verification.files} files, {verification.bytes / 1024**2:.1f} MiB "
            f"read, {len(verification.damaged)} damaged"
        )
    raise typer.Exit(1 if verification.damaged else 0)
