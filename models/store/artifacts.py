"""The content-addressed artifact store: immutable folders with a manifest, named by their content.

Layout under the root (any fsspec URL):

    objects/<asset>/<data_version>/...files..., manifest.json
    steps/<asset>/<step>.json            the manifest of a computation that was done: it is not done again
    memo/<kind>/<digest>.json            results of checks, remembered with their keys
    current/<asset>[/<partition>].json   the version that downstream assets read, and the step that gave it
    runs/<run>/current/...               the same for one run alone, until it has succeeded

Two computations may give the same content, as when a setting changes that turns out not to matter. They share the
folder; `Artifact.manifest` says which inputs and settings the one at hand was made from.

A computation writes into a temporary folder; the folder gets its name when it is complete. A process killed at any
point leaves the store as it was, plus a temporary folder that the next computation removes. A step's file is as old as
its last use, by which `models.operations.garbage_collection` knows what nobody needs any more.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import ArtifactError
from models.store.durable_files import canonical_json, digest_file, digest_json, write_atomically
from models.store.filesystem import TEMPORARY, StoreFiles
from models.store.workspace import ABANDONED_AFTER_S, Workspace

if TYPE_CHECKING:
    import pandas as pd

    from models.settings import Settings

MANIFEST = "manifest.json"
REPORTS = "report"
"""Files under this folder (plots, HTML) are kept and digested but do not decide the data version."""

_VERSION_DIGITS = 24


@dataclass(frozen=True)
class FileEntry:
    """Digest and size (bytes) of one file of an artifact."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """What an artifact is, what it was made from and by what.

    `inputs` maps upstream asset names to their data versions; `summary` holds counts and measurements to show,
    which do not
    decide the version; `seconds` is how long the computation took.
    """

    asset: str
    data_version: str
    code_version: str
    inputs: Mapping[str, str]
    settings: Mapping[str, Any]
    settings_digest: str
    files: Mapping[str, FileEntry]
    summary: Mapping[str, Any]
    seconds: float
    created_at: str

    @property
    def step(self) -> str:
        """Name of the computation: the digest of what it was made by and from."""
        return _step(self.asset, self.code_version, self.inputs, self.settings_digest)

    def to_json(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Parse what `to_json` wrote."""
        values = json.loads(data)
        values["files"] = {name: FileEntry(**entry) for name, entry in values["files"].items()}
        return cls(**values)


@dataclass(frozen=True)
class Artifact:
    """An immutable folder of files on this machine, with its manifest."""

    manifest: Manifest
    folder: Path
    reused: bool = field(default=False, compare=False)

    @property
    def asset(self) -> str:
        """Asset name, as in `corpus/passages`."""
        return self.manifest.asset

    @property
    def data_version(self) -> str:
        """Digest of the content, 24 hex digits of a SHA-256."""
        return self.manifest.data_version

    @property
    def summary(self) -> Mapping[str, Any]:
        """Counts and measurements recorded when it was made."""
        return self.manifest.summary

    def path(self, name: str) -> Path:
        """Path of one of its files. Raises `ArtifactError` if the manifest does not list it."""
        if name not in self.manifest.files:
            raise ArtifactError(f"{self.asset} {self.data_version} has no file {name!r}")
        return self.folder / name

    def read_table(self, name: str, columns: list[str] | None = None) -> pd.DataFrame:
        """Read one of its parquet files."""
        import pandas as pd

        return pd.read_parquet(self.path(name), columns=columns)

    def read_json(self, name: str) -> Any:
        """Read one of its JSON files."""
        return json.loads(self.path(name).read_bytes())

    def verify(self, beginnings: tuple[str, ...] = ("",)) -> None:
        """Compare every file, or those whose names begin so, with its digest. Raises `ArtifactError` naming the file
        that differs."""
        for name, entry in self.manifest.files.items():
            if not name.startswith(beginnings):
                continue
            path = self.folder / name
            if not path.is_file():
                raise ArtifactError(f"{self.asset} {self.data_version}: {name} is missing")
            if digest_file(path) != entry.sha256:
                raise ArtifactError(
                    f"{self.asset} {self.data_version}: {name} differs from its digest",
                    "Delete that artifact's folder and run again: it will be made anew from its inputs.",
                )


class ArtifactStore:
    """Reads, writes and remembers artifacts under one root.

    `root` is an fsspec URL or a local path; `cache` is the local folder where artifacts of a remote root are worked on.
    Errors of a remote root that cannot be reached are `ArtifactError`s without its credentials.
    With the id of a `run`, what it points at is current for that run alone until `promote`.
    """

    def __init__(self, root: str, cache: Path, run: str = "") -> None:
        self._own = f"runs/{run}/" if run else ""
        self.files = StoreFiles(root)
        self.is_local = self.files.is_local
        self.workspace = Workspace((self.files.path() if self.is_local else cache) / TEMPORARY)
        self.scratch_root = (self.files.path() if self.is_local else cache) / "scratch"
        self.cache = cache / "objects"

    @classmethod
    def of(cls, settings: Settings, run: str = "") -> ArtifactStore:
        """The store of a deployment."""
        return cls(settings.artifact_root, settings.home / "cache", run)

    def get_or_create(
        self,
        asset: str,
        *,
        code_version: str,
        inputs: Mapping[str, str],
        settings: Mapping[str, Any],
        build: Callable[[Path], Mapping[str, Any]],
    ) -> Artifact:
        """Return the artifact of this very computation, making it only if it was never made.

        `build` gets an empty folder, fills it and returns the summary (JSON values). The same code version, inputs
        and settings give the stored artifact, with `reused` set.
        """
        settings_digest = digest_json(settings)
        known = self._reuse(asset, _step(asset, code_version, inputs, settings_digest))
        if known is not None:
            return replace(known, reused=True)

        self._remove_abandoned()
        with self.workspace.folder(asset.replace("/", "-")) as folder:
            started = time.perf_counter()
            summary = dict(build(folder))
            files = _digest_folder(folder)
            manifest = Manifest(
                asset=asset,
                data_version=_data_version(files),
                code_version=code_version,
                inputs=dict(inputs),
                settings=dict(settings),
                settings_digest=settings_digest,
                files=files,
                summary=summary,
                seconds=round(time.perf_counter() - started, 3),
                created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
            # The step comes first: whoever deletes unused content then sees that this one is used
            # (models/operations/garbage_collection.py).
            self.files.write(step_place(asset, manifest.step), manifest.to_json())
            self._commit(folder, manifest)
        artifact = self.made_by(manifest)
        if artifact is None:
            raise ArtifactError(f"{asset} {manifest.data_version} was deleted while it was made", "Run again.")
        return artifact

    def scratch(self, name: str) -> Path:
        """A folder on this machine for what a killed computation can go on from; deleted a day after its last use."""
        return self.scratch_root / name

    def open(self, asset: str, data_version: str) -> Artifact:
        """Return an artifact by name and version, fetched to this machine. Raises `ArtifactError` if there is none."""
        artifact = self._find(asset, data_version)
        if artifact is None:
            raise ArtifactError(f"no artifact {asset} {data_version}", "Run `rerankops run` to make it.")
        return artifact

    def has(self, asset: str, data_version: str) -> bool:
        """Whether the content is stored, whole."""
        return self.files.exists(f"{object_place(asset, data_version)}/{MANIFEST}")

    def point(self, artifact: Artifact, partition: str | None = None) -> None:
        """Make `artifact` the one that downstream assets read."""
        target = {"data_version": artifact.data_version, "step": artifact.manifest.step}
        self.files.write(f"{self._own}{_pointer(artifact.asset, partition)}", canonical_json(target))

    def current(self, asset: str, partition: str | None = None) -> Artifact | None:
        """The artifact that downstream assets read, or None before the first one."""
        pointer_key = _pointer(asset, partition)
        pointer = self.files.read_json(f"{self._own}{pointer_key}") if self._own else None
        pointer = pointer or self.files.read_json(pointer_key)
        if pointer is None:
            return None
        data = self.files.read(step_place(asset, pointer["step"]))
        artifact = None if data is None else self.made_by(Manifest.from_json(data))
        return artifact or self.open(asset, pointer["data_version"])

    def use(self, artifact: Artifact) -> None:
        """Mark an artifact as used now, so that `models.operations.garbage_collection` leaves it alone for a while."""
        self.files.touch(step_place(artifact.asset, artifact.manifest.step), artifact.manifest.to_json())

    def promote(self) -> None:
        """Make what this run points at current for all.

        Each pointer moves by itself. Of a process killed between two, the next run on the same version moves the rest.
        """
        for pointer_key, data in self.files.read_all(self._own_pointers()).items():
            self.files.write(pointer_key.removeprefix(self._own), data)
        self.forget_run()
        # A run that only reused has not looked yet.
        self.workspace.remove_abandoned()

    def forget_run(self) -> None:
        """Drop what this run points at."""
        for pointer_key in self._own_pointers():
            self.files.delete(pointer_key)

    def made(self, asset: str) -> list[Artifact]:
        """What the computations of an asset gave, as far as it is stored."""
        manifests = self.files.read_all(self.files.find(f"steps/{asset}")).values()
        return [artifact for data in manifests if (artifact := self.made_by(Manifest.from_json(data))) is not None]

    def made_alike(self, artifact: Artifact, asset: str) -> Artifact | None:
        """What `asset` became by the same code, inputs and settings as `artifact`; None if it is not stored."""
        manifest = artifact.manifest
        data = self.files.read(
            step_place(asset, _step(asset, manifest.code_version, manifest.inputs, manifest.settings_digest))
        )
        return None if data is None else self.made_by(Manifest.from_json(data))

    def _own_pointers(self) -> list[str]:
        return [*self.files.find(self._own.rstrip("/"))] if self._own else []

    def require(self, asset: str, partition: str | None = None) -> Artifact:
        """`current`, or an `ArtifactError` that says how to make it."""
        artifact = self.current(asset, partition)
        if artifact is None:
            raise ArtifactError(
                f"{asset} has not been made yet", f"Run `rerankops run --select {asset}` with what is upstream."
            )
        return artifact

    def remember(self, kind: str, key: Mapping[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the JSON result of a deterministic computation, computed once per `key`."""
        memo_key = f"memo/{kind}/{digest_json(key)}.json"
        entry = self.files.read_json(memo_key)
        if entry is None:
            # The key says whose result it is, when that is deleted.
            entry = {"key": dict(key), "result": compute()}
            self.files.write(memo_key, canonical_json(entry))
        return entry["result"]

    def _reuse(self, asset: str, step: str) -> Artifact | None:
        """What a computation gave, None if it was never done or its content was deleted."""
        step_key = step_place(asset, step)
        data = self.files.read(step_key)
        if data is None:
            return None
        # First used, then looked for: whoever deletes it looks at these two in the other order
        # (models/operations/garbage_collection.py).
        self.files.touch(step_key, data)
        return self.made_by(Manifest.from_json(data))

    def made_by(self, manifest: Manifest) -> Artifact | None:
        """The stored content of a computation with its manifest, None if it was deleted; its files are those that were
        stored first."""
        stored = self._find(manifest.asset, manifest.data_version)
        return stored and Artifact(replace(manifest, files=stored.manifest.files), stored.folder)

    def _find(self, asset: str, data_version: str) -> Artifact | None:
        object_key = object_place(asset, data_version)
        data = self.files.read(f"{object_key}/{MANIFEST}")
        if data is None:
            return None
        manifest = Manifest.from_json(data)
        if self.is_local:
            return Artifact(manifest, self.files.path(object_key))
        folder = self.cache / asset / data_version
        if not (folder / MANIFEST).exists():
            self._fetch(object_key, manifest, folder)
        return Artifact(manifest, folder)

    def _commit(self, folder: Path, manifest: Manifest) -> None:
        object_key = object_place(manifest.asset, manifest.data_version)
        if self.has(manifest.asset, manifest.data_version):
            return
        write_atomically(folder / MANIFEST, manifest.to_json())
        for path in folder.rglob("*"):
            if path.is_file():
                path.chmod(path.stat().st_mode & 0o444)
        if self.is_local:
            _move(folder, self.files.path(object_key))
            return
        for name in manifest.files:
            self.files.upload(folder / name, f"{object_key}/{name}")
        self.files.write(f"{object_key}/{MANIFEST}", manifest.to_json())
        # What was being deleted under the same name may have taken a file along.
        for name in manifest.files.keys() - {
            file_key.removeprefix(f"{object_key}/") for file_key in self.files.find(object_key)
        }:
            self.files.upload(folder / name, f"{object_key}/{name}")

    def _fetch(self, object_key: str, manifest: Manifest, folder: Path) -> None:
        with self.workspace.folder("fetch") as temporary:
            for name in manifest.files:
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                self.files.download(f"{object_key}/{name}", temporary / name)
            Artifact(manifest, temporary).verify()
            write_atomically(temporary / MANIFEST, manifest.to_json())
            _move(temporary, folder)

    def _remove_abandoned(self) -> None:
        self.workspace.remove_abandoned()
        for folder in self.abandoned_scratch():
            shutil.rmtree(folder, ignore_errors=True)

    def abandoned_scratch(self) -> list[Path]:
        """Scratch folders that nothing has gone on from for a day."""
        limit = time.time() - ABANDONED_AFTER_S
        with suppress(FileNotFoundError):  # there is none, or another process is deleting too
            return sorted(folder for folder in self.scratch_root.iterdir() if folder.stat().st_mtime < limit)
        return []


def object_place(asset: str, data_version: str) -> str:
    """Folder of an artifact's files, below the root."""
    return f"objects/{asset}/{data_version}"


def _move(folder: Path, target: Path) -> None:
    """Give a whole artifact its name; one that another process has put there already stays, as it is the same."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(folder, target)
    except OSError:
        if (target / MANIFEST).exists():
            return
        shutil.rmtree(target)  # What a deletion left that did not come to its end.
        os.replace(folder, target)


def step_place(asset: str, step: str) -> str:
    """Where the store keeps what a computation gave, by its key."""
    return f"steps/{asset}/{step}.json"


def _step(asset: str, code_version: str, inputs: Mapping[str, str], settings_digest: str) -> str:
    return digest_json({"asset": asset, "code": code_version, "inputs": dict(inputs), "settings": settings_digest})


def _pointer(asset: str, partition: str | None) -> str:
    return f"current/{asset}.json" if partition is None else f"current/{asset}/{partition}.json"


def _digest_folder(folder: Path) -> dict[str, FileEntry]:
    entries: dict[str, FileEntry] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
            entries[path.relative_to(folder).as_posix()] = FileEntry(digest_file(path), path.stat().st_size)
    return entries


def _data_version(files: Mapping[str, FileEntry]) -> str:
    decisive = {name: entry.sha256 for name, entry in files.items() if not name.startswith(f"{REPORTS}/")}
    return hashlib.sha256(canonical_json(decisive)).hexdigest()[:_VERSION_DIGITS]
