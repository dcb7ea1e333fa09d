"""`rerankops.toml`: every key at its default with its description, presets that load, and what is told of a gap."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from pydantic import BaseModel

from models.errors import SettingsError
from models.settings import ROOT, SETTINGS_FILE, Settings, load_settings, setting_keys
from models.settings.toml_file import describe, missing

FIELDS = dict(setting_keys())
DEFAULTS = {key: field.get_default(call_default_factory=True) for key, field in FIELDS.items()}
TEXT = SETTINGS_FILE.read_text(encoding="utf-8")
PRESETS = tomllib.loads(TEXT)["presets"]


def _values(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and key not in FIELDS:
            yield from _values(value, f"{key}.")
        else:
            yield key, value


def _comments(text: str) -> dict[str, str]:
    """The comment above each table and key of a TOML file, in one line, by dotted name."""
    comments: dict[str, str] = {}
    table, comment = "", []
    for line in text.splitlines():
        if line.startswith("#"):
            comment.append(line.removeprefix("#").strip())
            continue
        if head := re.fullmatch(r"\[(.+)\]", line):
            table = head[1]
            comments[table] = " ".join(comment)
        elif assigned := re.match(r"(\w+) = ", line):
            comments[f"{table}.{assigned[1]}".lstrip(".")] = " ".join(comment)
        comment = []
    return comments


def _sections(section: type[BaseModel] = Settings, prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield f"{prefix}{name}", field.annotation
            yield from _sections(field.annotation, f"{prefix}{name}.")


def test_the_file_has_every_key_at_its_default() -> None:
    table = tomllib.loads(TEXT)
    del table["presets"]
    assert dict(_values(table)) == DEFAULTS, "`make settings` prints what is missing"


def test_above_every_key_stands_what_it_is_and_what_it_may_be() -> None:
    comments = _comments(TEXT)
    assert {key: comments[key] for key in FIELDS} == {key: describe(field) for key, field in FIELDS.items()}


def test_above_every_table_stands_what_it_is_for() -> None:
    comments = _comments(TEXT)
    expected = {name: " ".join(str(inspect.getdoc(section)).split()) for name, section in _sections()}
    assert {name: comments[name] for name in expected} == expected


def test_bounds_and_choices_are_stated() -> None:
    assert 'docs/sources.md shows each. One of "python-docs", "man-pages", "beir", "files",' in TEXT
    assert "# Port that the service listens on. 1 to 65535.\n" in TEXT
    assert "# Resamples of the paired tests and intervals. At least 1000.\n" in TEXT
    assert "# Queries per optimizer step. Above 0.\n" in TEXT
    assert max(map(len, TEXT.splitlines())) <= 120


def test_the_default_preset_is_one_of_the_file() -> None:
    assert Settings().preset in PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_names_keys_that_exist_and_loads_as_it_says(name: str) -> None:
    changed = dict(_values(PRESETS[name]))
    assert set(changed) <= set(FIELDS)
    settings = load_settings([f"preset={name}"], file=SETTINGS_FILE, environ={})
    assert dict(_values(settings.model_dump())) == {**DEFAULTS, **changed, "preset": name}
    assert _comments(TEXT)[f"presets.{name}"], "says what it is for"


@pytest.mark.parametrize("key", ["gate.min_gain", "presets.demo.gate.min_gain"])
def test_a_wrong_value_in_the_file_is_told_with_its_key(tmp_path: Path, key: str) -> None:
    path = tmp_path / "edited.toml"
    table = key.rpartition(".")[0]
    path.write_text(f'[{table}]\nmin_gain = "much"\n')
    with pytest.raises(SettingsError, match=r"^gate\.min_gain: .*number.* \(got 'much'\)"):
        load_settings(file=path, environ={})


def test_nothing_is_missing_from_the_shipped_file() -> None:
    assert list(missing(TEXT)) == []


def test_the_command_says_nothing_about_a_complete_file() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "models.settings.toml_file"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (ended.stdout, ended.stderr) == ("", "")


def test_what_is_missing_completes_the_file() -> None:
    blocks = "\n".join(missing(""))
    assert dict(_values(tomllib.loads(blocks))) == DEFAULTS
    comments = _comments(blocks)
    assert {key: comments[key] for key in FIELDS} == {key: describe(field) for key, field in FIELDS.items()}
    assert max(map(len, blocks.splitlines())) <= 120
    assert list(missing(blocks)) == []


@pytest.mark.parametrize("key", ["preset", "corpus.python_docs.packages", "gate.min_gain"])
def test_the_block_of_a_missing_key_comes_under_its_table(key: str) -> None:
    table = tomllib.loads(TEXT)
    *parents, name = key.split(".")
    del reduce(lambda part, parent: part[parent], parents, table)[name]
    (block,) = missing(tomlkit.dumps(table))
    assert dict(_values(tomllib.loads(block))) == {key: DEFAULTS[key]}
    assert _comments(block)[key] == describe(FIELDS[key])
