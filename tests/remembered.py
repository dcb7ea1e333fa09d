"""What libraries work out again and again from what does not change, worked out once in a process.

Dagster walks over all settings whenever a resource is made, ten times in a run, lists all fields of a class for each of
them, and checks the same values each time. Alembic loads a hundred migrations whenever Dagster makes a database. Each
query of an ephemeral instance opens a connection, which reads the schema. That was more than half of a small run.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

_CONFIG = ("dagster._config.pythonic_config.config", "dagster._config.pythonic_config.resource")
_INFER, _FIELDS = "infer_schema_from_config_class", "model_fields"
_CONVERSION, _APPLY_DEFAULTS = "dagster._config.pythonic_config.conversion_utils", "_apply_defaults_to_schema_field"
_IN_MEMORY = ("dagster._core.storage.event_log.in_memory", "dagster._core.storage.runs.in_memory")
_CREATE = "create_engine"


def pytest_collection_finish() -> None:
    """Remember from now on, where a test has loaded Dagster."""
    if "dagster" in sys.modules:
        remember()


@cache
def remember() -> None:
    """Remember, from now on, fields and schemas of config classes, migrations, and connections to memory."""
    config, resource = map(importlib.import_module, _CONFIG)
    schemas = _remembering_schemas(getattr(config, _INFER))
    for module in (config, resource):
        setattr(module, _INFER, schemas)
        setattr(module, _FIELDS, cache(getattr(module, _FIELDS)))
    conversion = importlib.import_module(_CONVERSION)
    setattr(conversion, _APPLY_DEFAULTS, _remembering_defaults(getattr(conversion, _APPLY_DEFAULTS)))
    directory = importlib.import_module("alembic.script").ScriptDirectory
    directory.from_config = _remembering_migrations(directory.from_config)
    for module in map(importlib.import_module, _IN_MEMORY):
        setattr(module, _CREATE, partial(_pooled_engine, getattr(module, _CREATE)))


def _pooled_engine(create_engine: Callable[..., Any], url: str, **_: Any) -> Any:
    """An engine of a database in memory that keeps its connections, for all threads that use the instance."""
    from sqlalchemy.pool import QueuePool

    return create_engine(url, poolclass=QueuePool, connect_args={"check_same_thread": False})


def _remembering_schemas(infer: Callable[..., Any]) -> Callable[..., Any]:
    schemas: dict[tuple[Any, ...], Any] = {}

    def schema_of(
        model_cls: type, description: str | None = None, fields_to_omit: set[str] | None = None, default: Any = None
    ) -> Any:
        if default is not None:
            return infer(model_cls, description, fields_to_omit, default)
        key = (model_cls, description, frozenset(fields_to_omit or ()))
        if key not in schemas:
            schemas[key] = infer(model_cls, description, fields_to_omit)
        return schemas[key]

    return schema_of


def _remembering_defaults(apply: Callable[..., Any]) -> Callable[..., Any]:
    fields: dict[tuple[int, str], tuple[Any, Any]] = {}

    def with_defaults(field: Any, values: Any) -> Any:
        key = (id(field), json.dumps(values, sort_keys=True, default=repr))
        if key not in fields:
            fields[key] = (field, apply(field, values))  # A field that is kept keeps its id.
        return fields[key][1]

    return with_defaults


def _remembering_migrations(open_folder: Callable[[Config], ScriptDirectory]) -> Callable[[Config], ScriptDirectory]:
    folders: dict[str | None, ScriptDirectory] = {}

    def from_config(config: Config) -> ScriptDirectory:
        location = config.get_main_option("script_location")
        if location not in folders:
            folders[location] = open_folder(config)
        return folders[location]

    return from_config
