from __future__ import annotations

from models.contracts.rows import Judgment, RejectedRow
from models.corpus.sources.base import rejected
from models.corpus.sources.judged_splits import JudgedSplits


def test_a_query_belongs_to_the_set_furthest_from_training_and_is_refused_in_the_others() -> None:
    bad = rejected("judgments", "bad", "train:2", rule="malformed")
    sets = {
        "train": [("train:1", Judgment("q", "d", 1)), bad, ("train:3", Judgment("r", "d", 1))],
        "test": [("test:1", Judgment("q", "d", 2))],
    }
    judged = JudgedSplits({split: lambda split=split: iter(sets[split]) for split in sets})
    assert judged.of_queries() == {"q": "test", "r": "train"}
    rows = list(judged.judgments())
    assert rows == list(judged.judgments())
    assert [row for row in rows if isinstance(row, Judgment)] == [Judgment("q", "d", 2), Judgment("r", "d", 1)]
    assert [(row.position, row.reason) for row in rows if isinstance(row, RejectedRow)] == [
        ("train:1", "leakage: query q is judged in test, which counts"),
        ("train:2", "bad"),
    ]
