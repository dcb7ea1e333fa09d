"""`rerankops expectations`: suites profiled from an accepted version of the corpus, to review and keep."""

from __future__ import annotations

import difflib
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from models.errors import ArtifactError, SettingsError
from models.settings import load_settings
from orchestration.terminal import out

app = typer.Typer(no_args_is_help=True, help="Expectations on the tables of the corpus.")


class Version(StrEnum):
    """Which version of the corpus is profiled."""

    ACCEPTED = "accepted"
    CURRENT = "current"


@app.callback()
def _group() -> None:
    """Keep `profile` a command of its own while it is the only one."""


@app.command()
def profile(
    tables: Annotated[
        list[str] | None, typer.Argument(help="passages, queries, judgments, evaluation_set; all if none is named.")
    ] = None,
    version: Annotated[Version, typer.Option(help="The version that was last released, or the current one.")] = (
        Version.ACCEPTED
    ),
    margin: Annotated[float, typer.Option(min=0, max=1, help="How much wider than found the ranges are.")] = 0.2,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the suites; those of the project, where none is named.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, write nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Write without asking.")] = False,
) -> None:
    """Profile suites from a good version: its ranges with a margin, as warnings, beside what the files hold.

    Expectations written by hand stay; those of an earlier profile are replaced. The difference is shown, and nothing
    is overwritten before you agree.
    """
    from models.expectations.accepted import accepted_tables
    from models.expectations.profiles import profiled_suite
    from models.expectations.tables import SUITE_OF, table_of
    from models.expectations.validation import SUITES, suite_text
    from models.store.artifacts import ArtifactStore
    from models.store.durable_files import write_atomically

    suites = {suite: asset for asset, suite in SUITE_OF.items()}
    if unknown := set(tables or ()) - set(suites):
        raise SettingsError(f"no suite {', '.join(sorted(unknown))}", f"Suites: {', '.join(suites)}.")
    settings = load_settings()
    store = ArtifactStore.of(settings)
    if version is Version.CURRENT:
        artifacts = {asset: store.require(asset) for asset in SUITE_OF}
    else:
        artifacts = accepted_tables(store)
        if not artifacts:
            raise ArtifactError(
                "no version of the corpus has been accepted by a release yet",
                "Release one with `rerankops run`, or profile the current one with --version current.",
            )
    changes: dict[Path, str] = {}
    for suite in tables or list(suites):
        path = (output or SUITES) / f"{suite}.json"
        text = suite_text(profiled_suite(suite, table_of(suites[suite], artifacts), margin))
        before = path.read_text(encoding="utf-8") if path.is_file() else ""
        if text != before:
            changes[path] = text
            lines = difflib.unified_diff(before.splitlines(), text.splitlines(), str(path), str(path), lineterm="")
            out.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    if not changes:
        out.print("The suites hold this profile already.")
        return
    if dry_run:
        out.print(f"{len(changes)} suites would change; nothing was written.")
        return
    if not yes:
        if not sys.stdin.isatty():
            raise SettingsError("nothing was written: there is nobody to ask", "Review the difference, then add --yes.")
        typer.confirm(f"Write {len(changes)} suites?", abort=True)
    for path, text in changes.items():
        write_atomically(path, text.encode())
        out.print(f"wrote {path}", markup=False, soft_wrap=True)
