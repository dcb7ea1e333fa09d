"""What is in an artifact store, and which artifact was made from which, read off its manifests."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import NamedTuple

from models.errors import ArtifactError
from models.store.artifacts import MANIFEST, ArtifactStore, Manifest

_HINT = "Run `rerankops run`, or materialize them in one run, with what lies between."
_NEVER = datetime.min.replace(tzinfo=UTC)
_PARTS = 4
"""Of the place of an artifact: objects, group, noun, version."""


class Ref(NamedTuple):
    """The name of an artifact: asset and data version."""

    asset: str
    data_version: str

    def __str__(self) -> str:
        return f"{self.asset}@{self.data_version}"


class Pointer(NamedTuple):
    """What downstream assets read of an asset, or of one of its partitions."""

    ref: Ref
    step: str
    partition: str | None


@dataclass(frozen=True)
class Catalog:
    """The steps, contents and pointers of a store at one moment.

    `steps` maps the name of a computation to its manifest, `used` to the time of its last use, where its file is still
    there; `objects` maps an artifact to its bytes by file place, also one that has no manifest, as after an upload that
    was cut short; `whole` are those that have one.
    """

    steps: Mapping[str, Manifest]
    used: Mapping[str, datetime | None]
    objects: Mapping[Ref, Mapping[str, int]]
    whole: frozenset[Ref]
    pointers: tuple[Pointer, ...]

    @classmethod
    def read(cls, store: ArtifactStore) -> Catalog:
        """List the store and read the manifest of each step."""
        steps: dict[str, Manifest] = {}
        used: dict[str, datetime | None] = {}
        times = step_times(store)
        for step_key, data in store.files.read_all(times).items():
            manifest = Manifest.from_json(data)
            steps[manifest.step] = manifest
            used[manifest.step] = times[step_key]
        objects, whole = stored_objects(store)
        pointers = tuple(_pointers(store))
        described = {Ref(manifest.asset, manifest.data_version) for manifest in steps.values()}
        for ref in whole - described:  # An artifact whose step was deleted still says what made it first.
            data = store.files.read(f"objects/{ref.asset}/{ref.data_version}/{MANIFEST}")
            if data is not None:
                manifest = Manifest.from_json(data)
                steps[manifest.step] = manifest
        return cls(steps, used, objects, whole, pointers)

    @cached_property
    def versions(self) -> dict[str, Ref]:
        """The artifact of each data version, also of one that is known by its steps alone."""
        refs = [*self.objects, *(Ref(step.asset, step.data_version) for step in self.steps.values())]
        return {ref.data_version: ref for ref in refs}

    @cached_property
    def _makers(self) -> dict[Ref, list[Manifest]]:
        makers: defaultdict[Ref, list[Manifest]] = defaultdict(list)
        for step in sorted(self.steps.values(), key=lambda step: step.created_at):
            makers[Ref(step.asset, step.data_version)].append(step)
        return dict(makers)

    def makers(self, ref: Ref) -> list[Manifest]:
        """The computations that gave this content, oldest first."""
        return self._makers.get(ref, [])

    def maker(self, ref: Ref, consumer: Manifest | None = None) -> Manifest | None:
        """The computation behind an input of `consumer`, None if nothing knows it any more.

        Several may have given the same content. It is one that agrees with the other inputs of the consumer, the newest
        that is not newer than the consumer itself.
        """
        makers = self.makers(ref)
        if consumer is not None:
            agreeing = [manifest for manifest in makers if _agree(manifest.inputs, consumer.inputs)] or makers
            earlier = [manifest for manifest in agreeing if manifest.created_at <= consumer.created_at]
            makers = earlier or agreeing[:1]
        return makers[-1] if makers else None

    def last_used(self, ref: Ref) -> list[Manifest]:
        """The computations that gave this content, the one that was used last first."""
        return sorted(self.makers(ref), key=lambda made: (self.used.get(made.step) or _NEVER, made.created_at))[::-1]

    def origin(self, manifest: Manifest) -> dict[str, Manifest]:
        """The computation of each artifact that `manifest` goes back to, and itself, by asset.

        Several may have given the same content. It is one that agrees with the rest of the lineage, of those the one
        used last: an artifact that was reused goes back to what it was reused for. Raises `ArtifactError` where the
        lineage has two versions of one asset, or a computation that nothing knows any more.
        """
        origin: dict[str, Manifest] = {}
        versions = {manifest.asset: manifest.data_version}
        holders: dict[str, str] = {}
        makers = {manifest.asset: [manifest]}
        while waiting := {
            asset: [made for made in makers[asset] if _agree(made.inputs, versions)] or makers[asset]
            for asset in versions.keys() - origin.keys()
        }:
            # What leaves no choice comes first: it decides for what others may have been made from.
            asset = min(sorted(waiting), key=lambda name: len(waiting[name]))
            if not waiting[asset]:
                raise ArtifactError(f"nothing knows any more what {asset} {versions[asset]} was made from", _HINT)
            origin[asset] = made = waiting[asset][0]
            for name, version in made.inputs.items():
                if "/" not in name:
                    continue  # The digest of something outside, as a source or base weights.
                if versions.setdefault(name, version) != version:
                    raise ArtifactError(
                        f"{asset} was made from {name} {version}, {holders.get(name, name)} from {versions[name]}",
                        _HINT,
                    )
                holders.setdefault(name, asset)
                makers.setdefault(name, self.last_used(Ref(name, version)))
        return origin

    def inputs(self, manifest: Manifest) -> list[Ref]:
        """The artifacts that a computation was made from: inputs that are assets, and outside ones named by version."""
        versions = self.versions
        refs = [Ref(name, version) for name, version in manifest.inputs.items() if "/" in name]
        refs += [versions[value] for name, value in manifest.inputs.items() if "/" not in name and value in versions]
        return sorted(set(refs))

    def upstream(self, roots: Iterable[Manifest]) -> Iterator[tuple[Manifest, Ref, Manifest | None]]:
        """Every (consumer, input, maker of the input) that the roots go back to, each consumer once."""
        waiting = list(roots)
        seen: set[str] = set()
        while waiting:
            consumer = waiting.pop()
            if consumer.step in seen:
                continue
            seen.add(consumer.step)
            for ref in self.inputs(consumer):
                maker = self.maker(ref, consumer)
                yield consumer, ref, maker
                if maker is not None:
                    waiting.append(maker)


def _agree(inputs: Mapping[str, str], others: Mapping[str, str]) -> bool:
    return all(others.get(name, version) == version for name, version in inputs.items() if "/" in name)


def stored_objects(store: ArtifactStore) -> tuple[dict[Ref, dict[str, int]], frozenset[Ref]]:
    """`Catalog.objects` and `Catalog.whole` of a store."""
    objects: dict[Ref, dict[str, int]] = defaultdict(dict)
    whole: set[Ref] = set()
    for file_key, stored in store.files.find("objects").items():
        parts = file_key.split("/")
        if len(parts) > _PARTS:
            ref = Ref(f"{parts[1]}/{parts[2]}", parts[3])
            objects[ref][file_key] = stored.bytes
            if parts[_PARTS:] == [MANIFEST]:
                whole.add(ref)
    return dict(objects), frozenset(whole)


def step_times(store: ArtifactStore, asset: str = "") -> dict[str, datetime | None]:
    """The time of the last use of each step, of all assets or of one, by place."""
    listed = store.files.find(f"steps/{asset}" if asset else "steps")
    return {
        step_key: stored.modified or store.files.modified(step_key)
        for step_key, stored in listed.items()
        if not is_being_written(step_key)
    }


def is_being_written(key: str) -> bool:
    """Whether a file of the store has no name yet: its name begins with a dot."""
    return key.rpartition("/")[2].startswith(".")


def _pointers(store: ArtifactStore) -> Iterator[Pointer]:
    places = (pointer_key for pointer_key in store.files.find("current") if not is_being_written(pointer_key))
    for pointer_key, data in store.files.read_all(places).items():
        value = json.loads(data)
        _, group, noun, *partition = pointer_key.removesuffix(".json").split("/")
        ref = Ref(f"{group}/{noun}", value["data_version"])
        yield Pointer(ref, value["step"], partition[0] if partition else None)
