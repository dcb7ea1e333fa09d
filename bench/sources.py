"""Memory of reading a corpus source: `python -m bench.sources [rows [postgresql-url]]`.

Documents of about 600 characters are generated for each source, 200,000 by default (a tenth of that as files of a
folder). Each source is read to its end in a process of its own, once with a hundredth of the rows and once with all of
them, and its peak resident memory is printed: flat means that the two hardly differ. `corpus tables` is the whole
reading of a BEIR folder into parquet, as a run does it.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.folders import ROOT
from models.corpus.sources import open_source
from models.settings import CorpusSettings

ROWS = 200_000
_WORDS = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split()
_WORDS_PER_DOCUMENT = 90


def documents(count: int) -> Iterator[dict[str, str]]:
    """Documents of random words, the same ones each time."""
    chance = random.Random(0)
    for number in range(count):
        text = " ".join(chance.choices(_WORDS, k=_WORDS_PER_DOCUMENT))
        yield {"document_id": f"doc-{number:07d}", "text": text, "title": f"Title {number}"}


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    with path.open("wb") as file:
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=file, mode="wb") as zipped:
                yield zipped
        else:
            yield file


def _write_lines(path: Path, count: int, id_name: str = "document_id") -> None:
    with _open(path) as file:
        for row in documents(count):
            file.write(json.dumps({id_name: row.pop("document_id"), **row}).encode() + b"\n")


def _write_csv(path: Path, count: int) -> None:
    with _open(path) as raw, io.TextIOWrapper(raw, "utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["document_id", "text", "title"])
        writer.writeheader()
        writer.writerows(documents(count))


def _write_parquet(path: Path, count: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(documents(count))), path, compression="zstd")


def _files(suffix: str, write: Callable[[Path, int], None]) -> Callable[[Path, int], dict[str, Any]]:
    def make(folder: Path, count: int) -> dict[str, Any]:
        write(folder / f"documents.{suffix}", count)
        (folder / "none.csv").write_text("query_id,document_id,text,grade\n")
        files = {"documents": f"documents.{suffix}", "queries": "none.csv", "judgments": "none.csv"}
        return {"source": "files", "path": "x", "files": files}

    return make


def _beir(folder: Path, count: int) -> dict[str, Any]:
    _write_lines(folder / "corpus.jsonl", count, "_id")
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "Which?"}\n')
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("q\tdoc-0000000\t1\n")
    return {"source": "beir", "path": "x"}


def _folder(folder: Path, count: int) -> dict[str, Any]:
    for number, row in enumerate(documents(count // 10)):
        part = folder / str(number // 1000)
        part.mkdir(exist_ok=True)
        (part / f"{row['document_id']}.md").write_text(f"# {row['title']}\n\n{row['text']}\n")
    return {"source": "folder", "path": "x"}


def _sqlite(folder: Path, count: int) -> dict[str, Any]:
    connection = sqlite3.connect(folder / "a.db")
    connection.execute("CREATE TABLE documents (document_id TEXT, text TEXT, title TEXT)")
    rows = (tuple(row.values()) for row in documents(count))
    connection.executemany("INSERT INTO documents VALUES (?, ?, ?)", rows)
    connection.commit()
    connection.close()
    return {"source": "sql", "sql": {"url": "sqlite:///a.db", "documents": "SELECT * FROM documents"}}


def _postgresql(url: str) -> Callable[[Path, int], dict[str, Any]]:
    def make(folder: Path, count: int) -> dict[str, Any]:
        from sqlalchemy import create_engine, text

        table = f"bench_{count}"
        with create_engine(url).begin() as connection:
            connection.execute(text(f"DROP TABLE IF EXISTS {table}"))
            connection.execute(text(f"CREATE TABLE {table} (document_id TEXT, text TEXT, title TEXT)"))
            statement = text(f"INSERT INTO {table} VALUES (:document_id, :text, :title)")
            rows = list(documents(count))
            for start in range(0, count, 10_000):
                connection.execute(statement, rows[start : start + 10_000])
        return {"source": "sql", "sql": {"url": url, "documents": f"SELECT * FROM {table}"}}

    return make


def _ir_datasets(folder: Path, count: int) -> dict[str, Any]:
    with (folder / "docs.tsv").open("w") as file:
        file.writelines(f"{row['document_id']}\t{row['text']}\n" for row in documents(count))
    return {"source": "ir_datasets", "ir_datasets": {"documents": "bench"}}


def _huggingface(folder: Path, count: int) -> dict[str, Any]:
    (folder / "corpus").mkdir()
    _write_lines(folder / "corpus" / "train.jsonl", count)
    return {"source": "huggingface", "huggingface": {"documents": {"path": "corpus"}}}


def kinds(postgresql: str = "") -> Mapping[str, Callable[[Path, int], dict[str, Any]]]:
    """What writes a corpus of so many rows into a folder and returns its settings, by name."""
    sources = {
        "beir": _beir,
        "files jsonl": _files("jsonl", _write_lines),
        "files jsonl.gz": _files("jsonl.gz", _write_lines),
        "files csv": _files("csv", _write_csv),
        "files csv.gz": _files("csv.gz", _write_csv),
        "files parquet": _files("parquet", _write_parquet),
        "folder": _folder,
        "sql sqlite": _sqlite,
        "ir_datasets": _ir_datasets,
        "huggingface": _huggingface,
        "corpus tables": _beir,
    }
    return sources | ({"sql postgresql": _postgresql(postgresql)} if postgresql else {})


def _read(kind: str, folder: Path) -> None:
    """In the process that is measured: read all documents, print rows, seconds and peak MiB as JSON."""
    settings = CorpusSettings.model_validate_json((folder / "settings.json").read_text())
    if kind == "ir_datasets":
        import ir_datasets

        ir_datasets.registry.register("bench", ir_datasets.create_dataset(docs_tsv=str(folder / "docs.tsv")))
    source = open_source(settings, folder)
    started = time.perf_counter()
    if kind == "corpus tables":
        from bench.fuzz_sources import tokenizer
        from models.corpus.ingest import write_corpus

        rows = write_corpus(source, settings, tokenizer(), folder / "out")["documents"]
    else:
        rows = sum(1 for _ in source.documents())
    print(json.dumps([rows, time.perf_counter() - started, peak_mib()]))


def peak_mib() -> float:
    """Peak resident memory of this process, MiB."""
    if sys.platform == "linux":
        # `ru_maxrss` would begin with what the process that started this one had.
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


def measure(kind: str, make: Callable[[Path, int], dict[str, Any]], count: int) -> tuple[int, float, float]:
    """Rows, seconds and peak MiB of reading a corpus of `count` rows in a process of its own."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        settings = CorpusSettings.model_validate(make(folder, count))
        (folder / "settings.json").write_text(settings.model_dump_json())
        command = [sys.executable, "-W", "ignore", "-m", "bench.sources", "--read", kind, work]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        rows, seconds, peak = json.loads(done.stdout.splitlines()[-1])
        return rows, seconds, peak


def main() -> None:
    """Print a line for each source."""
    if sys.argv[1:2] == ["--read"]:
        _read(sys.argv[2], Path(sys.argv[3]))
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    print("| source | rows | rows/s | peak MiB of a hundredth | peak MiB of all |\n|---|---|---|---|---|", flush=True)
    for kind, make in kinds(*sys.argv[2:3]).items():
        _, _, small = measure(kind, make, count // 100)
        rows, seconds, peak = measure(kind, make, count)
        print(f"| {kind} | {rows} | {rows / seconds:.0f} | {small:.0f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
