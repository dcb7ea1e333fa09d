"""What every asset shares: its declaration from a step, its inputs, and how an artifact is shown."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.policies import NO_CONFIG, OWNERS, WHEN_INPUTS_CHANGE
from models.contracts.tiers import released_tiers
from models.errors import ArtifactError
from models.settings import Settings
from models.store.artifacts import Artifact
from models.store.steps import Step

if TYPE_CHECKING:
    from models.training.corpus_defaults import Choice

_LOG_STEPS = 10


def asset_of(
    step: Step,
    *inputs: dg.AssetKey,
    decided_anew: bool = False,
    automation_condition: dg.AutomationCondition | None = WHEN_INPUTS_CHANGE,
    **declared: Any,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Declare the asset that `step` makes of `inputs`, each a parameter of its own name; `declared` goes to Dagster.

    What is `decided_anew` each time, by the ledger as it is then, shows no code version.
    """
    group, noun = step.name.split("/")
    return dg.asset(
        key=dg.AssetKey([group, noun]),
        group_name=group,
        code_version=None if decided_anew else step.code_version,
        ins={key.path[-1]: dg.AssetIn(key=key) for key in inputs},
        owners=OWNERS,
        config_schema=NO_CONFIG,
        automation_condition=automation_condition,
        **declared,
    )


def by_tier(rerankers: Mapping[str, Artifact], settings: Settings) -> dict[str, Artifact]:
    """Of the models that an asset takes as its keyword parameters those that releases have, by tier.

    Raises `ArtifactError` for one that the settings left out when it was made.
    """
    from models.training.distilled_reranker import is_left_out

    models = {tier.name: rerankers[tier.part] for tier in released_tiers(settings.tiers)}
    for artifact in models.values():
        if is_left_out(artifact):
            raise ArtifactError(
                f"{artifact.asset} was left out, and tiers.models names it now",
                "Materialize it, then what lies behind it.",
            )
    return models


def output(
    context: dg.AssetExecutionContext, artifact: Artifact, *, output_name: str = "result", **metadata: Any
) -> dg.Output[Artifact]:
    """The artifact as an asset's output, with numbers that plot and where it is; its data version is the asset's."""
    # `Output(data_version=)` is beta and warns at every asset; the context says the same without.
    context.set_data_version(dg.AssetKey(artifact.asset.split("/")), dg.DataVersion(artifact.data_version))
    log(context, artifact)
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
            **_column_schema(artifact),
        },
    )


def _column_schema(artifact: Artifact) -> dict[str, dg.TableSchema]:
    """The contract of an artifact's table, for Dagster's page of the asset; of several tables the one of its name."""
    from models.contracts.tables import TABLES, columns_of

    files = [file for file in TABLES if file in artifact.manifest.files]
    if not files:
        return {}
    own_name = f"{artifact.asset.split('/')[1]}.parquet"
    columns = columns_of(TABLES[own_name if own_name in files else files[0]])
    return {
        "dagster/column_schema": dg.TableSchema(
            [
                dg.TableColumn(
                    column.name,
                    column.kind,
                    column.description or None,
                    constraints=dg.TableColumnConstraints(nullable=column.nullable),
                )
                for column in columns
            ]
        )
    }


def reasons(choices: "Mapping[str, Choice]") -> dg.MarkdownMetadataValue:
    """A table of what was chosen, and why."""
    from models.text.markdown import table_lines

    rows = [(f"`{key}`", choice.value, choice.reason) for key, choice in choices.items()]
    return dg.MetadataValue.md("\n".join(table_lines(("setting", "value", "because"), rows)))


def log(context: dg.AssetExecutionContext, artifact: Artifact) -> None:
    """Say in the run's log whether an artifact was made."""
    state = "unchanged, reused" if artifact.reused else f"made in {artifact.manifest.seconds:.1f} s"
    context.log.info(f"{artifact.asset} {artifact.data_version}: {state}")


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
