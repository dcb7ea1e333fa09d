"""From an answer to its record and its headers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from models.contracts.messages import Decision
from models.monitoring.drift import decision_features
from models.serving.protocol import Ranking
from services.decision_record import cut_query, document_candidates, document_id
from tests import traffic
from tests.releases import release_bundle
from tests.services.conftest import AUTHORIZED, Service, service_in
from tests.services.scripted_bundle import Loader, in_given_order
from tests.small_bundle import small_settings

RERANK = {"model": "champion", "query": "q", "documents": ["a", "b"]}


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def service(tmp_path: Path, loader: Loader) -> Iterator[Service]:
    with service_in(tmp_path, small_settings(tmp_path), loader) as built:
        release_bundle(built.ledger, "b1")
        yield built


def test_texts_are_recorded_by_digest_and_length() -> None:
    first, second, third = document_candidates(["text", "", "text"])
    assert first == {"passage_id": document_id("text"), "rank": 1, "characters": 4}
    assert (second["rank"], second["characters"]) == (2, 0)
    assert third["passage_id"] == first["passage_id"]
    assert document_id("\ud800") != document_id("?")


@pytest.mark.parametrize(
    ("characters", "kept", "counts"),
    [
        (15, "how is the loom", (25, 6)),
        (0, "sha256:", (25, 6)),
        (25, "how is the loom oiled now", (None, None)),
    ],
)
def test_a_query_is_kept_whole_cut_or_by_digest(
    characters: int, kept: str, counts: tuple[int | None, int | None]
) -> None:
    decided = traffic.decision("d-1", query="how is the loom oiled now")
    cut = cut_query(decided, characters)
    assert cut.query.startswith(kept)
    assert len(cut.query) <= max(characters, 39)
    assert (cut.query_characters, cut.query_words) == counts
    features = decision_features(cut)
    assert (features["query_characters"], features["query_words"]) == (25, 6)


def test_the_headers_carry_only_what_http_can(
    service: Service, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = in_given_order(2).items
    reason = "compact: 化 \r\nX-Evil: 1 " + "x" * 500
    with TestClient(service.app, headers=AUTHORIZED) as client:
        monkeypatch.setattr(loader.loaded[0], "rank", lambda count: Ranking(items, True, reason))
        response = client.post("/v2/rerank", json=RERANK)
    assert response.json()["meta"]["degraded_reason"] == reason
    assert response.headers["X-Degraded-Reason"].startswith("compact: ? ??X-Evil: 1 xxx")
    assert len(response.headers["X-Degraded-Reason"]) == 200
    assert "X-Evil" not in response.headers


def test_an_answer_that_cannot_be_recorded_is_given_and_counted(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(decision: Decision) -> None:
        raise OSError("no space left on device")

    with TestClient(service.app, headers=AUTHORIZED) as client:
        monkeypatch.setattr(service.writer, "put", refuse)
        response = client.post("/v2/rerank", json=RERANK)
        families = text_string_to_metric_families(client.get("/metrics").text)
    assert response.status_code == 200
    assert "id" not in response.json()
    (lost,) = [family for family in families if family.name == "rerankops_decisions_unrecorded"]
    assert lost.samples[0].value == 1
    assert "decision not recorded" in [record.message for record in caplog.records]


def test_a_full_disk_is_said_by_health_and_no_answer_promises_a_record(service: Service, tmp_path: Path) -> None:
    spool = tmp_path / "spool" / "decisions.jsonl"
    with TestClient(service.app, headers=AUTHORIZED) as client:
        assert client.get("/health").json()["decisions"] == {"recorded": True, "failure": None, "waiting": 0}
        service.database.close()
        (tmp_path / "records").rename(tmp_path / "away")
        spool.symlink_to("/dev/full")
        ranked = client.post("/v2/rerank", json=RERANK)
        answered = client.post("/v1/answer", json={"query": "q"})
        health, ready = client.get("/health").json(), client.get("/health/ready")
        assert (ranked.status_code, answered.status_code, ready.status_code) == (200, 200, 200)
        assert "id" not in ranked.json()
        assert answered.json()["decision_id"] is None
        for response in (ranked, answered):
            assert response.headers["X-Decision-Recorded"] == "false"
            assert "X-Decision-Id" not in response.headers
        assert "the decision could not be recorded, so it has no id" in ranked.json()["meta"]["warnings"]
        assert health["status"] == "unrecorded"
        assert health["decisions"] == {"recorded": False, "failure": "No space left on device", "waiting": 0}
        spool.unlink()
        recorded = client.post("/v2/rerank", json=RERANK)
        assert recorded.headers["X-Decision-Id"] == recorded.json()["id"]
        assert client.get("/health").json()["status"] == "ok"


def test_asking_for_a_decision_waits_until_it_is_written(tmp_path: Path) -> None:
    with service_in(tmp_path, small_settings(tmp_path), Loader()) as service:
        release_bundle(service.ledger, "b1")
        with TestClient(service.app, headers=AUTHORIZED) as client:
            for _ in range(5):
                response = client.post("/v2/rerank", json=RERANK).json()
                assert client.get(f"/v1/decisions/{response['id']}").json()["decision_id"] == response["id"]
