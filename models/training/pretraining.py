"""A general start: one large cross-encoder trained on several corpora at once, and the others distilled from it.

Each corpus is read, indexed and mined by the steps of the lifecycle, in a store of its own, `<home>/pretraining`, where
corpora have no current version: what was prepared once is taken from there, whatever it is mixed with. Only training
queries train, so that a corpus can be evaluated whose documents the models have seen. docs/pretraining.md.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from models.contracts.tiers import DISTILLED_TIERS, LAST, distilled_tiers
from models.corpus.freezing import make_evaluation_set
from models.corpus.integrity import require_accepted
from models.corpus.reading import read_source
from models.errors import SettingsError
from models.retrieval.candidates import make_candidates
from models.retrieval.dense_index import make_dense_index
from models.retrieval.embedding import make_passage_embeddings
from models.retrieval.encoder import tokenizer_file
from models.retrieval.first_stage import make_first_stage
from models.retrieval.lexical_index import make_lexical_index
from models.retrieval.round_trip import query_writing
from models.settings import Settings
from models.store.artifacts import Artifact, ArtifactStore
from models.store.durable_files import canonical_json, write_atomically
from models.training.corpus_defaults import without_corpus
from models.training.distilled_reranker import make_distilled_reranker
from models.training.examples import make_training_examples
from models.training.large_reranker import make_large_reranker
from models.training.mixture import HeldOut, MixedCorpus, make_mixture
from models.training.training_speed import pairs_within
from models.weights import DIGESTS

Report = Callable[[str, int, int], None]
"""Told (what, done, of how many)."""

FACTS = "pretraining.json"
"""Beside the models: what they were made from."""

DEFAULT_CORPORA: Mapping[str, Mapping[str, Any]] = {
    "python-docs": {"source": "python-docs"},
    "man-pages": {"source": "man-pages", "man_pages": {"languages": ["en"]}},
}
"""What nearly every machine has."""


@dataclass(frozen=True)
class PreparedCorpus(MixedCorpus):
    """A corpus with everything that training and evaluation on it read."""

    passages: Artifact
    judgments: Artifact


@dataclass(frozen=True)
class GeneralStart:
    """The models of a general start by tier, what they were trained on, and the folder with both."""

    models: Mapping[str, Artifact]
    mixture: Artifact
    folder: Path
    facts: Mapping[str, Any]


def pretrain(settings: Settings, report: Report = lambda what, done, total: None) -> GeneralStart:
    """Train the general start that `settings.pretraining` describes and write it to its folder.

    A call after a kill goes on where that one was, in the middle of a training too. Raises `SettingsError` where no
    corpus is left, or one to exclude is not configured.
    """
    corpora = corpora_settings(settings)
    excluded = settings.pretraining.exclude
    if unknown := sorted(set(excluded) - set(corpora)):
        raise SettingsError(
            f"pretraining.exclude: {', '.join(unknown)} is not among the corpora", f"They are {', '.join(corpora)}."
        )
    if not set(corpora) - set(excluded):
        raise SettingsError("pretraining.exclude: no corpus is left", "Name a corpus in pretraining.corpora.")
    store = pretraining_store(settings)
    mixed = [prepare(store, name, own, report) for name, own in corpora.items() if name not in excluded]
    held_out = [hold_out(store, name, corpora[name]) for name in excluded]
    own = training_of(settings)
    mixture = make_mixture(store, own, mixed, held_out)
    pairs = pairs_within(store, own, mixture, settings.pretraining.minutes)
    own = own.model_copy(update={"training": own.training.model_copy(update=pairs)})
    models = {LAST.name: make_large_reranker(store, own, mixture, partial(report, "large: training steps"))}
    for tier in distilled_tiers(settings.tiers):
        told = partial(report, f"{tier.name}: training steps")
        # The mixture has the logged lists too: none.
        models[tier.name] = make_distilled_reranker(store, own, tier.name, mixture, models[LAST.name], mixture, told)
    facts = {
        "base_model": settings.pretraining.base_model,
        "corpora": {
            corpus.name: {"version": corpus.passages.data_version, **mixture.summary["corpora"][corpus.name]}
            for corpus in mixed
        },
        "excluded": sorted(excluded),
        "mixture": mixture.data_version,
        "models": {
            tier: {"version": model.data_version, **{key: model.summary[key] for key in ("pairs", "steps", "loss")}}
            for tier, model in models.items()
        },
        "settings": own.training.model_dump(mode="json"),
    }
    folder = settings.resolve(settings.pretraining.folder) if settings.pretraining.folder else settings.home / "general"
    export(models, facts, folder)
    return GeneralStart(models, mixture, folder, facts)


def pretraining_store(settings: Settings) -> ArtifactStore:
    """Where corpora and models of general starts are kept."""
    return ArtifactStore(str(settings.pretrainings), settings.pretrainings / "cache")


def corpora_settings(settings: Settings) -> dict[str, Settings]:
    """The settings of each configured corpus by name, the excluded ones too: those of the deployment, its keys of
    [corpus] over them, with queries from the text where none is judged for training."""
    values = without_corpus(settings).model_dump()
    values["training"] |= {
        "negative_sources": settings.pretraining.negative_sources,
        "pseudo_queries": "on" if settings.training.pseudo_queries == "on" else "auto",
    }
    base = {**values["corpus"], "path": "", "version": ""}
    tables = settings.pretraining.corpora or DEFAULT_CORPORA
    return {
        name: Settings.model_validate({**values, "corpus": _laid_over(base, keys)}) for name, keys in tables.items()
    }


def training_of(settings: Settings) -> Settings:
    """The deployment's settings with the training of a general start."""
    settings, pretraining = without_corpus(settings), settings.pretraining
    training = {
        "base_model": pretraining.base_model,
        "large_pairs": pretraining.pairs,
        "early_stopping": 0,
        **{f"{tier.name}_pairs": getattr(pretraining, f"{tier.name}_pairs") for tier in DISTILLED_TIERS},
        **{f"{tier.name}_base_model": "" for tier in DISTILLED_TIERS},
    }
    return settings.model_copy(update={"training": settings.training.model_copy(update=training)})


def prepare(store: ArtifactStore, name: str, settings: Settings, report: Report) -> PreparedCorpus:
    """A corpus up to its training examples; what was made before is taken from the store.

    Raises `SourceError` where more rows are refused than `corpus.max_rejected_share`, or no judgment is positive.
    """
    told = partial(_prefixed, report, name)
    tables, evaluation_set = _read(store, name, settings)
    passages, queries, judgments = (tables[table] for table in ("passages", "queries", "judgments"))
    embeddings = make_passage_embeddings(store, settings, passages, partial(told, "passages embedded"))
    dense = make_dense_index(store, settings, passages, queries, embeddings)
    lexical = make_lexical_index(store, settings, passages)
    first_stage = make_first_stage(store, settings, passages, evaluation_set, embeddings, dense, lexical)
    candidates = make_candidates(
        store,
        settings,
        passages,
        queries,
        evaluation_set,
        embeddings,
        dense,
        lexical,
        first_stage,
        partial(told, "queries retrieved"),
    )
    examples = make_training_examples(
        store, settings, passages, queries, judgments, candidates, evaluation_set, embeddings
    )
    return PreparedCorpus(name, queries, evaluation_set, embeddings, candidates, examples, passages, judgments)


def hold_out(store: ArtifactStore, name: str, settings: Settings) -> HeldOut:
    """A corpus that does not train: read, and its evaluation queries frozen, but not indexed."""
    tables, evaluation_set = _read(store, name, settings)
    return HeldOut(name, tables["queries"], evaluation_set)


def export(models: Mapping[str, Artifact], facts: Mapping[str, Any], folder: Path) -> None:
    """Write the models to a folder of each tier's name below `folder`, with the digests of their files and the facts.

    Raises `SettingsError` where something else is there.
    """
    if folder.exists() and not (folder / FACTS).is_file():
        raise SettingsError(f"pretraining.folder: {folder} is there, and no general start", "Name another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    for old in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(old, ignore_errors=True)  # of a call that was killed
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    new, old = work / "new", work / "old"
    for tier, model in models.items():
        model.verify()
        for name in model.manifest.files:
            (new / tier / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(model.path(name), new / tier / name)
        digests = {name: entry.sha256 for name, entry in model.manifest.files.items()}
        write_atomically(new / tier / DIGESTS, canonical_json({"sha256": digests}))
    write_atomically(new / FACTS, json.dumps(facts, indent=1, sort_keys=True).encode())
    if folder.exists():
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(work)


def _read(store: ArtifactStore, name: str, settings: Settings) -> tuple[Mapping[str, Artifact], Artifact]:
    writing = query_writing(store, settings, lambda message: None)
    tables = read_source(store, settings, tokenizer_file(settings.encoder.model), writing=writing)
    require_accepted(store, tables, settings.corpus.max_rejected_share, name)
    return tables, make_evaluation_set(store, settings, tables["queries"], tables["judgments"], tables["passages"])


def _laid_over(table: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """A table with keys of another over it, section into section; a mapping that is one value replaces it."""
    merged = dict(table)
    for name, value in keys.items():
        is_section = isinstance(value, Mapping) and isinstance(table.get(name), Mapping) and name != "columns"
        merged[name] = _laid_over(table[name], value) if is_section else value
    return merged


def _prefixed(report: Report, name: str, what: str, done: int, total: int) -> None:
    report(f"{name}: {what}", done, total)
