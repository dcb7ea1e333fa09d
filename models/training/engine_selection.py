"""What computes the logits of a cross-encoder, built to rank as the model does: PyTorch in bfloat16 or int8 or ONNX
Runtime (int8, fp32) on a CPU, PyTorch on a GPU (docs/decisions/0009, 0027).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from models.corpus.splits import sample_by_hash
from models.cross_encoder.bfloat16 import Bfloat16Scorer, has_tiles, multiplies_bfloat16
from models.cross_encoder.candidate_scores import candidate_pairs
from models.cross_encoder.engines import Kind, LoadedEngine, OnnxScorer, require_bfloat16
from models.cross_encoder.int8 import SMOOTHING, Int8Scorer, calibrate, packs
from models.cross_encoder.onnx_session import FACTS, MODEL
from models.cross_encoder.pairwise import Progress
from models.cross_encoder.scorer import CrossEncoderScorer, resolve_device
from models.errors import ArtifactError, ExportError
from models.evaluation.evaluation_set import split_of
from models.measures.metrics import collapse_to_documents, evaluate_run
from models.settings import EngineSettings, chosen
from models.store.durable_files import canonical_json
from models.training.steps import SCORING_ENGINES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.settings import Settings
    from models.store.artifacts import Artifact, ArtifactStore

_TOP = 10
_CALIBRATION_QUERIES, _CALIBRATION_PAIRS = 8, 64
_TIMED_PAIRS = 64
_ONE_SIDED = 1.645
"""Standard errors within which a mean of chance is below 0 nineteen times in twenty."""


@dataclass(frozen=True)
class Parity:
    """How far an engine's scores are from those of PyTorch in float32, over the candidates of some queries."""

    queries: int
    pairs: int
    largest_difference: float
    """Of two logits."""

    kendall_tau: float
    """Mean over the queries (Kendall, 1938)."""

    top_10_overlap: float
    """Mean share of the best ten that is among the other's best ten."""

    ndcg_change: float
    """nDCG@10 of the ranking by the engine's logits less that by the reference's."""

    ndcg_error: float = 0.0
    """Standard error of that mean over the queries."""

    def accepted(self, settings: EngineSettings) -> bool:
        """Whether it is within the limits of the settings.

        Rounding turns near ties around, for the better as often as for the worse, and one that costs a query its first
        place moves the mean of 60 by .006. So a loss counts where it is more than chance (one-sided, 95 %).
        """
        lost = -self.ndcg_change
        little = lost <= settings.max_ndcg_loss or lost <= _ONE_SIDED * self.ndcg_error
        return self.kendall_tau >= settings.min_kendall_tau and little


@dataclass(frozen=True)
class ParitySample:
    """Candidates of some judged queries: `pairs` are the texts of the rows of `candidates`."""

    pairs: Sequence[tuple[str, str]]
    candidates: pd.DataFrame
    judgments: pd.DataFrame
    calibration: Sequence[tuple[str, str]]
    """Some pairs for which int8 is smoothed."""


def parity_sample(
    candidates: pd.DataFrame, queries: pd.DataFrame, passages: pd.DataFrame, judgments: pd.DataFrame, count: int
) -> ParitySample:
    """The candidates of the `count` of `queries` with the smallest hash of their id.

    Pairs for calibration are of the next few, and of the same where there are no more.
    """
    sampled = sample_by_hash(queries, count + _CALIBRATION_QUERIES)
    chosen, others = sampled[:count], sampled[count:]
    table, pairs = _candidates_of(chosen, candidates, passages)
    calibration = _candidates_of(others, candidates, passages)[1] if len(others) else pairs
    some = calibration[:: max(len(calibration) // _CALIBRATION_PAIRS, 1)][:_CALIBRATION_PAIRS]
    return ParitySample(pairs, table, judgments[judgments["query_id"].isin(chosen["query_id"])], some)


def _candidates_of(
    queries: pd.DataFrame, candidates: pd.DataFrame, passages: pd.DataFrame
) -> tuple[pd.DataFrame, Sequence[tuple[str, str]]]:
    table = candidates[candidates["query_id"].isin(queries["query_id"])].reset_index(drop=True)
    return table, candidate_pairs(table, queries, passages)


def compare(reference: NDArray[np.float32], logits: NDArray[np.float32], sample: ParitySample) -> Parity:
    """Compare logits [pairs] of two engines query by query."""
    from scipy.stats import kendalltau

    taus, overlaps = [], []
    for rows in sample.candidates.groupby("query_id").indices.values():
        first, second = reference[rows], logits[rows]
        if len(rows) > 1:
            tau, _ = kendalltau(first, second)
            taus.append(float(np.asarray(tau)))
        best = [set(np.argsort(-scores, kind="stable")[:_TOP].tolist()) for scores in (first, second)]
        overlaps.append(len(best[0] & best[1]) / len(best[0]))
    changes = _ndcg(logits, sample) - _ndcg(reference, sample)
    return Parity(
        queries=len(overlaps),
        pairs=len(reference),
        largest_difference=float(np.abs(reference - logits).max(initial=0.0)),
        kendall_tau=float(np.nanmean(taus)) if taus else 1.0,
        top_10_overlap=float(np.mean(overlaps)) if overlaps else 1.0,
        ndcg_change=float(changes.mean()),
        ndcg_error=float(changes.std(ddof=1) / np.sqrt(len(changes))) if len(changes) > 1 else 0.0,
    )


def _ndcg(scores: NDArray[np.float32], sample: ParitySample) -> pd.Series:
    """nDCG@10 of each judged query."""
    table = sample.candidates
    ranked = table.assign(rank=(-pd.Series(scores)).groupby(table["query_id"]).rank(method="first").astype(int))
    measured = evaluate_run(collapse_to_documents(ranked), sample.judgments, ["nDCG@10"])
    return measured.set_index("query_id")["value"]


def build_engines(
    models: Mapping[str, Path],
    max_tokens: int,
    device: str,
    settings: EngineSettings,
    sample: ParitySample,
    folder: Path,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write an engine of each of `models` (tier to folder) below `folder`; return the facts by tier, flat.

    `auto` is PyTorch on a GPU; elsewhere what is faster of bf16 (where the CPU multiplies it) and int8, of those that
    the model can be written as and that are within the limits, else fp32, else PyTorch: `refused` says why. Raises
    `ArtifactError` when what the settings ask for is not.
    """
    facts: dict[str, Any] = {}
    for number, (tier, model) in enumerate(models.items(), start=1):
        chosen = build_engine(model, max_tokens, device, settings, sample, folder / tier)
        facts |= {f"{tier}_{name}": value for name, value in chosen.items()}
        if progress is not None:
            progress(number, len(models))
    return facts


def build_engine(
    model: Path, max_tokens: int, device: str, settings: EngineSettings, sample: ParitySample, folder: Path
) -> dict[str, Any]:
    """Write the engine of one model to `folder`; return its kind, bytes and parity."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = _wanted(settings, device)
    if kinds == ("torch",):
        write_facts(folder, "torch")
        return {"kind": "torch"}
    pytorch = CrossEncoderScorer.load(model, max_tokens)
    reference, timed = pytorch.logits(sample.pairs), sample.pairs[:_TIMED_PAIRS]
    refused: list[str] = []
    accepted: dict[Kind, tuple[float, Parity]] = {}
    for kind in kinds:
        if accepted and (kind == "fp32" or not packs(pytorch)):
            break
        try:
            engine = make_engine(kind, model, folder, max_tokens, sample.calibration)
        except ExportError as error:
            refused.append(f"{kind}: {error}")
            continue
        # Not every CPU has products of 8 bits; oneDNN's own, number by number, take a hundred times as long.
        if settings.kind == "auto" and isinstance(engine, Int8Scorer) and _slower(engine, pytorch, timed):
            refused.append(f"{kind}: slower than PyTorch in float32")
            continue
        parity = compare(reference, engine.logits(sample.pairs), sample)
        if parity.accepted(settings):
            accepted[kind] = _seconds(engine, timed), parity
        else:
            refused.append(f"{kind}: Kendall's tau {parity.kendall_tau:.3f}, nDCG@10 {parity.ndcg_change:+.4f}")
    if accepted:
        fastest = min(accepted, key=lambda kind: accepted[kind][0])
        _keep_files_of(fastest, folder)
        size = sum(file.stat().st_size for file in folder.iterdir() if file.name in (MODEL, SMOOTHING))
        write_facts(folder, fastest)
        return {"kind": fastest, "bytes": size, **asdict(accepted[fastest][1]), **_why(refused)}
    if settings.kind == "auto":
        _keep_files_of("torch", folder)
        write_facts(folder, "torch")
        return {"kind": "torch", **_why(refused)}
    raise ArtifactError(
        f"no engine of the {folder.name} model ranks as the model does ({'; '.join(refused)})",
        "Set engine.kind to fp32 or torch, or engine.min_kendall_tau and engine.max_ndcg_loss to what you accept.",
    )


def _why(refused: Sequence[str]) -> dict[str, str]:
    """What no engine of a faster kind was taken for."""
    return {"refused": "; ".join(refused)} if refused else {}


def _slower(engine: LoadedEngine, other: LoadedEngine, pairs: Sequence[tuple[str, str]]) -> bool:
    few = pairs[: _TIMED_PAIRS // 8]  # enough for a hundred times as long
    if _seconds(engine, few, 1) > 10 * _seconds(other, few):
        return True
    return _seconds(engine, pairs) > _seconds(other, pairs)


def _seconds(engine: LoadedEngine, pairs: Sequence[tuple[str, str]], runs: int = 3) -> float:
    """The shortest of some runs."""
    encoded, seconds = engine.encode(pairs), []
    for _ in range(runs):
        started = perf_counter()
        engine.logits_of(encoded)
        seconds.append(perf_counter() - started)
    return min(seconds)


def _keep_files_of(kind: Kind, folder: Path) -> None:
    """Remove what other kinds left in `folder`."""
    if kind != "int8":
        (folder / SMOOTHING).unlink(missing_ok=True)
    if kind not in ("int8", "fp32") or (folder / SMOOTHING).exists():
        for file in folder.iterdir():
            if file.name != SMOOTHING:
                file.unlink()


def export_model(model: Path, folder: Path, kind: Kind) -> None:
    """Write model.onnx and the tokenizer of a model of `models.cross_encoder.scorer` to `folder`.

    Raises `ExportError` for a model that is no graph of ONNX.
    """
    from models.cross_encoder.onnx_export import export

    scorer = CrossEncoderScorer.load(model, max_tokens=2)
    export(scorer.model, scorer.tokenizer.inputs, folder / MODEL, int8=kind == "int8")
    scorer.tokenizer.save(folder)


def write_facts(folder: Path, kind: Kind) -> None:
    """Say which kind the engine in `folder` is."""
    (folder / FACTS).write_bytes(canonical_json({"kind": kind}))


def _wanted(settings: EngineSettings, device: str) -> tuple[Kind, ...]:
    if settings.kind == "auto":
        if resolve_device(device) != "cpu":
            return ("torch",)
        return ("bf16", "int8", "fp32") if multiplies_bfloat16() else ("int8", "fp32")
    if settings.kind == "bf16":
        require_bfloat16("scoring")
    return (settings.kind,)


def make_engine(
    kind: Kind, model: Path, folder: Path, max_tokens: int, calibration: Sequence[tuple[str, str]]
) -> Bfloat16Scorer | Int8Scorer | OnnxScorer:
    """An engine of a model. What it needs is written to `folder`; int8 is smoothed for pairs of `calibration`."""
    if kind == "bf16":
        return Bfloat16Scorer.load(model, max_tokens)
    if kind == "int8":
        scorer = CrossEncoderScorer.load(model, max_tokens)
        if packs(scorer):
            calibrate(scorer, calibration, folder)
            return Int8Scorer.load(model, folder, max_tokens)
    export_model(model, folder, kind)
    return OnnxScorer.load(folder, max_tokens)


def make_scoring_engines(
    store: ArtifactStore,
    settings: Settings,
    passages: Artifact,
    candidates: Artifact,
    evaluation_set: Artifact,
    rerankers: Mapping[str, Artifact],
    progress: Progress | None = None,
) -> Artifact:
    """The engines of all models for this machine; `rerankers` are these by tier."""
    sampled = (passages, candidates, evaluation_set)
    return SCORING_ENGINES.get_or_create(
        store,
        settings,
        partial(select_engines, *sampled, rerankers, settings, progress),
        inputs=(*sampled, *rerankers.values()),
        # Scores of other instructions differ by rounding.
        outside={
            "device": resolve_device(settings.training.device),
            "bfloat16": str(multiplies_bfloat16()),
            "tiles": str(has_tiles()),
        },
    )


def select_engines(
    passages: Artifact,
    candidates: Artifact,
    evaluation_set: Artifact,
    rerankers: Mapping[str, Artifact],
    settings: Settings,
    progress: Progress | None,
    folder: Path,
) -> dict[str, Any]:
    """`build_engines` into `folder`, held against the models on candidates of development queries."""
    dev, judgments = split_of(evaluation_set, "dev")
    sample = parity_sample(
        candidates.read_table("candidates.parquet"),
        dev,
        passages.read_table("passages.parquet", ["passage_id", "title", "text"]),
        judgments,
        settings.engine.parity_queries,
    )
    return build_engines(
        {tier: artifact.folder for tier, artifact in rerankers.items()},
        chosen(settings.training.max_tokens),
        settings.training.device,
        settings.engine,
        sample,
        folder,
        progress,
    )
