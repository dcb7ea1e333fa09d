"""The tree behind a release, a registered model or an artifact: each step down to the raw source.

Read off the manifests of the artifact store, the release ledger and the tags of MLflow; nothing is stored for it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from models.errors import ArtifactError
from models.records.ledger import Ledger, Release
from models.records.mlflow_registry import CHALLENGER, CHAMPION, PREVIOUS, RegisteredVersion, Tracking
from models.store.artifacts import ArtifactStore, Manifest
from models.store.asset_names import RELEASE_CANDIDATE
from models.store.catalog import Catalog, Ref

_HEX = re.compile(r"[0-9a-f]{4,24}")
_NEAR = 5
_SHOWN = 12


@dataclass(frozen=True)
class Lineage:
    """What was asked for, and every artifact that it goes back to.

    `release` and `model` are set where the name was one of those. `nodes` are by `asset@version`; each lists its
    `inputs` by the same names. `root` is the artifact at the top.
    """

    root: str
    nodes: Mapping[str, Mapping[str, Any]]
    release: Mapping[str, Any] | None = None
    model: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"release": self.release, "model": self.model, "root": self.root, "nodes": dict(self.nodes)}


def trace(name: str, store: ArtifactStore, ledger: Ledger, tracking: Tracking) -> Lineage:
    """The lineage of what `name` names.

    That is `champion`, `previous`, `challenger`; a release id; a registered model as `reranker@champion` or
    `reranker/3`; an artifact as `index/dense_index` (the current one), `index/dense_index@<version>`,
    `monitoring/drift_report@<day>`, or the beginning of a data version. Raises `ArtifactError` for a name of nothing,
    or of several things.
    """
    catalog = Catalog.read(store)
    if (release := _release(name, ledger)) is not None:
        manifest = catalog.maker(Ref(RELEASE_CANDIDATE, release.bundle_version))
        return _lineage(catalog, Ref(RELEASE_CANDIDATE, release.bundle_version), manifest, release=_of_release(release))
    if (version := _registered(name, tracking)) is not None:
        ref = Ref(version.asset, version.data_version)
        return _lineage(catalog, ref, catalog.maker(ref), model=version.to_dict())
    ref, manifest = _artifact(name, catalog, lambda: _names(catalog, ledger, tracking))
    return _lineage(catalog, ref, manifest)


def _release(name: str, ledger: Ledger) -> Release | None:
    if name == CHAMPION:
        return ledger.current() or _no(f"there is no {CHAMPION} yet", "Run `rerankops run` first.")
    if name == PREVIOUS:
        return ledger.previous() or _no("there is no release before the champion", "The champion is the first.")
    release = ledger.get(name)
    if release is None and re.match(r"r-\d", name):
        beginning = [entry for entry in ledger.history(1_000_000) if entry.release_id.startswith(name)]
        if len(beginning) > 1:
            _no(f"{name} is the beginning of several releases", _list(entry.release_id for entry in beginning))
        return beginning[0] if beginning else None
    return release


def _registered(name: str, tracking: Tracking) -> RegisteredVersion | None:
    if name == CHALLENGER:
        return tracking.registered(tracking.model_name, alias=CHALLENGER)
    model, at, alias = name.partition("@")
    if at and "/" not in model:
        return tracking.registered(model, alias=alias)
    model, slash, number = name.rpartition("/")
    return tracking.registered(model, number=number) if slash and number.isdigit() else None


def _artifact(name: str, catalog: Catalog, names: Any) -> tuple[Ref, Manifest | None]:
    asset, at, version = name.partition("@")
    known = {*catalog.objects, *(Ref(step.asset, step.data_version) for step in catalog.steps.values())}
    if "/" not in asset and not at and (same_noun := {ref.asset for ref in known if ref.asset.endswith(f"/{asset}")}):
        if len(same_noun) > 1:
            _no(f"{name} is the name of several assets", _list(same_noun))
        asset = same_noun.pop()
    versions = [ref for ref in known if ref.asset == asset]
    if versions and not at:
        pointers = [pointer for pointer in catalog.pointers if pointer.ref.asset == asset]
        whole = [pointer for pointer in pointers if pointer.partition is None]
        if not whole and pointers:
            days = sorted(pointer.partition or "" for pointer in pointers)
            _no(f"{asset} is made for one day at a time", f"Name one: {asset}@{days[-1]}. {_list(days)}")
        if not whole:
            _no(f"{asset} has no current version", f"Name one: {_list(map(str, versions))}")
        return whole[0].ref, catalog.steps.get(whole[0].step) or catalog.maker(whole[0].ref)
    for pointer in catalog.pointers:
        if pointer.ref.asset == asset and pointer.partition == version:
            return pointer.ref, catalog.steps.get(pointer.step) or catalog.maker(pointer.ref)
    if _HEX.fullmatch(version if at else name):
        matches = [ref for ref in (versions if at else known) if ref.data_version.startswith(version if at else name)]
        if len(matches) > 1:
            _no(f"{name} is the beginning of several versions", _list(map(str, matches)))
        if matches:
            return matches[0], catalog.maker(matches[0])
    everything = names()
    near = difflib.get_close_matches(name, everything, n=_NEAR, cutoff=0.5)
    near = near or difflib.get_close_matches(name.rpartition("/")[2].partition("@")[0], everything, n=_NEAR, cutoff=0.5)
    return _no(
        f"{name} is no release, registered model or artifact",
        f"Did you mean {' or '.join(near)}?" if near else f"There are: {_list(everything)}",
    )


def _lineage(catalog: Catalog, ref: Ref, manifest: Manifest | None, **of: Any) -> Lineage:
    nodes: dict[str, dict[str, Any]] = {str(ref): _node(catalog, ref, manifest)}
    if manifest is not None:
        for consumer, needed, maker in catalog.upstream([manifest]):
            name = str(Ref(consumer.asset, consumer.data_version))
            nodes[name]["inputs"].append(str(needed))
            nodes.setdefault(str(needed), _node(catalog, needed, maker))
    return Lineage(str(ref), nodes, **of)


def _node(catalog: Catalog, ref: Ref, manifest: Manifest | None) -> dict[str, Any]:
    node: dict[str, Any] = {
        "asset": ref.asset,
        "data_version": ref.data_version,
        "stored": ref in catalog.whole,
        "known": manifest is not None,
        "inputs": [],
    }
    if manifest is not None:
        of_assets = {needed.data_version for needed in catalog.inputs(manifest)}
        node |= {
            "code_version": manifest.code_version,
            "step": manifest.step,
            "created_at": manifest.created_at,
            "seconds": manifest.seconds,
            "rows": manifest.summary.get("dagster/row_count"),
            "bytes": sum(entry.bytes for entry in manifest.files.values()),
            "settings": dict(manifest.settings),
            "outside": {name: value for name, value in manifest.inputs.items() if value not in of_assets},
            "source": manifest.summary.get("source"),
        }
    return node


def _of_release(release: Release) -> dict[str, Any]:
    return {
        "release_id": release.release_id,
        "action": release.action,
        "state": release.state,
        "model_version": release.model_version,
        "settings_digest": release.settings_digest,
        "gate_decision_id": release.gate_decision_id,
        "previous_release_id": release.previous_release_id,
        "restores_release_id": release.restores_release_id,
        "actor": release.actor,
        "reason": release.reason,
        "created_at": release.created_at.isoformat(timespec="seconds"),
    }


def _names(catalog: Catalog, ledger: Ledger, tracking: Tracking) -> list[str]:
    """What can be asked for: assets, releases and registered models."""
    assets = sorted({step.asset for step in catalog.steps.values()})
    releases = [release.release_id for release in ledger.history()]
    roles = [CHAMPION, PREVIOUS] if releases else []
    return [*roles, *assets, *(asset.partition("/")[2] for asset in assets), *releases, *tracking.names()]


def _list(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return f"{', '.join(listed[:_SHOWN])}{more}"


def _no(message: str, hint: str) -> Any:
    raise ArtifactError(message, hint)
