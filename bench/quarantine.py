"""Broken rows in a real corpus: `python -m bench.quarantine` writes docs/benchmarks/quarantine.md.

A BEIR folder is cut from SQuAD (below RERANKOPS_DATA), and ten kinds of broken rows are planted at random places of all
its files, with a ledger of what was planted where. With 2 % of them the whole life runs to a release, and the
quarantine must hold exactly the rows of the ledger, each under the rule that it breaks. With 30 % the run must stop at
the check of the refused share, and what was released must serve on.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.folders import DATA, FIGURES, ROOT
from models.corpus.sources.lines import MAX_LINE_BYTES
from models.records.database import Database
from models.records.ledger import Ledger
from models.records.mlflow_registry import Tracking
from models.settings import load_settings
from tests.test_end_to_end import SETTINGS

CORPUS = DATA / "squad-v1.1-dev"
PAGE = FIGURES / "quarantine.md"
QUERIES = {"train": 160, "dev": 40, "test": 40}
DOCUMENTS = 400
SHARES = (0.02, 0.3)
SEED = 0
_MAX_LONG_LINES = 2


@dataclass(frozen=True)
class Planted:
    """A broken row: the file and line where it stands, what was done to it, and the rule that it breaks."""

    position: str
    kind: str
    rule: str


Break = Callable[[dict[str, Any]], bytes]


def _json(row: dict[str, Any], **changes: Any) -> bytes:
    return json.dumps({**row, **changes}, ensure_ascii=False).encode()


_DOCUMENTS: dict[str, tuple[str, Break]] = {
    "no id": ("missing", lambda row: _json({key: value for key, value in row.items() if key != "_id"})),
    "no text": ("missing", lambda row: _json(row, title="", text=" \n")),
    "line of 10 MB": ("too_long", lambda row: _json(row, text="x" * MAX_LINE_BYTES)),
    "id of another document": ("duplicate_id", lambda row: _json(row, _id=row["taken"])),
    "not UTF-8": ("encoding", lambda row: _json(row, text="caf@ " + row["text"]).replace(b"caf@", b"caf\xe9")),
    "text of another type": ("wrong_type", lambda row: _json(row, text=[row["text"]])),
    "cut-off JSON": ("malformed", lambda row: _json(row)[:-9]),
    "NUL character": ("control_character", lambda row: _json(row, text=row["text"][:20] + "\0" + row["text"][20:])),
}
_QUERIES: dict[str, tuple[str, Break]] = {
    "no text": ("missing", lambda row: _json(row, text="")),
    "cut-off JSON": ("malformed", lambda row: _json(row)[:-9]),
}
_JUDGMENTS: dict[str, tuple[str, Break]] = {
    "unknown passage": ("unknown_reference", lambda row: f"{row['query']}\tnowhere-{row['number']}\t1".encode()),
    "negative grade": ("out_of_range", lambda row: f"{row['query']}\t{row['document']}\t-1".encode()),
    "grade that is no integer": ("wrong_type", lambda row: f"{row['query']}\t{row['document']}\t1.5".encode()),
}


def write_corpus(folder: Path, share: float) -> list[Planted]:
    """Write a BEIR folder in which `share` of the rows of each file are broken; return the ledger of these."""
    generator = random.Random(SEED)
    documents, queries, judgments, spare = _cut()
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    taken = documents[0]["_id"]
    files = {
        "corpus.jsonl": (
            [_json(row) for row in documents],
            _DOCUMENTS,
            [{**row, "taken": taken} for row in spare],
        ),
        "queries.jsonl": ([_json(row) for row in queries], _QUERIES, queries),
        **{
            f"qrels/{split}.tsv": (
                ["\t".join(row).encode() for row in rows],
                _JUDGMENTS,
                [
                    {"query": query, "document": _other(document, documents), "number": number}
                    for number, (query, document, _) in enumerate(rows)
                ],
            )
            for split, rows in judgments.items()
        },
    }
    ledger = []
    for name, (good, breaks, rows) in files.items():
        header = [b"query-id\tcorpus-id\tscore"] if name.endswith(".tsv") else []
        first = 1 if name == "corpus.jsonl" else 0
        lines = list(good)
        planted = []
        count = int(share * len(good) / (1 - share))
        long_lines = 0
        for number in range(count):
            kind = list(breaks)[number % len(breaks)]
            if kind.startswith("line of"):
                long_lines += 1
                kind = kind if long_lines <= _MAX_LONG_LINES else "no id"
            rule, damage = breaks[kind]
            planted.append((generator.randrange(first, len(lines) + 1), kind, rule, damage(rows[number % len(rows)])))
        for position, kind, rule, line in sorted(planted, key=lambda item: item[0], reverse=True):
            lines.insert(position, line)
            ledger = [item for item in ledger if item[0] != name] + [
                (name, at + (at >= position), *rest) for of, at, *rest in ledger if of == name
            ]
            ledger.append((name, position, kind, rule))
        (folder / name).write_bytes(b"\n".join([*header, *lines]) + b"\n")
    headers = {name: name.endswith(".tsv") for name in files}
    return [Planted(f"{name}:{at + 1 + headers[name]}", kind, rule) for name, at, kind, rule in ledger]


def _other(document: str, documents: list[dict[str, Any]]) -> str:
    """A document of the corpus that is not `document`, so that a broken judgment repeats no good one."""
    return documents[0]["_id"] if document != documents[0]["_id"] else documents[1]["_id"]


def _cut() -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, list[list[str]]], list[dict[str, Any]]]:
    """Documents, queries and judgments (by split) that refer to each other, and documents that are in no judgment."""
    generator = random.Random(SEED)
    with gzip.open(CORPUS / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        everything = {row["_id"]: row for row in map(json.loads, file)}
    texts = {row["_id"]: row for row in map(json.loads, (CORPUS / "queries.jsonl").read_text().splitlines())}
    judgments, seen = {}, set()
    for split, count in QUERIES.items():
        rows = [line.split("\t") for line in (CORPUS / "qrels" / f"{split}.tsv").read_text().splitlines()[1:]]
        judgments[split] = []
        for row in generator.sample(rows, len(rows)):
            text = texts[row[0]]["text"].casefold()
            if text not in seen and len(judgments[split]) < count:
                seen.add(text)
                judgments[split].append(row)
    judged = {row[1] for rows in judgments.values() for row in rows}
    others = [name for name in generator.sample(sorted(everything), len(everything)) if name not in judged]
    kept = [*sorted(judged), *others[: DOCUMENTS - len(judged)]]
    spare = [everything[name] for name in others[DOCUMENTS - len(judged) :]]
    queries = [texts[row[0]] for rows in judgments.values() for row in rows]
    return [everything[name] for name in kept], queries, judgments, spare


def rerankops(environment: dict[str, str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON value of a command."""
    done = subprocess.run(
        [sys.executable, "-m", "orchestration.cli", *arguments, "--json"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.stdout:
        raise RuntimeError(done.stderr)
    return done.returncode, json.loads(done.stdout)


def released() -> dict[str, Any]:
    """What says which release serves: the ledger and the alias of the registry."""
    settings = load_settings()
    database = Database(settings.database_url)
    database.migrate()
    history = Ledger(database).history()
    database.close()
    return {
        "releases": [release.release_id for release in history],
        "champion": Tracking.of(settings).alias("champion"),
    }


def main() -> None:
    """Run both shares in one home, print the figures and write them down."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "corpus"
        settings = {**SETTINGS, "corpus.source": "beir", "corpus.path": folder}
        variables = {f"RERANKOPS_{key.upper().replace('.', '__')}": str(value) for key, value in settings.items()}
        os.environ.update({**variables, "RERANKOPS_HOME": str(Path(work) / "home")})
        page = "\n".join(_lines(folder))
    print(page)
    PAGE.write_text(page + "\n", encoding="utf-8")


def _lines(folder: Path) -> Iterator[str]:
    environment = dict(os.environ)
    yield "# Broken rows"
    yield ""
    yield (
        f"`python -m bench.quarantine`: {DOCUMENTS} documents and {sum(QUERIES.values())} queries of SQuAD as a BEIR "
        "folder, with broken rows planted at random places and written down. The settings are those of "
        "`tests/test_end_to_end.py`."
    )
    for share in SHARES:
        before = released()
        planted = write_corpus(folder, share)
        started = time.perf_counter()
        code, run = rerankops(environment, "run")
        seconds = time.perf_counter() - started
        _, listed = rerankops(environment, "quarantine", "list", "--limit", "1000000")
        after = released()
        wanted = Counter((item.position, item.rule) for item in planted)
        got = Counter((row["position"], row["rule"]) for row in listed["first"])
        yield ""
        yield f"## {share:.0%} broken"
        yield ""
        yield f"- Outcome: {run['outcome']} (exit code {code}), {seconds / 60:.1f} min."
        yield (
            f"- Planted {wanted.total()}, quarantined {got.total()}: {(wanted & got).total()} at the place and under "
            f"the rule of the ledger, {(wanted - got).total()} missed, {(got - wanted).total()} that were not planted."
        )
        for where, why in run["failures"].items():
            yield f"- {where}: {why.splitlines()[0]}"
        yield (
            f"- Releases before {len(before['releases'])}, after {len(after['releases'])}; alias champion "
            f"{before['champion']}, then {after['champion']}."
        )
        yield ""
        yield "| planted | rule | rows | named |"
        yield "|---|---|---|---|"
        for (kind, rule), count in sorted(Counter((item.kind, item.rule) for item in planted).items()):
            of_kind = [item for item in planted if (item.kind, item.rule) == (kind, rule)]
            named = sum((item.position, item.rule) in got for item in of_kind)
            yield f"| {kind} | `{rule}` | {count} | {named} |"


if __name__ == "__main__":
    main()
