"""Which tests `make check` leaves out: those that load models or their libraries, start a server or start a process.

They are marked `heavy` when they are collected: by the fixtures that they use, by what their module and the helpers
that it names import, or by hand, where the code under test is what loads a model. A test that is heavy and not marked
fails, and says so.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

LIBRARIES = frozenset(
    "evidently great_expectations mlflow onnx onnxruntime sentence_transformers torch transformers".split()
)
"""They take seconds to load, and what they do takes longer."""
_IMPORTS = LIBRARIES | {"multiprocessing", "subprocess"}
_FIXTURES = frozenset(
    {"docs_encoder", "loaded", "postgresql_server", "run_python", "s3_server", "small", "empty_mlflow", "tracking"}
)
_PARAMETERS = frozenset({"postgresql", "s3"})
"""Values of fixtures that start the server of this name."""
_PLUGINS = frozenset({"tests.databases", "tests.object_storage"})
"""Helpers whose fixtures start servers and processes: who imports them for their names is not heavy for that."""
_PROCESSES = frozenset({"os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen"})
_ROOT = Path(__file__).resolve().parent.parent

_light: list[str] = []
"""The test that runs now, if it is not marked."""


def _names(module: Path) -> Iterator[str]:
    """Dotted names of what a module imports, also inside its functions."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def imports_heavy(module: Path) -> bool:
    """Whether a test module, or a helper in `tests/` that it imports, names a library or a way to start processes."""
    names = set(_names(module))
    if any(name.partition(".")[0] in _IMPORTS for name in names):
        return True
    helpers = [_ROOT / f"{name.replace('.', '/')}.py" for name in names - _PLUGINS if name.startswith("tests.")]
    return any(imports_heavy(helper) for helper in helpers if helper.is_file())


def is_heavy(item: pytest.Item) -> bool:
    """Whether a collected test is heavy, by its fixtures, their parameters and its module."""
    if not isinstance(item, pytest.Function):
        return False
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return (
        not _FIXTURES.isdisjoint(item.fixturenames)
        or any(isinstance(value, str) and value in _PARAMETERS for value in parameters)
        or imports_heavy(item.path)
    )


def _is_marked(module: Path) -> bool:
    """Whether a module says `pytestmark = pytest.mark.heavy`."""
    return "\npytestmark = pytest.mark.heavy\n" in module.read_text(encoding="utf-8")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not load a module, and the libraries that it imports, of which no test is asked for."""
    if config.option.markexpr != "not heavy" or collection_path.suffix != ".py":
        return None
    return True if _is_marked(collection_path) or imports_heavy(collection_path) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the heavy tests, and put the files first that take longest, so that no worker ends with one of them."""
    for item in items:
        if is_heavy(item):
            item.add_marker(pytest.mark.heavy)
    marks: dict[Path, set[str]] = {}
    for item in items:
        marks.setdefault(item.path, set()).update(mark.name for mark in item.iter_markers())
    items.sort(key=lambda item: ("slow" not in marks[item.path], "heavy" not in marks[item.path]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Watch a test that is not marked while its fixtures are made."""
    with _watched(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Watch a test that is not marked while it runs; behind it fixtures of others may end their servers."""
    with _watched(item):
        return (yield)


@contextmanager
def _watched(item: pytest.Item) -> Iterator[None]:
    if item.get_closest_marker("heavy") is None:
        _light.append(item.nodeid)
    try:
        yield
    finally:
        _light.clear()


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if not _light:
        return
    library = str(arguments[0]).partition(".")[0] if event == "import" else ""
    if event in _PROCESSES or library in LIBRARIES:
        what = f"loads {library}" if library else f"starts a process ({event})"
        pytest.fail(f"{_light[0]} {what}: mark it with @pytest.mark.heavy, which `make check` leaves out")


sys.addaudithook(_watch)
