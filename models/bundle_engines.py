"""The cross-encoders of a bundle, and the seam at which they may run in a process of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from models.batching import PairScorer
from models.engines import SIZES, load_engine
from models.errors import ArtifactError
from models.files import digest_file


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What is needed to load both models of the bundle in `folder`; `digests` has the SHA-256 of their files."""

    folder: Path
    max_tokens: int
    threads: int
    digests: Mapping[str, str]

    def verify(self) -> None:
        """Compare every file with its digest. Raises `ArtifactError` naming the one that differs."""
        for name, expected in self.digests.items():
            path = self.folder / name
            if not path.is_file() or digest_file(path) != expected:
                raise ArtifactError(f"{name} of the bundle is missing or differs from its digest")


class Engines(Protocol):
    """Both cross-encoders of a bundle, loaded: `scorers` by size.

    `outage` says why they cannot be asked now, empty when they can; meanwhile they raise `ScorerLost`.
    """

    @property
    def scorers(self) -> Mapping[str, PairScorer]:
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
    """Both models in this process."""

    outage = ""

    def __init__(self, files: ModelFiles) -> None:
        self.scorers: Mapping[str, PairScorer] = {
            size: load_engine(
                files.folder / "engines", files.folder / size, size, files.max_tokens, threads=files.threads
            )
            for size in SIZES
        }

    def close(self) -> None:
        """Drop the models."""
        self.scorers = {}


def use_threads(threads: int) -> None:
    """Let torch use so many threads in calls of the thread that asks; 0 takes all cores."""
    import torch

    torch.set_num_threads(threads or _all_threads())


@lru_cache(maxsize=1)
def _all_threads() -> int:
    """Threads that torch takes by itself, asked once: `Encoder` changes the number while it computes."""
    import torch

    return torch.get_num_threads()
