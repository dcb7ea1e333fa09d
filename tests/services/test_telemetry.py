"""What is logged and counted, and that no query, document or key gets there."""

from __future__ import annotations

import json
import logging

import pytest

from models.errors import ArtifactError
from models.serving.protocol import Ranked, Ranking
from models.settings import ObjectivesSettings
from services.log_lines import JsonLines, error_facts
from services.telemetry import Telemetry
from tests.services.conftest import KEY, Running

QUESTION = "XYZZY-question about the loom"
DOCUMENT = "XYZZY-document about the loom"


def test_no_text_of_a_request_and_no_key_is_logged(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        result = running.rerank(QUESTION, [DOCUMENT, "other"])
        running.answer(QUESTION, labels=["XYZZY-label"])
        running.client.get(f"/v1/decisions/{result['id']}")
        running.client.post("/v2/rerank", json={"model": "XYZZY", "query": QUESTION, "documents": [DOCUMENT]})
        running.client.post("/v1/answer", json={"query": 3, QUESTION: DOCUMENT})
        running.client.get("/XYZZY-path?query=XYZZY")
        running.stranger.post("/v1/answer", json={"query": QUESTION}, headers={"Authorization": "Bearer XYZZY-key"})
    ours = [record for record in caplog.records if record.name != "httpx2"]  # The test's own client.
    lines = [JsonLines().format(record) for record in ours]
    assert sum('"message": "request"' in line for line in lines) == 7
    assert [line for line in lines if "XYZZY" in line or KEY in line] == []


def test_a_request_is_logged_with_what_finds_it_again(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        response = running.client.post("/v2/rerank", json={"model": "champion", "query": "q", "documents": ["a"]})
        running.client.get("/health")
        running.client.get("/metrics")
    (line,) = [json.loads(JsonLines().format(record)) for record in caplog.records if record.message == "request"]
    assert (line["method"], line["route"], line["status"], line["level"]) == ("POST", "/v2/rerank", 200, "info")
    assert line["trace_id"] == response.headers["X-Trace-Id"]
    assert line["decision_id"] == response.headers["X-Decision-Id"]
    assert line["release_id"] == running.release.release_id
    assert line["caller"].startswith("key-")
    assert line["ms"] > 0
    assert line["time"].endswith("+00:00")


def test_an_exception_is_logged_by_class_and_place_not_by_its_text() -> None:
    try:
        try:
            raise KeyError("XYZZY from a library")
        except KeyError as error:
            raise ValueError("XYZZY quoting its input") from error
    except ValueError as error:
        facts = error_facts(error)
    assert facts["error"] == "ValueError"
    assert facts["cause"]["error"] == "KeyError"  # pyright: ignore[reportIndexIssue]
    assert "test_an_exception_is_logged" in str(facts["raised_at"])
    assert "XYZZY" not in json.dumps(facts)


def test_our_own_errors_are_logged_with_their_text() -> None:
    assert error_facts(ArtifactError("a file differs", "make it again"))["error_message"] == (
        "a file differs\nmake it again"
    )


def test_a_line_is_json_whatever_its_facts_are() -> None:
    record = logging.LogRecord("x", logging.WARNING, "f.py", 1, "line %s", ("one\ntwo",), None)
    record.facts = {"object": object(), "text": 'q"\u2028'}
    line = JsonLines().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == "line one\ntwo"
    assert json.loads(line)["level"] == "warning"


def test_a_stage_with_another_form_of_name_does_not_become_a_label() -> None:
    telemetry = Telemetry(ObjectivesSettings())
    items = [Ranked(0, None, 0.5, 0.0, "large", 0.0, 0.0), Ranked(1, None, 0.1, 0.0, "lean", 0.0, 0.0)]
    ranking = Ranking(items, degraded=True, truncated=2, tokens=30)
    telemetry.ranking("/v2/rerank", ranking, {"compact": 5.0, "Stage of a user": 1.0})
    text = telemetry.exposition().decode()
    assert 'rerankops_stage_seconds_count{stage="compact"} 1.0' in text
    assert 'rerankops_stage_seconds_count{stage="other"} 1.0' in text
    assert "Stage of a user" not in text
    assert 'rerankops_degraded_total{route="/v2/rerank",why="budget"} 1.0' in text
    assert 'rerankops_scored_total{tier="large"} 1.0' in text
    assert "rerankops_truncated_total 2.0" in text
    assert "rerankops_tokens_total 30.0" in text
