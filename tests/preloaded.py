"""What `tests.commands` loads before it forks: libraries alone, none of the modules that are tested."""

import gc
import importlib
import warnings

LIBRARIES = (
    "alembic.command",
    "dagster",
    "evidently",
    "faiss",
    "great_expectations",
    "httpx",
    "mlflow",
    "onnxruntime",
    "pandera.pandas",
    "scipy.stats",
    "sentence_transformers",
    "torch",
    "typer",
)

gc.disable()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for library in LIBRARIES:
        importlib.import_module(library)
# What is loaded stays: the collector of a fork need not look at it, and its pages stay shared.
gc.enable()
gc.freeze()
