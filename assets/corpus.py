# pandas' stubs type a selection as Series or DataFrame.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportReturnType=false, reportGeneralTypeIssues=false
"""The corpus: passages, queries and judgments under contracts, what was refused, and the frozen evaluation set."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets import keys
from assets.keys import artifact_name
from assets.making import make, output, predecessor
from assets.policies import NO_CONFIG, OWNERS, READ_RETRIES, WHEN_INPUTS_CHANGE, no_retries_of_what_is_certain
from assets.resources import Deployment
from models.settings import ROOT, Settings, values_of
from models.store.artifacts import Artifact, ArtifactStore
from models.store.code_version import code_version

if TYPE_CHECKING:
    from models.corpus.sources.corrections import Corrections

_PREVIOUS = "previous"
"""The input of an evaluation set that is the version before it."""

_SHOWN_ROWS = 20
_SHOWN_CHARACTERS = 200

_SOURCES = (f"corpus.sources.{path.stem}" for path in (ROOT / "models" / "corpus" / "sources").glob("*.py"))
_MODULES = (
    "corpus.ingest",
    "corpus.row_rules",
    "store.tables",
    "corpus.external_sort",
    "store.durable_files",
    "corpus.chunking",
    "corpus.known_spans",
    "corpus.splits",
    "contracts.messages",
    "contracts.tables",
    "corpus.parsing.parsers",
    "corpus.parsing.process",
    "corpus.pseudo_queries",
    "corpus.passage_table",
    *sorted(_SOURCES),
)
_SETTINGS = (
    "corpus.source", "corpus.max_decompressed_bytes", "corpus.passage_tokens", "corpus.overlap_tokens",
    "corpus.dev_share", "corpus.test_share", "training.pseudo_queries", "training.pseudo_documents",
)  # fmt: skip
"""What decides the tables, beside the source's fingerprint: that stands for its path and the settings of its kind."""

_TABLES = {
    keys.PASSAGES: "passages",
    keys.QUERIES: "queries",
    keys.JUDGMENTS: "judgments",
    keys.QUARANTINED_ROWS: "quarantined_rows",
}
_DESCRIPTIONS = {
    keys.PASSAGES: "One row per passage: a piece of a document by tokens, with offsets, labels and hash.",
    keys.QUERIES: "One row per query with its split: train, dev or test, stable as the corpus grows.",
    keys.JUDGMENTS: "One row per judged (query, document) pair with its grade.",
    keys.QUARANTINED_ROWS: "One row per refused input row, with the rule, the reason and its place in the source.",
}


@dg.multi_asset(
    name="corpus__read",
    group_name=keys.CORPUS,
    outs={
        name: dg.AssetOut(
            key=key,
            description=_DESCRIPTIONS[key],
            kinds={"python", "parquet"},
            owners=OWNERS,
            code_version=code_version(*_MODULES),
            is_required=False,
        )
        for key, name in _TABLES.items()
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
        yield from (_past if deployment.settings().corpus.version else _read)(context, deployment)


def _past(context: dg.AssetExecutionContext, deployment: Deployment) -> Iterator[dg.Output[Artifact]]:
    """The tables of the past version that `corpus.version` names, as they were read then."""
    from models.corpus.versions import tables_of

    store, version = deployment.store(), deployment.settings().corpus.version
    tables = tables_of(store, version)
    for key, name in _TABLES.items():
        artifact = replace(tables[keys.artifact_name(key)], reused=True)
        store.use(artifact)
        context.log.info(f"{artifact.asset} {artifact.data_version}: as read at {artifact.manifest.created_at}")
        if key in context.selected_asset_keys:
            context.set_data_version(key, dg.DataVersion(artifact.data_version))
            yield output(artifact, output_name=name)
        else:
            store.point(artifact)


def _read(context: dg.AssetExecutionContext, deployment: Deployment) -> Iterator[dg.Output[Artifact]]:
    from models.corpus.chunking import load_tokenizer
    from models.corpus.ingest import write_corpus
    from models.corpus.sources import describe_source, open_source
    from models.retrieval.encoder import tokenizer_file

    settings = deployment.settings()
    described = describe_source(settings.corpus, settings.corpus_path)
    corrections = corrections_in_force(deployment, settings)
    source = open_source(settings.corpus, settings.corpus_path, corrections)
    tokenizer_path = tokenizer_file(settings.encoder.model)

    tokenizer = {"tokenizer": _digest(tokenizer_path)}
    outside = {"source": source.fingerprint(), **tokenizer}
    store = deployment.store()
    with store.workspace.folder("corpus-tables") as tables:

        @cache
        def counts() -> dict[str, int]:
            context.log.info(f"reading {settings.corpus.source}")
            lengths = values_of(settings, "corpus.passage_tokens", "corpus.overlap_tokens")
            before = predecessor(store, keys.PASSAGES, modules=_MODULES, settings=lengths, outside=tokenizer)
            found = write_corpus(
                source,
                settings.corpus,
                load_tokenizer(tokenizer_path),
                tables,
                outside["source"],
                before and before.folder,
                corrections,
            )
            if (mode := settings.training.pseudo_queries) != "off":
                from models.corpus.pseudo_queries import add_pseudo_queries

                corpus, documents = settings.corpus, settings.training.pseudo_documents
                found |= add_pseudo_queries(tables, mode, documents, corpus.dev_share, corpus.test_share)
            return found

        for key, name in _TABLES.items():

            def build(folder, name=name):
                summary = {"dagster/row_count": counts()[name], **counts(), "source": described}
                shutil.move(tables / f"{name}.parquet", folder)
                if name == "passages":
                    shutil.move(tables / "documents.parquet", folder)
                if name == "quarantined_rows":
                    shutil.move(tables / "corrections.parquet", folder)
                return summary

            artifact = make(
                context,
                store,
                key,
                build,
                modules=_MODULES,
                settings=values_of(settings, *_SETTINGS),
                outside=outside,
                shown=key in context.selected_asset_keys,
            )
            shown = _show_quarantine(context, artifact) if name == "quarantined_rows" else {}
            if key in context.selected_asset_keys:
                yield output(artifact, output_name=name, **shown)
            else:
                store.point(artifact)


def corrections_in_force(deployment: Deployment, settings: Settings) -> "Corrections":
    """The corrections of quarantined rows that a reading of the configured source takes."""
    from models.corpus.corrections import corrections_in_force
    from models.corpus.sources import RAW_CONTRACTS
    from models.corpus.sources.corrections import NO_CORRECTIONS

    if settings.corpus.source not in RAW_CONTRACTS:
        return NO_CORRECTIONS
    database = deployment.database()
    try:
        return corrections_in_force(database, settings.corpus.source)
    finally:
        database.close()


def _show_quarantine(context: dg.AssetExecutionContext, artifact: Artifact) -> dict[str, dg.MetadataValue]:
    """Counts by rule, the first rows, and what became of corrections: said in the log, returned as metadata."""
    from models.corpus.quarantine import count_rows, outcomes, quarantined_rows

    rows = quarantined_rows(artifact)
    corrections = outcomes(artifact).values()
    for found in corrections:
        log = context.log.warning if found["state"] == "lapsed" else context.log.info
        log(f"correction {found['correction_id']} of {found['table']} {found['state']}: {found['message']}")
    first = [
        {"rule": row.rule, "table": row.table, "position": row.position, "reason": row.reason[:_SHOWN_CHARACTERS]}
        for row in rows[:_SHOWN_ROWS]
    ]
    return {
        "by_rule": _table(count_rows(rows), {"table": "string", "rule": "string", "rows": "int"}),
        "first_rows": _table(first, dict.fromkeys(("rule", "table", "position", "reason"), "string")),
        "corrections_applied": dg.MetadataValue.int(sum(found["state"] != "lapsed" for found in corrections)),
        "corrections_lapsed": dg.MetadataValue.int(sum(found["state"] == "lapsed" for found in corrections)),
    }


def _table(records: list[dict[str, Any]], columns: dict[str, str]) -> dg.TableMetadataValue:
    schema = dg.TableSchema([dg.TableColumn(name, kind) for name, kind in columns.items()])
    return dg.MetadataValue.table([dg.TableRecord(record) for record in records], schema=schema)


@dg.asset(
    key=keys.EVALUATION_SET,
    group_name=keys.CORPUS,
    kinds={"python", "parquet"},
    owners=OWNERS,
    config_schema=NO_CONFIG,
    code_version=code_version("corpus.splits"),
    automation_condition=WHEN_INPUTS_CHANGE,
    ins={
        "queries": dg.AssetIn(key=keys.QUERIES),
        "judgments": dg.AssetIn(key=keys.JUDGMENTS),
        "passages": dg.AssetIn(key=keys.PASSAGES),
    },
)
def evaluation_set(
    context: dg.AssetExecutionContext,
    deployment: Deployment,
    queries: Artifact,
    judgments: Artifact,
    passages: Artifact,
) -> dg.Output[Artifact]:
    """The frozen development and test queries with their judgments: what every candidate is judged on. Queries of the
    version before stay as long as they exist; added ones make a new version."""
    settings, store = deployment.settings(), deployment.store()
    inputs = (queries, judgments, passages)
    sizes = values_of(settings, "evaluation.max_dev_queries", "evaluation.max_test_queries")
    previous = _frozen_from(store, inputs, sizes)

    def build(folder):
        from models.corpus.ingest import require_judgments
        from models.corpus.splits import evaluation_set
        from models.store.tables import write_table

        require_judgments(judgments.read_table("judgments.parquet"))
        tables = evaluation_set(
            queries.read_table("queries.parquet"),
            judgments.read_table("judgments.parquet"),
            passages.read_table("passages.parquet", ["passage_id", "document_id"]),
            settings.evaluation.max_dev_queries,
            settings.evaluation.max_test_queries,
            store.open(artifact_name(keys.EVALUATION_SET), previous).read_table("queries.parquet")
            if previous
            else None,
        )
        write_table(tables.queries, folder / "queries.parquet")
        write_table(tables.judgments, folder / "judgments.parquet")
        splits = tables.queries["split"].value_counts()
        return {
            "dagster/row_count": len(tables.queries),
            "queries_dev": int(splits.get("dev", 0)),
            "queries_test": int(splits.get("test", 0)),
            "judgments": len(tables.judgments),
        }

    artifact = make(
        context,
        store,
        keys.EVALUATION_SET,
        build,
        modules=("corpus.splits",),
        inputs=inputs,
        settings=sizes,
        outside={_PREVIOUS: previous} if previous else None,
    )
    return output(artifact)


def _frozen_from(store: ArtifactStore, inputs: tuple[Artifact, ...], settings: Mapping[str, Any]) -> str:
    """The version that the evaluation set takes its queries over from; empty for the first.

    Of a set that was made from these very inputs before, it is the one that it was taken from: no set is taken over
    from itself, and a past version of the corpus gets the set that it had.
    """
    name, code = artifact_name(keys.EVALUATION_SET), code_version("corpus.splits")
    current = store.current(name)
    if current is None:
        return ""
    wanted = {item.asset: item.data_version for item in inputs}
    earlier = sorted(store.made(name), key=lambda one: one.manifest.created_at, reverse=True)
    for manifest in (one.manifest for one in (current, *earlier)):
        made_from = {asset: version for asset, version in manifest.inputs.items() if asset != _PREVIOUS}
        if (made_from, manifest.settings, manifest.code_version) == (wanted, settings, code):
            return manifest.inputs.get(_PREVIOUS, "")
    return current.data_version


def _digest(path) -> str:
    from models.store.durable_files import digest_file

    return digest_file(path)


ASSETS = [read, evaluation_set]
