"""Code versions that follow the code: digests of modules' syntax trees, docstrings and comments left out."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


def code_version(*modules: str) -> str:
    """Digest (12 hex digits) of modules of this package, named like `corpus` or `sources.beir`.

    An edit that changes what the code does changes the version; comments, docstrings and formatting do not.
    """
    joined = "".join(_module_digest(module) for module in sorted(modules))
    return hashlib.sha256(joined.encode()).hexdigest()[:12]


@cache
def _module_digest(module: str) -> str:
    tree = ast.parse((_ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _is_text(line)]  # pyright: ignore[reportAttributeAccessIssue]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
