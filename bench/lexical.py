"""Our BM25 index beside bm25s on the same terms: `python -m bench.lexical PASSAGES QUERIES [SIZE]`.

PASSAGES is a passages.parquet and QUERIES a JSON list of texts, as `bench.index` leaves them in its folder; SIZE of the
passages are indexed, or all. Each builds and each searches in a process of its own, on the terms of
`models.text.tokenize`; a mask lets half of the passages through. Prints JSON: CPU seconds, CPU milliseconds of a query
(median and 95th percentile), MiB, how many of the best 100 are the same, and how far apart their scores are, by rank.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.folders import ROOT
from models.retrieval.lexical_index import LexicalIndex, read_texts
from models.text.tokenize import tokenize

Find = Callable[[str, NDArray[np.bool_] | None], tuple[NDArray[Any], NDArray[Any]]]
"""Rows and scores of the best `DEPTH` of a query, among those of a mask."""

DEPTH = 100
_ASKED = 200
_BATCH = 16_384


def main() -> None:
    """Measure both, print."""
    if sys.argv[1] == "step":
        step, system, passages, queries, size, folder = sys.argv[2:8]
        print(json.dumps(_STEPS[step](system, Path(passages), Path(queries), int(size), Path(folder))))
        return
    passages, queries = sys.argv[1:3]
    size = sys.argv[3] if len(sys.argv) > 3 else str(10**12)
    with tempfile.TemporaryDirectory() as work:
        figures: dict[str, Any] = {}
        for system in _FINDERS:
            figures[system] = {}
            for step in ("build", "search"):
                command = [sys.executable, "-m", "bench.lexical", "step", step, system, passages, queries, size, work]
                completed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
                figures[system] |= json.loads(completed.stdout.splitlines()[-1])
        rows, scores = (
            [np.load(Path(work) / f"{system}.{what}.npy") for system in _FINDERS] for what in ("rows", "scores")
        )
        same = [len(set(one.tolist()) & set(other.tolist()) - {-1}) for one, other in zip(*rows, strict=True)]
        figures["same_of_the_best"] = round(float(np.mean(same)) / DEPTH, 4)
        figures["same_order"] = float(np.mean([np.array_equal(one, other) for one, other in zip(*rows, strict=True)]))
        figures["score_difference"] = float(np.abs(scores[0] - scores[1]).max())
    print(json.dumps(figures, indent=1))


def build(system: str, passages: Path, _: Path, size: int, work: Path) -> dict[str, Any]:
    """Index and save. Peak memory is that of the process."""
    import resource

    import bm25s

    texts = islice(read_texts(passages), size)
    started = time.process_time()
    if system == "ours":
        ids = islice(_ids(passages), size)
        LexicalIndex.build(texts, list(ids)).save(work / system)
    else:
        index = bm25s.BM25(k1=0.9, b=0.4, method="lucene")
        index.index([terms for batch in _batches(texts) for terms in tokenize(batch)], show_progress=False)
        index.save(work / system, show_progress=False)
    return {
        "build_seconds": round(time.process_time() - started, 1),
        "build_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "mib": sum(path.stat().st_size for path in (work / system).iterdir()) // 2**20,
    }


def search(system: str, _: Path, queries: Path, size: int, work: Path) -> dict[str, Any]:
    """Load, memory-mapped, and ask for the best with and without a mask; keeps what was found without."""
    asked = [text for text in json.loads(queries.read_text(encoding="utf-8"))[:_ASKED] if tokenize([text])[0]]
    before, started = _own_mib(), time.process_time()
    find, size = _FINDERS[system](work / system)
    loaded = time.process_time() - started
    mask = np.random.default_rng(0).random(size) < 0.5
    figures = {"load_seconds": round(loaded, 3), "own_mib_after_load": _own_mib() - before}
    for query in asked:  # the pages of the files
        find(query, None)
    for name, allowed in (("masked_ms", mask), ("ms", None)):
        times, rows, values = [], [], []
        for query in asked:
            started = time.process_time()
            best, scores = find(query, allowed)
            times.append(1000 * (time.process_time() - started))
            rows.append(np.pad(best, (0, DEPTH - len(best)), constant_values=-1))
            values.append(np.pad(scores, (0, DEPTH - len(best))))
        figures[name] = [round(float(value), 2) for value in np.percentile(times, [50, 95])]
    np.save(work / f"{system}.rows.npy", np.array(rows))
    np.save(work / f"{system}.scores.npy", np.array(values))
    return figures


def _ours(folder: Path) -> tuple[Find, int]:
    index = LexicalIndex.load(folder)
    return lambda query, mask: index.top(index.scores(query), DEPTH, mask), len(index)


def _theirs(folder: Path) -> tuple[Find, int]:
    import bm25s

    index = bm25s.BM25.load(folder, mmap=True, show_progress=False)

    def find(query: str, mask: NDArray[np.bool_] | None) -> tuple[NDArray[Any], NDArray[Any]]:
        masked: dict[str, Any] = {} if mask is None else {"weight_mask": mask}
        rows, scores = index.retrieve(tokenize([query]), k=DEPTH, show_progress=False, **masked)
        return rows[0], scores[0]

    return find, int(index.scores["num_docs"] or 0)


def _ids(passages: Path) -> Iterator[str]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(passages) as table:
        for batch in table.iter_batches(_BATCH, columns=["passage_id"]):
            yield from batch["passage_id"].to_pylist()


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(texts, _BATCH)):
        yield batch


def _own_mib() -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) // 1024


_STEPS = {"build": build, "search": search}
_FINDERS: dict[str, Callable[[Path], tuple[Find, int]]] = {"ours": _ours, "bm25s": _theirs}

if __name__ == "__main__":
    main()
