"""`rerankops evaluate`: a released bundle on any judged corpus."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from models.errors import SettingsError
from orchestration.options import Json, Set, print_json, settings_with
from orchestration.terminal import Lines, err, libraries_write_to, new_log, out, reporter, watch

if TYPE_CHECKING:
    from models.corpus.sources.base import CorpusSource
    from models.measures.trec_runs import ImportedRun
    from models.operations.judged_corpus import JudgedCorpus
    from models.settings import Settings
    from models.store.artifacts import Artifact

_WORST = 5
_SHOWN = 60
_MEASURES = ("nDCG@10", "MRR@10", "MAP", "R@10", "P@1")


def evaluate(
    corpus: Annotated[
        str | None,
        typer.Option(help="What to evaluate on, as beir:FOLDER; the model's own test queries when left out."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Release id, or version or alias of the registered model; the champion when left out."),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the queries.")] = "test",
    max_queries: Annotated[
        int | None, typer.Option(min=1, help="Queries at most, a stable sample by hash; all when left out.")
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(min=1, help="Candidates reranked per query; the bundle's own number when left out.")
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(help="TREC run file of another system, as FILE or FILE:NAME. Repeatable."),
    ] = None,
    export_runs: Annotated[Path | None, typer.Option(help="Folder that gets a TREC run file of every system.")] = None,
    ablate: Annotated[
        Literal["fast", "all"] | None,
        typer.Option(help="Evaluate again without each ingredient; all also trains again, on the corpus evaluated on."),
    ] = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Evaluate the champion, or another version, on a corpus of your own without training anything."""
    if corpus is None and (split != "test" or max_queries or candidates):
        raise SettingsError("--split, --max-queries and --candidates are for --corpus", "Name a corpus: beir:FOLDER.")
    settings = settings_with(overrides)
    log = new_log(settings.home, "evaluate")
    with libraries_write_to(log):
        from models.measures.trec_runs import export_trec_runs
        from models.operations.bundle_evaluation import evaluate_bundle, evaluation_page
        from models.operations.judged_corpus import judged_corpus, own_corpus
        from models.release.lookup import find_bundle

        bundle = find_bundle(settings, model)
        with watch(err) as lines:
            if corpus is None:
                judged = own_corpus(bundle.artifact, settings)
            else:
                source, name = _source(corpus, settings)
                judged = judged_corpus(
                    bundle.artifact,
                    source,
                    name,
                    settings,
                    split=split,
                    max_queries=max_queries,
                    candidates=candidates,
                    report=reporter(lines),
                )
            imported = [_imported(text, judged) for text in run or ()]
            lines.said(f"{len(judged.queries)} queries: testing differences")
            assessment = evaluate_bundle(bundle.artifact, judged, settings, imported)
            page = evaluation_page(bundle, judged, assessment, settings)
            if export_runs is not None:
                for path in export_trec_runs(assessment.rankings, export_runs):
                    lines.said(f"wrote {path}")
            ablation = None if ablate is None else _ablate(ablate, bundle.artifact, judged, settings, corpus, lines)
    values = assessment.to_dict()
    report = {
        "model": bundle.to_dict(),
        "corpus": judged.facts,
        "runs": [
            {
                "name": imported_run.name,
                "lines": imported_run.lines,
                "other_queries": imported_run.other_queries,
                "unknown_documents": imported_run.unknown_documents,
            }
            for imported_run in imported
        ],
        "report": page.as_uri(),
        "evaluation": values.pop("systems"),
        **values,
        **({} if ablation is None else {"ablation": ablation}),
    }
    if as_json:
        print_json(report)
    else:
        _show(report)


def _source(corpus: str, settings: Settings) -> tuple[CorpusSource, str]:
    kind, _, path = corpus.partition(":")
    if kind != "beir" or not path:
        raise SettingsError(f"--corpus {corpus!r} is not a corpus", "Write it as beir:FOLDER.")
    from models.corpus.sources.beir import BeirSource

    folder = Path(path).expanduser()
    return BeirSource(folder, settings.corpus.max_decompressed_bytes), folder.resolve().name


def _ablate(
    how: str, bundle: Artifact, judged: JudgedCorpus, settings: Settings, corpus: str | None, lines: Lines
) -> dict[str, Any]:
    from models.evaluation.ablation import ablate_scores, calibration_errors, compare_retrained, retrained
    from models.release.bundle import Bundle

    opened = Bundle.open(bundle)
    tiers, calibration = opened.facts.settings.tiers, opened.calibration
    given = judged.scored[judged.scored["given"]]
    lines.said("ablations of the scores")
    ablations = ablate_scores(given, judged.judgments, calibration, tiers, settings.evaluation)
    told = {
        "scores": [ablation.to_dict() for ablation in ablations],
        "expected_calibration_error": calibration_errors(given, judged.judgments, calibration),
    }
    if how == "fast":
        return told
    from orchestration.ablation_runs import expected_minutes, per_query_of

    variants = retrained(settings.tiers)
    minutes = expected_minutes(settings, len(variants)) if corpus is None else None
    cost = "a training each" if minutes is None else f"about {minutes:.0f} minutes in all, by the last run"
    lines.said(f"{len(variants)} ablations and the whole training: {cost}; a second call goes on where this one ends")
    common = [] if corpus is None else ["corpus.source=beir", f"corpus.path={Path(corpus.partition(':')[2]).resolve()}"]
    tables = per_query_of(settings, variants, lines.said, common)
    baseline = tables.pop("")
    compared = compare_retrained(tables, baseline, settings.evaluation)
    return {
        **told,
        "retrained": [ablation.to_dict() for ablation in compared],
        "settings": {name: list(overrides) for name, overrides in variants.items()},
    }


def _imported(text: str, judged: JudgedCorpus) -> ImportedRun:
    from models.measures.trec_runs import read_trec_run

    path, _, name = text.rpartition(":") if not Path(text).exists() else (text, "", "")
    documents = set(judged.passages["document_id"])
    return read_trec_run(Path(path or text).expanduser(), judged.queries["query_id"].tolist(), documents, name or None)


def _show(report: dict[str, Any]) -> None:
    corpus = report["corpus"]
    table = Table("system", *_MEASURES, "interval", "ms/query", title=f"{corpus['name']}, {corpus['split']} queries")
    for name, result in report["evaluation"].items():
        low, high = result["interval"]
        values = [f"{result[measure]:.3f}" for measure in _MEASURES]
        seconds = result["seconds_per_query"]
        time = "-" if seconds is None else f"{1000 * seconds:.0f}"
        table.add_row(escape(name), *values, f"{low:.3f} to {high:.3f}", time)
    out.print(table)
    baselines = (
        ("gains", f"Over {report['best_without_model']}, the best without a model"),
        ("gains_over_first_stage", f"Over {report['best_first_stage']}, the best first stage"),
    )
    for entry, title in baselines:
        gains = Table("system", "nDCG@10 gained", "interval", "p", "corrected", "improved", "hurt", title=title)
        for name, gain in report[entry].items():
            gains.add_row(escape(name), *_gain(gain))
        out.print(gains)
    behind = Table("first stage", "reranker", "nDCG@10 gained", "interval", "p", "corrected", "improved", "hurt")
    behind.title = f"Behind each first stage, its best {corpus['candidates']} passages reranked"
    for stage in report["by_first_stage"]:
        for name, gain in stage["gains"].items():
            behind.add_row(f"{stage['stage']}, {stage['coverage']:.0%} scored", name, *_gain(gain))
    out.print(behind)
    worst = sorted(report["slices"], key=lambda part: part["difference"])[:_WORST]
    slices = Table("slice", "queries", *_MEASURES[:1], "nDCG@10 gained", "interval", "corrected p", "as in")
    slices.title = "Where tiered gains least"
    for part in worst:
        slices.add_row(
            escape(f"{part['by']}: {part['value']}"),
            str(part["queries"]),
            f"{part['candidate']:.3f}",
            f"{part['difference']:+.4f}",
            f"{part['low']:+.4f} to {part['high']:+.4f}",
            f"{part['p_corrected']:.4f}",
            escape(part["examples"][0]["text"][:_SHOWN]),
        )
    out.print(slices)
    if "ablation" in report:
        _show_ablation(report["ablation"])
    power = report["power"]
    out.print(
        f"{corpus['queries_evaluated']} queries show a difference from {power['detectable']:.4f} nDCG@10 up with "
        f"{power['power']:.0%} power; for 0.01 it would take {power['queries_for_a_point']:,}"
    )
    out.print(f"The page is {report['report']}", soft_wrap=True)
    out.print(f"{corpus['queries_not_sampled']} queries not sampled")
    if "quarantined_rows" in corpus:
        out.print(f"{corpus['quarantined_rows']} rows quarantined")


def _show_ablation(report: dict[str, Any]) -> None:
    table = Table("without", "instead", "of", "nDCG@10 changed", "interval", "p", "corrected", "improved", "hurt")
    table.title = "Ablations"
    for ablation in (*report["scores"], *report.get("retrained", ())):
        compared = ablation["comparison"]
        table.add_row(ablation["ingredient"], ablation["variant"], compared["baseline"], *_gain(compared))
    out.print(table)
    for kind, errors in report["expected_calibration_error"].items():
        shown = ", ".join(f"{name} {value:.3f}" for name, value in errors.items())
        out.print(f"expected calibration error on these queries, {kind}: {shown}")


def _gain(gain: dict[str, Any]) -> list[str]:
    return [
        f"{gain['difference']:+.4f}",
        f"{gain['low']:+.4f} to {gain['high']:+.4f}",
        f"{gain['p_value']:.4f}",
        f"{gain['p_corrected']:.4f}",
        str(gain["improved"]),
        str(gain["hurt"]),
    ]
