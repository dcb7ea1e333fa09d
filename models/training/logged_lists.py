"""Logged candidates: what callers asked and which passages were ranked, as lists without judgments for distillation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from models.corpus.passage_table import PassageTable
from models.store.durable_files import digest_json
from models.text.passage_text import passage_text

_MIN_PASSAGES = 2


@dataclass(frozen=True)
class LoggedList:
    """A query and the passages that its decision ranked, in the order of the first stage."""

    decision_id: str
    query: str
    passage_ids: tuple[str, ...]


def logged_digest(lists: Sequence[LoggedList]) -> str:
    """SHA-256 (hex) of the lists: it stands for them where the texts of the passages are given."""
    return digest_json([[logged.decision_id, logged.query, logged.passage_ids] for logged in lists])


def logged_table(lists: Sequence[LoggedList], passages: PassageTable, length: int) -> pd.DataFrame:
    """The lists with texts, rows (`query_id`, `query`, `passage_id`, `passage`), each with its first `length` passages.

    Passages that the corpus does not have (any more), as a caller's own texts, are left out, and lists of fewer than
    two. `query_id` is the id of the decision.
    """
    texts = passages.read({name for logged in lists for name in logged.passage_ids}, ["title", "text"])
    text_of = dict(zip(texts["passage_id"], map(passage_text, texts["title"], texts["text"]), strict=True))
    rows = []
    for logged in lists:
        known = [name for name in logged.passage_ids if name in text_of][:length]
        if len(known) >= _MIN_PASSAGES:
            rows += [(logged.decision_id, logged.query, name, text_of[name]) for name in known]
    return pd.DataFrame(rows, columns=["query_id", "query", "passage_id", "passage"]).astype("str")
