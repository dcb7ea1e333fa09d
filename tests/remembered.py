"""What libraries work out again and again from what does not change, worked out once in a process.

Dagster walks over all settings whenever a resource is made, ten times in a run, checks the values of each of them three
times, lists all fields of a class for each of them, and reads the configuration of each run three times. Alembic loads
a hundred migrations whenever Dagster makes a database. Each query of an ephemeral instance opens a connection, which
reads the schema. That was more than half of a small run.
"""

from __future__ import annotations

import importlib
import marshal
import sys
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

_CONFIG = ("dagster._config.pythonic_config.config", "dagster._config.pythonic_config.resource")
_INFER, _FIELDS = "infer_schema_from_config_class", "model_fields"
_OF_VALUES = ("_curry_config_schema", "validate_config")
"""Functions of a schema and values that change neither."""
_PROCESS = "process_config"
_IN_MEMORY = ("dagster._core.storage.event_log.in_memory", "dagster._core.storage.runs.in_memory")
_CREATE = "create_engine"


def pytest_collection_finish() -> None:
    """Remember from now on, where a test has loaded Dagster."""
    if "dagster" in sys.modules:
        remember()


@cache
def remember() -> None:
    """Remember, from now on, fields and schemas of config classes, values that were checked, configurations of runs,
    migrations, and connections to memory."""
    config, resource = map(importlib.import_module, _CONFIG)
    schemas = _remembering_schemas(getattr(config, _INFER))
    for module in (config, resource):
        setattr(module, _INFER, schemas)
        setattr(module, _FIELDS, cache(getattr(module, _FIELDS)))
    for name in _OF_VALUES:
        setattr(resource, name, _remembering_results(getattr(resource, name)))
    validate = importlib.import_module("dagster._config.validate")
    setattr(validate, _PROCESS, _remembering_processed(getattr(validate, _PROCESS)))
    run_config = importlib.import_module("dagster._core.system_config.objects").ResolvedRunConfig
    run_config.build = staticmethod(_remembering_results(run_config.build))
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


def _remembering_results(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    results: WeakKeyDictionary[Any, dict[bytes, Any]] = WeakKeyDictionary()

    def result_for(schema: Any, values: Any) -> Any:
        try:
            # Version 2 writes equal values alike, and refuses all but plain ones.
            key = marshal.dumps(values, 2)
        except ValueError:
            return function(schema, values)
        of_schema = results.setdefault(schema, {})
        if key not in of_schema:
            of_schema[key] = function(schema, values)
        return of_schema[key]

    return result_for


def _remembering_processed(process: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    of_resource = _remembering_results(lambda schema, values: process({"config": schema}, {"config": values}))

    def processed(schema: Any, values: Any) -> Any:
        if type(schema) is dict and [*schema] == [*values] == ["config"]:
            return of_resource(schema["config"], values["config"])
        return process(schema, values)

    return processed


def _remembering_migrations(open_folder: Callable[[Config], ScriptDirectory]) -> Callable[[Config], ScriptDirectory]:
    folders: dict[str | None, ScriptDirectory] = {}

    def from_config(config: Config) -> ScriptDirectory:
        location = config.get_main_option("script_location")
        if location not in folders:
            folders[location] = open_folder(config)
        return folders[location]

    return from_config
