# pandas' stubs type a selection as Series or DataFrame.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportReturnType=false, reportGeneralTypeIssues=false
"""The corpus: passages, queries and judgments under contracts, what was refused, and the frozen evaluation set."""

from functools import cache
from typing import TYPE_CHECKING

import dagster as dg

from assets import keys
from assets.config import CorpusConfig, EvaluationConfig
from assets.making import make, output
from assets.policies import OWNERS, READ_RETRIES, WHEN_INPUTS_CHANGE
from assets.resources import Deployment
from models.artifacts import Artifact
from models.code_version import code_version
from models.settings import CorpusSettings, EvaluationSettings

if TYPE_CHECKING:
    from models.corpus import CorpusTables

_MODULES = (
    "corpus", "chunking", "splits", "contracts", "sources.base", "sources.lines", "sources.python_docs",
    "sources.beir", "sources.files"
)  # fmt: skip
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
    keys.QUARANTINED_ROWS: "One row per refused input row, with the reason and its place in the source.",
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
    retry_policy=READ_RETRIES,
)
def read(context: dg.AssetExecutionContext, config: CorpusConfig, deployment: Deployment):
    """Read the corpus source once into four tables; rows that break a contract go to quarantined_rows with the
    reason."""
    from models.chunking import load_tokenizer
    from models.corpus import read_corpus, write_table
    from models.encoder import tokenizer_file
    from models.sources import open_source

    settings = config.section(CorpusSettings)
    place = deployment.settings().resolve(settings.path)
    source = open_source(settings, place)
    tokenizer_path = tokenizer_file(deployment.settings().encoder.model)

    @cache
    def tables() -> "CorpusTables":
        context.log.info(f"reading {settings.source}")
        return read_corpus(source, settings, load_tokenizer(tokenizer_path))

    outside = {"source": source.fingerprint(), "tokenizer": _digest(tokenizer_path)}
    store = deployment.store()
    for key, name in _TABLES.items():
        if key not in context.selected_asset_keys:
            continue

        def build(folder, name=name):
            table = getattr(tables(), name)
            write_table(table, folder / f"{name}.parquet")
            return {"dagster/row_count": len(table), **tables().counts}

        artifact = make(
            context,
            store,
            key,
            build,
            modules=_MODULES,
            settings=settings.model_dump(exclude={"path"}),
            outside=outside,
        )
        yield output(artifact, output_name=name)


@dg.asset(
    key=keys.EVALUATION_SET,
    group_name=keys.CORPUS,
    kinds={"python", "parquet"},
    owners=OWNERS,
    code_version=code_version("splits"),
    automation_condition=WHEN_INPUTS_CHANGE,
    ins={
        "queries": dg.AssetIn(key=keys.QUERIES),
        "judgments": dg.AssetIn(key=keys.JUDGMENTS),
        "passages": dg.AssetIn(key=keys.PASSAGES),
    },
)
def evaluation_set(
    context: dg.AssetExecutionContext,
    config: EvaluationConfig,
    deployment: Deployment,
    queries: Artifact,
    judgments: Artifact,
    passages: Artifact,
) -> dg.Output[Artifact]:
    """The frozen development and test queries with their judgments: what every candidate is judged on."""
    settings = config.section(EvaluationSettings)

    def build(folder):
        from models.corpus import write_table
        from models.splits import evaluation_set

        tables = evaluation_set(
            queries.read_table("queries.parquet"),
            judgments.read_table("judgments.parquet"),
            passages.read_table("passages.parquet", ["passage_id", "document_id"]),
            settings.max_dev_queries,
            settings.max_test_queries,
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

    limits = settings.model_dump(include={"max_dev_queries", "max_test_queries"})
    artifact = make(
        context,
        deployment.store(),
        keys.EVALUATION_SET,
        build,
        modules=("splits",),
        inputs=(queries, judgments, passages),
        settings=limits,
    )
    return output(artifact)


def _digest(path) -> str:
    from models.files import digest_file

    return digest_file(path)


ASSETS = [read, evaluation_set]
