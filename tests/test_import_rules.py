"""The one direction of imports, and that nothing heavy is imported before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("models", "assets", "checks", "services", "orchestration")
HTTP = {"fastapi", "starlette", "uvicorn"}
FORBIDDEN = {
    "models": {"assets", "checks", "services", "orchestration", "dagster", *HTTP},
    "assets": {"checks", "services", "orchestration", *HTTP},
    "checks": {"services", "orchestration", *HTTP},
    "services": {"assets", "checks", "orchestration", "dagster"},
    "orchestration": set[str](),
}
"""What a folder imports nowhere, not even inside a function."""

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
HEAVY = set(PROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-module-level-imports"])
TORCH_MODULES = {
    str(path.relative_to(ROOT))
    for pattern, rules in PROJECT["tool"]["ruff"]["lint"]["per-file-ignores"].items()
    if "TID253" in rules
    for path in ROOT.glob(pattern)
}
"""Modules that subclass a torch class, and so are themselves imported only inside functions."""

FRAMES = {"numpy", "pandas", "pandera", "pyarrow"}
HEAVY_IN = {folder: HEAVY if folder in {"models", "services"} else HEAVY | FRAMES for folder in FOLDERS}
"""What a folder imports only inside functions."""


def imported_names(nodes: Iterator[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." if node.level else (node.module or "").partition(".")[0]


def executed_on_import(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes outside functions and outside `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from (inner for other in node.orelse for inner in (other, *executed_on_import(other)))
            continue
        yield node
        yield from executed_on_import(node)


def broken_rules(folder: str, text: str) -> set[str]:
    tree = ast.parse(text)
    everywhere = set(imported_names(ast.walk(tree)))
    at_once = set(imported_names(executed_on_import(tree)))
    return (everywhere & (FORBIDDEN[folder] | {"."})) | (at_once & HEAVY_IN[folder])


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_modules_of_each_folder_keep_the_rules(folder: str) -> None:
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    broken = {path.relative_to(ROOT).as_posix(): broken_rules(folder, path.read_text()) for path in paths}
    assert {path: names for path, names in broken.items() if names and path not in TORCH_MODULES} == {}


@pytest.mark.parametrize(
    ("folder", "text", "names"),
    [
        ("models", "import dagster as dg", {"dagster"}),
        ("models", "def f():\n    from services.app import create_app", {"services"}),
        ("models", "from . import types", {"."}),
        ("models", "import torch.nn", {"torch"}),
        ("models", "class A:\n    import torch", {"torch"}),
        ("models", "try:\n    import torch\nexcept ImportError:\n    torch = None", {"torch"}),
        ("assets", "from checks.results import passed", {"checks"}),
        ("assets", "import pandas as pd", {"pandas"}),
        ("checks", "from fastapi import FastAPI", {"fastapi"}),
        ("services", "if TYPE_CHECKING:\n    import dagster", {"dagster"}),
        ("orchestration", "from mlflow import MlflowClient", {"mlflow"}),
        ("models", "import pandas as pd\nfrom models.contracts.rows import Query", set()),
        ("models", "def f():\n    import torch", set()),
        ("assets", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pandas as pd", set()),
        ("services", "from fastapi import FastAPI\nfrom models.contracts.rows import Query", set()),
    ],
)
def test_the_rules_see_what_they_should(folder: str, text: str, names: set[str]) -> None:
    assert broken_rules(folder, text) == names


def test_import_linter_holds_the_same_rules() -> None:
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    forbidden: dict[str, set[str]] = {folder: set() for folder in FOLDERS}
    for contract in contracts:
        if "containers" in contract:
            continue
        if contract["type"] == "layers":
            layers = contract["layers"]
            for position, layer in enumerate(layers):
                forbidden[layer].update(layers[:position])
        else:
            for source in contract["source_modules"]:
                forbidden[source].update(contract["forbidden_modules"])
    assert {folder: names | forbidden[folder] for folder, names in FORBIDDEN.items()} == forbidden


def test_every_room_of_models_is_on_a_floor() -> None:
    floors = next(rule["layers"] for rule in PROJECT["tool"]["importlinter"]["contracts"] if "containers" in rule)
    modules = {path.relative_to(ROOT / "models").parts[0] for path in (ROOT / "models").rglob("*.py")}
    assert set(floors) == {name.removesuffix(".py") for name in modules} - {"__init__"}


@pytest.mark.parametrize("module", ["models.settings", "orchestration.definitions", "orchestration.cli"])
def test_loading_imports_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert HEAVY & set(loaded.stdout.split()) == set()
