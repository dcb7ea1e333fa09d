"""Training examples: each training query's positives with negatives mined from its candidates and drawn at random.

Candidates that a teacher scores too close to the positive are taken for unjudged positives and left out, by a margin
relative to the positive's score (the positive-aware mining of NV-Retriever, Moreira et al., 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.cascade.calibration import probability
from models.corpus.passage_table import PassageTable
from models.corpus.pseudo_queries import hide_answers
from models.corpus.splits import sample_by_hash
from models.settings import TrainingSettings, chosen
from models.text.passage_text import passage_text

TeacherScorer = Callable[[Sequence[tuple[str, str]]], NDArray[np.floating]]
"""Scores (query, passage) pairs: [n], above 0, higher is more relevant."""

EXAMPLE_COLUMNS = ["query_id", "query", "passage_id", "passage", "label", "kind", "dense_score", "lexical_score"]

_POSITIVES = 2
"""Lists of a query, at most; as many passages of lower grades stand in a list."""

_BLOCK = 512
"""Queries mined at a time: what bounds the memory."""

_RANKS = {"hybrid": "rank", "dense": "dense_rank", "bm25": "lexical_rank"}


@dataclass(frozen=True)
class Mined:
    """Training examples and what became of the queries and candidates."""

    examples: pd.DataFrame
    queries_offered: int
    queries_used: int
    lists: int
    positives_missed: int
    false_negatives_filtered: int
    short_lists: int

    @property
    def counts(self) -> dict[str, int]:
        """The yield: queries, lists, pairs of each kind, and what was left out."""
        kinds = self.examples["kind"].value_counts()
        return {
            "queries_offered": self.queries_offered,
            "queries_used": self.queries_used,
            "lists": self.lists,
            **{f"pairs_{kind}": int(kinds.get(kind, 0)) for kind in ("positive", "graded", "hard", "random")},
            "positives_missed": self.positives_missed,
            "false_negatives_filtered": self.false_negatives_filtered,
            "lists_short_of_negatives": self.short_lists,
        }


def mine_examples(
    queries: pd.DataFrame,
    judgments: pd.DataFrame,
    candidates: pd.DataFrame,
    passages: PassageTable,
    settings: TrainingSettings,
    teacher: TeacherScorer | None = None,
) -> Mined:
    """Lists of one positive and `settings.negatives` negatives for each training query and positive document, up to
    `settings.draws` of them, each with other negatives.

    `candidates` are those of the queries (contracts.TrainingCandidates). The positive is the best ranked passage of a
    judged document; a query whose positives retrieval missed gives no list, as none would occur in serving. A list also
    has the passages of documents with a lower positive grade, labelled with it.

    Hard negatives are drawn from the first `negative_depth` ranks of each retriever of `negative_sources`,
    `negative_top_share` of them from the best third; `random_share` of the negatives come from the whole corpus and
    have no first-stage scores. Left out are candidates whose score is above that of the positive by more than
    `false_negative_margin` of it (below it, for a negative margin). The score is the cosine, or that of `teacher`.

    The first lists of all positives come first, then the second ones, which are left out where too few negatives
    remain, and so on: a teacher that was trained on the first ones has not seen the negatives of the others.

    The text of a pseudo-query is taken out of its passages (`models.corpus.pseudo_queries`). The draw depends on the
    seed and the ids alone: examples of other queries stay when queries come or go.
    """
    train = sample_by_hash(queries[queries["split"] == "train"], settings.max_queries)
    relevant = judgments[(judgments["grade"] > 0) & judgments["query_id"].isin(train["query_id"])]
    relevant = relevant[["query_id", "document_id", "grade"]]
    top_grade = max(int(judgments["grade"].max()) if len(judgments) else 1, 1)
    usable = train[train["query_id"].isin(relevant["query_id"])]
    candidates = candidates[candidates["query_id"].isin(usable["query_id"])]
    hashes = passages.read(candidates["passage_id"], ["content_hash"])
    candidates = candidates.merge(hashes, on="passage_id").merge(relevant, on=["query_id", "document_id"], how="left")
    candidates = candidates.assign(grade=candidates["grade"].fillna(0).astype(int))
    retrieved = candidates[candidates["grade"] > 0].drop_duplicates(["query_id", "document_id"])

    rows: list[pd.DataFrame] = []
    filtered = lists = 0
    for start in range(0, len(usable), _BLOCK):
        block = usable.iloc[start : start + _BLOCK].assign(order=lambda table: range(len(table)))
        mined = _mine_block(
            block, candidates[candidates["query_id"].isin(block["query_id"])], passages, settings, teacher
        )
        rows.append(mined[0].assign(list=mined[0]["list"] + lists))
        lists += int(mined[0]["list"].max()) + 1 if len(mined[0]) else 0
        filtered += mined[1]
    table = pd.concat(rows, ignore_index=True) if rows else _no_rows(candidates)
    table = table.sort_values(["draw", "list"], kind="stable", ignore_index=True)
    table["list"] = table.groupby(["draw", "list"], sort=False).ngroup()
    examples = _with_texts(table, train, passages, top_grade)
    if "kind" in train:
        examples = hide_answers(examples, train.set_index("query_id")["kind"])
    wanted = table[table["kind"].isin(["hard", "random"])].groupby("list").size()
    return Mined(
        examples=examples,
        queries_offered=len(train),
        queries_used=examples["query_id"].nunique(),
        lists=len(wanted),
        positives_missed=len(relevant) - len(retrieved),
        false_negatives_filtered=filtered,
        short_lists=int((wanted < settings.negatives).sum()),
    )


def development_lists(
    queries: pd.DataFrame, judgments: pd.DataFrame, candidates: pd.DataFrame, passages: PassageTable
) -> pd.DataFrame:
    """The candidates of the development queries with their grades, in the columns of the training examples.

    One list per query, in rank order; only queries with a relevant candidate. Sorted by the hash of the query's id, so
    that the first ones are a stable sample.
    """
    dev = queries[(queries["split"] == "dev") & queries["query_id"].isin(candidates["query_id"])]
    dev = sample_by_hash(dev, len(dev))
    graded = judgments[["query_id", "document_id", "grade"]]
    table = candidates[candidates["query_id"].isin(dev["query_id"])]
    table = table.merge(graded, on=["query_id", "document_id"], how="left").fillna({"grade": 0})
    table = table[table.groupby("query_id")["grade"].transform("max") > 0]
    places = {query_id: number for number, query_id in enumerate(dev["query_id"])}
    table = table.assign(list=table["query_id"].map(places).astype(int)).sort_values(["list", "rank"])
    table = table.assign(kind=np.where(table["grade"] > 0, "positive", "hard"))
    top_grade = max(int(judgments["grade"].max()) if len(judgments) else 1, 1)
    return _with_texts(table, dev, passages, top_grade)


def open_teacher(settings: TrainingSettings) -> TeacherScorer | None:
    """The probability of relevance by `training.false_negative_teacher`, where one is set."""
    if not settings.false_negative_teacher:
        return None
    from models.cross_encoder.scorer import CrossEncoderScorer
    from models.weights import local_weights

    folder = local_weights(settings.false_negative_teacher)
    scorer = CrossEncoderScorer.load(folder, chosen(settings.max_tokens), device=settings.device)
    return lambda pairs: probability(scorer.logits(pairs).astype(np.float64))


def _mine_block(
    queries: pd.DataFrame,
    candidates: pd.DataFrame,
    passages: PassageTable,
    settings: TrainingSettings,
    teacher: TeacherScorer | None,
) -> tuple[pd.DataFrame, int]:
    """The chosen rows of some queries by `draw` and `list`, the number of a positive, and how many candidates were
    filtered."""
    candidates = candidates.merge(queries[["query_id", "order"]], on="query_id").sort_values(["order", "rank"])
    of_relevant = candidates[candidates["grade"] > 0]
    best = of_relevant.drop_duplicates(["query_id", "document_id"])
    positives = best.groupby("query_id", sort=False).head(_POSITIVES).reset_index(drop=True)
    positives = positives.assign(list=range(len(positives)), kind="positive")
    known = positives[["query_id", "list", "passage_id", "grade"]]
    known = known.rename(columns={"passage_id": "positive_id", "grade": "positive_grade"})

    pool = candidates[candidates["grade"] == 0].assign(place=lambda table: _best_rank(table, settings))
    pool = pool[pool["place"] <= settings.negative_depth]
    pool = pool[~_pairs(pool, "content_hash").isin(_pairs(of_relevant, "content_hash"))]
    pool = pool.merge(known, on="query_id").sort_values(["list", "place", "rank"], kind="stable")
    near = _scores(pool, queries, passages, teacher)
    own = pd.Series(_scores(positives, queries, passages, teacher), index=positives["list"])
    limit = pool["list"].map(own + settings.false_negative_margin * own.abs()).to_numpy(float)
    kept = pool[near <= limit]
    filtered = len(pool) - len(kept)

    random_count = round(settings.random_share * settings.negatives)
    graded = best.merge(known, on="query_id").query("grade < positive_grade")
    graded = graded.sort_values(["list", "rank"]).groupby("list").head(_POSITIVES).assign(kind="graded")
    drawn = _draw_random(known, candidates, passages, settings.draws * random_count, settings.seed)
    turn = drawn.groupby("list").cumcount() // max(random_count, 1)
    parts = []
    for draw in range(settings.draws):
        hard = _draw(kept, settings.negatives - random_count, settings).assign(kind="hard")
        kept = kept.drop(hard.index)
        negatives = pd.concat([hard, drawn[turn == draw]], ignore_index=True)
        counts = negatives.groupby("list").size()
        taught = (
            counts.index.union(pd.Index(graded["list"])) if draw == 0 else counts.index[counts == settings.negatives]
        )
        chosen = pd.concat([positives, graded, negatives], ignore_index=True)
        parts.append(chosen[chosen["list"].isin(taught)].assign(draw=draw))
    return pd.concat(parts, ignore_index=True), filtered


def _best_rank(candidates: pd.DataFrame, settings: TrainingSettings) -> NDArray[np.float64]:
    """The best rank [n] of each candidate in the chosen retrievers; infinite where none of them found it."""
    ranks = np.stack([candidates[_RANKS[source]].to_numpy(float) for source in settings.negative_sources])
    return np.where(ranks > 0, ranks, np.inf).min(axis=0)


def _scores(
    rows: pd.DataFrame, queries: pd.DataFrame, passages: PassageTable, teacher: TeacherScorer | None
) -> NDArray[np.float64]:
    """Relevance scores [n] used to filter false negatives: the teacher's, else the cosine."""
    if teacher is None or rows.empty:
        return rows["dense_score"].to_numpy(float)
    texts = _texts(rows["passage_id"], passages)
    asked = dict(zip(queries["query_id"], queries["text"], strict=True))
    pairs = [(asked[q], texts[p]) for q, p in zip(rows["query_id"], rows["passage_id"], strict=True)]
    distinct = list(dict.fromkeys(pairs))
    scores = dict(zip(distinct, np.asarray(teacher(distinct), dtype=float).tolist(), strict=True))
    return np.array([scores[pair] for pair in pairs])


def _draw(pool: pd.DataFrame, count: int, settings: TrainingSettings) -> pd.DataFrame:
    """Draw `count` rows of each list, `negative_top_share` of them (rounded up) from the best third of its rows."""
    if pool.empty or count == 0:
        return pool.iloc[:0]
    by_list = pool.groupby("list", sort=False)
    rank_in_list, size = by_list.cumcount().to_numpy(), by_list["list"].transform("size").to_numpy()
    third = np.maximum(count, size // 3)
    lot = _lots(pool, settings.seed, "third")
    top = _first_by_lot(
        pool["list"], np.where(rank_in_list < third, lot, np.inf), ceil(settings.negative_top_share * count)
    )
    rest = np.where(top, np.inf, _lots(pool, settings.seed, "rest"))
    return pool[top | _first_by_lot(pool["list"], rest, count - ceil(settings.negative_top_share * count))]


def _first_by_lot(lists: pd.Series, lots: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    """The `count` rows of each list with the smallest lots; rows with an infinite one never."""
    order = pd.DataFrame({"list": lists.to_numpy(), "lot": lots}).groupby("list")["lot"].rank(method="first")
    return (order.to_numpy() <= count) & np.isfinite(lots)


def _lots(rows: pd.DataFrame, seed: int, purpose: str) -> NDArray[np.float64]:
    """A number in [0, 1) [n] for each row, decided by the seed and the ids of query, positive and passage."""
    ids = rows["query_id"].astype(object) + "\x1f" + rows["positive_id"].astype(object)
    ids = f"{seed}\x1f{purpose}\x1f" + ids + "\x1f" + rows["passage_id"].astype(object)
    return pd.util.hash_array(ids.to_numpy(dtype=object)) / 2.0**64


def _draw_random(
    lists: pd.DataFrame, candidates: pd.DataFrame, passages: PassageTable, count: int, seed: int
) -> pd.DataFrame:
    """Up to `count` passages from anywhere in the corpus for each list; candidates of its query are passed over."""
    repeated = lists.loc[lists.index.repeat(count)].reset_index(drop=True)
    if repeated.empty:
        return repeated.assign(kind="random", passage_id="", dense_score=np.nan).iloc[:0]
    numbered = repeated.assign(passage_id=repeated.groupby("list").cumcount().astype(str))
    places = (_lots(numbered, seed, "random") * passages.count).astype(np.int64)
    drawn = passages.at(places, ["document_id", "content_hash"])
    drawn = pd.concat([repeated, drawn], axis=1).drop_duplicates(["list", "passage_id"])
    for column in ("document_id", "content_hash"):
        drawn = drawn[~_pairs(drawn, column).isin(_pairs(candidates, column))]
    return drawn.assign(kind="random", grade=0, dense_score=np.nan, lexical_score=np.nan)


def _pairs(rows: pd.DataFrame, column: str) -> pd.Series:
    """Query and value of a column as one string, to look both up together."""
    return rows["query_id"].astype(object) + "\x1f" + rows[column].astype(object)


def _with_texts(rows: pd.DataFrame, queries: pd.DataFrame, passages: PassageTable, top_grade: int) -> pd.DataFrame:
    """The rows as training examples: with the texts of query and passage, and the grade as a label from 0 to 1."""
    texts = _texts(rows["passage_id"], passages)
    asked = dict(zip(queries["query_id"], queries["text"], strict=True))
    table = pd.DataFrame(
        {
            "query_id": rows["query_id"].tolist(),
            "query": [asked[query_id] for query_id in rows["query_id"]],
            "passage_id": rows["passage_id"].tolist(),
            "passage": [texts[passage_id] for passage_id in rows["passage_id"]],
            "label": rows["grade"].to_numpy(float) / top_grade,
            "kind": rows["kind"].tolist(),
            "dense_score": rows["dense_score"].to_numpy(float),
            "lexical_score": rows["lexical_score"].to_numpy(float),
        }
    )
    text_columns = ["query_id", "query", "passage_id", "passage", "kind"]
    return table.astype(dict.fromkeys(text_columns, "str"))[EXAMPLE_COLUMNS]


def _texts(passage_ids: pd.Series, passages: PassageTable) -> dict[str, str]:
    rows = passages.read(passage_ids, ["title", "text"])
    return dict(zip(rows["passage_id"], map(passage_text, rows["title"], rows["text"]), strict=True))


def _no_rows(candidates: pd.DataFrame) -> pd.DataFrame:
    return candidates.iloc[:0].assign(list=0, draw=0, kind="")
