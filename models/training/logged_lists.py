"""Logged candidates: what callers asked and which passages were ranked, as lists without judgments for distillation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

import pandas as pd

from models.contracts.messages import PROBE_CALLER
from models.corpus.passage_table import PassageTable
from models.corpus.splits import normalize_query
from models.records import decisions
from models.records.database import Database
from models.store.artifacts import Artifact
from models.store.durable_files import digest_json
from models.text.passage_text import passage_text

_DAYS = 90
"""How far back decisions are read."""

_MIN_PASSAGES = 2


@dataclass(frozen=True)
class LoggedList:
    """A query and the passages that its decision ranked, in the order of the first stage."""

    decision_id: str
    query: str
    passage_ids: tuple[str, ...]


def read_logged(database: Database, evaluated: Collection[str], count: int, before: datetime) -> list[LoggedList]:
    """The last decision of each of the `count` queries asked last before `before`, oldest first.

    Probes of the deployment, queries without text and those whose text is one of `evaluated` are passed over: nothing
    may be learned from what is tested.
    """
    tested = {normalize_query(text) for text in evaluated}
    found: dict[str, LoggedList] = {}
    for decision in decisions.read(database, before - timedelta(days=_DAYS), before, exclude_callers=[PROBE_CALLER]):
        text = normalize_query(decision.query)
        if not text or text in tested:
            continue
        found.pop(text, None)
        ids = tuple(dict.fromkeys(str(candidate.get("passage_id", "")) for candidate in decision.candidates))
        found[text] = LoggedList(decision.decision_id, decision.query, ids)
        if len(found) > count:
            del found[next(iter(found))]
    return list(found.values())


def logged_until_today(database: Database, queries: Artifact, count: int) -> list[LoggedList]:
    """`read_logged` up to yesterday, so that runs of one day learn from the same; `queries` has what is tested."""
    if not count:
        return []
    table = queries.read_table("queries.parquet")
    tested = table.loc[table["split"] != "train", "text"].tolist()
    return read_logged(database, tested, count, datetime.combine(datetime.now(UTC).date(), time(), UTC))


def logged_digest(lists: Sequence[LoggedList]) -> str:
    """SHA-256 (hex) of which decisions the lists are from. Decisions never change, so it stands for their content."""
    return digest_json([one.decision_id for one in lists])


def logged_table(lists: Sequence[LoggedList], passages: PassageTable, length: int) -> pd.DataFrame:
    """The lists with texts, rows (`query_id`, `query`, `passage_id`, `passage`), each with its first `length` passages.

    Passages that the corpus does not have (any more), as a caller's own texts, are left out, and lists of fewer than
    two. `query_id` is the id of the decision.
    """
    texts = passages.read({name for one in lists for name in one.passage_ids}, ["title", "text"])
    text_of = dict(zip(texts["passage_id"], map(passage_text, texts["title"], texts["text"]), strict=True))
    rows = []
    for one in lists:
        known = [name for name in one.passage_ids if name in text_of][:length]
        if len(known) >= _MIN_PASSAGES:
            rows += [(one.decision_id, one.query, name, text_of[name]) for name in known]
    return pd.DataFrame(rows, columns=["query_id", "query", "passage_id", "passage"]).astype("str")
