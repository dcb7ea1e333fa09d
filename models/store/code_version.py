"""Code versions that follow the code: one digest over all modules of this package that a function reaches by imports.

Imports are read from the syntax trees, at the top of modules and inside functions alike; those for type checkers alone
are left out. No list is kept by hand, so none can be too short.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

PACKAGE = Path(__file__).resolve().parents[1]

BASE = (
    "models.errors",
    "models.settings",
    "models.store.artifacts",
    "models.store.asset_names",
    "models.store.catalog",
    "models.store.code_version",
    "models.store.durable_files",
    "models.store.filesystem",
    "models.store.provenance",
    "models.store.steps",
    "models.store.workspace",
)
"""Modules and packages that are in no code version: how results are kept, and what the settings are, not what is
computed from them. An edit of theirs, as of an error's text, makes nothing anew. Settings that a computation reads
count by their values. `models.store.tables`, which decides the bytes of tables, does count."""

STEPS = "steps"
"""Name of the modules that declare computations. They are in no code version either: what they say of a computation
counts for that one alone."""

_DIGITS = 12


def code_version(entry: str, data_files: Collection[str] = (), package: Path = PACKAGE) -> str:
    """Digest (12 hex digits) of all that decides what the function `entry`, written `module:function`, computes.

    That is the code of its `closure`, and the bytes of `data_files` (paths below `package`, as of a template). An edit
    that changes what the code does changes the version; comments, docstrings, formatting and annotations' imports do
    not. Raises `FileNotFoundError` where the module or a data file does not exist.
    """
    digest = hashlib.sha256(entry.encode())
    for name, module in sorted(_reached(entry, package).items()):
        digest.update(f"\n{name} {module.digest}".encode())
    for name in sorted(data_files):
        digest.update(f"\n{name} {hashlib.sha256((package / name).read_bytes()).hexdigest()}".encode())
    return digest.hexdigest()[:_DIGITS]


def closure(entry: str, package: Path = PACKAGE) -> list[str]:
    """Modules of `package` that the module of `entry` imports, directly and through others, less the base; sorted.

    A package that one of them is in counts with its `__init__`. Modules that nothing but a type checker imports do not.
    """
    return sorted(_reached(entry, package))


def _reached(entry: str, package: Path) -> dict[str, _Module]:
    """The modules of the closure of `entry`, by name, as their files are now."""
    start = entry.partition(":")[0]
    if not _file(start, package).is_file():
        raise FileNotFoundError(f"no module {start} in {package}")
    reached: dict[str, _Module] = {}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name not in reached and not _is_base(name):
            source = _file(name, package).read_bytes()
            reached[name] = _parse(source)
            waiting += _imported(source, package)
    return reached


@cache
def _imported(source: bytes, package: Path) -> tuple[str, ...]:
    """The modules of `package` that importing a module of this source, or running its functions, imports."""
    modules: list[str] = []
    for name, attribute in _parse(source).imports:
        if name.partition(".")[0] != package.name:
            continue
        parts = f"{name}.{attribute}".split(".") if attribute else name.split(".")
        # `from package import name` is a submodule or something that the package defines.
        names = (".".join(parts[: end + 1]) for end in range(len(parts)))
        modules += (each for each in names if _file(each, package).is_file())
    return tuple(modules)


def _file(module: str, package: Path) -> Path:
    """Where a module is, a package being its `__init__`; it need not exist."""
    path = package.joinpath(*module.split(".")[1:])
    package_file = path / "__init__.py"
    return package_file if package_file.is_file() else path.with_name(f"{path.name}.py")


def _is_base(module: str) -> bool:
    return module.rpartition(".")[2] == STEPS or any(module == name or module.startswith(f"{name}.") for name in BASE)


@dataclass(frozen=True)
class _Module:
    """What a module does, as a digest, and its imports: (module, name) of `from module import name`."""

    digest: str
    imports: frozenset[tuple[str, str]]


@cache
def _parse(source: bytes) -> _Module:
    """Parsed once per process and content: a file that is edited meanwhile is another."""
    parts: list[str] = []
    imports: set[tuple[str, str]] = set()
    _describe(ast.parse(source), parts, imports)
    return _Module(hashlib.sha256("\n".join(parts).encode()).hexdigest(), frozenset(imports))


def _describe(node: Any, parts: list[str], imports: set[tuple[str, str]]) -> None:
    """Append a syntax tree to `parts`, without docstrings and what is there for type checkers, and add its imports."""
    if isinstance(node, list):
        parts.append("[")
        for item in cast("list[object]", node):
            _describe(item, parts, imports)
        parts.append("]")
    elif not isinstance(node, ast.AST):
        parts.append(repr(node))
    elif isinstance(node, ast.If) and _is_for_types(node.test):
        for item in node.orelse:
            _describe(item, parts, imports)
    elif not _is_text(node):
        if isinstance(node, ast.Import):
            imports.update((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module is None or node.level:
                raise ValueError("relative imports are not followed; import from the package by its full name")
            imports.update((node.module, alias.name) for alias in node.names)
        parts.append(type(node).__name__)
        for name in node._fields:
            _describe(getattr(node, name, None), parts, imports)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_for_types(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else test.id if isinstance(test, ast.Name) else ""
    return name == "TYPE_CHECKING"
