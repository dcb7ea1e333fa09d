"""What was quarantined: listed, exported, and re-admitted after a fix.

A fix is best made in the source. Where it cannot be, a corrected row is re-admitted: it is checked by the contract of
the source's own rows, kept in the database with who, when and which row it replaces, and read by the next run in that
row's place (`models.corpus.sources.corrections`). It is a part of the source's fingerprint, so a run is due; it lapses
where the source has changed the row, and can be withdrawn.
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from models.contracts.rows import RejectedRow
from models.corpus.corrections import ID_DIGITS, StoredCorrection, corrections_of, store_corrections
from models.corpus.row_rules import row_problem
from models.corpus.sources import RAW_CONTRACTS
from models.corpus.sources.base import row_digest
from models.corpus.sources.lines import read_json_lines
from models.corpus.sources.raw_rows import RawRow, parse
from models.errors import ContractError, RerankOpsError
from models.records.database import Database
from models.store.artifacts import Artifact
from models.store.durable_files import digest_json, write_atomically, writing

_COLUMNS = ("row_id", "table", "rule", "reason", "position", "digest", "row")
_MAX_SHOWN = 20
_FORMULAS = ("=", "+", "-", "@", "|", "%")


@dataclass(frozen=True)
class QuarantinedRow:
    """A row of the table `quarantined_rows`; `row` is as much of it as was kept, as text."""

    table: str
    rule: str
    reason: str
    position: str
    row: str
    digest: str

    @cached_property
    def row_id(self) -> str:
        """The same for the same content at the same place of the source."""
        return digest_json([self.table, self.position, self.digest])[:ID_DIGITS]

    @cached_property
    def values(self) -> dict[str, Any] | None:
        """The row by column; None where it has none, as a line that is no JSON, or where it was too long to be kept."""
        try:
            values = json.loads(self.row, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return None
        return values if isinstance(values, dict) else None

    def record(self) -> dict[str, Any]:
        """As it is exported: `row` is to be edited, `text` is what stands in the source where that is no row."""
        columns = {name: getattr(self, name) for name in _COLUMNS[:-1]}
        return {**columns, "row": self.values, "text": None if self.values is not None else self.row}


@dataclass(frozen=True, slots=True)
class Readmission:
    """What a file of corrected rows came to: those accepted, and how many rows were as before or accepted already."""

    accepted: tuple[StoredCorrection, ...]
    unchanged: int
    known: int


def quarantined_rows(artifact: Artifact) -> list[QuarantinedRow]:
    """The rows of an artifact of `corpus/quarantined_rows`, in order of table and place in the source."""
    table = artifact.read_table("quarantined_rows.parquet")
    columns = [table[name] for name in ("table", "rule", "reason", "position", "row", "digest")]
    return [QuarantinedRow(*values) for values in zip(*columns, strict=True)]


def select_rows(rows: Iterable[QuarantinedRow], reason: str = "", table: str = "") -> list[QuarantinedRow]:
    """Those of a `table`, and whose rule is `reason` or whose reason has it in it."""
    return [
        row
        for row in rows
        if (not table or row.table == table) and (not reason or reason == row.rule or reason in row.reason)
    ]


def count_rows(rows: Iterable[QuarantinedRow]) -> list[dict[str, Any]]:
    """`table`, `rule` and how many `rows`, the most first."""
    counts = Counter((row.table, row.rule) for row in rows)
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"table": table, "rule": rule, "rows": count} for (table, rule), count in order]


def export_rows(rows: Sequence[QuarantinedRow], path: Path) -> None:
    """Write rows as JSON Lines, CSV or parquet, by the end of the name of `path`, whole or not at all.

    A cell of CSV that a spreadsheet would compute gets an apostrophe in front; the other kinds have rows as they are.
    Raises `RerankOpsError` for another ending, and `ArtifactError` when it cannot be written.
    """
    encode = {".jsonl": _json_lines, ".csv": _csv, ".parquet": _parquet}.get(path.suffix)
    if encode is None:
        raise RerankOpsError(f"{path} is of no known kind", "End its name in .jsonl, .csv or .parquet.")
    with writing(path):
        write_atomically(path, encode(rows))


def readmit(
    path: Path,
    source: str,
    artifact: Artifact,
    database: Database,
    *,
    actor: str,
    note: str = "",
    dry_run: bool = False,
) -> Readmission:
    """Take the corrected rows of a JSON Lines file, as `export_rows` wrote it and a person edited it, all or none.

    Of a line, `row_id` and `row` are read; one whose row is as it was is left alone. `source` is the kind of the source
    and `artifact` the quarantine that the rows are in. Raises `ContractError` naming each line that breaks a rule.
    """
    kinds = RAW_CONTRACTS.get(source)
    if kinds is None:
        raise RerankOpsError(f"a {source} source has no rows to correct", "Correct what it is made from.")
    if not path.is_file():
        raise RerankOpsError(
            f"no file at {path}", "Write one with `rerankops quarantine export`, and correct its rows."
        )
    known = {row.row_id: row for row in quarantined_rows(artifact)}
    in_force = corrections_of(database, source)
    problems: list[str] = []
    corrected: dict[str, StoredCorrection] = {}
    unchanged = repeated = 0
    for item in read_json_lines(path, "rows"):
        if isinstance(item, RejectedRow):
            problems.append(f"{item.position}: {item.reason}")
            continue
        position, line = item
        broken = known.get(str(line.get("row_id")))
        if broken is None:
            problems.append(f"{position}: row_id {line.get('row_id')!r} is in quarantine no more, or never was")
            continue
        if line.get("row") == broken.values:
            unchanged += 1
            continue
        values = _checked(line.get("row"), kinds[broken.table], broken)
        if isinstance(values, str):
            problems.append(f"{position}: {broken.table} row of {broken.position}: {values}")
        elif broken.row_id in corrected:
            problems.append(f"{position}: a line above corrects the row of {broken.position} too")
        else:
            correction = _correction(source, broken, values, in_force, artifact.data_version, actor, note)
            if any(correction.correction_id == item.correction_id for item in in_force):
                repeated += 1
            else:
                corrected[broken.row_id] = correction
    if problems:
        shown = "\n".join(f"  {problem}" for problem in problems[:_MAX_SHOWN])
        more = f"\n  and {len(problems) - _MAX_SHOWN} more" if len(problems) > _MAX_SHOWN else ""
        raise ContractError(
            f"{path} breaks the contracts in {len(problems)} lines; nothing was re-admitted:\n{shown}{more}",
            "docs/data-contracts.md has the columns of each source and what they must hold.",
        )
    accepted = tuple(corrected.values())
    if accepted and not dry_run:
        store_corrections(database, accepted)
    return Readmission(accepted, unchanged, repeated)


def outcomes(artifact: Artifact) -> dict[str, dict[str, str]]:
    """What the reading that made an artifact of `corpus/quarantined_rows` did with each correction, by its id."""
    records = artifact.read_table("corrections.parquet").to_dict("records")
    return {str(record["correction_id"]): {str(k): str(v) for k, v in record.items()} for record in records}


def _checked(row: Any, kind: type[RawRow], broken: QuarantinedRow) -> dict[str, Any] | str:
    """The columns of a corrected row under the source's names, or what is wrong with it."""
    if not isinstance(row, dict):
        return f"row must be an object with the columns {', '.join(_names(kind).values())}"
    names = _names(kind)
    values = {
        theirs: row[theirs] if theirs in row else row[ours]
        for ours, theirs in names.items()
        if {ours, theirs} & row.keys()
    }
    parsed = parse(kind, values, broken.table, broken.position)
    if isinstance(parsed, RejectedRow):
        return parsed.reason
    problem = row_problem(_OURS[broken.table](parsed))
    return values if problem is None else problem[1]


_OURS: Mapping[str, Callable[[Any], Any]] = {
    "documents": lambda row: row.document(""),
    "queries": lambda row: row.query(),
    "judgments": lambda row: row.judgment(),
}


def _names(kind: type[RawRow]) -> dict[str, str]:
    """The source's name of each of our columns."""
    fields = kind.model_fields.items()
    return {name: field.validation_alias if isinstance(field.validation_alias, str) else name for name, field in fields}


def _correction(
    source: str,
    broken: QuarantinedRow,
    values: Mapping[str, Any],
    in_force: Iterable[StoredCorrection],
    version: str,
    actor: str,
    note: str,
) -> StoredCorrection:
    """Of a row that is itself a correction which did not hold, it is the source's row that is corrected again."""
    same = (c for c in in_force if c.table == broken.table and row_digest(dict(c.row)) == broken.digest)
    earlier = next(same, None)
    position, digest = (earlier.position, earlier.digest) if earlier else (broken.position, broken.digest)
    name = digest_json([source, broken.table, position, digest, values])[:ID_DIGITS]
    replaces = {"row_id": broken.row_id, "rule": broken.rule, "reason": broken.reason, "quarantine": version}
    now = datetime.now(UTC)
    return StoredCorrection(f"c-{name}", source, broken.table, position, digest, values, replaces, actor, note, now)


def _json_lines(rows: Sequence[QuarantinedRow]) -> bytes:
    return b"".join(json.dumps(row.record(), ensure_ascii=False).encode() + b"\n" for row in rows)


def _csv(rows: Sequence[QuarantinedRow]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    writer.writerows([_inert(getattr(row, name)) for name in _COLUMNS] for row in rows)
    return text.getvalue().encode()


def _inert(cell: str) -> str:
    """A cell that no spreadsheet computes: behind an apostrophe where it would begin a formula, as OWASP says
    (https://owasp.org/www-community/attacks/CSV_Injection). Spaces and the fullwidth forms in front count too."""
    text = unicodedata.normalize("NFKC", cell).lstrip()
    return f"'{cell}" if text.startswith(_FORMULAS) or cell.startswith(("\t", "\r", "\n")) else cell


def _parquet(rows: Sequence[QuarantinedRow]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: pa.array([getattr(row, name) for row in rows], pa.string()) for name in _COLUMNS}
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, compression="zstd")
    return file.getvalue()


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
