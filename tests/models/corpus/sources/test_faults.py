"""What must not fill the memory, each read in a process of its own whose peak is looked at."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.sources import peak_mib
from models.contracts.rows import RejectedRow
from models.corpus.sources.tables import ColumnNames, read_table_file
from models.errors import SourceError
from tests.commands import forking
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.heavy
LIMIT = 300_000_000


def _measure(path: Path, answer: Path) -> None:
    """Read a small file of the same kind and then `path`; write how far the peak rose and what became of the rows."""
    list(read_table_file(path.with_name("small" + "".join(path.suffixes)), "documents", ColumnNames({}, "k")))
    before = peak_mib()
    counts: Counter[str] = Counter()
    last = ""
    try:
        for row in read_table_file(path, "documents", ColumnNames({}, "k"), LIMIT):
            counts[type(row).__name__] += 1
            last = row.reason if isinstance(row, RejectedRow) else last
    except SourceError as error:
        last = error.message
    answer.write_text(json.dumps([round(peak_mib() - before), counts["tuple"], counts["RejectedRow"], last]))


def _read(path: Path) -> tuple[int, int, int, str]:
    """Peak memory in MiB above that of reading a small file, rows accepted, rows rejected, and the last message."""
    answer = path.with_name("answer.json")
    reader = forking.Process(target=_measure, args=(path, answer))
    reader.start()
    reader.join(PATIENCE_S)
    assert reader.exitcode == 0
    grown, accepted, rejected, message = json.loads(answer.read_text())
    return grown, accepted, rejected, message


def _small(path: Path, data: bytes) -> None:
    """A small file of the same kind, so that what is imported to read it is not counted."""
    path = path.with_name("small" + "".join(path.suffixes))
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


ROWS = {".jsonl": b'{"document_id": "a", "text": "x"}\n', ".csv": b"document_id,text\na,x\n"}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_line_of_200_megabytes_costs_its_row_and_no_memory(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"long{suffix}"
    _small(path, ROWS[suffix])
    path.write_bytes(ROWS[suffix])
    os.truncate(path, 200_000_000)  # zeros, which take no place on the disk
    with path.open("ab") as file:
        file.write(b"\n" + ROWS[suffix].splitlines(keepends=True)[-1])
    grown, accepted, refused, message = _read(path)
    assert (accepted, refused) == (2, 1)
    assert message == "line is longer than 10,000,000 bytes"
    assert grown < 100


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize("rows", [False, True])
def test_a_gzip_bomb_of_one_line_or_many_ends_at_the_limit(tmp_path: Path, suffix: str, rows: bool) -> None:
    """10 to 20 MB that expand to 10 GB: a thousand members of 10 MB each."""
    path = tmp_path / f"bomb{suffix}.gz"
    _small(path, ROWS[suffix])
    line = ROWS[suffix].splitlines(keepends=True)[-1]
    member = line.replace(b"x", b"x" * 100_000) * 100 if rows else b"x" * 10_000_000
    path.write_bytes(gzip.compress(ROWS[suffix]) + gzip.compress(member, 9) * 1000)
    assert path.stat().st_size < 30_000_000
    grown, _, _, message = _read(path)
    assert message == f"{path} expands to more than {LIMIT:,} bytes"
    assert grown < 100


def test_a_small_parquet_file_of_large_values_is_read_a_few_rows_at_a_time(tmp_path: Path) -> None:
    """Half a megabyte that is 1.5 GB when all rows are decoded: each of them refers to one text of 10 MB."""
    path = tmp_path / "bomb.parquet"
    ids, refers = pa.array(range(150)), pa.array([0] * 150, pa.int32())
    text = pa.DictionaryArray.from_arrays(refers, pa.array(["x" * 10_000_000]))
    pq.write_table(pa.table({"document_id": ids, "text": text}), path, compression="zstd", store_schema=False)
    pq.write_table(pa.table({"document_id": ["a"], "text": ["x"]}), tmp_path / "small.parquet")
    assert path.stat().st_size < 1_000_000
    grown, accepted, refused, _ = _read(path)
    assert (accepted, refused) == (150, 0)
    assert grown < 400
