"""A small deployment, real from end to end: a corpus, indexes, trained models, an evaluation and serving bundles.

The corpus is a workshop's handbook. Each task stands in it twice, in the edition that is in force and in a withdrawn
one, of the same words: word and vector search cannot tell them apart, while a cross-encoder learns to from a few dozen
pairs. So the reranker's gain is real and significant, and goes away with its weights.

Importing this module loads nothing heavy. `tests/conftest.py` makes `small` available to every test.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.shuffled_weights import shuffle_weights

if TYPE_CHECKING:
    from models.contracts.rows import Document, Judgment, Query
    from models.records.ledger import Ledger, Release
    from models.release.evidence import Exhibits
    from models.release.gate import GateEvidence
    from models.settings import Settings
    from models.store.artifacts import Artifact, ArtifactStore

MACHINES: Mapping[str, str] = {
    "bread oven": "train",
    "steam boiler": "train",
    "garden pump": "train",
    "coffee grinder": "train",
    "paper press": "train",
    "sewing machine": "dev",
    "wood lathe": "dev",
    "gas burner": "dev",
    "water filter": "test",
    "chain saw": "test",
    "hay baler": "test",
    "loom": "test",
}
TASKS: Mapping[str, tuple[str, str, tuple[str, str]]] = {
    "cleaning": (
        "Wash the {machine} with warm water and {number} grams of soda, then dry it with a cloth.",
        "A brush with soft hair reaches the corners.",
        ("how do I clean the {machine}", "what washes dirt off a {machine}"),
    ),
    "starting": (
        "Open the main valve of the {machine}, wait {number} seconds and press the green button.",
        "The lamp turns on when it runs.",
        ("how is the {machine} started", "which button makes the {machine} run"),
    ),
    "storing": (
        "Cover the {machine} with a sheet of linen and keep it at {number} degrees through the winter.",
        "Mice stay away from a dry room.",
        ("where does the {machine} stay in winter", "how to store a {machine} for months"),
    ),
}
NOTES: tuple[tuple[str, str], ...] = tuple(
    (f"This edition is {good}.", f"This edition is {bad}.")
    for good, bad in (
        ("valid", "void"),
        ("current", "obsolete"),
        ("approved", "rejected"),
        ("correct", "wrong"),
        ("confirmed", "cancelled"),
        ("reliable", "faulty"),
        ("accepted", "refused"),
        ("recommended", "forbidden"),
        ("maintained", "abandoned"),
        ("accurate", "erroneous"),
        ("official", "withdrawn"),
        ("modern", "outdated"),
    )
)
"""What is said of the edition in force and of the other one: each task has words of its own for it."""
STAFF = "staff"
SECRET = "The spare key of the workshop hangs behind the calendar in the office."
KEY_QUESTION = "where does the spare key hang"
"""Answered by what only staff may read; the first of the test queries, so that it becomes a golden one."""
HANDBOOK = " ".join(
    f"Rule {number}: whoever leaves the workshop in the month number {number} sweeps bench {number} and signs the book."
    for number in range(1, 13)
)
QUESTION = "how do I clean the water filter"
BUDGET_MS = 60_000.0
"""Time enough for every tier on a busy machine: tests that want a degraded answer ask for less."""
RERANKERS = ("lean", "compact", "large", "tiered")
"""The systems of the small deployment beside the first stages."""
_VERSIONS = "versions.json"
"""File in the home of a small deployment: data version of each artifact."""


class Handbook:
    """The corpus source: two editions of each task, one document of several passages, one that only staff may read."""

    def fingerprint(self) -> str:
        from models.store.durable_files import digest_json

        return digest_json([MACHINES, TASKS, HANDBOOK, SECRET])

    def documents(self) -> Iterator[Document]:
        from models.contracts.rows import Document

        for index, machine in enumerate(MACHINES):
            for task, (sentence, remark, _) in TASKS.items():
                for edition in (1, 2):
                    note = notes(machine, task)[edition != in_force(machine, task)]
                    said = sentence.format(machine=machine, number=10 * index + 3 * edition)
                    text = f"{note} {said} {remark}"
                    yield Document(f"{machine}/{task}/{edition}", f"{machine}, {task}", text, "handbook")
        yield Document("rules", "House rules", HANDBOOK, "handbook")
        yield Document("key", "Spare key", SECRET, "office", access=(STAFF,))

    def queries(self) -> Iterator[Query]:
        from models.contracts.rows import Query

        for machine, split in MACHINES.items():
            for task, (_, _, questions) in TASKS.items():
                for number, question in enumerate(questions):
                    yield Query(f"{machine}/{task}/{number}", question.format(machine=machine), split, machine)
        yield Query("a key", KEY_QUESTION, "test", "key")

    def judgments(self) -> Iterator[Judgment]:
        from models.contracts.rows import Judgment

        yield Judgment("a key", "key", 1)
        for query in self.queries():
            if query.query_id == "a key":
                continue
            machine, task, _ = query.query_id.split("/")
            for edition in (1, 2):
                yield Judgment(query.query_id, f"{machine}/{task}/{edition}", int(edition == in_force(machine, task)))

    def text_of(self, document_id: str) -> str:
        """The whole text of a document."""
        return next(document.text for document in self.documents() if document.document_id == document_id)


def in_force(machine: str, task: str) -> int:
    """The edition (1 or 2) that holds; evenly spread, so that no order of ids gives it away."""
    return 1 + (list(MACHINES).index(machine) + list(TASKS).index(task)) % 2


def notes(machine: str, task: str) -> tuple[str, str]:
    """What is said of the edition in force and of the other one. Every split has each pair of words."""
    same_split = [name for name, split in MACHINES.items() if split == MACHINES[machine]]
    return NOTES[(len(TASKS) * same_split.index(machine) + list(TASKS).index(task)) % len(NOTES)]


def small_settings(home: Path, **changes: Mapping[str, Any]) -> Settings:
    """Settings of a deployment in `home`; `changes` lays tables over some sections."""
    from models.settings import Settings

    values: dict[str, dict[str, Any]] = {
        "corpus": {"passage_tokens": 48, "overlap_tokens": 8},
        "encoder": {"model": str(home / "encoder"), "max_tokens": 64},
        "index": {"depth": 30},
        "training": {
            "max_tokens": 64,
            "passage_cut": "query",
            "negatives": 1,
            "negative_depth": 3,
            "large_pairs": 60,
            "compact_pairs": 60,
            "base_model": str(home / "base"),
            "compact_layers": [0, 2],
            "frozen_layers": 1,
            "batch_queries": 4,
            "learning_rate": 5e-4,
            "precision": "fp32",
            "device": "cpu",
        },
        # On every machine the same one, and one that a scoring process opens without PyTorch.
        "engine": {"kind": "fp32"},
        "evaluation": {"candidates": 8, "resamples": 2000},
        "tiers": {
            "models": ["compact", "large"],
            "budget_ms": BUDGET_MS,
            "compact_candidates": 8,
            "large_candidates": 4,
            "max_early_exit_loss": 0,
        },
        "objectives": {"p95_ms": BUDGET_MS, "p99_ms": BUDGET_MS},
        "serving": {"candidates": 8, "golden_queries": 4, "poll_seconds": 3600, "max_queue_ms": 1e9},
        "storage": {
            "artifacts": str(home / "artifacts"),
            "database_url": f"sqlite:///{home / 'rerankops.db'}",
            "mlflow_uri": f"sqlite:///{home / 'mlflow.db'}",
        },
    }
    for section, table in changes.items():
        values[section] = {**values.get(section, {}), **table}
    return Settings.model_validate(values)


@dataclass(frozen=True)
class Candidate:
    """A serving bundle and what the gate reads about it."""

    bundle: Artifact
    evaluation: Artifact
    rerankers: Mapping[str, Artifact]
    """The models, by tier."""

    @property
    def large(self) -> Artifact:
        """The model of the last tier."""
        return self.rerankers["large"]

    @property
    def compact(self) -> Artifact:
        """The model of the first tier that has one."""
        return self.rerankers["compact"]


@dataclass(frozen=True)
class Small:
    """A deployment up to its first release candidate: the artifacts by asset name, and how to make further ones."""

    home: Path
    settings: Settings
    store: ArtifactStore
    artifacts: Mapping[str, Artifact]
    first: Candidate
    _shuffled: list[Candidate] = field(default_factory=list)

    def shuffled(self) -> Candidate:
        """A candidate whose models have the first one's weights in random places: loads, runs, and knows nothing."""
        if not self._shuffled:
            models = {tier: _shuffle(self.store, artifact) for tier, artifact in self.first.rerankers.items()}
            self._shuffled.append(make_candidate(self.store, self.settings, self.artifacts, models))
        return self._shuffled[0]

    def alike(self, golden_queries: int) -> Candidate:
        """A candidate of the same models that ranks as the first one does, and is another bundle."""
        settings = self.settings.model_copy(
            update={"serving": self.settings.serving.model_copy(update={"golden_queries": golden_queries})}
        )
        return make_candidate(self.store, settings, self.artifacts, self.first.rerankers)


def open_small(home: Path) -> Small:
    """The deployment that `build_small` has made in `home`, maybe in another process."""
    from models.contracts.tiers import MODEL_TIERS
    from models.store.artifacts import ArtifactStore

    settings = small_settings(home)
    store = ArtifactStore(settings.artifact_root, home / "cache")
    versions: dict[str, str] = json.loads((home / _VERSIONS).read_bytes())
    built = {asset: store.open(asset, version) for asset, version in versions.items()}
    first = Candidate(
        bundle=built.pop("release/release_candidate"),
        evaluation=built.pop("evaluation/offline_evaluation"),
        rerankers={tier.name: built[tier.asset] for tier in reversed(MODEL_TIERS)},
    )
    return Small(home, settings, store, built, first)


def build_small(home: Path) -> None:
    """Make the whole deployment in `home`: half a minute on two cores, most of it loading libraries."""
    import numpy as np

    from models.contracts.tiers import DISTILLED_TIERS, LAST
    from models.corpus import splits
    from models.corpus.chunking import load_tokenizer
    from models.corpus.sources.corrections import CorrectionOutcome
    from models.retrieval import (
        candidates,
        dense_index,
        embedding,
        encoder,
        first_stage,
        fusion,
        lexical_index,
        retriever,
    )
    from models.settings import Settings, chosen
    from models.store.artifacts import ArtifactStore
    from models.store.tables import write_rows, write_table
    from models.training import examples, logged_lists
    from models.training.fine_tuning import train_large, train_student
    from models.weights import local_weights
    from tests.corpus_tables import read_corpus
    from tests.cut_model import write_cut_model

    settings = small_settings(home)
    store = ArtifactStore(settings.artifact_root, home / "cache")
    built: dict[str, Artifact] = {}
    whole, weights = local_weights(Settings().encoder.model), Path(settings.encoder.model)

    def make(asset: str, build: Callable[[Path], Mapping[str, Any] | None], *inputs: str) -> Artifact:
        return _keep(store, built, asset, build, *inputs)

    tables = read_corpus(Handbook(), settings.corpus, load_tokenizer(whole))
    for name in ("passages", "queries", "judgments"):
        make(f"corpus/{name}", lambda folder, n=name: write_table(getattr(tables, n), folder / f"{n}.parquet"))

    def write_quarantine(folder: Path) -> None:
        write_table(tables.quarantined_rows, folder / "quarantined_rows.parquet")
        write_rows([], CorrectionOutcome, folder / "corrections.parquet")

    make("corpus/quarantined_rows", write_quarantine)
    passages, queries, judgments = tables.passages, tables.queries, tables.judgments
    read = [*passages["title"], *passages["text"], *queries["text"]]
    write_cut_model(whole, weights, read, layers=6)
    write_cut_model(whole, Path(settings.training.base_model), read, layers=3)
    evaluated = splits.evaluation_set(queries, judgments, passages, 1000, 1000)

    def write_evaluation_set(folder: Path) -> None:
        write_table(evaluated.queries, folder / "queries.parquet")
        write_table(evaluated.judgments, folder / "judgments.parquet")

    make("corpus/evaluation_set", write_evaluation_set, "corpus/queries", "corpus/judgments", "corpus/passages")
    vectors = make(
        "index/passage_embeddings",
        lambda folder: embedding.embed_corpus(passages, weights, settings.encoder, folder),
        "corpus/passages",
    )
    ids = passages["passage_id"].tolist()
    texts = [encoder.passage_text(*row) for row in zip(passages["title"], passages["text"], strict=True)]
    embeddings = np.load(vectors.path("embeddings.npy"), allow_pickle=False)
    dense = make("index/dense_index", lambda folder: dense_index.write(folder, embeddings, ids), "corpus/passages")
    lexical = make(
        "index/lexical_index",
        lambda folder: lexical_index.LexicalIndex.build(texts, ids).save(folder),
        "corpus/passages",
    )
    order = make(
        "index/first_stage",
        lambda folder: first_stage.learn_first_stage(
            built["corpus/passages"],
            built["corpus/evaluation_set"],
            vectors,
            dense,
            lexical,
            settings.index,
            lambda: None,
            None,
            folder,
        ),
        "corpus/passages",
        "corpus/evaluation_set",
        "index/passage_embeddings",
        "index/dense_index",
        "index/lexical_index",
    )
    searches = retriever.open_retriever(built["corpus/passages"], vectors, dense, lexical, settings.index)
    make(
        "index/candidates",
        lambda folder: candidates.build_all_candidates(
            queries,
            evaluated.queries,
            searches,
            folder,
            first_stage=fusion.read_first_stage(order.folder),
            candidates=chosen(settings.evaluation.candidates),
            depth=settings.index.depth,
            max_train_queries=settings.training.max_queries,
        ),
        "index/dense_index",
        "index/lexical_index",
        "index/first_stage",
        "corpus/evaluation_set",
    )
    mined = make(
        "training/training_examples",
        lambda folder: examples.mine(
            built["corpus/passages"],
            built["corpus/queries"],
            built["corpus/judgments"],
            built["index/candidates"],
            built["corpus/evaluation_set"],
            built["index/passage_embeddings"],
            settings.training,
            folder,
        ),
        "corpus/passages",
        "corpus/queries",
        "corpus/judgments",
        "index/candidates",
        "corpus/evaluation_set",
        "index/passage_embeddings",
    ).read_table("training_examples.parquet")
    make(
        "training/logged_lists",
        lambda folder: logged_lists.collect(
            [],
            built["corpus/passages"],
            built["corpus/queries"],
            built["corpus/evaluation_set"],
            built["index/candidates"],
            built["index/passage_embeddings"],
            settings.training,
            folder,
        ),
        "corpus/passages",
        "corpus/queries",
        "corpus/evaluation_set",
        "index/candidates",
        "index/passage_embeddings",
    )
    large = make(
        LAST.asset,
        lambda folder: train_large(mined, settings.training, folder).to_dict(),
        "training/training_examples",
    )
    rerankers = {LAST.name: large}
    for tier in DISTILLED_TIERS:
        rerankers[tier.name] = make(
            tier.asset,
            lambda folder, tier=tier: train_student(
                tier.name, mined, large.folder, settings.training, folder
            ).to_dict(),
            "training/training_examples",
            LAST.asset,
            "training/logged_lists",
        )
    first = make_candidate(store, settings, built, rerankers, current=True)
    built |= {artifact.asset: artifact for artifact in (first.bundle, first.evaluation)}
    versions = {asset: artifact.data_version for asset, artifact in built.items()}
    (home / _VERSIONS).write_text(json.dumps(versions), encoding="utf-8")


def weights_file(files: Collection[str], model: str) -> str:
    """The file that what runs a model of a bundle reads: its ONNX graph where there is one, else its weights."""
    graph = f"engines/{model}/model.onnx"
    return graph if graph in files else f"{model}/model.safetensors"


def make_candidate(
    store: ArtifactStore,
    settings: Settings,
    artifacts: Mapping[str, Artifact],
    rerankers: Mapping[str, Artifact],
    *,
    current: bool = False,
) -> Candidate:
    """Score, calibrate and evaluate the models of all tiers on the evaluation set, and write their serving bundle.

    `current` points the store at all of it; further candidates leave the pointers alone, which all workers share.
    """
    from models.cascade.answer_threshold import fit_answer_thresholds
    from models.cascade.calibration import fit_calibration
    from models.cascade.window_fitting import fit_early_exit
    from models.contracts.tiers import released_tiers
    from models.evaluation.evaluation_set import split_of
    from models.evaluation.offline import evaluate_offline
    from models.evaluation.scored_candidates import StoredModels, pair_costs, score
    from models.release.parts import BundleParts
    from models.release.release_candidate import write_bundle
    from models.settings import chosen
    from models.store.durable_files import canonical_json
    from models.training.engine_selection import build_engines, parity_sample

    built = dict(artifacts) | {artifact.asset: artifact for artifact in rerankers.values()}
    models = [artifact.asset for artifact in rerankers.values()]
    evaluation_set = built["corpus/evaluation_set"]

    def calibrate(folder: Path) -> None:
        queries, judgments = split_of(evaluation_set, "dev")
        table = scored.read_table("scored.parquet")
        table = table[table["query_id"].isin(queries["query_id"])]
        calibration = fit_calibration(table, judgments)
        fitted = fit_early_exit(table, judgments, calibration, settings.tiers, pair_costs(scored))
        thresholds = fit_answer_thresholds(table, judgments, calibration, settings.generator.answered_share)
        calibration = replace(calibration, early_exit=fitted.early_exit, answer_thresholds=thresholds)
        (folder / "calibration.json").write_bytes(canonical_json(calibration.to_dict()))

    folders = {tier.name: rerankers[tier.name].folder for tier in released_tiers(settings.tiers)}

    def build_all_engines(folder: Path) -> Mapping[str, Any]:
        queries, judgments = split_of(evaluation_set, "dev")
        sample = parity_sample(
            built["index/candidates"].read_table("candidates.parquet"),
            queries,
            built["corpus/passages"].read_table("passages.parquet"),
            judgments,
            settings.engine.parity_queries,
        )
        return build_engines(
            folders, chosen(settings.training.max_tokens), settings.training.device, settings.engine, sample, folder
        )

    engines = _keep(
        store,
        built,
        "training/scoring_engines",
        build_all_engines,
        "corpus/evaluation_set",
        "index/candidates",
        *models,
    )
    scored = _keep(
        store,
        built,
        "evaluation/scored_candidates",
        lambda folder: score(
            lambda: built["index/candidates"].read_table("candidates.parquet"),
            evaluation_set.read_table("queries.parquet"),
            lambda: built["corpus/passages"].read_table("passages.parquet"),
            StoredModels(
                folders,
                engines.folder,
                chosen(settings.training.max_tokens),
                settings.training.device,
                settings.engine.threads,
            ),
            None,
            folder,
        ),
        "corpus/evaluation_set",
        "corpus/passages",
        "index/candidates",
        *models,
        "training/scoring_engines",
    )
    calibration = _keep(
        store,
        built,
        "evaluation/score_calibration",
        calibrate,
        "corpus/evaluation_set",
        "evaluation/scored_candidates",
    )
    evaluation = _keep(
        store,
        built,
        "evaluation/offline_evaluation",
        lambda folder: evaluate_offline(
            evaluation_set,
            built["corpus/passages"],
            built["index/candidates"],
            scored,
            calibration,
            settings.evaluation,
            settings.tiers,
            folder,
        ),
        "corpus/evaluation_set",
        "corpus/passages",
        "index/candidates",
        "evaluation/scored_candidates",
        "evaluation/score_calibration",
    )
    parts = BundleParts(
        passages=built["corpus/passages"],
        passage_embeddings=built["index/passage_embeddings"],
        dense_index=built["index/dense_index"],
        lexical_index=built["index/lexical_index"],
        first_stage=built["index/first_stage"],
        rerankers=dict(rerankers),
        scoring_engines=engines,
        score_calibration=calibration,
        offline_evaluation=evaluation,
        evaluation_set=evaluation_set,
        candidates=built["index/candidates"],
    )
    bundle = _keep(
        store,
        built,
        "release/release_candidate",
        lambda folder: write_bundle(parts, settings, folder),
        *(artifact.asset for artifact in parts.artifacts()),
        settings={"serving.golden_queries": settings.serving.golden_queries},
    )
    if current:
        for artifact in built.values():
            store.point(artifact)
    return Candidate(bundle, evaluation, rerankers)


def evidence_for(small: Small, ledger: Ledger, candidate: Candidate) -> GateEvidence:
    """What the gate knows about a candidate of `small`."""
    from models.release.evidence import gather

    exhibits = exhibits_for(small, ledger, candidate)
    return gather(small.store, ledger, exhibits, small.settings, drift_share=None)


def exhibits_for(small: Small, ledger: Ledger, candidate: Candidate) -> Exhibits:
    """What a candidate of `small` is judged by: its profile and the champion's evaluation are made here."""
    from models.release.evidence import Exhibits
    from models.serving.champion import make_champion_evaluation
    from models.serving.latency_profile import make_latency_profile

    evaluation_set = small.artifacts["corpus/evaluation_set"]
    return Exhibits(
        candidate.bundle,
        candidate.evaluation,
        make_champion_evaluation(small.store, small.settings, ledger.current(), evaluation_set),
        make_latency_profile(small.store, small.settings, candidate.bundle, evaluation_set),
    )


def put_in_service(ledger: Ledger, candidate: Candidate, model_version: str) -> Release:
    """Make a candidate the current release of a ledger, without a gate and without a registry."""
    from models.release.releaser import bundle_versions

    versions = bundle_versions(candidate.bundle, model_version)
    return ledger.activate(ledger.begin(versions, actor="test", reason="test").release_id)


def _keep(
    store: ArtifactStore,
    built: dict[str, Artifact],
    asset: str,
    build: Callable[[Path], Mapping[str, Any] | None],
    *inputs: str,
    settings: Mapping[str, Any] | None = None,
) -> Artifact:
    """Make an artifact in the store, as an asset does, and remember it under its name."""
    artifact = store.get_or_create(
        asset,
        code_version="tests",
        inputs={name: built[name].data_version for name in inputs},
        settings=settings or {},
        build=lambda folder: dict(build(folder) or {}),
    )
    built[asset] = artifact
    return artifact


def _shuffle(store: ArtifactStore, model: Artifact) -> Artifact:
    """The model with the values of each of its tensors in random places."""
    import shutil

    def build(folder: Path) -> dict[str, Any]:
        for name in model.manifest.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(model.path(name), folder / name)
        shuffle_weights(folder)
        return json.loads((folder / "training.json").read_text())

    return store.get_or_create(
        model.asset,
        code_version="shuffled",
        inputs={
            **{name: version for name, version in model.manifest.inputs.items() if not name.endswith("_reranker")},
            "shuffled": model.data_version,
        },
        settings={},
        build=build,
    )
