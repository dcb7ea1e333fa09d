"""/score and /v1/score as vLLM's clients know them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.services.conftest import Running
from tests.services.dialects.test_union import QUERY, TEXTS


def ask(running: Running, path: str = "/score", **fields: Any) -> Any:
    response = running.client.post(path, json=fields)
    assert response.status_code == 200, response.text
    return response.json()


def scores(answer: Any) -> list[float]:
    assert [row["index"] for row in answer["data"]] == list(range(len(answer["data"])))
    return [row["score"] for row in answer["data"]]


def test_scores_come_in_the_order_of_the_request(running: Running) -> None:
    answer = ask(running, text_1=QUERY, text_2=TEXTS)
    assert len(scores(answer)) == len(TEXTS)
    assert scores(answer)[1] == max(scores(answer))
    assert {row["object"] for row in answer["data"]} == {"score"}
    assert (answer["object"], answer["model"]) == ("list", "champion")
    assert answer["meta"]["decision_ids"] == [answer["id"]]


def test_a_pair_scores_alike_whatever_stands_beside_it(running: Running) -> None:
    together = scores(ask(running, text_1=QUERY, text_2=TEXTS[:4]))
    alone = [scores(ask(running, "/v1/score", queries=QUERY, documents=text))[0] for text in TEXTS[:4]]
    assert alone == pytest.approx(together, abs=1e-5)


@pytest.mark.parametrize("names", ["text_1 text_2", "queries documents", "queries items", "data_1 data_2"])
def test_as_many_queries_as_texts_are_pairs(running: Running, names: str) -> None:
    queries = [QUERY, "why is the room dry", QUERY]
    fields: dict[str, Any] = dict(zip(names.split(), (queries, TEXTS[:3]), strict=True))
    answer = ask(running, **fields)
    one = [scores(ask(running, text_1=query, text_2=text))[0] for query, text in zip(queries, TEXTS, strict=False)]
    assert scores(answer) == pytest.approx(one, abs=1e-5)
    assert len(answer["meta"]["decision_ids"]) == 2


def test_every_pair_is_scored_by_the_last_model(running: Running) -> None:
    answer = ask(running, text_1=QUERY, text_2=TEXTS[1])
    record = running.client.get(f"/v1/decisions/{answer['id']}").json()
    assert record["ranking"][0]["scored_by"] == "large"


def test_raw_scores_and_shorter_pairs(running: Running) -> None:
    raw = scores(ask(running, text_1=QUERY, text_2=TEXTS, use_activation=False))
    assert sorted(range(len(raw)), key=raw.__getitem__) == sorted(
        range(len(raw)), key=scores(ask(running, text_1=QUERY, text_2=TEXTS)).__getitem__
    )
    tails = [f"{TEXTS[1]} {text}" for text in ("Wash it.", "Mice.")]
    cut = scores(ask(running, text_1="loom", text_2=tails, truncate_prompt_tokens=9))
    assert cut[0] == pytest.approx(cut[1], abs=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"text_1": QUERY},
        {"text_1": QUERY, "documents": ["a"]},
        {"text_1": [QUERY, QUERY], "text_2": ["a", "b", "c"]},
        {"text_1": QUERY, "text_2": []},
        {"text_1": [], "text_2": ["a"]},
        {"text_1": [f"q{n}" for n in range(33)], "text_2": ["a"] * 33},
        {"text_1": QUERY, "text_2": ["a"] * 1001},
        {"data_1": QUERY, "data_2": [{"content": []}]},
    ],
)
def test_what_is_no_list_of_pairs_is_refused_in_vllms_form(running: Running, fields: dict[str, Any]) -> None:
    response = running.client.post("/score", json=fields)
    assert response.status_code == 422
    assert set(response.json()) == {"error"}
    assert response.json()["error"]["code"] == 422
