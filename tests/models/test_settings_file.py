"""`rerankops.toml`: complete, at the defaults, with presets that load."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from models.settings import SETTINGS_FILE, Settings, load_settings, setting_keys
from models.settings_file import PRESETS, Preset, render


def _leaves(table: dict[str, object], keys: set[str], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in table.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and key not in keys:
            found.update(_leaves(value, keys, f"{key}."))
        else:
            found[key] = value
    return found


KEYS = {key: field.get_default(call_default_factory=True) for key, field in setting_keys()}


def test_the_shipped_file_is_the_rendered_one() -> None:
    assert SETTINGS_FILE.read_text() == render(), "run `make settings`; own settings go into a file of their own"


def test_the_file_has_every_key_at_its_default() -> None:
    table = tomllib.loads(render())
    del table["presets"]
    assert _leaves(table, set(KEYS)) == KEYS


def test_every_key_is_commented_with_its_description() -> None:
    lines = render().splitlines()
    text = " ".join(line.removeprefix("# ") for line in lines)
    assert [key for key, field in setting_keys() if str(field.description) not in text] == []
    assert max(map(len, lines)) <= 120


def test_bounds_and_choices_are_stated() -> None:
    text = render()
    assert 'docs/sources.md shows each. One of "python-docs", "beir", "files", "folder", "sql",' in text
    assert "# Port that the service listens on. 1 to 65535.\n" in text
    assert "# Resamples of the paired tests and intervals. At least 1000.\n" in text
    assert "# Queries per optimizer step. Above 0.\n" in text


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_loads_and_says_what_it_says(name: str) -> None:
    settings = load_settings([f"preset={name}"], file=SETTINGS_FILE, environ={})
    chosen = _leaves(settings.model_dump(), set(KEYS))
    assert chosen == {**KEYS, **PRESETS[name].values, "preset": name}


def test_an_own_preset_with_awkward_values_reads_back(tmp_path: Path) -> None:
    values = {
        "preset": "odd",
        "storage.model_name": 'say "hi"\\\n',
        "corpus.files.columns": {"text": "body text", "document_id": "sku"},
        "corpus.python_docs.packages": [f"package-number-{number}" for number in range(40)],
        "training.learning_rate": 1e-7,
        "gate.allow_rolled_back": True,
    }
    path = tmp_path / "odd.toml"
    path.write_text(render({"odd": Preset("Values that need care.", values)}))
    settings = load_settings(["preset=odd"], file=path, environ={})
    assert _leaves(settings.model_dump(), set(KEYS)) == {**KEYS, **values}


def test_without_presets_the_file_is_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "bare.toml"
    path.write_text(render({}))
    assert load_settings(file=path, environ={}) == Settings()
