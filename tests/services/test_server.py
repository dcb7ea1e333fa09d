"""The service as a process of its own, called over HTTP by the unmodified Cohere client."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import cohere
import cohere.errors
import httpx
import pytest

from models.errors import RerankOpsError
from models.records.database import Database
from models.records.ledger import Ledger, Release
from models.serving.client import ServiceUnavailable, call_service
from models.serving.loaded_bundle import LoadedBundle
from models.serving.roll_out import roll_out
from tests.patience import PATIENCE_S
from tests.service_process import ServiceProcess, free_port, start_service
from tests.small_bundle import BUDGET_MS, QUESTION, STAFF, Small, notes, put_in_service, small_settings

QUERY = "XYZZY: how do I clean the water filter"
DOCUMENTS = [
    *(f"{note} Wash the water filter with 40 grams of soda." for note in reversed(notes("water filter", "cleaning"))),
    "Mice stay away from a dry room.",
    "Mice stay away from a dry room.",
    "",
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("process")


@pytest.fixture(scope="module")
def ledger(home: Path) -> Iterator[Ledger]:
    """The ledger that the process reads."""
    database = Database(f"sqlite:///{home / 'rerankops.db'}")
    database.migrate()
    yield Ledger(database)
    database.close()


@pytest.fixture(scope="module")
def release(small: Small, ledger: Ledger) -> Release:
    return put_in_service(ledger, small.first, "7")


@pytest.fixture(scope="module")
def served(small: Small, home: Path, release: Release) -> Iterator[ServiceProcess]:
    """The small deployment's first candidate, served by a process."""
    with start_service(
        home,
        STORAGE__ARTIFACTS=small.settings.artifact_root,
        SERVING__CANDIDATES="8",
        SERVING__MAX_QUEUE_MS="1e9",
        TIERS__BUDGET_MS=str(BUDGET_MS),
    ) as process:
        yield process


@pytest.fixture(scope="module")
def expected(small: Small, loaded: LoadedBundle) -> list[tuple[int, float]]:
    """Index and score of each document, best first, by a direct call of the bundle."""
    return [(item.index, item.score) for item in loaded.rank_documents(QUERY, DOCUMENTS, BUDGET_MS).items]


def test_the_cohere_client_gets_the_bundles_ranking(
    served: ServiceProcess, release: Release, expected: list[tuple[int, float]]
) -> None:
    with cohere.ClientV2(base_url=served.url, api_key=served.key) as client:
        observed = client.rerank(model="champion", query=QUERY, documents=DOCUMENTS)
    assert [result.index for result in observed.results] == [index for index, _ in expected]
    assert [r.relevance_score for r in observed.results] == pytest.approx([score for _, score in expected], abs=1e-5)
    assert observed.results[0].index == 1
    assert observed.id
    assert observed.meta is not None
    assert observed.meta.api_version is not None
    assert observed.meta.billed_units is not None
    assert (observed.meta.api_version.version, observed.meta.billed_units.search_units) == ("2", 1)
    assert observed.meta.warnings is None


def test_the_cohere_client_takes_top_n_and_shows_our_warnings(
    served: ServiceProcess, expected: list[tuple[int, float]]
) -> None:
    with cohere.ClientV2(base_url=served.url, api_key=served.key) as client:
        observed = client.rerank(model="7", query=QUERY, documents=DOCUMENTS, top_n=2, max_tokens_per_doc=4096)
    assert [result.index for result in observed.results] == [index for index, _ in expected[:2]]
    assert observed.meta is not None
    assert observed.meta.warnings is None


def test_the_asynchronous_cohere_client_may_ask_many_things_at_once(
    served: ServiceProcess, expected: list[tuple[int, float]]
) -> None:
    async def ask() -> list[cohere.V2RerankResponse]:
        async with cohere.AsyncClientV2(base_url=served.url, api_key=served.key) as client:
            calls = [client.rerank(model="champion", query=QUERY, documents=DOCUMENTS) for _ in range(6)]
            return list(await asyncio.gather(*calls))

    for observed in asyncio.run(ask()):
        assert [result.index for result in observed.results] == [index for index, _ in expected]
        assert [r.relevance_score for r in observed.results] == pytest.approx([s for _, s in expected], abs=1e-5)


def test_the_cohere_client_raises_its_own_errors_with_our_words(served: ServiceProcess) -> None:
    with cohere.ClientV2(base_url=served.url, api_key=served.key) as client:
        with pytest.raises(cohere.errors.NotFoundError) as unknown:
            client.rerank(model="rerank-v3.5", query=QUERY, documents=DOCUMENTS)
        with pytest.raises(cohere.errors.UnprocessableEntityError) as invalid:
            client.rerank(model="champion", query=QUERY, documents=[])
    with (
        cohere.ClientV2(base_url=served.url, api_key="rk_wrong") as stranger,
        pytest.raises(cohere.errors.UnauthorizedError) as refused,
    ):
        stranger.rerank(model="champion", query=QUERY, documents=DOCUMENTS)
    assert "Allowed: champion, reranker, 7" in unknown.value.body["message"]
    assert invalid.value.body["message"].startswith("documents: ")
    assert "The key is wrong" in refused.value.body["message"]


def test_a_decision_survives_and_can_be_asked_for(served: ServiceProcess, release: Release) -> None:
    headers = {"Authorization": f"Bearer {served.key}"}
    with httpx.Client(base_url=served.url, headers=headers, timeout=PATIENCE_S) as client:
        answer = client.post("/v1/answer", json={"query": QUESTION}).json()
        record = client.get(f"/v1/decisions/{answer['decision_id']}").json()
    assert answer["citations"]
    assert (record["query"], record["release_id"]) == (QUESTION, release.release_id)


def test_this_deployments_own_client_calls_it(
    served: ServiceProcess, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RERANKOPS_HOME", str(home))
    monkeypatch.delenv("RERANKOPS_API_KEY", raising=False)
    settings = small_settings(home, serving={"port": int(served.url.rpartition(":")[2])})
    assert call_service(settings, "GET", "/health")["ready"] is True
    assert call_service(settings, "POST", "/v1/answer", {"query": QUESTION})["citations"]
    with pytest.raises(RerankOpsError, match="/v1/answer answered 422: query: ") as refused:
        call_service(settings, "POST", "/v1/answer", {"query": ""})
    assert not isinstance(refused.value, ServiceUnavailable)
    closed = small_settings(home, serving={"port": free_port()})
    with pytest.raises(ServiceUnavailable, match="no service answers at http://127") as away:
        call_service(closed, "GET", "/health")
    assert "rerankops serve" in away.value.hint


def test_golden_queries_agree_also_where_access_is_limited(
    served: ServiceProcess, home: Path, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RERANKOPS_HOME", str(home))
    monkeypatch.delenv("RERANKOPS_API_KEY", raising=False)
    settings = small_settings(home, serving={"port": int(served.url.rpartition(":")[2])})
    golden = small.first.bundle.read_json("golden.json")
    assert golden[0]["labels"] == [STAFF]
    database = Database(f"sqlite:///{home / 'rerankops.db'}")
    state = roll_out(settings, small.store, database)
    database.close()
    assert state.served_release == state.release_id
    assert (state.golden_queries, state.golden_agree) == (4, True)


def test_the_key_is_made_on_the_first_start_and_private(served: ServiceProcess, home: Path) -> None:
    assert stat.S_IMODE((home / "api_key").stat().st_mode) == 0o600
    assert served.key.startswith("rk_")
    (line,) = [line for line in served.printed if "Serving at" in line]
    assert served.url in line
    assert str(home / "api_key") in line
    assert served.key not in line


def test_it_ends_in_order_and_its_log_holds_no_text_and_no_key(served: ServiceProcess, release: Release) -> None:
    """The last test of the process: it stops it."""
    key = served.key
    served.stop()
    log = "".join(served.log)
    lines = [json.loads(line) for line in served.log if line.startswith("{")]
    requests = [line for line in lines if line["message"] == "request"]
    assert {line["route"] for line in requests} >= {"/v2/rerank", "/v1/answer"}
    closed = [line["release_id"] for line in lines if line["message"] == "release closed"]
    assert closed == [release.release_id] * 2  # its words, once it was loaded, and at the end itself
    assert "Traceback" not in log
    for secret in (key, "rk_wrong", QUERY, "XYZZY", QUESTION, *filter(None, DOCUMENTS)):
        assert secret not in log
