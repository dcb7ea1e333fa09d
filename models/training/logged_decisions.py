"""The lists that callers asked for, read from the log of decisions.

Apart from `models.training.logged_lists`, so that the tables of the database decide no model.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING

from models.contracts.messages import PROBE_CALLER
from models.corpus.splits import normalize_query
from models.records import decisions
from models.training.logged_lists import LoggedList

if TYPE_CHECKING:
    from models.records.database import Database
    from models.store.artifacts import Artifact

_DAYS = 90
"""How far back decisions are read."""


def read_logged(database: Database, evaluated: Collection[str], count: int, before: datetime) -> list[LoggedList]:
    """The last decision of each of the `count` queries asked last before `before`, oldest first.

    Probes of the deployment, queries without text and those whose text is one of `evaluated` are passed over: nothing
    may be learned from what is tested.
    """
    tested = {normalize_query(text) for text in evaluated}
    lists: dict[str, LoggedList] = {}
    for decision in decisions.read(database, before - timedelta(days=_DAYS), before, exclude_callers=[PROBE_CALLER]):
        text = normalize_query(decision.query)
        if not text or text in tested:
            continue
        lists.pop(text, None)
        ids = tuple(dict.fromkeys(str(candidate.get("passage_id", "")) for candidate in decision.candidates))
        lists[text] = LoggedList(decision.decision_id, decision.query, ids)
        if len(lists) > count:
            del lists[next(iter(lists))]
    return list(lists.values())


def logged_until_today(database: Database, queries: Artifact, count: int) -> list[LoggedList]:
    """`read_logged` up to yesterday, so that runs of one day learn from the same; `queries` has what is tested."""
    if not count:
        return []
    table = queries.read_table("queries.parquet")
    tested = table.loc[table["split"] != "train", "text"].tolist()
    return read_logged(database, tested, count, datetime.combine(datetime.now(UTC).date(), time(), UTC))
