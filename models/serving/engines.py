"""The cross-encoders of a bundle, and the seam at which they may run in a process of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

from models.cross_encoder.engines import load_engines, model_folders
from models.serving.batching import Engine
from models.serving.model_files import ModelFiles
from models.store.code_version import code_version
from models.store.durable_files import digest_json

_READERS = ("onnxruntime", "tokenizers", "torch", "transformers")


class Engines(Protocol):
    """The cross-encoders of a bundle, loaded: `scorers` by tier.

    `outage` says why they cannot be asked now, empty when they can; meanwhile they raise `ScorerLost`.
    """

    @property
    def scorers(self) -> Mapping[str, Engine]:
        """The models."""
        ...

    @property
    def outage(self) -> str:
        """Why they cannot be asked."""
        ...

    def close(self) -> None:
        """Drop them; no call follows."""
        ...


OpenEngines = Callable[[ModelFiles], Engines]


class LocalEngines:
    """The models in this process."""

    outage = ""

    def __init__(self, files: ModelFiles) -> None:
        self.scorers: Mapping[str, Engine] = load_engines(
            files.folder / "engines", model_folders(files.folder), files.max_tokens, threads=files.threads
        )

    def close(self) -> None:
        """Drop the models."""
        self.scorers = {}


def use_threads(threads: int) -> None:
    """Let torch use so many threads in calls of the thread that asks; 0 takes all cores."""
    import torch

    torch.set_num_threads(threads or all_threads())


@cache
def reader_version() -> str:
    """What of the code, ours and that of libraries, decides how a model reads a pair, and so its score."""
    libraries = {}
    for name in _READERS:
        with suppress(PackageNotFoundError):  # under another name, as onnxruntime-gpu
            libraries[name] = version(name)
    return digest_json({"code": code_version("models.cross_encoder.engines:load_engine"), "libraries": libraries})


@lru_cache(maxsize=1)
def all_threads() -> int:
    """Threads that torch takes by itself, asked once: `Encoder` changes the number while it computes."""
    import torch

    return torch.get_num_threads()
