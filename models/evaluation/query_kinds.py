"""The systems by kind of query: judged queries and those made from the text are never one mean unseen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from models.contracts.rows import GIVEN, PSEUDO_KINDS
from models.measures.metrics import MAIN_MEASURE

PSEUDO_ONLY = (
    "Judged on pseudo-queries only: nobody has judged a test query, so these figures say how well passages are found by"
    " their own words, and nothing of real questions. `rerankops judge` makes 50 judged queries."
)


@dataclass(frozen=True, slots=True)
class KindOfQuery:
    """Mean nDCG@10 of each system on the queries of one kind: `given`, or what they were made from."""

    kind: str
    queries: int
    means: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def queries_by_kind(per_query: pd.DataFrame, queries: pd.DataFrame) -> list[KindOfQuery]:
    """Each kind of `queries` (`query_id`, and `kind` where some were made) that was judged, the given ones first.

    `per_query` is the table of an `EvaluationReport`.
    """
    main = per_query[per_query["measure"] == MAIN_MEASURE]
    values = main.pivot(index="query_id", columns="system", values="value")
    kinds = queries["kind"] if "kind" in queries else pd.Series(GIVEN, index=queries.index)
    kind_of = pd.Series(kinds.to_numpy(), index=queries["query_id"].to_numpy()).reindex(values.index)
    systems = list(dict.fromkeys(main["system"]))
    return [
        KindOfQuery(kind, int((kind_of == kind).sum()), {name: float(rows[name].mean()) for name in systems})
        for kind in (GIVEN, *PSEUDO_KINDS)
        if len(rows := values[(kind_of == kind).to_numpy()])
    ]


def pseudo_only(kinds: Sequence[KindOfQuery]) -> bool:
    """Whether no judged query is among them."""
    return bool(kinds) and all(kind.kind != GIVEN for kind in kinds)
