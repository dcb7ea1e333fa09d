"""The computations that the package declares, found in the `steps.py` of its rooms."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from models.store.code_version import PACKAGE
from models.store.steps import Step


def declared_steps() -> list[Step]:
    """Each once, in the order of the rooms; those that stand in a mapping, by table or by tier, too."""
    rooms = sorted(path.parent.name for path in PACKAGE.glob("*/steps.py"))
    values = [value for room in rooms for value in vars(importlib.import_module(f"models.{room}.steps")).values()]
    values += [item for value in values if isinstance(value, Mapping) for item in value.values()]
    return list(dict.fromkeys(value for value in values if isinstance(value, Step)))
