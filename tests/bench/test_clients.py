"""What of docs/clients.md `bench.clients` runs."""

from __future__ import annotations

from bench.client_calls import CALLS
from bench.clients import ENVIRONMENTS, PAGE, holder, page_blocks
from services.app import DIALECTS


def test_every_example_and_command_of_the_page_is_run() -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks = page_blocks(text)
    assert len(blocks) == text.count("```sh") + text.count("```python")
    assert {"LangChain", "LlamaIndex", "Haystack"} <= {title for title, language, _ in blocks if language == "python"}


def test_the_page_has_a_request_for_each_interface() -> None:
    commands = "".join(code for _, language, code in page_blocks(PAGE.read_text(encoding="utf-8")) if language == "sh")
    paths = {getattr(route, "path", "") for dialect in DIALECTS for route in dialect.router.routes}
    assert {path for path in paths if path not in ("/score",) and f"$RERANKOPS_URL{path} " not in commands} == set()


def test_every_client_has_an_environment() -> None:
    pythons = {name: PAGE.parent / name for name in ENVIRONMENTS}
    assert {holder(pythons, distribution) for distribution, _ in CALLS.values()} == set(pythons.values())
