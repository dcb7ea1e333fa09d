"""`rerankops incidents`: what a person should look at, and closing what has been looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from orchestration.options import Json, Set, print_json, settings_with, user_name
from orchestration.terminal import libraries_write_to, out

if TYPE_CHECKING:
    from models.records.incidents import Incident

app = typer.Typer(help="Incidents: drift, refused candidates, rollbacks and failed runs, until a person closes them.")

All = Annotated[bool, typer.Option("--all", help="Also those that are closed, newest first.")]
Limit = Annotated[int, typer.Option(min=1, help="Incidents shown with --all, at most.")]
_CHARACTERS = 160


@app.callback(invoke_without_command=True)
def _list(
    context: typer.Context, everything: All = False, limit: Limit = 50, overrides: Set = None, as_json: Json = False
) -> None:
    """List incidents; `rerankops incidents` is the same as `rerankops incidents list`."""
    if context.invoked_subcommand is None:
        list_incidents(everything, limit, overrides, as_json)


@app.command("list")
def list_incidents(everything: All = False, limit: Limit = 50, overrides: Set = None, as_json: Json = False) -> None:
    """The open incidents, oldest first."""
    from models.records.database import open_database
    from models.records.incidents import open_incidents, recent_incidents

    settings = settings_with(overrides)
    with libraries_write_to(settings.home / "logs" / "commands.log"), open_database(settings) as database:
        incidents = recent_incidents(database, limit) if everything else open_incidents(database)
    if as_json:
        print_json([incident.to_dict() for incident in incidents])
    elif incidents:
        out.print(_table(incidents))
    else:
        out.print("No incident." if everything else "No open incident.")


@app.command()
def close(
    incident_id: Annotated[str, typer.Argument(metavar="ID", help="As `rerankops incidents` lists it.")],
    why: Annotated[str, typer.Option(help="What was found or done, for the record.")],
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Close an incident that has been looked at."""
    from models.records.database import open_database
    from models.records.incidents import close_incident

    settings = settings_with(overrides)
    with libraries_write_to(settings.home / "logs" / "commands.log"), open_database(settings) as database:
        incident = close_incident(database, incident_id, actor=user_name(), note=why)
    if as_json:
        print_json(incident.to_dict())
    else:
        out.print(f"{incident.incident_id} {_closing(incident)}", markup=False, soft_wrap=True)


def _table(incidents: list[Incident]) -> Table:
    table = Table("id", "kind", "opened", "evidence", "state")
    for incident in incidents:
        state = "open" if incident.closed is None else _closing(incident)
        opened = f"{incident.opened:%Y-%m-%d %H:%M}"
        evidence = escape(_summary(incident.evidence))
        table.add_row(incident.incident_id, incident.kind, opened, evidence, escape(state))
    return table


def _closing(incident: Incident) -> str:
    when = f"{incident.closed:%Y-%m-%d %H:%M}"
    return f"closed {when} by {incident.closed_by or 'somebody'}: {incident.closed_note or 'no reason was kept'}"


def _summary(evidence: Mapping[str, Any]) -> str:
    words = " ".join(", ".join(f"{name} {value}" for name, value in evidence.items()).split())
    return words if len(words) <= _CHARACTERS else f"{words[:_CHARACTERS]}…"
