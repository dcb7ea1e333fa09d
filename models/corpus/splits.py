"""Which queries train, tune and test: stable splits without leaks, and the frozen sample that is evaluated."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from models.contracts.rows import SPLITS

_SPACES = re.compile(r"\s+")
_PRECEDENCE = {"": 0, "train": 1, "dev": 2, "test": 3}
_MIN_GIANT = 20
_MAX_COMPONENT_SHARE = 0.2
_COLUMNS = ["query_id", "text", "split"]


@dataclass(frozen=True)
class EvaluationTables:
    """The frozen sample: `queries` of the dev and test splits and their `judgments`, under the contracts of both."""

    queries: pd.DataFrame
    judgments: pd.DataFrame


def assign_splits(queries: pd.DataFrame, judgments: pd.DataFrame, dev_share: float, test_share: float) -> pd.DataFrame:
    """Give every query its split and drop those that would leak; rows (`query_id`, `text`, `split`), sorted by id.

    `queries` has `query_id`, `text`, `split`, `group` (empty where the source says nothing). See `place_queries` for
    the rule; a training query with the text of a dev or test query is dropped, a dev query with that of a test query.
    """
    placed = place_queries(queries, judgments, dev_share, test_share)
    return placed.loc[~placed["query_id"].isin(repeated_texts(placed)["query_id"])].reset_index(drop=True)


def place_queries(queries: pd.DataFrame, judgments: pd.DataFrame, dev_share: float, test_share: float) -> pd.DataFrame:
    """`assign_splits` before the leaking queries are dropped.

    A split from the source is kept, except that a source with training queries but without dev (or test) queries has
    them carved out of train. The others are placed by the hash of their unit, so that they stay where they are as the
    corpus grows: their `group`, else the connected component of queries that share relevant documents. A component of
    more than a fifth of the queries (a document that answers everything) is divided query by query.
    """
    units = _units(queries, judgments)
    given = dict(zip(queries["query_id"], queries["split"], strict=True))
    shares = {"test": test_share, "dev": dev_share}
    if "" in given.values():
        placed = _place_unsplit(given, units, shares)
    else:
        lacking = {split: share for split, share in shares.items() if split not in given.values()}
        placed = {
            query_id: _by_hash(units[query_id], lacking) if split == "train" else split
            for query_id, split in given.items()
        }
    splits = [placed[query_id] for query_id in queries["query_id"]]
    table = queries[["query_id", "text"]].assign(split=splits).astype(dict.fromkeys(_COLUMNS, "str"))
    return table.sort_values("query_id", ignore_index=True)


def repeated_texts(queries: pd.DataFrame) -> pd.DataFrame:
    """Queries whose normalized text also stands in a stronger split (test over dev over train).

    Rows (`query_id`, `other_id`, `kind`): the query to drop, one of the same text in the strongest split, `same_text`.
    """
    table = pd.DataFrame(
        {
            "query_id": queries["query_id"],
            "key": queries["text"].map(normalize_query),
            "strength": [_PRECEDENCE[split] for split in queries["split"]],
        }
    ).sort_values(["strength", "query_id"], ascending=[False, True])
    strongest = table.drop_duplicates("key")
    pairs = table.merge(strongest, on="key", suffixes=("", "_other"))
    pairs = pairs.loc[pairs["strength"] < pairs["strength_other"]].sort_values("query_id")
    columns = {"query_id": pairs["query_id"], "other_id": pairs["query_id_other"], "kind": "same_text"}
    return pd.DataFrame(columns).astype("str").reset_index(drop=True)


def leakage(queries: pd.DataFrame, judgments: pd.DataFrame, passages: pd.DataFrame) -> pd.DataFrame:
    """Exact leaks between splits, rows (`query_id`, `other_id`, `kind`); empty after `assign_splits`.

    Kind `same_text`: the normalized text stands in two splits. Only queries judged on a document of the corpus count,
    as the others neither train nor test anything. Shared documents are no leak: that is for groups to decide.
    """
    known = judgments.loc[judgments["document_id"].isin(passages["document_id"])]
    return repeated_texts(queries.loc[queries["query_id"].isin(known["query_id"])])


def evaluation_set(
    queries: pd.DataFrame,
    judgments: pd.DataFrame,
    passages: pd.DataFrame,
    max_dev: int,
    max_test: int,
    previous: pd.DataFrame | None = None,
) -> EvaluationTables:
    """The dev and test queries of an evaluation, at most `max_dev` and `max_test` (0: all), frozen where they exist.

    Queries of `previous`, the last version, stay with their split, whatever split the corpus gives them now; free
    places go to the dev and test queries with the smallest hash of their id. Only queries with a positive judgment on a
    document of the corpus are taken; their judgments on documents of the corpus come with them, those of grade 0 too.
    """
    known = judgments.loc[judgments["document_id"].isin(passages["document_id"])]
    columns = [*_COLUMNS, *(name for name in ("kind",) if name in queries)]
    usable = queries.loc[queries["query_id"].isin(known.loc[known["grade"] > 0, "query_id"]), columns]
    before = {} if previous is None else dict(zip(previous["query_id"], previous["split"], strict=True))
    frozen = usable.loc[usable["query_id"].isin(list(before))]
    frozen = frozen.assign(split=frozen["query_id"].map(before).astype("str"))
    others = usable.loc[~usable["query_id"].isin(list(before))]
    samples = []
    for split, count in {"dev": max_dev, "test": max_test or len(usable)}.items():
        kept = sample_by_hash(frozen.loc[frozen["split"] == split], count)
        samples += [kept, sample_by_hash(others.loc[others["split"] == split], count - len(kept))]
    chosen = pd.concat(samples).sort_values("query_id", ignore_index=True)
    kept = known.loc[known["query_id"].isin(chosen["query_id"])]
    return EvaluationTables(chosen, kept.sort_values(["query_id", "document_id"], ignore_index=True))


def sample_by_hash(table: pd.DataFrame, count: int, *, id_column: str = "query_id") -> pd.DataFrame:
    """The `count` rows with the smallest SHA-256 of their id, in that order: a sample that stays as the table grows and
    does not depend on the order of the rows."""
    hashes = [hashlib.sha256(row_id.encode()).digest() for row_id in table[id_column]]
    order = sorted(range(len(hashes)), key=hashes.__getitem__)
    return table.iloc[order[:count]]


def normalize_query(text: str) -> str:
    """Text for exact comparison: NFKC, case folded, single spaces, no punctuation at the end."""
    return _SPACES.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip(" .?!;:") or text.strip()


def _place_unsplit(given: Mapping[str, str], units: Mapping[str, str], shares: Mapping[str, float]) -> dict[str, str]:
    """A query without split follows the strongest split given to its unit, else the hash of the unit."""
    of_unit: dict[str, str] = {}
    for query_id, split in given.items():
        of_unit[units[query_id]] = max(of_unit.get(units[query_id], ""), split, key=_PRECEDENCE.__getitem__)
    return {q: split or of_unit[units[q]] or _by_hash(units[q], shares) for q, split in given.items()}


def _by_hash(unit: str, shares: Mapping[str, float]) -> str:
    """The split at the unit's place in [0, 1): `shares` in order from 0, train behind them."""
    point = int.from_bytes(hashlib.sha256(f"split:{unit}".encode()).digest()[:8]) / 2**64
    for split, share in shares.items():
        if point < share:
            return split
        point -= share
    return SPLITS[0]


def _units(queries: pd.DataFrame, judgments: pd.DataFrame) -> dict[str, str]:
    """What each query must not be parted from, by query id.

    A component is named after its document of smallest hash: a new document rarely changes the name.
    """
    groups = {q: group for q, group in zip(queries["query_id"], queries["group"], strict=True) if group}
    alone = set(queries["query_id"]) - groups.keys()
    relevant = judgments.loc[(judgments["grade"] > 0) & judgments["query_id"].isin(list(alone))]
    pairs = zip(relevant["query_id"], relevant["document_id"], strict=True)
    links = _connect((f"q:{query_id}", f"d:{document_id}") for query_id, document_id in pairs)
    sizes = Counter(links.get(f"q:{query_id}", "") for query_id in alone)
    most = max(_MIN_GIANT, _MAX_COMPONENT_SHARE * len(queries))
    names: dict[str, str] = {}
    for node, root in links.items():
        if node.startswith("d:"):
            names[root] = min(names.get(root, node), node, key=lambda name: hashlib.sha256(name.encode()).digest())
    units = {query_id: f"group:{group}" for query_id, group in groups.items()}
    for query_id in alone:
        root = links.get(f"q:{query_id}")
        units[query_id] = f"query:{query_id}" if root is None or sizes[root] > most else names[root]
    return units


def _connect(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Union-find: the representative of each node's connected component."""
    parents: dict[str, str] = {}

    def find(node: str) -> str:
        parents.setdefault(node, node)
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    for left, right in pairs:
        parents[find(left)] = find(right)
    return {node: find(node) for node in list(parents)}
