"""What `tests.commands` loads before it forks: libraries alone, none of the modules that are tested."""

import gc
import importlib
import os
import warnings

from tests.remembered import remember

LIBRARIES = (
    "alembic.command",
    "dagster",
    "dagster._core.execution.api",
    "dagster._core.storage.sqlite_storage",
    "dagster._daemon.controller",
    "datasets",
    "evidently",
    "faiss",
    "great_expectations",
    "httpcore",
    "httpx",
    "hypothesis.extra.pandas",
    "jinja2",
    "matplotlib.backends.backend_agg",
    "mlflow",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "onnxruntime",
    "pandera.backends.pandas",
    "pandera.pandas",
    "pandera.strategies.pandas_strategies",
    "pydantic_settings",
    "s3fs",
    "scipy.stats",
    "sentence_transformers",
    "sentence_transformers.cross_encoder.trainer",
    "sqlalchemy.dialects.sqlite",
    "torch",
    "transformers.models.bert.modeling_bert",
    "typer",
)

# MLflow asks for it when it is loaded.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
gc.disable()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for library in LIBRARIES:
        importlib.import_module(library)
    remember()
# What is loaded stays: the collector of a fork need not look at it, and its pages stay shared.
gc.enable()
gc.freeze()
