# What is used here of fsspec, which has no annotations.
from typing import Any

from fsspec import core as core
from fsspec.spec import AbstractFileSystem

def filesystem(protocol: str, **storage_options: Any) -> AbstractFileSystem: ...
