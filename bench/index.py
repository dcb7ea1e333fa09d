"""What an index costs as the corpus grows: `python -m bench.index HOME [WORK [LARGEST]]`, half an hour on one core.

HOME is the home of a deployment with a release candidate, as `make demo` leaves one. Its passages are repeated to
10,000, 100,000 and 1,000,000. In the texts each word is replaced by a random word of the corpus with probability 0.1.
Embedding a million of them would take a day, so the vectors are the real ones with Gaussian noise whose covariance is
that of the difference which this replacement makes to the vectors of 400 passages, measured first. Queries are those of
the corpus.

Each step runs in a process of its own, on one thread as `index/dense_index` is built, and its result is kept in
WORK/results.json: what was measured is not measured again. Writes docs/benchmarks/index.json and a plot of it. With
LARGEST, sizes above it are left as they stand there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bench.folders import FIGURES, ROOT
from models.contracts.rows import Passage
from models.corpus.mapped_passages import write_mapped_passages
from models.corpus.splits import sample_by_hash
from models.retrieval.approximate_index import Kind, choose_kind, memory_bytes
from models.retrieval.dense_index import DenseIndex, build_index, read_facts, recall
from models.retrieval.lexical_index import LexicalIndex, read_texts
from models.retrieval.passage_filter import PassageFilter
from models.settings import EncoderSettings, IndexSettings
from models.store.artifacts import ArtifactStore
from models.store.asset_names import RELEASE_CANDIDATE
from models.store.durable_files import link_or_copy, write_atomically
from models.store.tables import write_rows

RESULTS = FIGURES / "index.json"
PLOT = ROOT / "docs" / "images" / "index-scale.png"
SIZES = (10_000, 100_000, 1_000_000)
DEPTH = 100

_SETTINGS = IndexSettings()
_NOISE = 0.1
_NOISED = 400
_TUNED_ON, _ASKED = 256, 500
_SCANS = 50
_BLOCK = 50_000
_UNHURRIED_MS = 1e9
_OF_SIZE = ("passages.arrow", "passage_texts.arrow", "dense_index/", "lexical_index/")
"""Files of a bundle that grow with the corpus: made here for each size."""

Result = dict[str, Any]


def main() -> None:
    """Measure what is not measured yet, print and write."""
    if len(sys.argv) > 3 and sys.argv[1] == "step":
        name, work, size, kind = sys.argv[2:6]
        figures = _STEPS[name](Path(work), int(size), kind)
        print(json.dumps({**figures, "peak_memory_mb": _memory()["peak"]}))
        return
    home = Path(sys.argv[1])
    work = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(tempfile.gettempdir()) / "rerankops-index-bench"
    work.mkdir(parents=True, exist_ok=True)
    results = _Results(work / "results.json")
    results.once("corpus", lambda: prepare(home, work))
    largest = int(sys.argv[3]) if len(sys.argv) > 3 else SIZES[-1]
    for size in (size for size in SIZES if size <= largest):
        chosen = choose_kind(size, results.of("corpus")["dimensions"], _SETTINGS)
        results.step("vectors", work, size)
        results.step("passages", work, size)
        results.step("lexical", work, size)
        kinds: list[Kind] = [chosen] if size == SIZES[0] else [chosen, "ivf_pq"]
        for kind in kinds:
            results.step("dense", work, size, kind)
            results.step("serve", work, size, kind)
        results.step("bundle", work, size, chosen)
        results.step("serving", work, size, chosen)
    before = json.loads(RESULTS.read_bytes()) if RESULTS.is_file() else {}
    figures = {name: value for name, value in before.items() if _size(name) > largest} | results.all()
    RESULTS.write_text(json.dumps(figures, indent=1) + "\n")
    plot(figures, PLOT)
    print(json.dumps(figures, indent=1))


def _size(name: str) -> int:
    """Passages of a measurement, by its name."""
    _, _, size = name.partition(" ")
    return int(size.split()[0]) if size else 0


class _Results:
    """Measurements by name, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, Result] = json.loads(path.read_bytes()) if path.is_file() else {}

    def of(self, name: str) -> Result:
        """One measurement."""
        return self._found[name]

    def all(self) -> dict[str, Result]:
        """All of them."""
        return self._found

    def once(self, name: str, measure: Callable[[], Result]) -> None:
        """Measure unless it was."""
        if name in self._found:
            return
        self._found[name] = measure()
        write_atomically(self._path, json.dumps(self._found, indent=1).encode())
        print(name, self._found[name], flush=True)

    def step(self, name: str, work: Path, size: int, kind: str = "") -> None:
        """Measure a step in a process of its own."""

        def measure() -> Result:
            command = [sys.executable, "-m", "bench.index", "step", name, str(work), str(size), kind]
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
            return json.loads(done.stdout.splitlines()[-1])

        self.once(f"{name} {size}{kind and ' '}{kind}", measure)


def prepare(home: Path, work: Path) -> Result:
    """Passages, queries, vectors and models of the deployment, and the vectors of noise, into `work`."""
    from models.retrieval.encoder import Encoder

    store = ArtifactStore(str(home / "artifacts"), home / "cache")
    embeddings = store.require("index/passage_embeddings")
    candidate = store.require(RELEASE_CANDIDATE)
    for name in candidate.manifest.files:
        if not name.startswith(_OF_SIZE):
            link_or_copy(candidate.path(name), work / "models" / name)
    passages = store.require("corpus/passages")
    shutil.copyfile(passages.path("passages.parquet"), work / "passages.parquet")
    table = passages.read_table("passages.parquet", ["title", "text"])
    shutil.copytree(embeddings.folder / "encoder", work / "encoder", dirs_exist_ok=True)
    encoder = Encoder.load(work / "encoder", embeddings.read_json("encoder.json")["max_tokens"])
    vectors = np.load(embeddings.path("embeddings.npy"), allow_pickle=False)
    np.save(work / "vectors.npy", vectors)
    queries = sample_by_hash(store.require("corpus/queries").read_table("queries.parquet"), _TUNED_ON + _ASKED)
    texts = queries.sample(frac=1, random_state=0)["text"].tolist()
    (work / "queries.json").write_text(json.dumps(texts))
    np.save(work / "queries.npy", encoder.encode_queries(texts))
    rows = np.random.default_rng(0).permutation(len(table))[:_NOISED]
    words = vocabulary(table)
    noised = [noisy(table["text"].iloc[row], words, np.random.default_rng(row)) for row in rows]
    differences = encoder.encode_passages(table["title"].iloc[rows].tolist(), noised) - vectors[rows]
    np.save(work / "differences.npy", differences)
    lengths = np.linalg.norm(differences, axis=1)
    return {
        "passages": len(table),
        "dimensions": vectors.shape[1],
        "noise_mean_length": round(float(lengths.mean()), 4),
        "noise_mean_cosine": round(float(1 - (lengths**2).mean() / 2), 4),
        "cores": os.cpu_count(),
    }


def vocabulary(table: pd.DataFrame) -> list[str]:
    """Words of the corpus, as often as they stand in a tenth of it."""
    return " ".join(map(str, table["text"].iloc[::10])).split()


def noisy(text: str, words: list[str], random: np.random.Generator) -> str:
    """`text` with each word replaced by a random one with probability 0.1."""
    own = text.split()
    replaced = np.flatnonzero(random.random(len(own)) < _NOISE)
    for position, other in zip(replaced.tolist(), random.integers(0, len(words), len(replaced)).tolist(), strict=True):
        own[position] = words[other]
    return " ".join(own)


def vectors(work: Path, size: int, _: str) -> Result:
    """The vectors of `size` passages: the real ones once, then with noise."""
    real, differences = np.load(work / "vectors.npy"), np.load(work / "differences.npy")
    out = np.lib.format.open_memmap(
        _folder(work, size) / "vectors.npy", mode="w+", dtype=np.float32, shape=(size, real.shape[1])
    )
    random = np.random.default_rng(1)
    for start in range(0, size, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, size))
        block = real[rows % len(real)]
        mixture = random.standard_normal((len(rows), len(differences)), dtype=np.float32)
        noise = mixture @ differences / np.sqrt(len(differences), dtype=np.float32)
        block += np.where(rows[:, None] < len(real), 0, noise)
        out[rows] = block / np.linalg.norm(block, axis=1, keepdims=True)
    out.flush()
    return {"bytes": out.nbytes}


def passages(work: Path, size: int, _: str) -> Result:
    """The table of `size` passages: the real ones once, then with noise."""
    path = _folder(work, size) / "passages.parquet"
    return {"passages": write_rows(_noised_passages(work, size), Passage, path), "bytes": path.stat().st_size}


def _noised_passages(work: Path, size: int) -> Iterator[Passage]:
    words, random = vocabulary(pd.read_parquet(work / "passages.parquet", columns=["text"])), np.random.default_rng(2)
    real = [Passage(**values) for values in pq.read_table(work / "passages.parquet").to_pylist()]
    for row in range(size):
        copy, source = divmod(row, len(real))
        passage = real[source]
        text = noisy(passage.text, words, random) if copy else passage.text
        yield replace(
            passage,
            passage_id=f"{passage.passage_id}~{copy}",
            document_id=f"{passage.document_id}~{copy}",
            text=text,
            end=passage.start + len(text),
            content_hash=hashlib.sha256(f"{passage.title}\n{text}".encode()).hexdigest(),
        )


def ids(work: Path, size: int) -> list[str]:
    """Ids of `size` passages."""
    table = pq.read_table(_folder(work, size) / "passages.parquet", columns=["passage_id"])
    return table["passage_id"].to_pylist()


def lexical(work: Path, size: int, _: str) -> Result:
    """Build the BM25 index."""
    folder = _folder(work, size) / "lexical"
    seconds, cpu = _clock()
    texts = read_texts(_folder(work, size) / "passages.parquet")
    index = LexicalIndex.build(texts, ids(work, size), _SETTINGS.bm25_k1, _SETTINGS.bm25_b)
    index.save(folder)
    return {**_since(seconds, cpu), "words": index.words, "bytes": _bytes(folder)}


def dense(work: Path, size: int, kind: Kind) -> Result:
    """Build the vector index as the asset does; its recall@100 on queries that its effort was not tuned on."""
    folder = _folder(work, size) / kind
    shutil.rmtree(folder, ignore_errors=True)
    asked = np.load(work / "queries.npy")
    embeddings = np.load(_folder(work, size) / "vectors.npy", mmap_mode="r")
    seconds, cpu = _clock()
    build_index(folder, embeddings, ids(work, size), kind, _SETTINGS, lambda: asked[:_TUNED_ON])
    spent = _since(seconds, cpu)
    facts, index = read_facts(folder), DenseIndex.load(folder)
    measured = 1.0 if kind == "flat" else recall(index, asked[_TUNED_ON:])
    return {
        **spent,
        "effort": facts.get("effort"),
        "recall": round(measured, 4),
        "recall_queries": len(asked) - _TUNED_ON,
        "bytes": _bytes(folder),
        "estimated_mb": round(memory_bytes(kind, size, embeddings.shape[1], _SETTINGS) / 2**20),
    }


def serve(work: Path, size: int, kind: Kind) -> Result:
    """Open both indexes, search, and say how long a query takes and what memory the process has.

    `own` is memory that no other process can share, `mapped` the part of the files that the searches have touched.
    """
    from models.retrieval.retriever import HybridRetriever, read_columns

    table = read_columns(_folder(work, size) / "passages.parquet")
    known = np.load(work / "queries.npy")[_TUNED_ON:]
    asked = json.loads((work / "queries.json").read_text())[_TUNED_ON:]
    DenseIndex.load(_folder(work, SIZES[0]) / choose_kind(SIZES[0], known.shape[1], _SETTINGS)).search(known[:1], DEPTH)
    LexicalIndex.load(_folder(work, SIZES[0]) / "lexical").search(asked[:1], DEPTH)
    before = _memory()
    started = time.perf_counter()
    index, words = DenseIndex.load(_folder(work, size) / kind), LexicalIndex.load(_folder(work, size) / "lexical")
    opened = time.perf_counter() - started
    retriever = HybridRetriever(_LateEncoder(work / "encoder", known.shape[1]), index, words, table, _SETTINGS)
    del table
    rows = range(len(asked))
    timed = {
        "dense": _timed(lambda row: index.search(known[row : row + 1], DEPTH), rows),
        "lexical": _timed(lambda row: words.search(asked[row : row + 1], DEPTH), rows),
        "hybrid": _timed(
            lambda row: retriever.retrieve_batch([asked[row]], DEPTH, PassageFilter(), vectors=known[row : row + 1]),
            rows,
        ),
    }
    after = _memory()
    timed["exact"] = _timed(lambda row: index.search(known[row : row + 1], DEPTH, exact=True), range(_SCANS))
    retriever.retrieve(asked[0], DEPTH)  # loads the encoder
    timed["hybrid_with_encoder"] = _timed(lambda row: retriever.retrieve(asked[row], DEPTH), rows)
    return {
        "open_seconds": round(opened, 3),
        "libraries_mb": before["own"],
        "own_mb": after["own"] - before["own"],
        "mapped_mb": after["mapped"] - before["mapped"],
        **timed,
    }


def bundle(work: Path, size: int, kind: Kind) -> Result:
    """A bundle of the passages and indexes of this size with the models of the deployment, in the store of `work`."""
    own = _folder(work, size)

    def build(folder: Path) -> dict[str, float]:
        for source, target in ((work / "models", folder), (own / kind, folder / "dense_index")):
            _link_all(source, target)
        _link_all(own / "lexical", folder / "lexical_index")
        seconds, cpu = _clock()
        write_mapped_passages(own / "passages.parquet", folder)
        return _since(seconds, cpu)

    artifact = _bundles(work).get_or_create(
        RELEASE_CANDIDATE, code_version="bench", inputs={}, settings={"size": size, "kind": kind}, build=build
    )
    return {
        **artifact.summary,
        "version": artifact.data_version,
        "bytes": sum(entry.bytes for entry in artifact.manifest.files.values()),
    }


def serving(work: Path, size: int, kind: Kind) -> Result:
    """Load the bundle as the service does, models in the same process: seconds, and memory before and after requests.

    Comparing the files with their digests, which a load begins with, is timed apart. `own` is memory that no other
    process can share, `mapped` the part of the files that was touched.
    """
    from models.release.bundle import Bundle
    from models.serving.loaded_bundle import LoadedBundle
    from models.serving.protocol import ServedVersions

    version = json.loads((work / "results.json").read_bytes())[f"bundle {size} {kind}"]["version"]
    artifact = _bundles(work).open(RELEASE_CANDIDATE, version)
    started = time.perf_counter()
    artifact.verify()
    verified = time.perf_counter() - started
    seconds, cpu = _clock()
    loaded = LoadedBundle(Bundle.open(artifact), ServedVersions("", version, "", "", ""))
    spent, before = _since(seconds, cpu), _memory()
    asked = json.loads((work / "queries.json").read_text())[_TUNED_ON:]
    for query in asked[:_SCANS]:
        candidates = loaded.retrieve(query, DEPTH)
        loaded.rank_candidates(query, candidates, _UNHURRIED_MS)
        loaded.rank_documents(query, [loaded.passage(candidate).text for candidate in candidates], _UNHURRIED_MS)
    after = _memory()
    loaded.close()
    return {
        "verify_seconds": round(verified, 1),
        "load_seconds": spent["seconds"],
        "load_cpu_seconds": spent["cpu_seconds"],
        "own_mb": before["own"],
        "mapped_mb": before["mapped"],
        "own_mb_after_requests": after["own"],
    }


def _bundles(work: Path) -> ArtifactStore:
    return ArtifactStore(str(work / "bundles"), work / "cache")


def _link_all(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file():
            link_or_copy(path, target / path.relative_to(source))


class _LateEncoder:
    """The encoder, loaded by the first query, so that memory can be read before."""

    def __init__(self, folder: Path, dimensions: int) -> None:
        self._folder, self.dimensions = folder, dimensions
        self._loaded: Any = None

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [n, dimensions]."""
        from models.retrieval.encoder import Encoder

        if self._loaded is None:
            self._loaded = Encoder.load(self._folder, EncoderSettings().max_tokens, threads=1)
        return self._loaded.encode_queries(texts)


def _timed(search: Callable[[int], object], rows: range) -> dict[str, float]:
    """Percentiles of the milliseconds of one search, on the clock and of the processor; the first few warm up."""
    for row in rows[:20]:
        search(row)
    clock, processor = [], []
    for row in rows:
        seconds, cpu = time.perf_counter(), time.process_time()
        search(row)
        clock.append(1000 * (time.perf_counter() - seconds))
        processor.append(1000 * (time.process_time() - cpu))
    return {
        "p50_ms": round(float(np.percentile(clock, 50)), 2),
        "p99_ms": round(float(np.percentile(clock, 99)), 2),
        "cpu_p50_ms": round(float(np.percentile(processor, 50)), 2),
        "cpu_p99_ms": round(float(np.percentile(processor, 99)), 2),
    }


def _memory() -> dict[str, int]:
    """MiB of this process: its own, of mapped files, and the most that both were."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = {name: value.split()[0] for name, value in (line.split(":", 1) for line in lines if " kB" in line)}
    names = {"own": "RssAnon", "mapped": "RssFile", "peak": "VmHWM"}
    return {name: int(kilobytes[field]) // 1024 for name, field in names.items()}


def _clock() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(seconds: float, cpu: float) -> dict[str, float]:
    return {"seconds": round(time.perf_counter() - seconds, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}


def _folder(work: Path, size: int) -> Path:
    folder = work / str(size)
    folder.mkdir(exist_ok=True)
    return folder


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


_STEPS: dict[str, Callable[[Path, int, Any], Result]] = {
    "vectors": vectors,
    "lexical": lexical,
    "dense": dense,
    "serve": serve,
    "passages": passages,
    "bundle": bundle,
    "serving": serving,
}


def plot(results: dict[str, Result], path: Path) -> None:
    """Four panels over the size of the corpus: build time, memory, latency, recall."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), dpi=100, layout="constrained")
    axes = figure.subplots(2, 2).ravel()
    built = {kind: _series(results, "dense", kind) for kind in ("flat", "hnsw", "ivf_pq")}
    for kind, series in built.items():
        axes[0].plot(*_points(series, lambda result: result["cpu_seconds"]), marker="o", label=kind)
        axes[3].plot(*_points(series, lambda result: result["recall"]), marker="o", label=kind)
    axes[0].plot(
        *_points(_series(results, "lexical", ""), lambda result: result["cpu_seconds"]),
        marker="s",
        label="BM25",
        color="black",
    )
    for kind in built:
        served = _series(results, "serve", kind)
        axes[1].plot(
            *_points(served, lambda result: result["own_mb"]), marker="o", linestyle="--", label=f"{kind}: own"
        )
        axes[1].plot(*_points(served, lambda result: result["mapped_mb"]), marker="o", label=f"{kind}: mapped, shared")
        for name, marker in (("dense", "o"), ("hybrid", "s")):
            axes[2].plot(
                *_points(served, lambda result, name=name: result[name]["cpu_p99_ms"]),
                marker=marker,
                label=f"{kind}: {name}",
            )
    axes[3].axhline(_SETTINGS.min_recall, color="grey", linestyle=":", label="index.min_recall")
    titles = ("Build, CPU seconds", "Memory of a serving process, MiB", "p99 of a query, CPU ms", "Recall@100")
    for panel, title in zip(axes, titles, strict=True):
        panel.set(title=title, xlabel="passages", xscale="log")
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    axes[0].set_yscale("log")
    figure.savefig(path)


def _series(results: dict[str, Result], name: str, kind: str) -> dict[int, Result]:
    keys = {size: f"{name} {size}{kind and ' '}{kind}" for size in SIZES}
    return {size: results[key] for size, key in keys.items() if key in results}


def _points(series: dict[int, Result], value: Callable[[Result], float]) -> tuple[list[int], list[float]]:
    return list(series), [value(result) for result in series.values()]


if __name__ == "__main__":
    main()
