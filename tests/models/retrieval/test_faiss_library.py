"""Two OpenMP runtimes in a process, as the wheels for macOS bring them; here as far as it can be seen without one."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import faiss
import pytest

import models
from models.retrieval import faiss_library

pytestmark = pytest.mark.heavy


@pytest.fixture
def _threads() -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(3)
    yield
    faiss.omp_set_num_threads(before)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize(("platform", "allowed", "threads"), [("darwin", "TRUE", 1), ("linux", None, 3)])
def test_on_macos_a_second_openmp_may_load_and_starts_no_threads(
    monkeypatch: pytest.MonkeyPatch, platform: str, allowed: str | None, threads: int
) -> None:
    monkeypatch.delenv("KMP_DUPLICATE_LIB_OK", raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    importlib.reload(models)
    assert os.environ.get("KMP_DUPLICATE_LIB_OK") == allowed
    importlib.reload(faiss_library)
    assert faiss.omp_get_max_threads() == threads


def test_nothing_loads_faiss_past_it() -> None:
    root = Path(models.__file__).parent
    lines = [(path, path.read_text(encoding="utf-8").splitlines()) for path in root.rglob("*.py")]
    past = [
        f"{path.relative_to(root)}:{number}"
        for path, text in lines
        for number, line in enumerate(text)
        if line.startswith("    import faiss") and text[number - 1] != "if TYPE_CHECKING:"
    ]
    assert past == []
