"""What a computation of the lifecycle is: a function of this package, the settings that it reads, and its results.

Each is declared once, in the `steps.py` of its package, beside the modules that compute. Assets, checks and
`rerankops evaluate` name that declaration, so that they agree on what makes a stored result out of date.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from models.settings import Settings, values_of
from models.store.artifacts import Artifact, ArtifactStore
from models.store.code_version import code_version
from models.store.durable_files import digest_json

_SCRATCH_DIGITS = 24

Build = Callable[[Path], Mapping[str, Any]]
Lookup = Callable[[], Artifact | None]
"""Finds the artifact that a computation takes over from, when it is really done."""


@dataclass(frozen=True)
class Step:
    """One computation, declared.

    It is a declaration alone: importing it imports nothing of what computes.
    """

    name: str
    """The asset that it makes, as `index/lexical_index`, or the kind of result that it remembers."""

    entry: str
    """The function that makes it, `module:function`: its import closure is the code version."""

    settings: tuple[str, ...] = ()
    """Keys and sections of the settings that the function reads."""

    without: tuple[str, ...] = ()
    """Keys of those sections that do not matter."""

    data_files: tuple[str, ...] = ()
    """Files of the package that the function reads, as templates: paths below `models/`."""

    @cached_property
    def code_version(self) -> str:
        """Digest of the code and the data files that the function reaches."""
        return code_version(self.entry, self.data_files)

    def values(self, settings: Settings) -> dict[str, Any]:
        """The values of the settings that the function reads, by dotted key."""
        return values_of(settings, *self.settings, without=self.without)

    def get_or_create(
        self,
        store: ArtifactStore,
        settings: Settings,
        build: Build,
        *,
        inputs: Sequence[Artifact] = (),
        outside: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> Artifact:
        """The artifact of this computation on these inputs, made only if it never was.

        `build` is the entry, its arguments bound by `functools.partial` but for the last, the empty folder that it
        fills; it returns the summary. `outside` names inputs that are no artifacts (a source, base weights) with their
        digests. `values` stand for those of `settings` where not all of them matter to these inputs.
        """
        self._require_entry(build)
        outside = outside or {}
        return store.get_or_create(
            self.name,
            code_version=self.code_version,
            inputs={**{artifact.asset: artifact.data_version for artifact in inputs}, **outside},
            settings=self.values(settings) if values is None else values,
            build=build,
        )

    def remember(
        self, store: ArtifactStore, key: Mapping[str, Any], compute: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """The JSON result of the entry, its arguments bound, computed once per `key` and code version."""
        self._require_entry(compute)
        return store.remember(self.name, {**key, "code": self.code_version}, compute)

    def scratch(self, store: ArtifactStore, *made_with: Any) -> Path:
        """The folder that a killed computation goes on from, for this code and what `made_with` says (JSON values)."""
        digest = digest_json([self.code_version, *made_with])[:_SCRATCH_DIGITS]
        return store.scratch(f"{self.name.replace('/', '-')}-{digest}")

    def previous(self, store: ArtifactStore, agreeing: Mapping[str, Any]) -> Artifact | None:
        """The current artifact, compared with its digests, for a computation that takes over what did not change.

        None where there is none, or it is of other code, or made with another setting or outside input than `agreeing`.
        """
        current = store.current(self.name)
        if current is None or current.manifest.code_version != self.code_version:
            return None
        made_with = {**current.manifest.settings, **current.manifest.inputs}
        if any(made_with.get(name) != value for name, value in agreeing.items()):
            return None
        current.verify()
        return current

    def _require_entry(self, build: Callable[..., Any]) -> None:
        """Raise `ValueError` for another function than the one whose code decides the version."""
        while isinstance(build, partial):
            build = build.func
        name = f"{build.__module__}:{build.__qualname__}"
        if name != self.entry:
            raise ValueError(f"{self.name} is computed by {self.entry}, not by {name}")
