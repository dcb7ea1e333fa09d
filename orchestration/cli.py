"""The command line.

Exit codes of `run` and `demo`: 0 released or already current, 3 the gate refused, 1 failed, 130 interrupted.
"""

from __future__ import annotations

import gc as garbage
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.markup import escape
from rich.table import Table

from models.contracts.tiers import TIERS
from models.errors import RerankOpsError
from models.settings import Settings
from models.store.durable_files import storage_problem
from orchestration.commands.corpus import corpus
from orchestration.commands.evaluate import evaluate
from orchestration.commands.expectations import app as expectations
from orchestration.commands.gc import gc
from orchestration.commands.incidents import app as incidents
from orchestration.commands.judge import judge
from orchestration.commands.lineage import lineage
from orchestration.commands.pretrain import pretrain
from orchestration.commands.quarantine import app as quarantine
from orchestration.commands.search import search
from orchestration.commands.verify import verify
from orchestration.options import Json, Set, print_json, settings_with, user_name
from orchestration.terminal import Interrupted, err, libraries_write_to, new_log, out, watch

if TYPE_CHECKING:
    from orchestration.lifecycle import Outcome

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The life of a cross-encoder reranker, in one application.",
)

_SYSTEMS = ("bm25", "dense", "hybrid", *(tier.name for tier in TIERS), "tiered")
_INDEXES = 'group:"corpus" or group:"index"'
_DEMO_QUESTION = "How do I compute the pairwise distances between the rows of a matrix?"
_START_S = 120
_STORAGE_HINT = "Free space there, or let the user that RerankOps runs as write there. What was finished is kept."
_WHOLE = 1000
"""A number from here on is shown without decimals."""
_WORDS = {
    "released": "released",
    "current": "already current: the champion is what was made",
    "made": "made; the selection has no release",
    "refused": "refused by the gate; what served before keeps serving",
    "failed": "failed",
}


def main() -> None:
    """Entry point: failures are told without a traceback, and say what to do next."""
    # Commands load libraries of a million objects, all of which stay: by default a quarter of that time is spent on
    # looking for some that do not.
    garbage.set_threshold(50_000, 20, 50)
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except Interrupted as interrupted:
        _end_now(interrupted.code)
    except RerankOpsError as error:
        _fail(error.message, error.hint)
    except Exception as error:
        _fail(*_unforeseen(error))


def _unforeseen(error: Exception) -> tuple[str, str]:
    """What to say of an error that nothing has expected, and what to do; the traceback goes to a log."""
    cause: BaseException | None = error
    while cause is not None:
        if (problem := storage_problem(cause)) is not None:
            return problem, _STORAGE_HINT
        cause = cause.__cause__ or cause.__context__
    trace = traceback.format_exc()
    told = f"unexpected {type(error).__name__}: {error}"
    try:
        log = new_log(Settings().home, "error")
        log.write_text(trace, encoding="utf-8")
    except (OSError, RerankOpsError) as unwritten:
        return told, f"Its traceback could not be kept: {unwritten}"
    return told, f"The traceback is in {log}."


def _interrupt(number: int, _frame: object) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)  # A second one ends the process at once.
    raise Interrupted(number)


def _end_now(code: int) -> NoReturn:
    """End without waiting for the thread of a run: whatever it writes is written whole or not at all."""
    if "--json" in sys.argv:
        print_json({"exit_code": code, "error": "interrupted", "hint": ""})
    for stream in (sys.stdout, sys.stderr, out.file, err.file):
        stream.flush()
    os._exit(code)


def _fail(message: str, hint: str) -> NoReturn:
    err.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
    if hint:
        err.print(hint, markup=False, soft_wrap=True)
    if "--json" in sys.argv:
        print_json({"exit_code": 1, "error": message, "hint": hint})
    sys.exit(1)


@app.command()
def run(
    select: Annotated[str | None, typer.Option(help="Dagster asset selection, as in 'group:\"index\"'.")] = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Materialize the lifecycle: corpus, index, training, evaluation, gate, release."""
    outcome, state = _run(settings_with(overrides), select, quiet=as_json)
    if as_json:
        told = {"exit_code": outcome.code, "outcome": outcome.verdict, "run_id": outcome.run_id}
        print_json({**told, "failures": outcome.failures, **state})
    raise typer.Exit(outcome.code)


@app.command()
def backfill(
    version: Annotated[str, typer.Argument(help="Version of the corpus, or the beginning of it: `corpus versions`.")],
    select: Annotated[
        str, typer.Option(help="What to make of it, as a Dagster selection; what is upstream is added.")
    ] = _INDEXES,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Make the indexes, or what --select names, of a past version of the corpus.

    What was made of it before is taken from the store. All of it becomes current together when all is made; where
    something fails, the deployment stays on the version that it has.
    """
    from models.corpus.versions import PASSAGES, tables_of
    from models.store.artifacts import ArtifactStore

    settings = settings_with(overrides)
    store = ArtifactStore.of(settings)
    read_version = tables_of(store, version)[PASSAGES].data_version
    run(f"+({select})", [*(overrides or ()), f"corpus.version={read_version}"], as_json)


def _run(settings: Settings, select: str | None, *, quiet: bool) -> tuple[Outcome, dict[str, Any]]:
    """Run the lifecycle and show how it went, on standard error if `quiet`; returns the outcome and the status."""
    console = err if quiet else out
    started = time.perf_counter()
    log = new_log(settings.home, "run")
    with libraries_write_to(log):
        console.print(f"deployment {settings.home}, log {log}", markup=False, soft_wrap=True)
        try:
            with watch(console) as progress:
                from orchestration.lifecycle import run_lifecycle

                outcome = run_lifecycle(settings, select, progress)
        except Interrupted:
            err.print("Interrupted. What is finished is kept; the next `rerankops run` resumes there.", soft_wrap=True)
            raise
        slow = {name: seconds for name, seconds in outcome.seconds.items() if seconds >= 1}
        console.print(_minutes(slow))
        state = _status_after(outcome, settings)
        if state and not quiet:
            _show_status(state)
        for where, reason in outcome.failures.items():
            err.print(f"[bold red]{escape(where)}:[/] {escape(reason)}", soft_wrap=True)
        if outcome.verdict == "failed":
            err.print(f"Correct it and run again: what is finished is kept. The log is {log}.", soft_wrap=True)
    console.print(f"{_WORDS[outcome.verdict]}, after {(time.perf_counter() - started) / 60:.1f} min")
    return outcome, state


@app.command()
def serve(overrides: Set = None) -> None:
    """Serve the current release over HTTP, and every later one as it is released."""
    from services.server import run as run_server

    run_server(settings_with(overrides))


@app.command()
def query(text: str, overrides: Set = None, as_json: Json = False) -> None:
    """Ask the running service a question."""
    from models.serving.client import call_service

    answer = call_service(settings_with(overrides), "POST", "/v1/answer", {"query": text})
    if as_json:
        print_json(answer)
        return
    out.print(f"\n[bold]{escape(text)}[/]\n{escape(answer['answer'])}\n")
    for number, citation in enumerate(answer["citations"], 1):
        out.print(f"[{number}] {citation['title']}", markup=False)
    table = Table("rank", "score", "tier", "passage")
    for passage in answer["passages"][:5]:
        table.add_row(str(passage["rank"]), f"{passage['score']:.3f}", passage["tier"], escape(passage["passage_id"]))
    out.print(table)
    decision_id = answer["decision_id"] or "not recorded: `curl <address>/health` says why"
    out.print(f"decision {decision_id}", markup=False)


@app.command()
def status(overrides: Set = None, as_json: Json = False) -> None:
    """Champion, last gate decision, evaluation, objectives and open incidents."""
    settings = settings_with(overrides)
    with libraries_write_to(settings.home / "logs" / "commands.log"):
        state = _status(settings)
    if as_json:
        print_json(state)
    else:
        _show_status(state)


@app.command()
def rollback(
    to: Annotated[str | None, typer.Option(help="Release id; the release before when left out.")] = None,
    reason: Annotated[str, typer.Option(help="Why, for the ledger.")] = "rolled back from the command line",
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Restore the whole bundle of an earlier release and make the running service serve it."""
    from models.records.database import open_database
    from models.serving.roll_out import roll_back
    from models.store.artifacts import ArtifactStore

    settings = settings_with(overrides)
    with libraries_write_to(settings.home / "logs" / "commands.log"), open_database(settings) as database:
        rolled_back = roll_back(settings, ArtifactStore.of(settings), database, actor=user_name(), reason=reason, to=to)
    restored = rolled_back.release
    if as_json:
        print_json(
            {
                "release_id": restored.release_id,
                "bundle_version": restored.bundle_version,
                "version": restored.model_version,
                "served": rolled_back.seconds is not None,
                "message": rolled_back.message,
            }
        )
        return
    out.print(f"{restored.release_id}: bundle {restored.bundle_version}, MLflow version {restored.model_version}")
    out.print(rolled_back.message, markup=False, soft_wrap=True)


app.add_typer(incidents, name="incidents")
app.add_typer(quarantine, name="quarantine")
app.add_typer(corpus, name="corpus")
app.add_typer(expectations, name="expectations")
app.command()(lineage)
app.command()(gc)
app.command()(verify)
app.command()(search)
app.command()(evaluate)
app.command()(judge)
app.command()(pretrain)


@app.command()
def dev(
    port: Annotated[int, typer.Option(help="Port of the web server.")] = 3000,
    overrides: Set = None,
) -> None:
    """Dagster's web server and daemon on this deployment, for the browser that has the token of this start."""
    from orchestration.instance import WORKSPACE, prepare_instance
    from orchestration.web_guard import token_of_environment

    settings = settings_with(overrides)
    prepare_instance(settings)
    os.chdir(WORKSPACE.parent)
    address = f"http://127.0.0.1:{port}/?token={token_of_environment()}"
    out.print(f"Keep it like the key of the service, and open: {address}", markup=False, soft_wrap=True)
    sys.stdout.flush()
    # In place of this process, so that Dagster gets the signals itself.
    program = [
        sys.executable,
        "-m",
        "orchestration.dagster_dev",
        "-w",
        str(WORKSPACE),
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    os.execv(program[0], program)


@app.command()
def demo(overrides: Set = None) -> None:
    """The whole life on the configured corpus: run, release, serve and answer a question."""
    settings = settings_with(overrides)
    with _service(settings):
        outcome, _ = _run(settings, None, quiet=False)
        if outcome.code == 0:
            query(_DEMO_QUESTION)
    out.print("Go on with `rerankops serve`, `rerankops query` and `rerankops dev`.")
    raise typer.Exit(outcome.code)


@contextmanager
def _service(settings: Settings) -> Iterator[None]:
    """A service of this deployment as a child process, stopped at the end."""
    from services.listening import open_port

    open_port(settings.serving.host, settings.serving.port).close()
    log = new_log(settings.home, "serve")
    with log.open("ab") as file:
        child = subprocess.Popen([sys.executable, "-m", "orchestration.cli", "serve"], stdout=file, stderr=file)
    try:
        _wait_for_service(settings, child, log)
        yield
    finally:
        child.terminate()
        child.wait()


def _wait_for_service(settings: Settings, child: subprocess.Popen[bytes], log: Path) -> None:
    import httpx

    from models.serving.client import service_url

    address = f"{service_url(settings)}/health"
    deadline = time.monotonic() + _START_S
    while child.poll() is None and time.monotonic() < deadline:
        try:
            httpx.get(address, timeout=2, trust_env=False)
            return
        except httpx.TransportError:
            time.sleep(0.5)
    last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    raise RerankOpsError(f"the service did not start: {''.join(last)}", f"Its log is {log}.")


def _status(settings: Settings) -> dict[str, Any]:
    from models.operations.status import deployment_status

    return deployment_status(settings)


def _status_after(outcome: Outcome, settings: Settings) -> dict[str, Any]:
    """The status; empty where what made the run fail, as a database that is gone, keeps it from being read."""
    try:
        return _status(settings)
    except RerankOpsError:
        if outcome.verdict != "failed":
            raise
        return {}


def _show_status(state: dict[str, Any]) -> None:
    if state["evaluation"]:
        measures = ("nDCG@10", "MRR@10", "MAP", "R@10", "P@1")
        table = Table("system", *measures, "interval", "ms/query", title="Test queries")
        for name in _SYSTEMS:
            if (result := state["evaluation"].get(name)) is not None:
                low, high = result["interval"]
                values = [f"{result[measure]:.3f}" for measure in measures]
                table.add_row(name, *values, f"{low:.3f} to {high:.3f}", f"{1000 * result['seconds_per_query']:.0f}")
        out.print(table)
        gain, over = state["gains"]["tiered"], state["gains_over_first_stage"]
        out.print(
            f"the models add: tiered over {gain['baseline']}, the best without a model, {gain['difference']:+.4f} "
            f"nDCG@10 ({gain['low']:+.4f} to {gain['high']:+.4f}), p = {gain['p_value']:.4f}, {gain['queries']} "
            f"queries, which show a difference from {gain['detectable']:.4f} up with 80% power"
        )
        out.print(
            f"over {state['best_first_stage']}, the best first stage: tiered {over['tiered']['difference']:+.4f}, "
            f"lean {over['lean']['difference']:+.4f}"
        )
    if state["gate"]:
        out.print(_gate_table(state["gate"]))
        if state["gate"]["report"]:
            out.print(f"evaluation page: {state['gate']['report']}", markup=False, soft_wrap=True)
    champion = state["champion"]
    out.print(
        "No release yet."
        if champion is None
        else f"champion: version {champion['version']}, {champion['release_id']}, "
        f"bundle {champion['bundle_version']}, index {champion['index_version']}, corpus {champion['corpus_version']}"
    )
    out.print(_objectives_table(state["served"]))
    for incident in state["incidents"]:
        out.print(f"open incident: {incident['kind']} {incident['id']}")


def _objectives_table(served: dict[str, Any]) -> Table:
    """Served latency against the objectives."""
    source = "the service" if served["from"] == "service" else "stored decisions"
    title = f"Objectives: {served['requests']} answers of the last {served['window_minutes']} minutes, from {source}"
    table = Table("percentile", "served ms", "objective ms", "over it", "error budget left", title=title)
    table.add_row("50", _number(served["p50_ms"]), "-", "-", "-")
    for name in ("95", "99"):
        objective, over, left = (
            served[f"p{name}_objective_ms"],
            served[f"over_p{name}_share"],
            served[f"p{name}_budget_left"],
        )
        table.add_row(name, _number(served[f"p{name}_ms"]), _number(objective), f"{over:.1%}", f"{left:.0%}")
    return table


def _gate_table(gate: dict[str, Any]) -> Table:
    """The rules of the gate; contracts that hold share a row."""
    table = Table("check", "value", "threshold", "passed", title=f"Gate: {gate['decision']}")
    contracts = [check for check in gate["checks"] if check["name"].startswith("contract:")]
    held = [check for check in contracts if check["passed"]]
    table.add_row("contracts", f"{len(held)} hold", f"== {len(contracts)}", _passed(len(held) == len(contracts)))
    for check in gate["checks"]:
        if check not in held:
            limit = f"{check['comparison']} {_number(check['threshold'])}"
            table.add_row(check["name"], _number(check["value"]), limit, _passed(check["passed"]))
    return table


def _passed(passed: bool | None) -> str:
    return {True: "yes", False: "[red]no[/]", None: "not judged"}[passed]


def _number(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= _WHOLE else f"{value:.4g}"


def _minutes(seconds: dict[str, float]) -> Table:
    table = Table("stage", "minutes", title="Stages above one second")
    for name, value in seconds.items():
        table.add_row(name.replace("__", "/", 1), f"{value / 60:.2f}")
    return table


if __name__ == "__main__":
    main()
