"""Which tests `make check` leaves out, and that none of the others is heavy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.databases import RunPython
from tests.heavy import imports_heavy, is_heavy
from tests.patience import PATIENCE_S


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import json", False),
        ("from models.gate import decide", False),
        ("import subprocess", True),
        ("def load():\n    import torch.nn", True),
        ("from transformers import BertModel", True),
        ("from tests.deployments import use_home", False),
        ("from tests.tiny_cross_encoder import write_base", True),
        ("from tests import service_process", True),
    ],
)
def test_a_module_is_heavy_by_what_it_and_its_helpers_import(tmp_path: Path, code: str, heavy: bool) -> None:
    module = tmp_path / "test_it.py"
    module.write_text(code, encoding="utf-8")
    assert imports_heavy(module) is heavy


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def test_a_test_on_a_server_is_heavy_and_the_same_one_on_a_file_is_not(
    kind: str, request: pytest.FixtureRequest
) -> None:
    assert is_heavy(request.node) is (kind == "postgresql")
    assert (request.node.get_closest_marker("heavy") is not None) is (kind == "postgresql")


INNER = """
import importlib
import os
import pytest

@pytest.fixture
def small():
    return 1

def test_light():
    assert 1

def test_by_its_fixture(small):
    os.waitpid(os.posix_spawn("/bin/sh", ["sh", "-c", "true"], {}), 0)

def test_that_loads():
    importlib.import_module("sentence_transformers")

def test_that_starts_a_process():
    os.posix_spawn("/bin/sh", ["sh", "-c", "true"], {})

@pytest.mark.heavy
def test_marked_by_hand():
    os.waitpid(os.posix_spawn("/bin/sh", ["sh", "-c", "true"], {}), 0)
"""


PYTEST = (
    "import sys, pytest; sys.exit(pytest.main(['-q', '-p', 'tests.heavy', '-p', 'no:cacheprovider', *sys.argv[1:]]))"
)


def test_a_heavy_test_without_the_mark_fails_and_is_told_to_carry_it(run_python: RunPython, tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "test_it.py").write_text(INNER, encoding="utf-8")
    said, errors = run_python(PYTEST, str(tmp_path)).communicate(timeout=PATIENCE_S)
    assert "2 failed, 3 passed" in said, said + errors
    assert "test_that_loads loads sentence_transformers: mark it with @pytest.mark.heavy" in said
    assert "test_that_starts_a_process starts a process (os.posix_spawn): mark it" in said
    for name, text in {"test_imports.py": "import torch", "test_marked.py": "pytestmark = pytest.mark.heavy"}.items():
        broken = f"import pytest\n{text}\nraise RuntimeError\n"
        (tmp_path / name).write_text(broken, encoding="utf-8")
    said, errors = run_python(PYTEST, str(tmp_path), "-m", "not heavy").communicate(timeout=PATIENCE_S)
    assert "2 failed, 1 passed, 2 deselected" in said, said + errors
