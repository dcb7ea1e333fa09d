"""Failures as callers meet them: one body, the right status, nothing of the inside and nothing of what was sent."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from starlette.testclient import TestClient

from models.errors import ArtifactError
from models.records.database import DatabaseError
from models.serving.protocol import Ranked, Ranking
from services.auth import OPEN_PATHS
from services.errors import KINDS, ServiceError, error_kind, error_response
from services.log_lines import JsonLines
from tests.patience import until
from tests.releases import release_bundle
from tests.services.conftest import AUTHORIZED, Service, service_in
from tests.services.scripted_bundle import Loader, in_given_order
from tests.small_bundle import small_settings

SECRET = "XYZZY-the-callers-secret"
RERANK = {"model": "champion", "query": "q", "documents": ["a", "b"]}
RERANK_BODIES = {
    "/v2/rerank": RERANK,
    "/v1/rerank": RERANK,
    "/rerank": {"query": "q", "texts": ["a", "b"]},
    "/infinity/rerank": RERANK,
    "/sglang/v1/rerank": RERANK,
    "/v1/reranking": {"query": "q", "input": ["a", "b"]},
    "/score": {"text_1": "q", "text_2": ["a", "b"]},
    "/v1/score": {"queries": ["q", "r"], "documents": ["a", "b"]},
}
ERROR_FORMS = {
    "/infinity/rerank": {"StatusErrorResponse"},
    "/score": {"StatusErrorResponse"},
    "/v1/score": {"StatusErrorResponse"},
    "/sglang/v1/rerank": {"FlatErrorResponse"},
    "/info": {"TeiErrorResponse"},
    "/rerank": {"ErrorResponse", "TeiErrorResponse"},
}
ERROR_KEYS = (
    {"message", "detail", "error"},
    {"error"},
    {"error", "error_type"},
    {"object", "message", "type", "param", "code"},
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(SECRET),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = "texts input text_1 text_2 data_1 queries items top_n top_k rank_fields max_tokens_per_doc return_documents"
OPTIONS = "timeout_ms truncate truncation raw_scores labels x"
BODIES = st.dictionaries(
    st.sampled_from([*RERANK, *FIELDS.split(), *OPTIONS.split()]),
    JSON_VALUES,
    max_size=6,
)


@pytest.fixture(scope="module")
def loader() -> Loader:
    return Loader()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, loader: Loader) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("errors")
    with service_in(folder, small_settings(folder), loader) as built:
        release_bundle(built.ledger, "b1", "3")
        yield built


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(service.app, headers=AUTHORIZED, raise_server_exceptions=False) as authorized:
        yield authorized


def check_body(body: Any, status: int) -> str:
    """The form that all clients can read; returns the message."""
    assert set(body) == {"message", "detail", "error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert isinstance(body["message"], str)
    assert body["message"]
    assert body["message"] == body["detail"] == body["error"]["message"]
    assert body["error"]["type"].endswith("_error")
    assert body["error"]["code"]
    if status < 500:
        assert body["error"]["type"] != "server_error"
    return body["message"]


@pytest.mark.parametrize("kind", KINDS)
def test_each_failure_has_its_status_and_the_one_body(kind: type[Exception]) -> None:
    response = error_response(kind("it failed", "do that"), "t1")
    body = json.loads(bytes(response.body))
    check_body(body, response.status_code)
    assert response.status_code == KINDS[kind].status
    assert body["error"]["code"] == KINDS[kind].code
    retry = KINDS[kind].retry_after_s
    assert response.headers.get("Retry-After") == (None if retry is None else str(retry))
    if issubclass(kind, ServiceError):
        assert body["message"] == "it failed. do that"


def test_codes_are_distinct() -> None:
    assert len({kind.code for kind in KINDS.values()}) == len(KINDS)


@pytest.mark.parametrize(
    "error",
    [
        ValueError(f"/etc/passwd {SECRET}"),
        ArtifactError(f"/var/lib/rerankops {SECRET}"),
        DatabaseError(f"postgresql://user:{SECRET}@host/db is away"),
    ],
)
def test_failures_of_the_inside_keep_their_text_to_the_log(error: Exception) -> None:
    response = error_response(error, "trace-9")
    message = check_body(json.loads(bytes(response.body)), response.status_code)
    assert SECRET not in message
    assert "/" not in message
    if not isinstance(error, DatabaseError):
        assert (response.status_code, "trace-9" in message) == (500, True)


def test_a_subclass_is_told_as_its_base() -> None:
    class Lost(DatabaseError):
        pass

    assert error_kind(Lost("away")).status == 503


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "param"),
    [
        ("POST", "/v2/rerank", b"{", 400, "malformed_json", None),
        ("POST", "/v2/rerank", b"\xff\xfe", 400, "malformed_json", None),
        ("POST", "/v2/rerank", b"[" * 100_000, 400, "bad_request", None),
        ("POST", "/v2/rerank", b"", 422, "invalid_request", None),
        ("POST", "/v2/rerank", b"[]", 422, "invalid_request", None),
        ("POST", "/v2/rerank", b'"XYZZY-the-callers-secret"', 422, "invalid_request", None),
        ("POST", "/v2/rerank", {**RERANK, "documents": []}, 422, "invalid_request", "documents"),
        ("POST", "/v2/rerank", {**RERANK, "documents": "abc"}, 422, "invalid_request", "documents"),
        ("POST", "/v2/rerank", {**RERANK, "documents": [{"text": SECRET}]}, 422, "invalid_request", "documents.0"),
        ("POST", "/v2/rerank", {**RERANK, "documents": ["a", "\ud800"]}, 422, "invalid_request", "documents.1"),
        ("POST", "/v2/rerank", {**RERANK, "documents": ["a"] * 1001}, 422, "invalid_request", "documents"),
        ("POST", "/v2/rerank", {**RERANK, "query": ""}, 422, "invalid_request", "query"),
        ("POST", "/v2/rerank", {**RERANK, "query": " \n\t\u3000"}, 422, "invalid_request", "query"),
        ("POST", "/v2/rerank", {**RERANK, "query": f"{SECRET}\x00"}, 422, "invalid_request", "query"),
        ("POST", "/v2/rerank", {**RERANK, "query": f"{SECRET}\ud800"}, 422, "invalid_request", "query"),
        ("POST", "/v2/rerank", {**RERANK, "top_n": 0}, 422, "invalid_request", "top_n"),
        ("POST", "/v2/rerank", {**RERANK, "top_n": SECRET}, 422, "invalid_request", "top_n"),
        ("POST", "/v2/rerank", {**RERANK, "timeout_ms": -1}, 422, "invalid_request", "timeout_ms"),
        ("POST", "/v2/rerank", {**RERANK, "timeout_ms": float("nan")}, 422, "invalid_request", "timeout_ms"),
        ("POST", "/v2/rerank", {"model": SECRET}, 422, "invalid_request", "query"),
        ("POST", "/v2/rerank", {**RERANK, "model": SECRET}, 404, "model_not_found", "model"),
        ("POST", "/v2/rerank", {**RERANK, "model": ""}, 422, "invalid_request", "model"),
        ("POST", "/v1/answer", {"query": "q", "labels": [""]}, 422, "invalid_request", "labels.0"),
        ("POST", "/v1/answer", {"query": "q", "labels": SECRET}, 422, "invalid_request", "labels"),
        ("POST", "/v1/answer", {"query": "q", "top_k": 1001}, 422, "invalid_request", "top_k"),
        ("POST", "/v1/answer", {"query": "q", "filter": SECRET}, 422, "invalid_request", "filter"),
        ("POST", "/v1/answer", {"query": "q", "\ud800": SECRET}, 422, "invalid_request", None),
        ("GET", f"/v1/decisions/{'A' * 32}", None, 422, "invalid_request", "decision_id"),
        ("GET", f"/v1/decisions/{'a' * 33}", None, 422, "invalid_request", "decision_id"),
        ("GET", "/v1/decisions/..%2f..%2fetc", None, 404, "not_found", None),
        ("GET", f"/v1/decisions/{'a' * 32}", None, 404, "decision_not_found", "decision_id"),
        ("GET", "/v1/answer", None, 405, "method_not_allowed", None),
        ("GET", "/nowhere", None, 404, "not_found", None),
    ],
)
def test_what_a_caller_gets_wrong_is_named_and_not_repeated(
    client: TestClient, method: str, path: str, body: Any, status: int, code: str, param: str | None
) -> None:
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    response = client.request(method, path, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == status, response.text
    result = response.json()
    message = check_body(result, status)
    assert (result["error"]["code"], result["error"]["param"]) == (code, param)
    assert SECRET not in response.text
    assert len(message) < 500
    if param is not None:
        assert param in message or param == "decision_id"


def test_a_body_without_a_json_content_type_is_told_so(client: TestClient) -> None:
    response = client.post("/v2/rerank", content=json.dumps(RERANK), headers={"Content-Type": "text/plain"})
    assert response.status_code == 422
    assert "Content-Type: application/json" in check_body(response.json(), 422)


def test_the_name_of_an_unknown_field_is_kept_short(client: TestClient) -> None:
    name = "n" * 100_000
    response = client.post("/v1/answer", json={"query": "q", name: 1})
    assert response.status_code == 422
    assert len(check_body(response.json(), 422)) < 200


def test_many_problems_are_counted(client: TestClient) -> None:
    response = client.post("/v2/rerank", json={**RERANK, "documents": [1] * 900})
    message = check_body(response.json(), 422)
    assert "documents.0: " in message
    assert message.endswith("and 895 more")


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from([*RERANK_BODIES, "/v1/answer"]), start=st.booleans(), body=BODIES)
def test_no_json_makes_the_service_fail_or_repeat_it(
    client: TestClient, path: str, start: bool, body: dict[str, Any]
) -> None:
    sent = {**RERANK_BODIES.get(path, {"query": "q"}), **body} if start else body
    response = client.post(path, content=json.dumps(sent), headers={"Content-Type": "application/json"})
    assert response.status_code in (200, 400, 404, 422), response.text
    if response.status_code != 200:
        assert set(response.json()) in ERROR_KEYS, response.text
        assert SECRET not in response.text


@pytest.mark.parametrize(
    ("ranking", "fault"),
    [
        (Ranking(in_given_order(2).items[:1]), "each of the 2 texts once"),
        (Ranking([*in_given_order(1).items, *in_given_order(1).items]), "each of the 2 texts once"),
        (Ranking(list(reversed(in_given_order(2).items))), "not sorted"),
        (Ranking([Ranked(n, None, score, 0, "lean", 0, 0) for n, score in enumerate((1.5, 0.2))]), "from 0 to 1"),
        (Ranking([Ranked(n, None, float("nan"), 0, "lean", 0, 0) for n in range(2)]), "from 0 to 1"),
    ],
)
def test_a_ranking_that_does_not_fit_the_request_never_leaves_the_service(
    client: TestClient, loader: Loader, monkeypatch: pytest.MonkeyPatch, ranking: Ranking, fault: str
) -> None:
    monkeypatch.setattr(loader.loaded[-1], "rank", lambda count: ranking)
    response = client.post("/v2/rerank", json=RERANK)
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "ranking_fault"
    assert fault in check_body(response.json(), 500)


def test_an_unexpected_failure_is_a_plain_500_whose_trace_is_in_the_log(
    client: TestClient, loader: Loader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(count: int) -> Ranking:
        raise RuntimeError(f"CUDA failed on {SECRET} in /opt/models")

    monkeypatch.setattr(loader.loaded[-1], "rank", fail)
    with caplog.at_level(logging.INFO):
        response = client.post("/v2/rerank", json=RERANK)
    message = check_body(response.json(), 500)
    assert response.status_code == 500
    assert response.headers["X-Trace-Id"] in message
    assert SECRET not in response.text
    assert "/opt" not in response.text
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records]
    (failure,) = [line for line in lines if line["message"] == "request failed"]
    assert failure["trace_id"] == response.headers["X-Trace-Id"]
    assert failure["error"] == "RuntimeError"
    assert any("scripted_bundle.py" in frame for frame in failure["raised_at"])
    assert SECRET not in json.dumps(lines)


def test_a_database_that_is_away_is_a_503_while_answers_go_on(tmp_path: Path) -> None:
    with service_in(tmp_path, small_settings(tmp_path), Loader()) as service:
        release_bundle(service.ledger, "b1")
        with TestClient(service.app, headers=AUTHORIZED, raise_server_exceptions=False) as client:
            service.database.close()
            (tmp_path / "records").rename(tmp_path / "away")
            response = client.post("/v2/rerank", json=RERANK)
            assert response.status_code == 200
            lost = client.get(f"/v1/decisions/{response.json()['id']}")
            assert lost.status_code == 503
            assert lost.headers["Retry-After"] == "5"
            assert lost.json()["error"]["code"] == "database_unavailable"
            assert str(tmp_path) not in check_body(lost.json(), 503)
            (tmp_path / "away").rename(tmp_path / "records")
            until(lambda: service.writer.spooled == 0)
            assert client.get(f"/v1/decisions/{response.json()['id']}").json()["query"] == "q"


def test_openapi_names_the_key_and_every_failure_that_a_route_can_answer(tmp_path: Path) -> None:
    with service_in(tmp_path, small_settings(tmp_path), Loader()) as service:
        described = service.app.openapi()
    (scheme,) = described["components"]["securitySchemes"]
    assert described["components"]["securitySchemes"][scheme]["scheme"] == "bearer"
    error = described["components"]["schemas"]["ErrorResponse"]
    told = json.loads(bytes(error_response(ValueError()).body))
    assert set(error["required"]) == set(told) == set(error["properties"])
    assert "HTTPValidationError" not in described["components"]["schemas"]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert (operation.get("security") == [{scheme: []}]) == (path not in OPEN_PATHS), path
            if path not in OPEN_PATHS:
                assert {"401", "500"} <= set(operation["responses"])
            if path in RERANK_BODIES:
                assert {"400", "401", "404", "408", "413", "422", "500", "503"} <= set(operation["responses"])
                assert "overloaded" in operation["responses"]["503"]["description"]
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    schema = answer["content"]["application/json"]["schema"]
                    forms = {form["$ref"].rpartition("/")[2] for form in schema.get("anyOf", [schema])}
                    assert forms == ERROR_FORMS.get(path, {"ErrorResponse"}), (method, path, status)
    assert set(RERANK_BODIES) <= set(described["paths"])


def test_openapi_describes_the_time_budget_and_the_metrics_as_they_are(tmp_path: Path) -> None:
    with service_in(tmp_path, small_settings(tmp_path), Loader()) as service:
        described = service.app.openapi()
    number = {"type": "number", "minimum": 0.001, "maximum": 60_000.0}
    bodies = described["components"]["schemas"].values()
    in_bodies = [body["properties"]["timeout_ms"] for body in bodies if "timeout_ms" in body.get("properties", {})]
    assert len(in_bodies) > 1
    assert all(in_body["anyOf"] == [number, {"type": "null"}] for in_body in in_bodies)
    for path in ("/v2/rerank", "/v1/answer"):
        parameters = described["paths"][path]["post"]["parameters"]
        (header,) = [parameter for parameter in parameters if parameter["name"] == "x-timeout-ms"]
        assert number.items() <= header["schema"].items(), "a header has no null"
        assert not header["required"]
    assert list(described["paths"]["/metrics"]["get"]["responses"]["200"]["content"]) == ["text/plain"]


def test_openapi_requires_of_an_answer_nothing_that_is_left_out_where_it_is_null(tmp_path: Path) -> None:
    with service_in(tmp_path, small_settings(tmp_path), Loader()) as service:
        described = service.app.openapi()
    schemas = described["components"]["schemas"]
    seen: set[str] = set()

    def look_at(schema: Any) -> None:
        if isinstance(schema, dict):
            name = schema.get("$ref", "").rpartition("/")[2]
            if name and name not in seen:
                seen.add(name)
                look_at(schemas[name])
            for field in schema.get("required", ()):
                assert {"type": "null"} not in schema["properties"][field].get("anyOf", ()), (schema["title"], field)
            for part in schema.values():
                look_at(part)
        elif isinstance(schema, list):
            for part in schema:
                look_at(part)

    for path in RERANK_BODIES:
        look_at(described["paths"][path]["post"]["responses"]["200"])
    assert {"RerankMeta", "UnionResponse", "ScoreMeta"} <= seen


REQUESTS: list[tuple[str, dict[str, Any], bool]] = [
    ("/v1/rerank", {"query": "q", "documents": ["a", {"text": "b"}]}, True),
    ("/v1/rerank", {"query": "q", "documents": [{"title": "b"}], "rank_fields": ["title"]}, True),
    ("/v1/rerank", {"query": "q", "documents": [{"title": "b"}]}, False),
    ("/v1/rerank", {"query": "q", "documents": [{"text": 1}], "rank_fields": None}, False),
    ("/v1/rerank", {"query": " ", "documents": ["a"]}, False),
    ("/v1/reranking", {"query": "q", "input": [{"text": "b"}]}, True),
    ("/v1/reranking", {"query": "q", "input": [{"title": "b"}]}, False),
    ("/rerank", {"query": "q", "texts": ["a"], "truncation_direction": "right"}, True),
    ("/rerank", {"query": "q", "texts": ["a"], "truncation_direction": "Left"}, False),
    ("/rerank", {"query": "q", "texts": []}, False),
    ("/rerank", {"query": "q", "texts": [1], "documents": ["a"]}, False),
    ("/rerank", {"query": "q", "documents": ["a"]}, True),
    ("/score", {"text_1": "q", "text_2": ["a", "b"]}, True),
    ("/score", {"queries": ["q", "r"], "items": ["a", "b"], "text_1": None}, True),
    ("/score", {"queries": "q", "text_2": "a"}, False),
    ("/score", {"queries": "q", "documents": "a", "data_1": "q"}, False),
    ("/score", {"queries": [], "documents": "a"}, False),
    ("/score", {"queries": ["q", "\t"], "documents": "a"}, False),
    ("/score", {}, False),
]


@pytest.mark.parametrize(("path", "body", "accepted"), REQUESTS)
def test_openapi_allows_what_is_accepted_and_nothing_else(
    client: TestClient, service: Service, path: str, body: dict[str, Any], accepted: bool
) -> None:
    described = service.app.openapi()
    schema = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    allowed = Draft202012Validator({**schema, "components": described["components"]}).is_valid(body)
    assert (allowed, client.post(path, json=body).status_code == 200) == (accepted, accepted)
