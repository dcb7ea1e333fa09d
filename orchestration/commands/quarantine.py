"""`rerankops quarantine`: what was refused, why and where; corrected rows re-admitted, and corrections withdrawn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from models.errors import RerankOpsError
from models.settings import Settings
from orchestration.options import Json, Set, print_json, settings_with, user_name
from orchestration.terminal import libraries_write_to, out

if TYPE_CHECKING:
    from models.records.database import Database
    from models.store.artifacts import Artifact

app = typer.Typer(no_args_is_help=True, help="Rows that broke a contract: list, export, correct and re-admit them.")

Reason = Annotated[str, typer.Option(help="Only this rule, as duplicate_id, or reasons with these words in them.")]
OfTable = Annotated[str, typer.Option("--table", help="Only rows meant for documents, queries or judgments.")]
Note = Annotated[str, typer.Option(help="Why, for the record.")]
_TABLES = ("documents", "queries", "judgments")
_REASON_CHARACTERS = 100


@app.command("list")
def list_rows(
    reason: Reason = "",
    table: OfTable = "",
    limit: Annotated[int, typer.Option(min=0, help="Rows shown, at most; 0 shows the counts alone.")] = 20,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """The quarantined rows of the last reading, counted by rule, and the first of them."""
    from models.corpus.quarantine import count_rows, quarantined_rows, select_rows

    settings = settings_with(overrides)
    artifact = _quarantine(settings)
    rows = select_rows(quarantined_rows(artifact), reason, _known(table))
    counts, shown = count_rows(rows), rows[:limit]
    if as_json:
        print_json(
            {
                "version": artifact.data_version,
                "rows": len(rows),
                "by_rule": counts,
                "first": [row.record() for row in shown],
            }
        )
        return
    out.print(f"{len(rows)} rows in quarantine {artifact.data_version}", markup=False, soft_wrap=True)
    if not rows:
        return
    by_rule = Table("table", "rule", "rows")
    for count in counts:
        by_rule.add_row(count["table"], count["rule"], str(count["rows"]))
    out.print(by_rule)
    if shown:
        listed = Table("row_id", "rule", "position", "reason")
        for row in shown:
            words = row.reason if len(row.reason) <= _REASON_CHARACTERS else f"{row.reason[:_REASON_CHARACTERS]}…"
            listed.add_row(row.row_id, row.rule, escape(row.position), escape(words))
        out.print(listed)
    if len(rows) > len(shown):
        out.print(f"{len(rows) - len(shown)} more: raise --limit, or `rerankops quarantine export FILE`.", markup=False)


@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="File to write: .jsonl, which can be edited, .csv or .parquet.")],
    reason: Reason = "",
    table: OfTable = "",
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Write the quarantined rows to a file."""
    from models.corpus.quarantine import export_rows, quarantined_rows, select_rows

    settings = settings_with(overrides)
    rows = select_rows(quarantined_rows(_quarantine(settings)), reason, _known(table))
    export_rows(rows, path)
    if as_json:
        print_json({"path": str(path.absolute()), "rows": len(rows)})
    else:
        out.print(f"{len(rows)} rows in {path}", markup=False, soft_wrap=True)


@app.command()
def readmit(
    path: Annotated[Path, typer.Argument(help="JSON Lines as exported, with `row` corrected where it was wrong.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the rows, and keep nothing.")] = False,
    note: Note = "",
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Check corrected rows by their contract, and have the next run read them in place of the broken ones."""
    from models.corpus.quarantine import readmit as take

    settings = settings_with(overrides)
    artifact = _quarantine(settings)
    with _database(settings) as database:
        readmission = take(
            path,
            settings.corpus.source,
            artifact,
            database,
            actor=user_name(),
            note=note,
            dry_run=dry_run,
        )
    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "accepted": [_plain(asdict(correction)) for correction in readmission.accepted],
                "unchanged": readmission.unchanged,
                "known": readmission.known,
            }
        )
        return
    for correction in readmission.accepted:
        line = f"{correction.correction_id}: {correction.table} row of {correction.position}"
        out.print(line, markup=False, soft_wrap=True)
    out.print(
        f"{len(readmission.accepted)} rows {'would be' if dry_run else 'are'} re-admitted, "
        f"{readmission.unchanged} are as they were, {readmission.known} were re-admitted before."
    )
    if readmission.accepted and not dry_run:
        out.print("The next `rerankops run` reads them.")


@app.command()
def corrections(
    withdrawn: Annotated[bool, typer.Option("--all", help="Also those that were withdrawn or replaced.")] = False,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """The corrections in force, who made them, and what the last reading did with each."""
    from models.corpus.corrections import corrections_of
    from models.corpus.quarantine import outcomes

    settings = settings_with(overrides)
    artifact = _store(settings).current("corpus/quarantined_rows")
    done = {} if artifact is None else outcomes(artifact)
    with _database(settings) as database:
        stored = corrections_of(database, settings.corpus.source, withdrawn=withdrawn)
    told = []
    for correction in stored:
        unread = {"state": "unread", "message": "the next run reads it"}
        if correction.withdrawn_at is not None:
            words = f"by {correction.withdrawn_by}: {correction.withdrawn_note}".rstrip(": ")
            state = {"state": "withdrawn", "message": words}
        else:
            state = done.get(correction.correction_id, unread)
        told.append({**asdict(correction), "state": state["state"], "message": state["message"]})
    if as_json:
        print_json([_plain(correction) for correction in told])
        return
    table = Table("correction", "table", "position", "by", "at", "state", "")
    for entry in told:
        at = f"{entry['created_at']:%Y-%m-%d %H:%M}"
        values = (
            entry["correction_id"],
            entry["table"],
            entry["position"],
            entry["actor"],
            at,
            entry["state"],
            entry["message"],
        )
        table.add_row(*map(escape, values))
    out.print(table if told else "No corrections.")


@app.command()
def withdraw(
    correction_ids: Annotated[list[str], typer.Argument(help="Ids as `rerankops quarantine corrections` lists them.")],
    note: Note = "",
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Take corrections out of force: the next run reads what the source says."""
    from models.corpus.corrections import withdraw as take_back

    settings = settings_with(overrides)
    with _database(settings) as database:
        withdrawn = take_back(database, correction_ids, actor=user_name(), note=note)
    if as_json:
        print_json([_plain(asdict(correction)) for correction in withdrawn])
        return
    for correction in withdrawn:
        line = f"{correction.correction_id}: the next run reads the source's row of {correction.position} again"
        out.print(line, markup=False, soft_wrap=True)


def _quarantine(settings: Settings) -> Artifact:
    return _store(settings).require("corpus/quarantined_rows")


def _store(settings: Settings) -> Any:
    from models.store.artifacts import ArtifactStore

    return ArtifactStore.of(settings)


@contextmanager
def _database(settings: Settings) -> Iterator[Database]:
    from models.records.database import open_database

    with ExitStack() as stack:
        with libraries_write_to(settings.home / "logs" / "commands.log"):
            database = stack.enter_context(open_database(settings))
        yield database


def _known(table: str) -> str:
    if table and table not in _TABLES:
        raise RerankOpsError(f"--table {table}: there is no such table", f"One of {', '.join(_TABLES)}.")
    return table


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(value, default=str))
