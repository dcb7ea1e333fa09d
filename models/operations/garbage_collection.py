"""Deletes what no release, decision, evaluation or recent run refers to.

An artifact is kept that

- a pointer in `current/` names,
- is the bundle of a release that serves, is pending, can be rolled back to, or served within `retention.days`, or the
  gate's decision on it,
- is the candidate or the champion of a gate decision of the last `retention.days` days,
- has an alias in MLflow's registry,
- was made or reused by a run within `retention.days`,

and all that these were made from, down to the corpus. The rest goes, with its steps and the remembered results of its
checks; so do temporary folders of dead processes. `evaluation_stores` are the stores beside the deployment's own that
`rerankops evaluate` and `rerankops pretrain` fill; nothing refers to them but recent calls, and the last runs of the
ablations.

Runs may work meanwhile, on this machine or another. The deletion is in two halves that both sides take in opposite
order: a run first marks the step as used and then looks whether the content is there (`ArtifactStore._reuse`), this
first takes the content away to `trash/` and then looks whether anything has used it since. Whichever comes second sees
the other: the content comes back, or the run makes it anew. On a remote root, where a folder cannot be renamed, the
manifest alone is taken away, without which there is no artifact. A kill at any point leaves steps without content,
which are made anew when asked for, and a trash that the next call finishes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from models.records.ledger import Ledger, Release
from models.records.mlflow_registry import Tracking
from models.settings import RetentionSettings, Settings
from models.store.artifacts import MANIFEST, ArtifactStore, Manifest, object_place, step_place
from models.store.asset_names import RELEASE_CANDIDATE
from models.store.catalog import Catalog, Ref, is_being_written, step_times, stored_objects

_DECISION = "release/gate_decision"
_GRACE = timedelta(days=1)
"""Age of leftovers, as an upload that was cut short, that nobody is at work on any more."""
_ALL = 1_000_000
_VERSION = re.compile(r"[0-9a-f]{24}")


@dataclass(frozen=True)
class References:
    """What keeps artifacts from outside the store, each with the reason; `decisions` are ids of gate decisions."""

    artifacts: Mapping[Ref, str]
    decisions: Mapping[str, str]


@dataclass(frozen=True)
class Unused:
    """An artifact to delete: its bytes, and when a run last made or reused it, where that is known."""

    ref: Ref
    bytes: int
    last_used: datetime | None
    whole: bool


@dataclass(frozen=True)
class Plan:
    """What is kept and why, and what is to be deleted."""

    kept: Mapping[Ref, str]
    kept_bytes: Mapping[Ref, int]
    artifacts: tuple[Unused, ...]
    steps: Mapping[str, datetime | None]
    """Places of steps, each with the time of its last use."""
    results: tuple[str, ...]
    """Places of remembered results of checks."""
    leftovers: tuple[str, ...]
    """Places of files that a killed process was writing."""
    folders: tuple[Path, ...]
    """Temporary and scratch folders of dead processes, and fetched copies of artifacts that are gone."""
    freed_bytes: int
    """Less than the sum where files are hard links of files that stay."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "delete": {
                "artifacts": [
                    {
                        "asset": artifact.ref.asset,
                        "data_version": artifact.ref.data_version,
                        "bytes": artifact.bytes,
                        "last_used": artifact.last_used and artifact.last_used.isoformat(timespec="seconds"),
                        "whole": artifact.whole,
                    }
                    for artifact in self.artifacts
                ],
                "steps": len(self.steps),
                "results": len(self.results),
                "leftovers": list(self.leftovers),
                "folders": [str(folder) for folder in self.folders],
                "freed_bytes": self.freed_bytes,
            },
            "keep": [
                {
                    "asset": ref.asset,
                    "data_version": ref.data_version,
                    "bytes": self.kept_bytes.get(ref, 0),
                    "reason": reason,
                }
                for ref, reason in sorted(self.kept.items())
            ],
        }


@dataclass
class _Keeper:
    """Collects what is kept, with the first reason that was found for it."""

    catalog: Catalog
    reasons: dict[Ref, str] = field(default_factory=dict)
    steps: set[str] = field(default_factory=set)

    def keep(self, ref: Ref, reason: str, step: str = "") -> None:
        self.reasons.setdefault(ref, reason)
        made_by = self.catalog.steps.get(step) or self.catalog.maker(ref)
        if made_by is not None:
            self.steps.add(made_by.step)

    def close(self) -> None:
        """Keep what the kept ones were made from."""
        roots = [self.catalog.steps[step] for step in self.steps]
        for consumer, ref, maker in self.catalog.upstream(roots):
            self.keep(ref, f"made into {consumer.asset}@{consumer.data_version}", maker.step if maker else "")


NO_REFERENCES = References({}, {})
"""Of a store that no release and no decision knows."""


def evaluation_stores(settings: Settings) -> dict[str, ArtifactStore]:
    """What `rerankops evaluate` and its ablations and `rerankops pretrain` have made, as far as they were called, by
    the place in the home."""
    folder = settings.evaluations
    caches = {folder: folder / "cache", folder / "ablations" / "artifacts": folder / "ablations" / "cache"}
    caches[settings.pretrainings] = settings.pretrainings / "cache"
    return {
        root.relative_to(settings.home).as_posix(): ArtifactStore(str(root), cache)
        for root, cache in caches.items()
        if root.is_dir()
    }


def old_pages(settings: Settings, now: datetime | None = None) -> list[Path]:
    """Pages and plots of evaluations that were written before the last `retention.days` days."""
    limit = (now or datetime.now(UTC)) - timedelta(days=settings.retention.days)
    pages = (settings.evaluations / "pages").glob("*.*")
    return sorted(path for path in pages if path.stat().st_mtime < limit.timestamp())


def references(ledger: Ledger, tracking: Tracking, retention: RetentionSettings, now: datetime) -> References:
    """What the release ledger and the registry of models refer to."""
    since = now - timedelta(days=retention.days)
    releases = list(_kept_releases(ledger, retention, since))
    artifacts: dict[Ref, str] = {}
    decisions: dict[str, str] = {}
    for release, role in releases:
        artifacts.setdefault(Ref(RELEASE_CANDIDATE, release.bundle_version), f"{role} {release.release_id}")
        if release.gate_decision_id is not None:
            decisions.setdefault(release.gate_decision_id, f"gate's decision on {release.release_id}")
    for decision in ledger.gate_decisions(_ALL):
        if decision.created_at >= since:
            decisions.setdefault(decision.decision_id, f"gate decision of the last {retention.days} days")
            for version in (decision.candidate_version, decision.champion_version):
                if version is not None:
                    artifacts.setdefault(
                        Ref(RELEASE_CANDIDATE, version), f"judged by gate decision {decision.decision_id}"
                    )
    for alias, version in tracking.aliases().items():
        artifacts.setdefault(Ref(RELEASE_CANDIDATE, version), f"{alias} in MLflow")
    return References(artifacts, decisions)


def _kept_releases(ledger: Ledger, retention: RetentionSettings, since: datetime) -> Iterator[tuple[Release, str]]:
    current = ledger.current()
    if current is not None:
        yield current, "champion"
    kept, depth = current, 0
    while kept is not None and kept.previous_release_id is not None:
        kept, depth = ledger.get(kept.previous_release_id), depth + 1
        if kept is None or 0 < retention.releases < depth:
            break
        yield kept, "rollback to"
    for release in ledger.history(_ALL):
        if release.state == "pending":
            yield release, "pending"
        elif release.activated_at is not None and release.activated_at >= since:
            yield release, f"of the last {retention.days} days:"


def plan(store: ArtifactStore, refers: References, days: int, now: datetime | None = None) -> Plan:
    """What would be deleted now, and why the rest stays."""
    now = now or datetime.now(UTC)
    since = now - timedelta(days=days)
    catalog = Catalog.read(store)
    keeper = _Keeper(catalog)
    for pointer in catalog.pointers:
        keeper.keep(pointer.ref, f"current{f' of {pointer.partition}' if pointer.partition else ''}", pointer.step)
    for ref, reason in refers.artifacts.items():
        keeper.keep(ref, reason)
    for step, manifest in catalog.steps.items():
        ref = Ref(manifest.asset, manifest.data_version)
        if manifest.asset == _DECISION and (reason := refers.decisions.get(manifest.inputs.get("record", ""))):
            keeper.keep(ref, reason, step)
        if _last_use(catalog, manifest) >= since:
            keeper.keep(ref, f"used by a run of the last {days} days", step)
    keeper.close()
    unused = tuple(_unused(store, catalog, keeper.reasons, min(since, now - _GRACE)))
    steps = {
        step_place(catalog.steps[step].asset, step): at
        for step, at in catalog.used.items()
        if step not in keeper.steps and at
    }
    alive = {ref.data_version for ref in keeper.reasons}
    return Plan(
        kept=keeper.reasons,
        kept_bytes={ref: sum(catalog.objects.get(ref, {}).values()) for ref in keeper.reasons},
        artifacts=unused,
        steps=steps,
        results=tuple(_results(store, alive)),
        leftovers=tuple(_leftovers(store, now)),
        folders=(*store.workspace.abandoned(), *store.abandoned_scratch(), *_copies(store, catalog.whole, unused)),
        freed_bytes=_freed(
            store, [file_key for artifact in unused for file_key in catalog.objects[artifact.ref]], unused
        ),
    )


def collect(store: ArtifactStore, refers: Callable[[], References], days: int, now: datetime | None = None) -> Plan:
    """Delete what `plan` names, after looking again at what has been used since; returns what was deleted.

    `refers` is asked twice: before and after the content is taken away.
    """
    before = plan(store, refers(), days, now)
    for artifact in before.artifacts:
        _move_to_trash(store, artifact.ref)
    after = plan(store, refers(), days, now)
    gone = set()
    for ref in _list_trash(store):
        if ref in after.kept or _used_since(store, ref, after.steps):
            _restore(store, ref)
        else:
            _delete_for_good(store, ref)
            gone.add(ref)
    for artifact in before.artifacts:
        if not artifact.whole and artifact.ref not in after.kept:
            _delete_incomplete(store, artifact.ref)
            gone.add(artifact.ref)
    times = step_times(store)
    for step_key, last_used in after.steps.items():
        if step_key in before.steps and times.get(step_key) == last_used:
            store.files.delete(step_key)
    for step_key in (*after.results, *after.leftovers):
        store.files.delete(step_key)
    store.workspace.remove_abandoned()
    for folder in (*store.abandoned_scratch(), *_copies(store, stored_objects(store)[1], ())):
        _remove_folder(store, folder)
    return Plan(
        after.kept,
        after.kept_bytes,
        tuple(artifact for artifact in before.artifacts if artifact.ref in gone),
        after.steps,
        after.results,
        after.leftovers,
        before.folders,
        before.freed_bytes,
    )


def _unused(
    store: ArtifactStore,
    catalog: Catalog,
    kept: Mapping[Ref, str],
    since: datetime,
) -> Iterator[Unused]:
    for ref, files in sorted(catalog.objects.items()):
        if ref in kept:
            continue
        whole = ref in catalog.whole
        makers = catalog.makers(ref)
        times = [_last_use(catalog, manifest) for manifest in makers]
        if not makers:  # An upload that was cut short, or is still going on.
            times = [at for file_key in files if (at := store.files.modified(file_key)) is not None]
        last = max(times, default=None)
        if last is None or last < since:
            yield Unused(ref, sum(files.values()), last, whole)


def _results(store: ArtifactStore, alive: set[str]) -> Iterator[str]:
    """Remembered results that are about an artifact which goes."""
    places = (memo_key for memo_key in store.files.find("memo") if not is_being_written(memo_key))
    for memo_key, data in store.files.read_all(places).items():
        if not _versions(json.loads(data)["key"]) <= alive:
            yield memo_key


def _versions(value: Any) -> set[str]:
    """Every data version in a JSON value."""
    if isinstance(value, str):
        return {value} if _VERSION.fullmatch(value) else set()
    inner: Iterable[Any] = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {version for item in inner for version in _versions(item)}


def _leftovers(store: ArtifactStore, now: datetime) -> Iterator[str]:
    for top in ("steps", "current", "memo"):
        for file_key in store.files.find(top):
            if is_being_written(file_key) and (at := store.files.modified(file_key)) is not None and at < now - _GRACE:
                yield file_key


def _copies(store: ArtifactStore, whole: Iterable[Ref], unused: Iterable[Unused]) -> list[Path]:
    """Fetched copies on this machine of artifacts that are gone from a remote root, or go now."""
    if store.is_local or not store.cache.is_dir():
        return []
    stay = {*whole} - {artifact.ref for artifact in unused}
    folders = [path.parent for path in store.cache.glob(f"*/*/*/{MANIFEST}")]
    return sorted(path for path in folders if Ref(f"{path.parts[-3]}/{path.parts[-2]}", path.name) not in stay)


def _freed(store: ArtifactStore, places: list[str], unused: Iterable[Unused]) -> int:
    if not store.is_local:
        return sum(artifact.bytes for artifact in unused)
    links: dict[tuple[int, int], list[os.stat_result]] = {}
    for file_key in places:
        stat = store.files.path(file_key).stat()
        links.setdefault((stat.st_dev, stat.st_ino), []).append(stat)
    return sum(stats[0].st_size for stats in links.values() if stats[0].st_nlink <= len(stats))


def _used_since(store: ArtifactStore, ref: Ref, steps: Mapping[str, datetime | None]) -> bool:
    """Whether a run has asked for one of the steps that gave an artifact since `steps` were looked at."""
    return any(step_key in steps and at != steps[step_key] for step_key, at in step_times(store, ref.asset).items())


def _move_to_trash(store: ArtifactStore, ref: Ref) -> None:
    object_key, trash = object_place(*ref), f"trash/{ref.asset}/{ref.data_version}"
    if store.is_local:
        target = store.files.path(trash)
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # another call has taken it
            os.replace(store.files.path(object_key), target)
    elif (manifest := store.files.read(f"{object_key}/{MANIFEST}")) is not None:
        store.files.write(f"{trash}/{MANIFEST}", manifest)
        store.files.delete(f"{object_key}/{MANIFEST}")


def _list_trash(store: ArtifactStore) -> list[Ref]:
    """What is in the trash, also what a killed call has left there."""
    parts = [file_key.split("/") for file_key in store.files.find("trash")]
    refs = {Ref(f"{group}/{noun}", version) for _, group, noun, version, *_ in parts}
    return sorted(refs)


def _restore(store: ArtifactStore, ref: Ref) -> None:
    """Undo `_move_to_trash`, unless a run has made the artifact anew."""
    object_key, trash = object_place(*ref), f"trash/{ref.asset}/{ref.data_version}"
    if store.is_local:
        try:
            os.replace(store.files.path(trash), store.files.path(object_key))
        except OSError:
            shutil.rmtree(store.files.path(trash), ignore_errors=True)
    elif (manifest := store.files.read(f"{trash}/{MANIFEST}")) is not None:
        store.files.write(f"{object_key}/{MANIFEST}", manifest)
        store.files.delete(f"{trash}/{MANIFEST}")


def _delete_for_good(store: ArtifactStore, ref: Ref) -> None:
    trash = f"trash/{ref.asset}/{ref.data_version}"
    if store.is_local:
        shutil.rmtree(store.files.path(trash), ignore_errors=True)
        return
    _delete_incomplete(store, ref)
    store.files.delete(f"{trash}/{MANIFEST}")


def _delete_incomplete(store: ArtifactStore, ref: Ref) -> None:
    """Delete the files of an artifact without a manifest; those of one that a run has made anew stay."""
    for file_key in store.files.find(object_place(*ref)):
        if store.has(*ref):
            return
        store.files.delete(file_key)


def _remove_folder(store: ArtifactStore, folder: Path) -> None:
    """Delete a folder that must be there whole or not at all."""
    with store.workspace.folder("delete") as temporary:
        os.replace(folder, temporary / folder.name)


def _last_use(catalog: Catalog, manifest: Manifest) -> datetime:
    return catalog.used.get(manifest.step) or datetime.fromisoformat(manifest.created_at)
