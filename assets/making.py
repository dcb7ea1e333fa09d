"""What every asset body shares: make an artifact or find it made, and show what is in it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from assets.keys import artifact_name
from models.store.artifacts import Artifact, ArtifactStore
from models.store.code_version import code_version

Build = Callable[[Path], Mapping[str, Any]]
_LOG_STEPS = 10


def make(
    context: dg.AssetExecutionContext,
    store: ArtifactStore,
    key: dg.AssetKey,
    build: Build,
    *,
    modules: tuple[str, ...],
    inputs: tuple[Artifact, ...] = (),
    settings: Mapping[str, Any] | None = None,
    outside: Mapping[str, str] | None = None,
    shown: bool = True,
) -> Artifact:
    """Get the artifact of this computation, made only if it never was.

    `modules` of `models/` decide the code version; `outside` names inputs that are no assets (a source, base weights)
    with their digests. The artifact's data version becomes the asset's, unless it is not `shown`: not selected.
    """
    artifact = store.get_or_create(
        artifact_name(key),
        code_version=code_version(*modules),
        inputs={**{item.asset: item.data_version for item in inputs}, **(outside or {})},
        settings=settings or {},
        build=build,
    )
    # `Output(data_version=)` is beta and warns at every asset; the context says the same without.
    if shown:
        context.set_data_version(key, dg.DataVersion(artifact.data_version))
    state = "unchanged, reused" if artifact.reused else f"made in {artifact.manifest.seconds:.1f} s"
    context.log.info(f"{artifact.asset} {artifact.data_version}: {state}")
    return artifact


def predecessor(
    store: ArtifactStore,
    key: dg.AssetKey,
    *,
    modules: tuple[str, ...],
    settings: Mapping[str, Any] | None = None,
    outside: Mapping[str, str] | None = None,
) -> Artifact | None:
    """The current artifact of an asset, compared with its digests, for a build that takes over what did not change.

    None where there is none, or it was made by other `modules`, or with another value of one of `settings` or
    `outside`; what they leave out may be anything.
    """
    current = store.current(artifact_name(key))
    if current is None:
        return None
    manifest = current.manifest
    made_with = {**manifest.settings, **manifest.inputs}
    wanted = {**(settings or {}), **(outside or {})}
    if manifest.code_version != code_version(*modules) or any(made_with.get(key) != wanted[key] for key in wanted):
        return None
    current.verify()
    return current


def output(artifact: Artifact, *, output_name: str = "result", **metadata: Any) -> dg.Output[Artifact]:
    """The artifact as an asset's output, with numbers that plot and where it is."""
    numbers = {name: value for name, value in artifact.summary.items() if isinstance(value, int | float | str)}
    return dg.Output(
        artifact,
        output_name=output_name,
        metadata={
            **numbers,
            **metadata,
            "reused": artifact.reused,
            "seconds_to_make": artifact.manifest.seconds,
            "dagster/uri": artifact.folder.absolute().as_uri(),
        },
    )


def progress(context: dg.AssetExecutionContext, what: str) -> Callable[[int, int], None]:
    """A callback (done, total) that logs about ten lines."""
    shown = [-1]

    def report(done: int, total: int) -> None:
        step = _LOG_STEPS * done // max(total, 1)
        if step > shown[0]:
            shown[0] = step
            context.log.info(f"{what}: {done} of {total}")

    return report


def image(path: Path) -> dg.MarkdownMetadataValue:
    """A PNG shown inside Dagster's metadata."""
    import base64

    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()})")
