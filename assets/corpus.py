"""The corpus: passages, queries and judgments under contracts, what was refused, and the frozen evaluation set."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from assets import keys
from assets.making import asset_of, log, output
from assets.policies import NO_CONFIG, OWNERS, READ_RETRIES, no_retries_of_what_is_certain
from assets.resources import Deployment
from models.corpus.steps import EVALUATION_SET, TABLES
from models.store.artifacts import Artifact

_SHOWN_ROWS = 20
_SHOWN_CHARACTERS = 200

_DESCRIPTIONS = {
    "passages": "One row per passage: a piece of a document by tokens, with offsets, labels and hash.",
    "queries": "One row per query with its split: train, dev or test, stable as the corpus grows.",
    "judgments": "One row per judged (query, document) pair with its grade.",
    "quarantined_rows": "One row per refused input row, with the rule, the reason and its place in the source.",
}


@dg.multi_asset(
    name="corpus__read",
    group_name=keys.CORPUS,
    outs={
        name: dg.AssetOut(
            key=dg.AssetKey(step.name.split("/")),
            description=_DESCRIPTIONS[name],
            kinds={"python", "parquet"},
            owners=OWNERS,
            code_version=step.code_version,
            is_required=False,
        )
        for name, step in TABLES.items()
    },
    can_subset=True,
    config_schema=NO_CONFIG,
    retry_policy=READ_RETRIES,
)
def read(context: dg.AssetExecutionContext, deployment: Deployment):
    """Read the corpus source once into four tables; rows that break a contract go to quarantined_rows with the
    reason.

    All four are kept whichever are selected: they are of one reading, and checks of one look into the others.
    """
    with no_retries_of_what_is_certain():
        past = bool(deployment.settings().corpus.version)
        tables = _past_version(deployment) if past else _current_version(context, deployment)
        for name, artifact in tables.items():
            shown = _show_quarantine(context, artifact) if name == "quarantined_rows" and not past else {}
            if dg.AssetKey(artifact.asset.split("/")) in context.selected_asset_keys:
                yield output(context, artifact, output_name=name, **shown)
            else:
                log(context, artifact)
                deployment.store().point(artifact)


def _past_version(deployment: Deployment) -> Mapping[str, Artifact]:
    """The tables of the past version that `corpus.version` names, as they were read then."""
    from models.corpus.versions import use_version

    return use_version(deployment.store(), deployment.settings().corpus.version)


def _current_version(context: dg.AssetExecutionContext, deployment: Deployment) -> Mapping[str, Artifact]:
    from models.corpus.corrections import corrections_in_force
    from models.corpus.reading import read_source
    from models.retrieval.encoder import tokenizer_file
    from models.retrieval.round_trip import query_writing

    settings = deployment.settings()
    corrections = corrections_in_force(deployment.database(), settings.corpus.source)
    tokenizer = tokenizer_file(settings.encoder.model)
    store = deployment.store()
    writing = query_writing(store, settings, context.log.info)
    return read_source(store, settings, tokenizer, corrections, context.log.info, writing)


def _show_quarantine(context: dg.AssetExecutionContext, artifact: Artifact) -> dict[str, dg.MetadataValue]:
    """Counts by rule, the first rows, and what became of corrections: said in the log, returned as metadata."""
    from models.corpus.quarantine import count_rows, outcomes, quarantined_rows

    rows = quarantined_rows(artifact)
    corrections = outcomes(artifact).values()
    for outcome in corrections:
        say = context.log.warning if outcome["state"] == "lapsed" else context.log.info
        say(f"correction {outcome['correction_id']} of {outcome['table']} {outcome['state']}: {outcome['message']}")
    first = [
        {"rule": row.rule, "table": row.table, "position": row.position, "reason": row.reason[:_SHOWN_CHARACTERS]}
        for row in rows[:_SHOWN_ROWS]
    ]
    return {
        "by_rule": _table(count_rows(rows), {"table": "string", "rule": "string", "rows": "int"}),
        "first_rows": _table(first, dict.fromkeys(("rule", "table", "position", "reason"), "string")),
        "corrections_applied": dg.MetadataValue.int(sum(outcome["state"] != "lapsed" for outcome in corrections)),
        "corrections_lapsed": dg.MetadataValue.int(sum(outcome["state"] == "lapsed" for outcome in corrections)),
    }


def _table(records: list[dict[str, Any]], columns: dict[str, str]) -> dg.TableMetadataValue:
    schema = dg.TableSchema([dg.TableColumn(name, kind) for name, kind in columns.items()])
    return dg.MetadataValue.table([dg.TableRecord(record) for record in records], schema=schema)


@asset_of(EVALUATION_SET, keys.QUERIES, keys.JUDGMENTS, keys.PASSAGES, kinds={"python", "parquet"})
def evaluation_set(
    context: dg.AssetExecutionContext,
    deployment: Deployment,
    queries: Artifact,
    judgments: Artifact,
    passages: Artifact,
) -> dg.Output[Artifact]:
    """The frozen development and test queries with their judgments: what every candidate is judged on. Queries of the
    version before stay as long as they exist; added ones make a new version."""
    from models.corpus.freezing import make_evaluation_set

    return output(context, make_evaluation_set(deployment.store(), deployment.settings(), queries, judgments, passages))


ASSETS = [read, evaluation_set]
