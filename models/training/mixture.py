"""The training lists of several corpora in one order, every beginning of which is balanced.

Corpora are drawn from by their size to a power below 1 (Conneau and Lample, "Cross-lingual language model pretraining",
NeurIPS 2019; 0.5 for retrieval: Li et al., "Towards general text embeddings with multi-stage contrastive learning",
2023), so that a large one does not drown the others and a small one is not repeated. Batches are mixed: a list brings
negatives of its own, so none is told apart by its corpus.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from models.contracts.tiers import distilled_tiers
from models.retrieval.candidates import stored_query_vectors
from models.settings import PretrainingSettings, Settings, TrainingSettings
from models.store.artifacts import Artifact, ArtifactStore
from models.store.tables import write_table
from models.training.hard_negatives import EXAMPLE_COLUMNS
from models.training.leakage import held_out_queries, leaks, query_encoder, vectors_of
from models.training.steps import MIXTURE

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class HeldOut:
    """A corpus whose development and test queries nothing may repeat that trains."""

    name: str
    queries: Artifact
    evaluation_set: Artifact

    def versions(self) -> dict[str, str]:
        """The data versions of its artifacts, by the name of the corpus and theirs."""
        parts = (value for value in vars(self).values() if isinstance(value, Artifact))
        return {f"{self.name}: {artifact.asset}": artifact.data_version for artifact in parts}


@dataclass(frozen=True)
class MixedCorpus(HeldOut):
    """A corpus that trains, with the lists that were mined from it."""

    passage_embeddings: Artifact
    candidates: Artifact
    training_examples: Artifact


def make_mixture(
    store: ArtifactStore, settings: Settings, corpora: Sequence[MixedCorpus], held_out: Sequence[HeldOut] = ()
) -> Artifact:
    """What the models of a general start are trained on; `held_out` are further corpora that do not train."""
    outside = {name: version for corpus in (*corpora, *held_out) for name, version in corpus.versions().items()}
    build = partial(mix, corpora, held_out, _pairs(settings), settings.pretraining, settings.training)
    return MIXTURE.get_or_create(store, settings, build, outside=outside)


def _pairs(settings: Settings) -> int:
    """Pairs that the trainings of all models read together."""
    counts = settings.pretraining.model_dump()
    return settings.pretraining.pairs + sum(counts[f"{tier.name}_pairs"] for tier in distilled_tiers(settings.tiers))


def mix(
    corpora: Sequence[MixedCorpus],
    held_out: Sequence[HeldOut],
    pairs: int,
    settings: PretrainingSettings,
    training: TrainingSettings,
    folder: Path,
) -> dict[str, Any]:
    """Write training_examples.parquet, as many lists as make `pairs`, and excluded_queries.parquet; return the
    counts of each corpus.

    Ids begin with the name of their corpus. A query that nearly repeats a development or test query of another corpus
    is left out; those of its own corpus were left out when its lists were mined. logged_lists.parquet and
    development_lists.parquet are empty: no development query is looked at.
    """
    excluded = _repeating(corpora, held_out, training)
    lists = {corpus.name: _lists(corpus, excluded) for corpus in corpora}
    order = balanced_order({name: len(table) for name, table in lists.items()}, settings.size_exponent)
    sizes = np.concatenate([lists[corpus.name]["pairs"].to_numpy() for corpus in corpora])[order]
    before = np.cumsum(sizes) - sizes
    chosen = order[before < pairs]
    mixed_place = np.full(len(order), -1)
    mixed_place[chosen] = np.arange(len(chosen))
    tables, counts, start = [], {}, 0
    for corpus in corpora:
        offered = lists[corpus.name]
        own = offered.assign(place=mixed_place[start : start + len(offered)])
        start += len(offered)
        own = own[own["place"] >= 0]
        tables.append(_rows(corpus, own))
        counts[corpus.name] = {
            "lists_offered": len(offered),
            "lists": len(own),
            "pairs": int(own["pairs"].sum()),
            "queries_repeating_other_corpora": int(excluded["query_id"].str.startswith(f"{corpus.name}/").sum()),
        }
    table = pd.concat(tables).sort_values("place", kind="stable", ignore_index=True)
    write_table(table[EXAMPLE_COLUMNS], folder / "training_examples.parquet")
    write_table(table[EXAMPLE_COLUMNS].iloc[:0], folder / "development_lists.parquet")
    write_table(table[["query_id", "query", "passage_id", "passage"]].iloc[:0], folder / "logged_lists.parquet")
    write_table(excluded, folder / "excluded_queries.parquet")
    return {"dagster/row_count": len(table), "lists": len(chosen), "corpora": counts}


def balanced_order(sizes: Mapping[str, int], exponent: float) -> NDArray[np.int64]:
    """The places [n] of the lists of several corpora, laid end to end, in the order in which they train.

    Among the first lists of the order those of a corpus of s lists have a share in proportion to s ** `exponent`, up to
    where one has no more; the others share what it leaves. The lists of a corpus stay in their order.
    """
    counts = np.array([*sizes.values()], dtype=np.float64)
    weights = counts**exponent / np.maximum((counts**exponent).sum(), 1)
    # The k-th list of a corpus is due when (k + 1/2) / weight lists have been drawn (stride scheduling).
    due = [(np.arange(count) + 0.5) / weight for count, weight in zip(counts.astype(int), weights, strict=True)]
    return np.argsort(np.concatenate([np.empty(0), *due]), kind="stable")


def _repeating(corpora: Sequence[MixedCorpus], held_out: Sequence[HeldOut], settings: TrainingSettings) -> pd.DataFrame:
    """The training queries that nearly repeat one held out of another corpus, rows of `contracts.ExcludedQueries`."""
    stored = {name: row for corpus in corpora for name, row in stored_query_vectors(corpus.candidates.folder).items()}
    encode = query_encoder(corpora[0].passage_embeddings)
    evaluated = [
        held_out_queries(corpus.queries, corpus.evaluation_set).assign(corpus=corpus.name)
        for corpus in (*corpora, *held_out)
    ]
    others = pd.concat(evaluated, ignore_index=True)
    others = others.assign(query_id=others["corpus"] + "/" + others["query_id"])
    vectors = vectors_of(others["text"].tolist(), stored, encode)
    tables = []
    for corpus in corpora:
        queries = corpus.training_examples.read_table("training_examples.parquet", ["query_id", "query"])
        queries = queries.drop_duplicates().rename(columns={"query": "text"})
        queries = queries.assign(query_id=f"{corpus.name}/" + queries["query_id"])
        apart = (others["corpus"] != corpus.name).to_numpy()
        own = vectors_of(queries["text"].tolist(), stored, encode)
        overlap, cosine = settings.leak_overlap, settings.leak_cosine
        tables.append(leaks(queries, others[apart], own, vectors[apart], overlap, cosine))
    return pd.concat(tables, ignore_index=True)


def _lists(corpus: MixedCorpus, excluded: pd.DataFrame) -> pd.DataFrame:
    """The lists of a corpus that may train: `start`, the place of its first row, and `pairs`, the rows."""
    rows = corpus.training_examples.read_table("training_examples.parquet", ["query_id", "kind"])
    starts = np.flatnonzero((rows["kind"] == "positive").to_numpy())
    lists = pd.DataFrame({"start": starts, "pairs": np.diff(np.append(starts, len(rows)))})
    asked = f"{corpus.name}/" + rows["query_id"].iloc[starts]
    return lists[~asked.isin(excluded["query_id"]).to_numpy()].reset_index(drop=True)


def _rows(corpus: MixedCorpus, lists: pd.DataFrame) -> pd.DataFrame:
    """The rows of these lists, each with the `place` of its list."""
    pairs = lists["pairs"].to_numpy()
    within = np.arange(pairs.sum()) - np.repeat(np.cumsum(pairs) - pairs, pairs)
    table = corpus.training_examples.read_table("training_examples.parquet")
    table = table.iloc[np.repeat(lists["start"].to_numpy(), pairs) + within]
    ids = {name: f"{corpus.name}/" + table[name] for name in ("query_id", "passage_id")}
    return table.assign(**ids, place=np.repeat(lists["place"].to_numpy(), pairs))
