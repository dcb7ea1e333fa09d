"""Judgments that come one set for each split, as in BEIR and ir_datasets: where a query is judged is its split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from models.contracts.rows import Judgment, RejectedRow
from models.corpus.sources.base import LEAKAGE, rejected_row

SPLITS = ("test", "dev", "train")
"""Judged in several of them, a query belongs to the first."""

Judged = Callable[[], Iterator[tuple[str, Judgment] | RejectedRow]]


class JudgedSplits:
    """The judgments of one or more splits; `sets` maps a split to what yields its (position, judgment).

    The empty split stands for judgments whose queries RerankOps splits.

    The sets are read twice, once for the split of each query and once for the judgments, so that no more than a split
    for each judged query is held in memory.
    """

    def __init__(self, sets: Mapping[str, Judged]) -> None:
        self._sets = {split: sets[split] for split in (*SPLITS, "") if split in sets}
        self._splits: dict[str, str] | None = None

    def of_queries(self) -> Mapping[str, str]:
        """The split of each judged query."""
        if self._splits is None:
            splits: dict[str, str] = {}
            for split, read in self._sets.items():
                for item in read():
                    if not isinstance(item, RejectedRow):
                        splits.setdefault(item[1].query_id, split)
            self._splits = splits
        return self._splits

    def judgments(self) -> Iterator[Judgment | RejectedRow]:
        """Yield the judgments, those of test first; one in another set than its query's split is refused as leakage."""
        splits = self.of_queries()
        for split, read in self._sets.items():
            for item in read():
                if isinstance(item, RejectedRow):
                    yield item
                    continue
                position, judgment = item
                counts = splits.get(judgment.query_id)
                if counts == split:
                    yield judgment
                else:
                    reason = f"{LEAKAGE}: query {judgment.query_id} is judged in {counts}, which counts"
                    yield rejected_row("judgments", reason, judgment, position, rule="leakage")
