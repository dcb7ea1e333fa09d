"""A bundle evaluated without training: on its own test queries, or on any judged corpus, which is read, indexed,
retrieved from and scored.

All of that is made in a store of its own, `<home>/evaluations`, under the versions of what it was made from, so that a
second call makes only what is new and the deployment's own artifacts stay as they are. `rerankops gc` deletes what no
recent call has used; the folder may be deleted too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from models.cascade.offline import pairs_per_query, rerank
from models.contracts.tiers import FIRST_STAGES
from models.errors import ContractError
from models.evaluation.assessment import Assessment, assess
from models.measures.query_seconds import system_seconds
from models.measures.trec_runs import ImportedRun
from models.operations.judged_corpus import JudgedCorpus
from models.release.bundle import Bundle
from models.settings import Settings
from models.store.artifacts import Artifact

if TYPE_CHECKING:
    from models.release.lookup import NamedBundle


def evaluate_bundle(
    bundle: Artifact, corpus: JudgedCorpus, settings: Settings, runs: Sequence[ImportedRun] = ()
) -> Assessment:
    """Every first stage and tier of the bundle on a judged corpus, and imported runs beside them.

    Raises `ContractError` where a run has the name of a system or of another run.
    """
    opened = Bundle.open(bundle)
    tiers, calibration = opened.facts.settings.tiers, opened.calibration
    given = corpus.scored[corpus.scored["given"]]
    rankings = {
        **{str(name): rows.drop(columns="system") for name, rows in corpus.first_stages.groupby("system")},
        **rerank(given, calibration, tiers),
    }
    for run in runs:
        if run.name in rankings:
            raise ContractError(f"there is a system {run.name} already", "Give the run another name: --run FILE:NAME.")
        rankings[run.name] = run.ranking
    pair = {tier.name: corpus.seconds[f"pair_{tier.name}"] for tier in calibration.models}
    first = {name: corpus.seconds[name] for name in FIRST_STAGES}
    pairs = pairs_per_query(rankings["tiered"], calibration.early_exit)
    seconds = system_seconds(pair, first, len(given) / len(corpus.queries), pairs)
    return assess(
        rankings,
        corpus.first_stages,
        corpus.scored,
        corpus.queries,
        corpus.judgments,
        corpus.passages,
        calibration,
        tiers,
        seconds,
        corpus.facts["candidates"],
        settings.evaluation,
        [run.name for run in runs],
    )


def evaluation_page(bundle: NamedBundle, corpus: JudgedCorpus, assessment: Assessment, settings: Settings) -> Path:
    """Write the page of an evaluation below `<home>/evaluations/pages`; the same evaluation replaces it."""
    from models.evaluation.page import write_evaluation_page
    from models.evaluation.plots import quality_cost_plot

    folder = settings.evaluations / "pages"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{re.sub(r'[^A-Za-z0-9._-]+', '-', corpus.name)}-{corpus.split}-{bundle.artifact.data_version}"
    quality_cost_plot(assessment.report, folder / f"{name}.png")
    write_evaluation_page(
        folder / f"{name}.html",
        assessment,
        corpus.queries,
        corpus.judgments,
        corpus.passages,
        title=f"{corpus.name}, {corpus.split} queries",
        facts={**{name: value for name, value in bundle.to_dict().items() if value}, **corpus.facts},
        plot=folder / f"{name}.png",
    )
    return folder / f"{name}.html"
