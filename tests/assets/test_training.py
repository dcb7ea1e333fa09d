"""Logged lists as the real asset makes them, of a real decision log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from assets import keys, training
from assets.making import by_tier
from assets.resources import ArtifactIOManager, Deployment
from checks import leakage
from models.contracts.tables import TABLES, check_table
from models.errors import ArtifactError
from models.settings import Settings
from models.store.artifacts import Artifact
from models.training.distilled_reranker import LEFT_OUT
from tests.checks import corpus_tables
from tests.checks.check_cases import table_asset
from tests.deployments import use_home, write_artifact
from tests.query_encoding import embed_passages, store_vectors
from tests.traffic import decision, record

pytestmark = pytest.mark.heavy

QUERIES = pd.DataFrame(
    [
        ("e1", "how does topic 3 work", "test"),
        ("e2", "what do cats eat", "dev"),
        ("e3", "when does the river rise", "test"),
        ("t1", "who wrote the book", "train"),
    ],
    columns=["query_id", "text", "split"],
).astype("str")
EVALUATED = QUERIES.head(2)
PASSAGES = ("d0#0", "d1#0", "gone")
LOG = {
    "as it stands": "how does topic 3 work",
    "case": "How does topic 3  WORK?",
    "order": "topic 3: HOW might the work do",
    "paraphrase": "what is the functioning of topic 3",
    "later": "When does the river rise?",
    "trains too": "who wrote the book",
    "clean": "why is the sky blue",
}
REASONS = {
    "case": ("same_text", "e1"),  # The last of the two that are one query.
    "order": ("same_words", "e1"),
    "paraphrase": ("same_meaning", "e1"),
    "later": ("same_text", "e3"),
}


def log(deployment: Deployment, name: str, text: str, number: int = 0, **changes: object) -> None:
    """A decision of yesterday."""
    when = datetime.now(UTC) - timedelta(days=1) + timedelta(milliseconds=number)
    candidates = [{"passage_id": passage} for passage in PASSAGES]
    record(deployment.database(), decision(name, when, **{"query": text, "candidates": candidates, **changes}))


def materialize(deployment: Deployment) -> tuple[dict[str, Any], Artifact]:
    """Make the logged lists with their check; their metadata and the artifact."""
    below = table_asset(dg.AssetKey("below"), {}, deps=[keys.LOGGED_LISTS])
    upstream = (keys.PASSAGES, keys.QUERIES, keys.EVALUATION_SET, keys.CANDIDATES, keys.PASSAGE_EMBEDDINGS)
    given = [table_asset(key, {}) for key in upstream]
    check = leakage.no_evaluation_query_in_logged_lists
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [*given, training.logged_lists, check, below],
            selection=dg.AssetSelection.assets(training.logged_lists, below),
            resources={"deployment": deployment, "io_manager": ArtifactIOManager(deployment=deployment)},
            instance=instance,
        )
    assert [evaluation.passed for evaluation in result.get_asset_check_evaluations()] == [True]
    (event,) = (event for event in result.get_asset_materialization_events() if event.asset_key == keys.LOGGED_LISTS)
    metadata: dict[str, Any] = {name: value.value for name, value in event.materialization.metadata.items()}
    return metadata, deployment.store().require(keys.artifact_name(keys.LOGGED_LISTS))


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What index/passage_embeddings holds, with the encoder in it."""
    read = [*QUERIES["text"], *LOG.values(), "where do birds sleep"]
    return embed_passages(tmp_path_factory.mktemp("embedded"), read)


@pytest.fixture
def deployment(embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """A corpus of two passages, and of its queries two that are evaluated."""
    deployment = use_home(tmp_path, monkeypatch, TRAINING__LEAK_COSINE="0.8", TRAINING__LOGGED_QUERIES="20")
    monkeypatch.setenv("RERANKOPS_TIERS__MODELS", '["compact", "large"]')
    store = deployment.store()
    store_vectors(store, embedded, EVALUATED["text"].tolist())
    for key, table, rows in (
        (keys.PASSAGES, "passages.parquet", corpus_tables.passages(2)),
        (keys.QUERIES, "queries.parquet", QUERIES),
        (keys.EVALUATION_SET, "queries.parquet", EVALUATED),
    ):
        store.point(write_artifact(store, keys.artifact_name(key), {table: rows}))
    return deployment


def test_logged_queries_of_evaluation_are_left_out_and_counted(deployment: Deployment) -> None:
    for number, (name, text) in enumerate(LOG.items()):
        log(deployment, name, text, number)
    log(deployment, "short", "what has one passage", 99, candidates=[{"passage_id": "d0#0"}])
    metadata, artifact = materialize(deployment)
    for file in ("logged_lists.parquet", "excluded_queries.parquet"):
        check_table(artifact.read_table(file), TABLES[file], file)
    lists = artifact.read_table("logged_lists.parquet")
    assert list(zip(lists["query_id"], lists["passage_id"], strict=True)) == [
        (name, passage) for name in ("trains too", "clean") for passage in ("d0#0", "d1#0")
    ]
    excluded = artifact.read_table("excluded_queries.parquet").set_index("query_id")
    assert {row.Index: (row.reason, row.evaluation_query_id) for row in excluded.itertuples()} == REASONS
    counts = {name: value for name, value in metadata.items() if name.startswith("queries_")}
    assert counts == {
        "queries_offered": 7,
        "queries_excluded": 4,
        "queries_excluded_same_id": 0,
        "queries_excluded_same_text": 2,
        "queries_excluded_same_words": 1,
        "queries_excluded_same_meaning": 1,
        "queries_of_few_passages": 1,
        "queries_used": 2,
    }


def test_lists_are_those_of_the_artifact_whatever_is_logged_since(deployment: Deployment) -> None:
    log(deployment, "first", "why is the sky blue")
    _, first = materialize(deployment)
    log(deployment, "second", "where do birds sleep", 1)
    for reranker in training.distilled_rerankers:
        (used,) = reranker.specs
        lists = {keys.TRAINING_EXAMPLES, keys.LOGGED_LISTS}
        assert {dep.asset_key for dep in used.deps} == {*lists, keys.LARGE_RERANKER, keys.CORPUS_DEFAULTS}
    assert deployment.store().require(first.asset).data_version == first.data_version
    metadata, later = materialize(deployment)
    assert (metadata["queries_used"], later.data_version == first.data_version) == (2, False)


def test_a_model_that_was_left_out_is_not_scored_with(deployment: Deployment) -> None:
    store = deployment.store()
    compact = write_artifact(store, "training/compact_reranker", {}, {LEFT_OUT: b"{}"})
    large = write_artifact(store, "training/large_reranker", {}, {"config.json": b"{}"})
    models = {"compact_reranker": compact, "large_reranker": large}
    alone = Settings()
    assert by_tier(models, alone) == {"large": large}
    both = alone.model_copy(update={"tiers": alone.tiers.model_copy(update={"models": ["compact", "large"]})})
    with pytest.raises(ArtifactError, match="training/compact_reranker was left out"):
        by_tier(models, both)


def test_without_the_setting_nothing_is_read(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    log(deployment, "first", "why is the sky blue")
    monkeypatch.setenv("RERANKOPS_TRAINING__LOGGED_QUERIES", "0")
    metadata, artifact = materialize(deployment)
    assert (metadata["queries_offered"], len(artifact.read_table("logged_lists.parquet"))) == (0, 0)
    check_table(artifact.read_table("excluded_queries.parquet"), TABLES["excluded_queries.parquet"], "excluded")
