"""What a refresh costs: `python -m bench.refresh [BEIR folder] [home]`, 15,775 documents by default.

Builds corpus and index from nothing in a home of its own, over a copy of the folder. Then the same `rerankops run` is
repeated three times: with nothing changed, after one document of one passage was edited, and after one document was
removed. Prints what was embedded and the seconds of every stage, checks the counts and that the removed document is
gone from retrieval and answers, and writes docs/benchmarks/refresh.json. Seconds are those of the clock; with other
work on the machine, compare the seconds of CPU time instead. The full build is kept in the home, and what it took in
full-build.json there: a second call over the home begins with the run without a change.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bench.folders import DATA, FIGURES, ROOT
from bench.stages import step_seconds
from models.contracts.rows import Passage
from models.retrieval.retriever import HybridRetriever, open_retriever
from models.serving.answer import extractive_answer
from models.serving.generator import given_passages
from models.settings import GeneratorSettings, IndexSettings
from models.store.artifacts import ArtifactStore
from models.store.durable_files import canonical_json, write_atomically

CORPUS = DATA / "medquad-liveqa-open"
RESULTS = FIGURES / "refresh.json"
SELECTION = 'group:"corpus" or group:"index"'
_SHOWN_S = 0.5

Row = dict[str, str]


def main() -> None:
    """Measure, check, print and write."""
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else CORPUS
    with tempfile.TemporaryDirectory(prefix="refresh-") as work:
        home = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(work) / "home"
        source, built = home / "source", home / "full-build.json"
        if not built.is_file():
            shutil.copytree(data, source, dirs_exist_ok=True)
            write_atomically(built, canonical_json(run(home, source)))
        runs = {"full": json.loads(built.read_bytes()), "unchanged": run(home, source)}
        passages = table(home)
        edited, removed = choose(home, passages, source)

        rewrite(source, lambda row: {**row, "text": f"{row['text']} See your doctor."} if row["_id"] == edited else row)
        runs["one edited"] = run(home, source)
        assert embedded(runs["one edited"]) == (1, 1), embedded(runs["one edited"])

        query = judged_query(source, removed)
        before = answer(home, query)
        assert removed in before["retrieved"], before
        assert removed in before["cited"], before
        rewrite(source, lambda row: None if row["_id"] == removed else row)
        runs["one removed"] = run(home, source)
        gone = {row["content_hash"] for row in passages if row["document_id"] == removed}
        gone -= {row["content_hash"] for row in passages if row["document_id"] != removed}
        assert embedded(runs["one removed"]) == (0, len(gone)), embedded(runs["one removed"])
        after = answer(home, query)
        assert removed not in after["retrieved"], after
        assert removed not in after["cited"], after
        assert removed not in {row["document_id"] for row in table(home)}

    full = runs["full"]
    for name, figures in runs.items():
        figures["share_of_full_seconds"] = round(figures["seconds"] / full["seconds"], 4)
        figures["share_of_full_cpu_seconds"] = round(figures["cpu_seconds"] / full["cpu_seconds"], 4)
        seconds, cpu = figures["seconds"], figures["cpu_seconds"]
        print(f"\n{name}: {embedded(figures)[0]} embedded, {seconds:.1f} s, CPU time {cpu:.1f} s")
        for stage, seconds in sorted(figures["stages"].items(), key=lambda item: -item[1]):
            if seconds >= _SHOWN_S:
                print(f"  {stage:<42} {seconds:8.2f} s")
        print(f"  share of the full build: {figures['share_of_full_seconds']:.2%}, of its CPU time: ", end="")
        print(f"{figures['share_of_full_cpu_seconds']:.2%}")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    documents = {row["document_id"] for row in passages}
    facts = {"documents": len(documents), "passages": len(passages), "cores": os.cpu_count()}
    RESULTS.write_text(json.dumps({**facts, "runs": runs}, indent=1) + "\n")


def run(home: Path, source: Path) -> dict[str, Any]:
    """`rerankops run` on corpus and index in a process of its own: seconds, and what passage_embeddings did."""
    command = [sys.executable, "-m", "orchestration.cli", "run", "--select", SELECTION]
    command += ["--set", "corpus.source=beir", "--set", f"corpus.path={source}"]
    environment = {**os.environ, "RERANKOPS_HOME": str(home)}
    started, used = time.perf_counter(), cpu_seconds()
    subprocess.run(command, check=True, cwd=ROOT, env=environment)
    seconds, cpu = time.perf_counter() - started, cpu_seconds() - used
    embeddings = store(home).require("index/passage_embeddings")
    counts = ("dagster/row_count", "embedded", "taken_over", "removed", "embedding_seconds", "passages_per_second")
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "embeddings": {name: embeddings.summary[name] for name in counts},
        "stages": stages(home, seconds),
    }


def cpu_seconds() -> float:
    """CPU time of the child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def stages(home: Path, seconds: float) -> dict[str, float]:
    """Seconds of each step of the newest run, and of what is outside the steps: the start of Python and of Dagster."""
    by_step = step_seconds(home)
    return {**by_step, "outside the steps": round(seconds - sum(by_step.values()), 3)}


def embedded(figures: dict[str, Any]) -> tuple[int, int]:
    """Contents embedded and removed."""
    return figures["embeddings"]["embedded"], figures["embeddings"]["removed"]


def store(home: Path) -> ArtifactStore:
    """The artifacts of the home."""
    return ArtifactStore(str(home / "artifacts"), home / "cache")


def table(home: Path) -> list[dict[str, Any]]:
    """The passages, row by row."""
    return pq.read_table(store(home).require("corpus/passages").path("passages.parquet")).to_pylist()


def choose(home: Path, passages: list[dict[str, Any]], source: Path) -> tuple[str, str]:
    """A document of one short passage to edit, and a judged one that is retrieved and quoted, to remove."""
    pieces = Counter(row["document_id"] for row in passages)
    contents = Counter(row["content_hash"] for row in passages)
    edited = next(
        row["document_id"]
        for row in passages
        if pieces[row["document_id"]] == contents[row["content_hash"]] == 1 and 200 <= len(row["text"]) <= 400
    )
    for query_id, document_id in judged(source):
        if document_id != edited and document_id in pieces:
            answered = answer(home, query_text(source, query_id))
            if document_id in answered["retrieved"] and document_id in answered["cited"]:
                return edited, document_id
    raise AssertionError("no judged document is found by its query")


def judged(source: Path) -> Iterator[tuple[str, str]]:
    """Pairs of query id and the id of a document judged for it."""
    for line in (source / "qrels" / "train.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query_id, document_id, _ = line.split("\t")
        yield query_id, document_id


def judged_query(source: Path, document_id: str) -> str:
    """Text of a query for which the document is judged."""
    return query_text(source, next(query_id for query_id, judged_id in judged(source) if judged_id == document_id))


def query_text(source: Path, query_id: str) -> str:
    """Text of a query."""
    with (source / "queries.jsonl").open(encoding="utf-8") as lines:
        return next(row["text"] for row in map(json.loads, lines) if row["_id"] == query_id)


def answer(home: Path, query: str) -> dict[str, list[str]]:
    """Documents that the first stage retrieves, at most 100 passages, and those that the answer from them cites."""
    passages = table(home)
    candidates = retriever(home).retrieve(query, 100)
    records = [Passage(**passages[candidate.row]) for candidate in candidates[:3]]
    citations = extractive_answer(
        query, given_passages([(record, 1.0) for record in records]), GeneratorSettings()
    ).citations
    return {
        "retrieved": [candidate.document_id for candidate in candidates],
        "cited": [citation.document_id for citation in citations],
    }


def retriever(home: Path) -> HybridRetriever:
    """The current indexes, opened."""
    artifacts = store(home)
    parts = ("corpus/passages", "index/passage_embeddings", "index/dense_index", "index/lexical_index")
    passages, embeddings, dense, lexical = map(artifacts.require, parts)
    return open_retriever(passages, embeddings, dense, lexical, IndexSettings())


def rewrite(source: Path, change: Callable[[Row], Row | None]) -> None:
    """Rewrite the documents of a BEIR folder, each as `change` returns it, without those for which it returns None."""
    path = source / "corpus.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [change(json.loads(line)) for line in lines]
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows if row is not None)


if __name__ == "__main__":
    main()
