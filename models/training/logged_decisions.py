"""The lists that callers asked for, read from the log of decisions.

Apart from `models.training.logged_lists`, so that the tables of the database decide no model.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING

from models.contracts.messages import PROBE_CALLER
from models.corpus.splits import normalize_query
from models.records import decisions
from models.training.logged_lists import LoggedList

if TYPE_CHECKING:
    from models.records.database import Database

_DAYS = 90
"""How far back decisions are read."""


def read_logged(database: Database, count: int, before: datetime) -> list[LoggedList]:
    """The last decision of each of the `count` queries asked last before `before`, oldest first.

    Queries are told apart by `normalize_query`. Probes of the deployment are passed over, and queries
    of which no text or a part was kept.
    """
    lists: dict[str, LoggedList] = {}
    for decision in decisions.read(database, before - timedelta(days=_DAYS), before, exclude_callers=[PROBE_CALLER]):
        text = normalize_query(decision.query)
        if not text or decision.query_characters is not None:
            continue
        lists.pop(text, None)
        ids = tuple(dict.fromkeys(str(candidate.get("passage_id", "")) for candidate in decision.candidates))
        lists[text] = LoggedList(decision.decision_id, decision.query, ids)
        if len(lists) > count:
            del lists[next(iter(lists))]
    return list(lists.values())


def logged_until_today(database: Database, count: int) -> list[LoggedList]:
    """`read_logged` up to yesterday (UTC), so that runs of one day learn from the same."""
    return read_logged(database, count, datetime.combine(datetime.now(UTC).date(), time(), UTC))
