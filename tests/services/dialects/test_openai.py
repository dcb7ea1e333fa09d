"""/v1/models: the names that a request may give."""

from __future__ import annotations

from tests.services.conftest import Running


def test_every_name_that_is_listed_is_served(running: Running) -> None:
    listed = running.client.get("/v1/models").json()
    names = [entry["id"] for entry in listed["data"]]
    assert names == ["champion", "reranker", "7"]
    assert {entry["root"] for entry in listed["data"]} == {"7"}
    for name in names:
        assert running.rerank("q", ["a"], model=name)["meta"]["model_version"] == "7"
    assert running.stranger.get("/v1/models").status_code == 401
