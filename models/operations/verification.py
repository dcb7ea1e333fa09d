"""Compares what the artifact store holds with the digests of its manifests: bit rot, and files that are lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.errors import ArtifactError
from models.records.ledger import Ledger
from models.store.artifacts import MANIFEST, Artifact, ArtifactStore
from models.store.asset_names import RELEASE_CANDIDATE
from models.store.catalog import Ref, stored_objects
from models.store.durable_files import digest_file


@dataclass(frozen=True)
class Damage:
    """A file that is not what its manifest says; `release_id` is the newest release that it is part of, if any."""

    asset: str
    data_version: str
    file: str
    problem: str
    release_id: str | None


@dataclass(frozen=True)
class Verification:
    """What was read, and what is damaged."""

    artifacts: int
    files: int
    bytes: int
    damaged: tuple[Damage, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def verify_store(store: ArtifactStore, ledger: Ledger) -> Verification:
    """Read every file of every artifact once, hard links of one file once in all; of a remote store, the copies on this
    machine, fetched where there are none."""
    releases = {release.bundle_version: release.release_id for release in reversed(ledger.history(1_000_000))}
    refs = sorted(stored_objects(store)[1])
    reader = _Reader()
    damaged = []
    for ref in refs:
        release_id = releases.get(ref.data_version) if ref.asset == RELEASE_CANDIDATE else None
        damaged += [Damage(*ref, file, problem, release_id) for file, problem in reader.problems(store, ref)]
    return Verification(len(refs), reader.files, reader.bytes, tuple(damaged))


class _Reader:
    """Digests of files, each inode read once."""

    def __init__(self) -> None:
        self.files = self.bytes = 0
        self._digests: dict[tuple[int, int], str] = {}

    def problems(self, store: ArtifactStore, ref: Ref) -> Iterator[tuple[str, str]]:
        try:
            artifact = store.open(*ref)
        except (ArtifactError, ValueError, KeyError, TypeError) as error:
            yield MANIFEST, f"cannot be read: {error}"
            return
        yield from self._files(artifact)

    def _files(self, artifact: Artifact) -> Iterator[tuple[str, str]]:
        for name, entry in artifact.manifest.files.items():
            path = artifact.folder / name
            try:
                digest = self._digest(path)
            except FileNotFoundError:
                yield name, "is missing"
            except OSError as error:
                yield name, f"cannot be read: {error.strerror}"
            else:
                if digest != entry.sha256:
                    yield name, "differs from its digest"

    def _digest(self, path: Path) -> str:
        status = path.stat()
        inode = (status.st_dev, status.st_ino)
        self.files += 1
        if inode not in self._digests:
            self._digests[inode] = digest_file(path)
            self.bytes += status.st_size
        return self._digests[inode]
