"""`rerankops corpus`: the versions of the corpus that are stored."""

from __future__ import annotations

from dataclasses import asdict

import typer
from rich.table import Table

from orchestration.options import Json, Set, print_json, settings_with
from orchestration.terminal import libraries_write_to, out

corpus = typer.Typer(no_args_is_help=True, help="Versions of the corpus.")


@corpus.callback()
def _group() -> None:
    """Keep `versions` a command of its own: typer would make the only one the group itself."""


@corpus.command()
def versions(overrides: Set = None, as_json: Json = False) -> None:
    """The stored readings of the source, newest first, with the releases made from each. `*` marks the current one."""
    settings = settings_with(overrides)
    with libraries_write_to(settings.home / "logs" / "commands.log"):
        from models.corpus.versions import corpus_versions
        from models.records.database import open_database
        from models.records.ledger import Ledger
        from models.store.artifacts import ArtifactStore

        with open_database(settings) as database:
            releases = Ledger(database).history()
        listed = corpus_versions(ArtifactStore.of(settings), releases)
    if as_json:
        print_json([asdict(entry) for entry in listed])
        return
    table = Table("", "version", "read at", "documents", "passages", "queries", "quarantined", "releases")
    for entry in listed:
        rows = (str(entry.rows.get(name, "-")) for name in ("documents", "passages", "queries", "quarantined_rows"))
        table.add_row("*" if entry.current else "", entry.data_version, entry.read_at, *rows, ", ".join(entry.releases))
    out.print(table)
    out.print("`rerankops backfill VERSION` makes the indexes of one of them again.")
