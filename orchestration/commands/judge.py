"""`rerankops judge`: a person says which passages answer which query, and reads what that is worth."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from orchestration.options import Json, Set, print_json, settings_with
from orchestration.terminal import err, libraries_write_to, new_log, out, watch

if TYPE_CHECKING:
    from models.operations.judging import Estimate, RankedQuery
    from models.settings import Settings

_TOLD_EVERY = 25
_SHOWN = 700
"""Characters of a passage that are shown."""

_HELP = (
    "For each query, type the numbers of the passages that answer it, as in 2 5; with a + those that answer it fully, "
    "as in 2+. Enter alone: none does. s: another query. q: stop; what is judged is kept, and the next call goes on."
)


def judge(
    queries: Annotated[Path, typer.Argument(help="Queries of your users: a line each, or JSONL with `text`.")],
    into: Annotated[
        Path | None,
        typer.Option(help="Folder for queries.jsonl and judgments.jsonl; the corpus' own where it is a folder."),
    ] = None,
    count: Annotated[int, typer.Option(min=2, max=10_000, help="Queries drawn.")] = 50,
    evenly: Annotated[
        bool, typer.Option("--evenly", help="Draw from all queries alike, not where the rankings differ.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(help="Release id, or version or alias of the registered model; the champion when left out."),
    ] = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Judge queries of your own, blind to the systems, where the reranker and the first stage disagree."""
    settings = settings_with(overrides)
    folder = (into or _folder_of(settings)).expanduser()
    log = new_log(settings.home, "judge")
    with libraries_write_to(log):
        from models.operations.judging import (
            differences_of,
            draw,
            estimate,
            keep,
            rank_queries,
            read_grades,
            read_queries,
        )
        from models.release.lookup import find_bundle
        from models.serving.loaded_bundle import load_bundle
        from models.serving.protocol import candidates_of

        texts = read_queries(queries)
        grades = read_grades(folder)
        bundle = load_bundle(find_bundle(settings, model).artifact)
        try:
            with watch(err) as lines:

                def report(done: int, total: int) -> None:
                    if done % _TOLD_EVERY == 0 or done == total:
                        lines.said(f"queries ranked: {done} of {total}")

                ranked = rank_queries(bundle, texts, candidates_of(bundle, settings.serving), report)
        finally:
            bundle.close()
    drawn = draw(ranked, count, evenly=evenly)
    err.print(_HELP, markup=False, soft_wrap=True)
    for item in [item for item in drawn if item.query.query_id not in grades]:
        answer = _ask(item.query, len(drawn) - sum(other.query.query_id in grades for other in drawn))
        if answer == "stop":
            break
        if answer == "skip":
            continue
        keep(folder, item.query, answer)
        grades[item.query.query_id] = answer
    result = estimate(ranked, drawn, differences_of(ranked, grades), confidence=settings.evaluation.confidence)
    if as_json:
        print_json({**result.to_dict(), "drawn": len(drawn), "folder": str(folder)})
    else:
        out.print(_told(result, settings.evaluation.confidence, folder), markup=False, soft_wrap=True)


def _folder_of(settings: Settings) -> Path:
    """Where the next run reads them by itself, if there is such a place."""
    from models.operations.judging import JUDGMENTS_FILE, QUERIES_FILE

    read = settings.corpus.folder
    is_read = (read.queries, read.judgments, read.columns) == (QUERIES_FILE, JUDGMENTS_FILE, {})
    return settings.corpus_path if settings.corpus.source == "folder" and is_read else settings.home / "judged"


def _ask(query: RankedQuery, left: int) -> dict[str, int] | Literal["skip", "stop"]:
    """The grades that a person gives, or what else they want."""
    width = shutil.get_terminal_size().columns
    err.print(f"\n[bold]{escape(query.text)}[/]  ({left} left)", soft_wrap=True)
    documents = list(query.shown)
    for number, document in enumerate(documents, 1):
        title, text = query.shown[document]
        cut = text if len(text) <= _SHOWN else text[:_SHOWN] + " ..."
        err.print(f"\n[bold]{number}[/] {escape(title)}", width=width)
        err.print(escape(cut), width=width)
    while True:
        err.print("\nanswered by: ", end="")
        line = sys.stdin.readline()
        if not line or line.strip().lower() == "q":
            return "stop"
        if line.strip().lower() == "s":
            return "skip"
        grades = _grades(line, documents)
        if grades is not None:
            return grades
        err.print(f"Numbers from 1 to {len(documents)}, as in 2 5+; s or q.", markup=False)


def _grades(line: str, documents: Sequence[str]) -> dict[str, int] | None:
    from models.operations.judging import MAX_GRADE

    grades: dict[str, int] = {}
    for word in line.replace(",", " ").split():
        match = re.fullmatch(r"(\d{1,3})(\+?)", word, re.ASCII)
        if match is None or not 1 <= int(match[1]) <= len(documents):
            return None
        grades[documents[int(match[1]) - 1]] = MAX_GRADE if match[2] else 1
    return grades


def _told(result: Estimate, confidence: float, folder: Path) -> str:
    if result.difference is None:
        return f"{result.judged} judged: two at least give an interval. They are in {folder}."
    verdict = "cannot be told from nothing"
    if result.low is not None and result.low > 0:
        verdict = "helps"
    elif result.high is not None and result.high < 0:
        verdict = "hurts"
    return (
        f"All tiers against the first stage, nDCG@10 over all {result.queries} queries: {result.difference:+.3f} "
        f"({confidence:.0%}: {result.low:+.3f} to {result.high:+.3f}): the reranker {verdict}. "
        f"{result.judged} judged; the rankings differ on {result.differing}. They are in {folder}: the next run of a "
        f"corpus that reads them is gated on them."
    )
