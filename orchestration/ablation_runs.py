"""Ablations that need training: the lifecycle up to the evaluation, once whole and once for each changed setting.

All runs share one home of their own, so that what a setting does not change is made once, a run that was killed is gone
on with, and a second call makes nothing again. The deployment's own artifacts, records and registry stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from models.contracts.tiers import MODEL_TIERS
from models.errors import RerankOpsError
from models.store.artifacts import ArtifactStore
from orchestration.separate_runs import evaluation_in, run_to_evaluation

if TYPE_CHECKING:
    import pandas as pd

    from models.settings import Settings

_TRAINED = (*(tier.asset for tier in MODEL_TIERS), "evaluation/scored_candidates")
_ONCE = ("corpus/passages", "index/passage_embeddings", "index/lexical_index", "index/candidates")


def expected_minutes(settings: Settings, variants: int) -> float | None:
    """What so many retrained variants and the whole training take, by what the deployment's own run took; None where
    it has none."""
    store = ArtifactStore.of(settings)
    artifacts = {name: store.current(name) for name in (*_ONCE, *_TRAINED)}
    seconds = {name: artifact.manifest.seconds for name, artifact in artifacts.items() if artifact is not None}
    if len(seconds) < len(artifacts):
        return None
    return (sum(seconds[name] for name in _ONCE) + (variants + 1) * sum(seconds[name] for name in _TRAINED)) / 60


def per_query_of(
    settings: Settings,
    variants: Mapping[str, Sequence[str]],
    said: Callable[[str], None],
    common: Sequence[str] = (),
) -> dict[str, pd.DataFrame]:
    """The per-query table of each variant, a name and the settings that it changes, and of the whole one under "".

    `common` are settings of all of them. Raises `RerankOpsError` with the place of the log where a run fails.
    """
    home = settings.evaluations / "ablations"
    home.mkdir(parents=True, exist_ok=True)
    tables = {}
    for name, overrides in {"": (), **variants}.items():
        said(f"{name or 'the whole training'}: {' '.join(overrides) or 'no setting changed'}")
        _run(home, name or "whole", [*common, *overrides])
        artifact = evaluation_in(home)
        tables[name] = artifact.read_table("per_query.parquet")
        said(f"{name or 'the whole training'}: nDCG@10 {artifact.summary['ndcg_at_10_tiered']:.4f}")
    return tables


def _run(home: Path, name: str, overrides: Sequence[str]) -> None:
    log = home / f"{name.replace(' ', '-')}.log"
    with log.open("wb") as file:
        failed = run_to_evaluation(home, overrides, file)
    if failed:
        raise RerankOpsError(f"the run without {name} failed", f"Its log is {log}; correct it and call again.")
