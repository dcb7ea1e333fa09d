"""A code version changes with what the code does, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.store import code_version as module
from models.store.code_version import code_version

BASE = '''
"""What it is."""

LIMIT = 3


class Thing:
    """A thing."""

    size = 1

    def double(self, x):
        """Twice."""
        return 2 * x  # why
'''


@pytest.fixture
def version_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_ROOT", tmp_path)

    def version(text: str) -> str:
        (tmp_path / "thing.py").write_text(text)
        module._module_digest.cache_clear()
        return code_version("thing")

    yield version
    module._module_digest.cache_clear()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# why", "# because"),
        ('"""Twice."""', '"""Two times."""'),
        ('"""A thing."""\n', ""),
        ('"""What it is."""', '"""Other words."""'),
        ("2 * x", "(2\n            * x)"),
        ("\n\n\nclass", "\n\nclass"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(version_of, old: str, new: str) -> None:
    assert old in BASE
    assert version_of(BASE.replace(old, new)) == version_of(BASE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("2 * x", "x * 2"),
        ("size = 1", 'size = "1"'),
        ("def double", "def twice"),
        ("self, x)", "self, x=1)"),
        ("return 2", "yield 2"),
    ],
)
def test_what_the_code_does_counts(version_of, old: str, new: str) -> None:
    assert old in BASE
    assert version_of(BASE.replace(old, new)) != version_of(BASE)


def test_the_order_of_modules_does_not_count() -> None:
    assert code_version("store.durable_files", "corpus.splits") == code_version("corpus.splits", "store.durable_files")
    assert code_version("store.durable_files") != code_version("store.durable_files", "errors")


def test_a_module_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        code_version("no_such_module")
