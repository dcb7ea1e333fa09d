"""The command line. Exit codes of `run` and `demo`: 0 released or already current, 3 the gate refused, 1 failed."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from models.errors import RerankOpsError
from models.settings import Settings, as_environment, load_settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The life of a cross-encoder reranker, in one application.",
)
_out = Console()
_err = Console(stderr=True)

Set = Annotated[list[str] | None, typer.Option("--set", help="Override one setting: section.key=value. Repeatable.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output.")]
_SYSTEMS = ("bm25", "dense", "hybrid", "lean", "compact", "large", "tiered")
_DEMO_QUESTION = "How do I compute the pairwise distances between the rows of a matrix?"


def main() -> None:
    """Entry point: expected failures are told without a traceback."""
    try:
        app()
    except RerankOpsError as error:
        _err.print(f"[bold red]error:[/] {error.message}", highlight=False)
        if error.hint:
            _err.print(error.hint, highlight=False)
        sys.exit(1)


def _settings(overrides: list[str] | None) -> Settings:
    settings = load_settings(overrides or ())
    os.environ.update(as_environment(overrides or ()))
    return settings


@app.command()
def run(
    select: Annotated[str | None, typer.Option(help="Dagster asset selection, as in 'group:\"index\"'.")] = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Materialize the lifecycle: corpus, index, training, evaluation, gate, release."""
    settings = _settings(overrides)
    code = _run(settings, select, quiet=as_json)
    if as_json:
        print(json.dumps({"exit_code": code, **_status(settings)}))  # noqa: T201
    raise typer.Exit(code)


def _run(settings: Settings, select: str | None, *, quiet: bool) -> int:
    from orchestration.lifecycle import run_lifecycle

    console = _err if quiet else _out
    started = time.perf_counter()

    def show(line: str) -> None:
        console.print(f"[dim]{time.perf_counter() - started:7.1f} s[/]  {line}", highlight=False)

    outcome = run_lifecycle(settings, select, show)
    slow = {name: seconds for name, seconds in outcome.seconds.items() if seconds >= 1}
    console.print(_minutes(slow))
    if not quiet:
        _show_status(_status(settings))
    for step, reason in outcome.failures.items():
        _err.print(f"[bold red]{step}:[/] {reason}", highlight=False)
    words = {0: "released, or already current", 3: "refused by the gate; the champion keeps serving", 1: "failed"}
    console.print(f"{words[outcome.code]} after {(time.perf_counter() - started) / 60:.1f} min")
    return outcome.code


@app.command()
def serve(overrides: Set = None) -> None:
    """Serve the current release over HTTP, and every later one as it is released."""
    from services.server import run as run_server

    run_server(_settings(overrides))


@app.command()
def query(text: str, overrides: Set = None, as_json: Json = False) -> None:
    """Ask the running service a question."""
    from models.service_client import call_service

    answer = call_service(_settings(overrides), "POST", "/v1/answer", {"query": text})
    if as_json:
        print(json.dumps(answer))  # noqa: T201
        return
    _out.print(f"\n[bold]{text}[/]\n{answer['answer']}\n", highlight=False)
    for number, citation in enumerate(answer["citations"], 1):
        _out.print(f"[{number}] {citation['title']}", markup=False, highlight=False)
    table = Table("rank", "score", "tier", "passage")
    for passage in answer["passages"][:5]:
        table.add_row(str(passage["rank"]), f"{passage['score']:.3f}", passage["tier"], passage["passage_id"])
    _out.print(table)
    _out.print(f"decision {answer['decision_id']}", highlight=False)


@app.command()
def status(overrides: Set = None, as_json: Json = False) -> None:
    """Champion, last gate decision, evaluation, objectives and open incidents."""
    found = _status(_settings(overrides))
    if as_json:
        print(json.dumps(found))  # noqa: T201
    else:
        _show_status(found)


@app.command()
def rollback(
    to: Annotated[str | None, typer.Option(help="Release id; the release before when left out.")] = None,
    reason: Annotated[str, typer.Option(help="Why, for the ledger.")] = "rolled back from the command line",
    overrides: Set = None,
) -> None:
    """Restore the whole bundle of an earlier release and make the running service serve it."""
    from models.database import Database
    from models.incidents import open_incident
    from models.ledger import Ledger
    from models.releasing import Releaser
    from models.service_client import ServiceUnavailable, call_service
    from models.tracking import Tracking

    settings = _settings(overrides)
    database = Database(settings.database_url)
    database.migrate()
    restored = Releaser(Ledger(database), Tracking.of(settings)).rollback(actor=getpass.getuser(), reason=reason, to=to)
    open_incident(database, "rollback", {"release_id": restored.release_id, "reason": reason})
    database.close()
    _out.print(f"{restored.release_id}: bundle {restored.bundle_version}, MLflow version {restored.model_version}")
    try:
        swap = call_service(settings, "POST", "/v1/release/refresh")
        _out.print(f"The service serves it after {swap['seconds']:.1f} s.")
    except ServiceUnavailable:
        _out.print("No service runs; the next `rerankops serve` serves it.")


@app.command()
def dev(overrides: Set = None) -> None:
    """Dagster's web server and daemon on this deployment."""
    from orchestration.instance import WORKSPACE, prepare_instance

    prepare_instance(_settings(overrides))
    program = [sys.executable, "-m", "dagster", "dev", "-w", str(WORKSPACE)]
    raise typer.Exit(subprocess.call(program, cwd=WORKSPACE.parent))


@app.command()
def demo(overrides: Set = None) -> None:
    """The whole life on the configured corpus: run, release, serve and answer a question."""
    settings = _settings(overrides)
    with _service(settings):
        code = _run(settings, None, quiet=False)
        if code == 0:
            query(_DEMO_QUESTION)
    _out.print("Go on with `rerankops serve`, `rerankops query` and `rerankops dev`.")
    raise typer.Exit(code)


@contextmanager
def _service(settings: Settings) -> Iterator[None]:
    """A service of this deployment as a child process, stopped at the end."""
    import httpx

    logs = settings.home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    address = f"http://{settings.serving.host}:{settings.serving.port}/health"
    with (logs / "serve.log").open("ab") as log:
        child = subprocess.Popen([sys.executable, "-m", "orchestration.cli", "serve"], stdout=log, stderr=log)
        try:
            for _ in range(240):
                if child.poll() is not None:
                    raise RerankOpsError("the service did not start", f"Its log is {log.name}.")
                try:
                    httpx.get(address, timeout=2)
                    break
                except httpx.TransportError:
                    time.sleep(0.5)
            yield
        finally:
            child.terminate()
            child.wait()


def _status(settings: Settings) -> dict[str, Any]:
    from models.status import deployment_status

    return deployment_status(settings)


def _show_status(found: dict[str, Any]) -> None:
    if found["evaluation"]:
        measures = ("nDCG@10", "MRR@10", "MAP", "R@10", "P@1")
        table = Table("system", *measures, "interval", "ms/query", title="Test queries")
        for name in _SYSTEMS:
            if (result := found["evaluation"].get(name)) is not None:
                low, high = result["interval"]
                values = [f"{result[measure]:.3f}" for measure in measures]
                table.add_row(name, *values, f"{low:.3f} to {high:.3f}", f"{1000 * result['seconds_per_query']:.0f}")
        _out.print(table)
        gain = found["gains"]["tiered"]
        _out.print(
            f"tiered over {gain['baseline']}: {gain['difference']:+.4f} nDCG@10 "
            f"({gain['low']:+.4f} to {gain['high']:+.4f}), p = {gain['p_value']:.4f}, {gain['queries']} queries"
        )
    if found["gate"]:
        table = Table("check", "value", "threshold", "passed", title=f"Gate: {found['gate']['decision']}")
        for check in found["gate"]["checks"]:
            limit = f"{check['comparison']} {check['threshold']}"
            table.add_row(check["name"], str(check["value"]), limit, "yes" if check["passed"] else "[red]no[/]")
        _out.print(table)
    champion = found["champion"]
    _out.print(
        "No release yet."
        if champion is None
        else f"champion: version {champion['version']}, {champion['release_id']}, "
        f"bundle {champion['bundle_version']}, index {champion['index_version']}, corpus {champion['corpus_version']}"
    )
    for incident in found["incidents"]:
        _out.print(f"open incident: {incident['kind']} {incident['id']}")


def _minutes(seconds: dict[str, float]) -> Table:
    table = Table("stage", "minutes", title="Stages above one second")
    for name, value in seconds.items():
        table.add_row(name, f"{value / 60:.2f}")
    return table


if __name__ == "__main__":
    main()
