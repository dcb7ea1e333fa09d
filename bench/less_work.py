"""What less work in the large model costs in quality: tokens dropped, exits between layers, layers made at index time.

`python -m bench.less_work` asks the current deployment (RERANKOPS_HOME) on its development queries, without training:

- drop: behind a layer only the share of the passage's tokens goes on that the query's tokens look at most;
- exit: all candidates are read up to a layer, a ridge regression of the whole model's logit on the pooled states there
  orders them, and the best few are read to the end;
- split: up to a layer query and passage do not see each other, so that the passage's states are made at index time
  (PreTTR, MacAvaney et al. 2020);
- first: the whole model on the best few of the first stage, the cascade's own way to do less.

Scores are fitted on one half of the queries and judged on the other, and the other way round. Adds nDCG@10 and the work
of each, as a share of the operations of reading all candidates, to docs/benchmarks/less_work.json, with a plot.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import gelu, scaled_dot_product_attention

from bench.cascade import ranked
from bench.engines import corpus_name
from bench.folders import FIGURES
from bench.results import merge_into
from models.cascade.calibration import candidate_inputs, fit_calibration
from models.contracts.tiers import LAST
from models.corpus.splits import sample_by_hash
from models.cross_encoder.architecture import halve, open_cross_encoder, transformer
from models.cross_encoder.candidate_scores import candidate_pairs
from models.cross_encoder.flops import pair_flops
from models.cross_encoder.pair_tokenizer import EncodedPair, PairTokenizer
from models.evaluation.evaluation_set import split_of
from models.measures.metrics import MAIN_MEASURE, collapse_to_documents, evaluate_run
from models.settings import chosen, load_settings
from models.store.artifacts import ArtifactStore
from models.text.markdown import table_lines
from models.training.corpus_defaults import settings_in_force

RESULTS = FIGURES / "less_work.json"
_BATCH = 64
_DROPS = tuple((layer, share) for layer in (1, 2, 3, 4) for share in (0.25, 0.5, 0.75))
_EXITS, _KEPT = (1, 2, 3, 4), (5, 10, 20)
_SPLITS = (1, 2, 3, 4)
_FIRST = (2, 5, 10, 15, 20, 30, 40)
_RIDGE = 10.0


@dataclass
class Readings:
    """What the model says of each pair: logits of whole and altered readings, pooled states by layer, and the work of
    each reading as operations."""

    logits: dict[str, np.ndarray]
    states: dict[int, np.ndarray]
    flops: dict[str, np.ndarray]


def main() -> None:
    """Measure, print, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=240, help="development queries, at most")
    options = parser.parse_args()
    settings = load_settings()
    store = ArtifactStore.of(settings)
    settings = settings_in_force(store, settings)
    queries, judgments = split_of(store.require("corpus/evaluation_set"), "dev")
    queries = sample_by_hash(queries, options.queries)
    scored = store.require("evaluation/scored_candidates").read_table("scored.parquet")
    table = scored[scored["query_id"].isin(queries["query_id"])].reset_index(drop=True)
    judgments = judgments[judgments["query_id"].isin(queries["query_id"])]
    passages = store.require("corpus/passages").read_table("passages.parquet", ["passage_id", "title", "text"])
    folder = store.require(LAST.asset).folder
    sharing = table.groupby("query_id")["passage_id"].transform("count").to_numpy()
    pairs = candidate_pairs(table, queries, passages)
    readings = read(folder, pairs, chosen(settings.training.max_tokens), sharing)
    points = measured(table, judgments, queries["query_id"].tolist(), readings)
    merge_into(RESULTS, {corpus_name(settings): {"queries": len(queries), "pairs": len(table), "points": points}}, 1)
    plot(points, FIGURES / "images" / "less-work.png")
    rows = [(name, f"{point['work']:.3f}", f"{point['ndcg']:.4f}") for name, point in points.items()]
    print("\n".join(table_lines(("reading", "work", "nDCG@10"), rows)))


@torch.inference_mode()
def read(folder: Any, pairs: list[tuple[str, str]], max_tokens: int, sharing: np.ndarray) -> Readings:
    """Every reading of every pair, in bfloat16 with the head in float32. As many pairs as `sharing` says have a pair's
    query: what is read of it alone is read once for them."""
    model = open_cross_encoder(folder, "cpu").eval()
    halve(model)
    tokenizer = PairTokenizer.load(folder, max_tokens)
    encoded, config = tokenizer.encode(pairs), transformer(model).config
    reader = _Reader(model)
    names = ("whole", *(_drop_name(*drop) for drop in _DROPS), *(_split_name(layer) for layer in _SPLITS))
    logits = {name: np.zeros(len(pairs)) for name in names}
    flops = {name: np.zeros(len(pairs)) for name in (*names, *(_exit_name(layer) for layer in _EXITS))}
    states = {layer: np.zeros((len(pairs), 2 * config.hidden_size), dtype=np.float32) for layer in _EXITS}
    order = sorted(range(len(encoded)), key=lambda place: len(encoded[place]))
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        batch = _Batch.of(tokenizer, [encoded[row] for row in rows], reader.separator)
        lower = [reader.embedded(batch)]
        for layer in range(reader.count):
            lower.append(reader.layer(layer, lower[-1], batch.seen))
        logits["whole"][rows] = reader.head(lower[-1], batch.ids, batch.mask).numpy()
        for layer in _EXITS:
            states[layer][rows] = reader.features(lower[layer], batch).numpy()
        for layer, share in _DROPS:
            kept = batch.without(reader.looks(layer - 1, lower[layer - 1], batch), share)
            upper = lower[layer].gather(1, kept.places[..., None].expand(-1, -1, lower[layer].shape[-1]))
            for number in range(layer, reader.count):
                upper = reader.layer(number, upper, kept.seen)
            logits[_drop_name(layer, share)][rows] = reader.head(upper, kept.ids, kept.mask).numpy()
        for layer in _SPLITS:
            split = lower[0]
            for number in range(reader.count):
                split = reader.layer(number, split, batch.apart if number < layer else batch.seen)
            logits[_split_name(layer)][rows] = reader.head(split, batch.ids, batch.mask).numpy()
        for row, length, asked in zip(rows, batch.mask.sum(1).tolist(), batch.in_query.sum(1).tolist(), strict=True):
            whole = pair_flops(config, length)
            layers = reader.count
            flops["whole"][row] = whole
            for layer, share in _DROPS:
                fewer = asked + round(share * (length - asked))
                flops[_drop_name(layer, share)][row] = (
                    layer * whole + (layers - layer) * pair_flops(config, fewer)
                ) / layers
            for layer in _SPLITS:
                query = pair_flops(config, asked) / sharing[row]
                flops[_split_name(layer)][row] = (layer * query + (layers - layer) * whole) / layers
            for layer in _EXITS:
                flops[_exit_name(layer)][row] = layer * whole / layers
        print(f"{start + len(rows)} of {len(order)} pairs", end="\r", flush=True)
    return Readings(logits, states, flops)


def measured(table: pd.DataFrame, judgments: pd.DataFrame, ids: Sequence[str], readings: Readings) -> dict[str, Any]:
    """nDCG@10 and share of work of each reading."""
    values: dict[str, list[float]] = {}
    work: dict[str, list[float]] = {}
    for fitted, judged in (_halves(table, ids), _halves(table, ids)[::-1]):

        def combined(logits: np.ndarray, fitted: np.ndarray = fitted, judged: np.ndarray = judged) -> np.ndarray:
            scored = table.assign(**{LAST.logit_column: logits})
            calibration = fit_calibration(scored[fitted], _of(judgments, scored[fitted]))
            return calibration.tiers[LAST.name].logits(candidate_inputs(scored[judged]))

        whole_flops = readings.flops["whole"][judged]
        part, asked = table[judged], whole_flops.sum()
        lean = (
            fit_calibration(table[fitted], _of(judgments, table[fitted])).tiers["lean"].logits(candidate_inputs(part))
        )
        whole_scores = combined(readings.logits["whole"])

        def add(
            name: str, scores: np.ndarray, operations: float, part: pd.DataFrame = part, asked: float = asked
        ) -> None:
            values.setdefault(name, []).extend(_values(part, scores, judgments))
            work.setdefault(name, []).append(operations / asked)

        add("lean", lean, 0.0)
        for name, logits in readings.logits.items():
            add(name, whole_scores if name == "whole" else combined(logits), readings.flops[name][judged].sum())
        for count in _FIRST:
            best = _best(part, lean, count)
            add(
                f"first {count}",
                np.where(best, whole_scores + _ABOVE, lean),
                whole_flops[best].sum(),
            )
        for layer in _EXITS:
            guess = _ridge(readings.states[layer], readings.logits["whole"], fitted)
            ordered = combined(guess)
            for count in _KEPT:
                best = _best(part, ordered, count)
                rest = whole_flops - readings.flops[_exit_name(layer)][judged]
                operations = readings.flops[_exit_name(layer)][judged].sum() + rest[best].sum()
                add(f"exit at {layer}, {count} go on", np.where(best, whole_scores + _ABOVE, ordered), operations)
    return {
        name: {"ndcg": round(float(np.mean(values[name])), 4), "work": round(float(np.mean(work[name])), 4)}
        for name in values
    }


_ABOVE = 1000.0
"""Logits by which what was read to the end stands above the rest."""


def plot(points: dict[str, Any], path: Any) -> None:
    """Draw nDCG@10 against work."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    for kind, colour in (("first", "#d55e00"), ("drop", "#0072b2"), ("exit", "#009e73"), ("split", "#cc79a7")):
        chosen_points = [point for name, point in points.items() if name.startswith(kind)]
        ends = [points["lean"], points["whole"]] if kind == "first" else []
        line = sorted([*chosen_points, *ends], key=lambda point: point["work"])
        style = "o-" if kind == "first" else "D"
        axes.plot([p["work"] for p in line], [p["ndcg"] for p in line], style, color=colour, label=_LABELS[kind], ms=4)
    axes.set(xlabel="operations, all candidates read whole = 1", ylabel="nDCG@10, development queries")
    axes.grid(color="#e4e7eb")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


_LABELS = {
    "first": "whole model on the first few",
    "drop": "passage tokens dropped behind a layer",
    "exit": "exit between layers",
    "split": "lower layers made at index time, not trained for it",
}


@dataclass
class _Batch:
    ids: Tensor
    types: Tensor
    mask: Tensor
    in_query: Tensor
    places: Tensor

    @classmethod
    def of(cls, tokenizer: PairTokenizer, pairs: list[EncodedPair], separator: int) -> _Batch:
        padded = tokenizer.pad(pairs)
        ids, mask = padded["input_ids"], padded["attention_mask"].bool()
        ended = (ids == separator).long().cumsum(1)
        in_query = mask & ((ended == 0) | ((ended == 1) & (ids == separator)))
        return cls(ids, padded.get("token_type_ids", torch.zeros_like(ids)), mask, in_query, torch.arange(ids.shape[1]))

    @property
    def seen(self) -> Tensor:
        return self.mask[:, None, None, :]

    @property
    def apart(self) -> Tensor:
        same = self.in_query[:, :, None] == self.in_query[:, None, :]
        return (same & self.mask[:, None, :])[:, None]

    def without(self, looks: Tensor, share: float) -> _Batch:
        """The query's tokens, and the share of the passage's with the most of `looks` [pairs, tokens]."""
        passage = self.mask & ~self.in_query
        counts = (share * passage.sum(1)).round().long()
        ranks = looks.masked_fill(~passage, -torch.inf).argsort(dim=1, descending=True).argsort(dim=1)
        kept = self.in_query | (passage & (ranks < counts[:, None]))
        most = int(kept.sum(1).max())
        places = (~kept).long().argsort(dim=1, stable=True)[:, :most]
        return _Batch(
            self.ids.gather(1, places), self.types.gather(1, places), kept.gather(1, places),
            self.in_query.gather(1, places), places,
        )  # fmt: skip


class _Reader:
    """BERT's layers one by one, with any mask."""

    def __init__(self, model: Any) -> None:
        base = transformer(model).base_model
        self._embeddings, self._layers, self._head = base.embeddings, base.encoder.layer, model[-1]
        self.count, self._heads = len(self._layers), base.config.num_attention_heads
        self.separator = self._head.separator_id

    def embedded(self, batch: _Batch) -> Tensor:
        return self._embeddings(input_ids=batch.ids, token_type_ids=batch.types)

    def _projected(self, number: int, states: Tensor) -> list[Tensor]:
        attention = self._layers[number].attention.self
        return [
            layer(states).unflatten(-1, (self._heads, -1)).transpose(1, 2)
            for layer in (attention.query, attention.key, attention.value)
        ]

    def layer(self, number: int, states: Tensor, seen: Tensor) -> Tensor:
        layer, projected = self._layers[number], self._projected(number, states)
        context = scaled_dot_product_attention(*projected, attn_mask=seen).transpose(1, 2).flatten(2)
        out = layer.attention.output
        states = out.LayerNorm(out.dense(context) + states)
        return layer.output.LayerNorm(layer.output.dense(gelu(layer.intermediate.dense(states))) + states)

    def looks(self, number: int, states: Tensor, batch: _Batch) -> Tensor:
        """How much the query's tokens look at each token in a layer, all heads together; float32 [pairs, tokens]."""
        query, key, _ = self._projected(number, states)
        scores = (query.float() @ key.float().transpose(2, 3)) / query.shape[-1] ** 0.5
        weights = scores.masked_fill(~batch.seen, -torch.inf).softmax(-1)
        return (weights * batch.in_query[:, None, :, None]).sum((1, 2))

    def head(self, states: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        return self._head.score(states, ids, mask)

    def features(self, states: Tensor, batch: _Batch) -> Tensor:
        query, passage, first = self._head.pooled(states, batch.ids, batch.mask)
        return torch.cat([query * passage, first], 1)


def _ridge(states: np.ndarray, logits: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """The logit by a linear function of the states, fitted on some rows."""
    centre, spread = states[fitted].mean(0), states[fitted].std(0) + 1e-6
    inputs = np.concatenate([(states - centre) / spread, np.ones((len(states), 1))], axis=1)
    rows = inputs[fitted]
    weights = np.linalg.solve(rows.T @ rows + _RIDGE * np.eye(rows.shape[1]), rows.T @ logits[fitted])
    return inputs @ weights


def _halves(table: pd.DataFrame, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    first = table["query_id"].isin(list(ids)[::2]).to_numpy()
    return first, ~first


def _best(table: pd.DataFrame, scores: np.ndarray, count: int) -> np.ndarray:
    """Whether a row is among the best of its query."""
    return ranked(table, scores)["rank"].to_numpy() <= count


def _values(table: pd.DataFrame, scores: np.ndarray, judgments: pd.DataFrame) -> list[float]:
    ranking = collapse_to_documents(ranked(table, scores))
    return evaluate_run(ranking, _of(judgments, table), [MAIN_MEASURE])["value"].tolist()


def _of(judgments: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    return judgments[judgments["query_id"].isin(table["query_id"])]


def _drop_name(layer: int, share: float) -> str:
    return f"drop behind {layer}, {share:.2f} stay"


def _split_name(layer: int) -> str:
    return f"split up to {layer}"


def _exit_name(layer: int) -> str:
    return f"exit at {layer}"


if __name__ == "__main__":
    main()
