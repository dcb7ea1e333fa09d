"""`docs/data-contracts.md`: what the schemas say, all of it described."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from models.contracts.messages import MESSAGES
from models.contracts.rows import Rule
from models.contracts.tables import RULES, TABLES
from models.corpus.sources import RAW_CONTRACTS, SOURCES
from models.operations.contract_page import PAGE, render

KINDS: list[type[BaseModel]] = [
    *MESSAGES,
    *dict.fromkeys(kind for kinds in RAW_CONTRACTS.values() for kind in kinds.values()),
]


def test_the_committed_page_is_what_the_schemas_give() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run `make contracts`"


def test_every_table_column_rule_and_field_is_on_the_page() -> None:
    page = render()
    for file, schema in TABLES.items():
        assert f"### {file}" in page
        for name in schema.to_schema().columns:
            assert f"| `{name}` | " in page
    for kind in KINDS:
        for name, field in kind.model_fields.items():
            assert f"| `{field.validation_alias or name}` | " in page
    for words in RULES.values():
        assert words in page


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_field_says_what_it_is(kind: type[BaseModel]) -> None:
    assert [name for name, field in kind.model_fields.items() if not field.description] == []


def test_numbers_of_tables_have_units() -> None:
    bare = [
        (file, name)
        for file, schema in TABLES.items()
        for name, column in schema.to_schema().columns.items()
        if str(column.dtype) in ("int64", "float64") and not (column.metadata or {}).get("unit")
    ]
    assert bare == []


def test_every_rule_has_words_and_every_source_but_the_embedded_one_a_contract() -> None:
    assert set(RULES) == set(Rule.__args__)
    assert set(SOURCES) - set(RAW_CONTRACTS) == {"python-docs", "man-pages"}
