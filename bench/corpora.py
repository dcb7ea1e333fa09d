"""Five corpora by their documents alone: `python -m bench.corpora [CORPUS...] [--documents 1500] [--set KEY=VALUE]`.

Each corpus becomes a folder of Markdown files in a home of its own below RERANKOPS_HOME (default var/corpora), as
somebody has it who never judged a query; its queries and judgments are put aside. `rerankops run` makes queries from
the text, trains and asks the gate. Then the candidate, released or refused, is evaluated once on the test queries that
were put aside, by `rerankops evaluate`.

A corpus is the name of a folder of RERANKOPS_DATA, of which --documents documents are read, or `man-pages-LANGUAGE`,
the pages of that language below --pages. Writes docs/benchmarks/corpora.json under `without_judgments`, draws quality
against time (images/corpora-front.png) and prints a table. What is made already is not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.first_stage import cut_part
from bench.folders import DATA, FIGURES, ROOT
from bench.results import merge_into
from models.contracts.rows import Document
from models.contracts.tiers import FIRST_STAGES, LEAN
from models.corpus.sources.man_pages import ManPagesSource
from models.corpus.splits import sample_by_hash
from models.settings import ManPagesSettings, as_environment
from models.store import asset_names as names
from models.text.markdown import table_lines
from orchestration.separate_runs import store_in

RESULTS = FIGURES / "corpora.json"
CORPORA = ("scifact", "squad-v1.1-dev", "medquad-liveqa-open", "man-pages-en", "man-pages-es")
SETTINGS = ("training.pseudo_queries=auto", "training.max_queries=2000", "evaluation.max_test_queries=300")
_MAN_PAGES = "man-pages-"
_LABELS = {"lean": ((-5, 4), "right"), "tiered": ((-5, -10), "right"), "dense": ((4, -10), "left")}
"""Where a label stands beside its point, in points: what lies close together does not cover each other."""


def main() -> None:
    """Run each corpus, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="*", default=list(CORPORA))
    parser.add_argument("--documents", type=int, default=1500, help="documents of a corpus, at most")
    parser.add_argument("--test", type=int, default=300, help="test queries of a corpus, at most")
    parser.add_argument("--pages", type=Path, default=Path("/usr/share/man"), help="folder of manual pages")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting, over those here")
    options = parser.parse_args()
    base = Path(os.environ.get("RERANKOPS_HOME") or ROOT / "var" / "corpora").resolve()
    rows = []
    for corpus in options.corpus:
        home = base / f"{corpus}-{options.documents}"
        if not (home / "judged").is_dir():
            put_aside(corpus, home / "judged", options)
        write_documents(home / "judged", home / "documents")
        figures = measure(home, [*SETTINGS, *options.set])
        language = corpus.removeprefix(_MAN_PAGES) if corpus.startswith(_MAN_PAGES) else "en"
        merge_into(RESULTS, {"without_judgments": {corpus: {"language": language, **figures}}}, depth=2)
        rows.append(row(corpus, figures))
        print(rows[-1], flush=True)
    plot(json.loads(RESULTS.read_bytes())["without_judgments"], FIGURES / "images" / "corpora-front.png")
    mean = sum(float(line[-2].split(" ")[0]) for line in rows) / len(rows)
    heads = ("corpus", "queries", "best first stage", "lean", "tiered", "verdict", "over the first stage", "over lean")
    print("\n".join(table_lines(heads, rows)), f"mean gain over the first stage: {mean:+.4f}", sep="\n", flush=True)


def put_aside(corpus: str, folder: Path, options: argparse.Namespace) -> None:
    """The corpus in BEIR's layout with its test queries: what the run must not see, and its documents."""
    if not corpus.startswith(_MAN_PAGES):
        cut_part(DATA / corpus, folder, options.documents, 1, options.test)
        return
    settings = ManPagesSettings(languages=[corpus.removeprefix(_MAN_PAGES)], max_documents=options.documents)
    source = ManPagesSource(options.pages, settings.model_copy(update={"folder": str(options.pages)}))
    (folder / "qrels").mkdir(parents=True)
    documents = [document for document in source.documents() if isinstance(document, Document)]
    queries = pd.DataFrame([(query.query_id, query.text) for query in source.queries()], columns=["query_id", "text"])
    queries = sample_by_hash(queries, options.test)
    judged = [(row.query_id, row.document_id, row.grade) for row in source.judgments()]
    qrels = pd.DataFrame(judged, columns=["query-id", "corpus-id", "score"])
    qrels = qrels[qrels["query-id"].isin(queries["query_id"])]
    _write_lines(folder / "corpus.jsonl", [{"_id": d.document_id, "title": d.title, "text": d.text} for d in documents])
    _write_lines(folder / "queries.jsonl", [{"_id": name, "text": text} for name, text in queries.to_numpy()])
    qrels.to_csv(folder / "qrels" / "test.tsv", sep="\t", index=False)


def write_documents(judged: Path, folder: Path) -> None:
    """The documents alone: a Markdown file each, the title as its heading."""
    if folder.is_dir():
        return
    new = folder.with_suffix(".new")
    new.mkdir(exist_ok=True)
    for number, line in enumerate((judged / "corpus.jsonl").read_text(encoding="utf-8").splitlines()):
        record = json.loads(line)
        heading = f"# {record['title']}\n\n" if record.get("title") else ""
        (new / f"{number:06}.md").write_text(heading + record["text"], encoding="utf-8")
    new.rename(folder)


def measure(home: Path, overrides: list[str]) -> dict[str, Any]:
    """Figures of one run: the gate's verdict, and the candidate on the queries that were put aside."""
    settings = ["corpus.source=folder", f"corpus.path={home / 'documents'}", *overrides]
    given = {**os.environ, **as_environment(settings), "RERANKOPS_HOME": str(home / "home")}
    rerankops = [sys.executable, "-m", "orchestration.cli"]
    subprocess.run([*rerankops, "run"], cwd=ROOT, env=given, check=False)  # a refusal is a failed run
    store = store_in(home / "home")
    decision = store.require(names.GATE_DECISION).read_json("decision.json")
    candidate = store.require(names.RELEASE_CANDIDATE)
    told = subprocess.run(
        [*rerankops, "evaluate", "--corpus", f"beir:{home / 'judged'}", "--model", candidate.data_version, "--json"],
        cwd=ROOT, env=given, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    report = json.loads(told.stdout)
    over, gain = (report[entry]["tiered"] for entry in ("gains_over_first_stage", "gains"))
    lean = next(pair for pair in report["pairs"] if {pair["first"], pair["second"]} == {LEAN.name, "tiered"})
    sign = 1 if lean["first"] == "tiered" else -1
    return {
        "settings": overrides,
        "documents": report["corpus"]["documents"],
        "judgments": "pseudo",
        "queries": report["corpus"]["queries_evaluated"],
        "verdict": decision["verdict"],
        "reasons": decision["reasons"],
        "ndcg_at_10": {name: round(values["nDCG@10"], 4) for name, values in report["evaluation"].items()},
        "ms_per_query": {
            name: round(1000 * values["seconds_per_query"], 2) for name, values in report["evaluation"].items()
        },
        "best_first_stage": report["best_first_stage"],
        "gain_over_first_stage": over["difference"],
        "low": over["low"],
        "high": over["high"],
        "gain_over_lean": sign * lean["difference"],
        "gain_over_lean_interval": sorted((sign * lean["low"], sign * lean["high"])),
        "gain_over_best_without_model": [gain["difference"], gain["low"], gain["high"]],
    }


def row(corpus: str, figures: dict[str, Any]) -> tuple[str, ...]:
    """A line of the table."""
    means = figures["ndcg_at_10"]
    return (
        corpus,
        str(figures["queries"]),
        f"{figures['best_first_stage']} {means[figures['best_first_stage']]:.3f}",
        f"{means[LEAN.name]:.3f}",
        f"{means['tiered']:.3f}",
        figures["verdict"],
        f"{figures['gain_over_first_stage']:+.4f} ({figures['low']:+.4f} to {figures['high']:+.4f})",
        f"{figures['gain_over_lean']:+.4f}",
    )


def plot(corpora: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw nDCG@10 of each system against its milliseconds, a panel for each corpus."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(corpora), 3.4), layout="constrained")
    for axes, (corpus, figures) in zip(np.atleast_1d(figure.subplots(1, len(corpora))), corpora.items(), strict=True):
        for name, ms in figures["ms_per_query"].items():
            ndcg, model = figures["ndcg_at_10"][name], name not in (*FIRST_STAGES, LEAN.name)
            axes.plot(ms, ndcg, "D" if model else "o", color="#d55e00" if model else "#0072b2")
            offset, side = _LABELS.get(name, ((4, 4), "left"))
            axes.annotate(name, (ms, ndcg), xytext=offset, textcoords="offset points", fontsize=8, ha=side)
        axes.set(title=corpus, xscale="log", xlabel="ms per query")
        axes.margins(x=0.25, y=0.15)
        axes.grid(color="#e4e7eb")
    figure.supylabel("nDCG@10", fontsize=9)
    figure.savefig(path, dpi=110)


def _write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


if __name__ == "__main__":
    main()
