"""Past versions of the corpus: which there are, and the tables of one, to make its index or train on it again.

A version is one reading of the source: the tables that the same code made of the same source with the same settings.
It is named by the data version of its passages, as releases name their corpus.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from models.errors import ArtifactError
from models.store.artifacts import Artifact, ArtifactStore
from models.store.catalog import Catalog, Ref

if TYPE_CHECKING:
    from models.records.ledger import Release

PASSAGES = "corpus/passages"
TABLES = (PASSAGES, "corpus/queries", "corpus/judgments", "corpus/quarantined_rows")

_ROWS = ("documents", "passages", "queries", "judgments", "quarantined_rows")
_LIST = "List them with `rerankops corpus versions`."


@dataclass(frozen=True)
class CorpusVersion:
    """One reading of the source: rows by table, whether it is the current one, and the releases made from it."""

    data_version: str
    read_at: str
    rows: dict[str, int]
    current: bool
    releases: tuple[str, ...]


def corpus_versions(store: ArtifactStore, releases: Iterable[Release] = ()) -> list[CorpusVersion]:
    """All versions whose tables are stored, the newest first; of readings that gave the same passages the last."""
    current = store.current(PASSAGES)
    used: dict[str, list[str]] = {}
    for release in releases:
        used.setdefault(release.corpus_version, []).append(release.release_id)
    versions = {}
    for passages in _readings(store):
        if passages.data_version not in versions and _siblings(store, passages) is not None:
            versions[passages.data_version] = CorpusVersion(
                data_version=passages.data_version,
                read_at=passages.manifest.created_at,
                rows={name: int(passages.summary[name]) for name in _ROWS if name in passages.summary},
                current=current is not None and current.data_version == passages.data_version,
                releases=tuple(used.get(passages.data_version, ())),
            )
    return list(versions.values())


def tables_of(store: ArtifactStore, version: str) -> dict[str, Artifact]:
    """The tables of a version by asset name; the beginning of its name is enough where no other begins so.

    Raises `ArtifactError` where there is no such version, or more than one.
    """
    matching = [reading for reading in _readings(store) if reading.data_version.startswith(version)]
    if not matching:
        raise ArtifactError(f"there is no version {version!r} of the corpus", _LIST)
    names = sorted({reading.data_version for reading in matching})
    if len(names) > 1:
        raise ArtifactError(f"{version!r} is the beginning of {', '.join(names)}", "Give more of its digits.")
    for passages in matching:
        if (tables := _siblings(store, passages)) is not None:
            return {table.asset: table for table in tables}
    raise ArtifactError(f"tables of version {names[0]} of the corpus were deleted", _LIST)


def use_version(store: ArtifactStore, version: str) -> dict[str, Artifact]:
    """`tables_of` by the name of the table, as reused and marked as used now."""
    tables = tables_of(store, version).values()
    for table in tables:
        store.use(table)
    return {table.asset.partition("/")[2]: replace(table, reused=True) for table in tables}


def read_together(store: ArtifactStore, catalog: Catalog, versions: Mapping[str, str]) -> dict[str, Artifact]:
    """All tables of the reading that gave the `versions` of some of them, by asset name.

    Of several readings that gave the same ones it is the one used last. Raises `ArtifactError` where there is none, or
    a table of it was deleted.
    """
    for made in catalog.last_used(Ref(PASSAGES, versions.get(PASSAGES, ""))):
        passages = store.made_by(made)
        tables = passages and _siblings(store, passages)
        if tables and all(versions.get(table.asset, table.data_version) == table.data_version for table in tables):
            return {table.asset: table for table in tables}
    described = ", ".join(f"{asset} {version}" for asset, version in versions.items())
    raise ArtifactError(f"no reading of the source is stored that gave {described}", "Run `rerankops run`.")


def _readings(store: ArtifactStore) -> Sequence[Artifact]:
    """Passages of all readings, the newest first."""
    return sorted(store.made(PASSAGES), key=lambda artifact: artifact.manifest.created_at, reverse=True)


def _siblings(store: ArtifactStore, passages: Artifact) -> list[Artifact] | None:
    """All tables of the reading that gave `passages`; None where one is not stored."""
    tables = [store.made_alike(passages, asset) for asset in TABLES]
    return [table for table in tables if table is not None] if all(tables) else None
