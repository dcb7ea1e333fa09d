"""What `tests.commands` loads before it forks: libraries alone, none of the modules that are tested."""

import gc
import warnings

gc.disable()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import alembic.command  # noqa: F401
    import dagster  # noqa: F401
    import evidently  # noqa: F401
    import faiss  # noqa: F401
    import great_expectations  # noqa: F401
    import httpx  # noqa: F401
    import mlflow  # noqa: F401
    import onnxruntime  # noqa: F401
    import pandera.pandas  # noqa: F401
    import scipy.stats  # noqa: F401
    import sentence_transformers  # noqa: F401
    import torch  # noqa: F401
    import typer  # noqa: F401
# What is loaded stays: the collector of a fork need not look at it, and its pages stay shared.
gc.enable()
gc.freeze()
