"""The blocking checks of what a candidate is made of, each declared once.

Dagster runs them on the current artifacts and stops what is downstream; the gate runs them on the artifacts that the
candidate was made of. So none is gone around by materializing a selection. Results are remembered per content, so that
the gate computes nothing that Dagster's check computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.contracts.tiers import DISTILLED_TIERS
from models.errors import ArtifactError
from models.expectations.steps import SUITE_READS
from models.store import asset_names as names

if TYPE_CHECKING:
    from models.expectations.validation import ExpectationOutcome, ExpectationReport
    from models.settings import Settings
    from models.store.artifacts import Artifact, ArtifactStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check found: whether it passed, and `description` says of what.

    `value` is the measured number and `threshold` its limit, `violations` how many rows or expectations broke the rule,
    `examples` rows to show, `report` a page with everything. `advice` says what to do where it failed.
    """

    passed: bool
    description: str
    value: float | None = None
    threshold: float = 0
    violations: int = 0
    examples: Sequence[Mapping[str, Any]] = ()
    report: Path | None = None
    advice: str = ""


Artifacts = Mapping[str, "Artifact"]
"""By asset name."""

Find = Callable[["ArtifactStore", "Settings", Artifacts], Finding]
"""What looks at the artifacts of `BlockingCheck.reads`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockingCheck:
    """A check of `asset` that must pass before anything is made of it, or released.

    `reads` are the assets that it looks at, `find` looks, under the settings in force. `is_contract` marks those that
    look at each row by itself: the others take for granted that they hold.
    """

    asset: str
    name: str
    description: str
    advice: str
    reads: tuple[str, ...]
    find: Find
    is_contract: bool = False

    @property
    def key(self) -> str:
        """Asset and name, as `corpus/judgments:references_resolve`."""
        return f"{self.asset}:{self.name}"

    def judge(self, store: ArtifactStore, settings: Settings, artifacts: Artifacts) -> Finding:
        """What it finds of `artifacts`."""
        return replace(self.find(store, settings, artifacts), advice=self.advice)


def find_contract_violations(table: str, store: ArtifactStore, artifact: Artifact) -> Finding:
    """Whether every row of a table of an artifact holds its contract."""
    from models.expectations.contract_results import contract_violations

    violations = contract_violations(store, artifact, table)
    broken = int(violations["count"])
    return Finding(
        passed=broken == 0,
        description=f"{broken} places break the contract of {table}, in {violations['rows']} rows.",
        value=broken,
        violations=broken,
        examples=violations["examples"],
    )


def contract_description(table: str) -> str:
    """What the contract of a table asks."""
    return f"Every row of {table} holds its data contract (models/contracts/tables.py)."


def _contract(asset: str, table: str, name: str) -> BlockingCheck:
    return BlockingCheck(
        asset=asset,
        name=name,
        description=contract_description(table),
        advice="Look at that check's rows, correct the source and run again.",
        reads=(asset,),
        find=lambda store, _, artifacts: find_contract_violations(table, store, artifacts[asset]),
        is_contract=True,
    )


def _rejected_share(store: ArtifactStore, settings: Settings, artifacts: Artifacts) -> Finding:
    from models.corpus.integrity import find_rejected_rows

    limit = settings.corpus.max_rejected_share
    rejected = find_rejected_rows(store, {name.partition("/")[2]: table for name, table in artifacts.items()})
    return Finding(
        passed=rejected["share"] <= limit,
        description=f"{rejected['share']:.1%} of the rows of the worst table were refused; {limit:.1%} are allowed.",
        value=rejected["share"],
        threshold=limit,
        violations=rejected["rows"],
        examples=rejected["examples"],
    )


def _references(store: ArtifactStore, _: Settings, artifacts: Artifacts) -> Finding:
    from models.corpus.integrity import find_unresolved

    violations = find_unresolved(store, artifacts[names.JUDGMENTS], artifacts[names.QUERIES], artifacts[names.PASSAGES])
    return _none_allowed(violations, "judgments name a query or document that does not exist")


def _splits(store: ArtifactStore, _: Settings, artifacts: Artifacts) -> Finding:
    from models.corpus.integrity import find_repeated

    violations = find_repeated(store, artifacts[names.QUERIES])
    return _none_allowed(violations, "queries have the text of a query in another split")


def _no_leakage(trained: str, what: str) -> BlockingCheck:
    def find(store: ArtifactStore, settings: Settings, artifacts: Artifacts) -> Finding:
        from models.training.leakage import find_leaks

        violations = find_leaks(
            store,
            settings,
            artifacts[trained],
            artifacts[names.EVALUATION_SET],
            artifacts[names.CANDIDATES],
            artifacts[names.PASSAGE_EMBEDDINGS],
        )
        return _none_allowed(violations, f"{what} are evaluated too, as they stand or reworded")

    return BlockingCheck(
        asset=trained,
        name="no_evaluation_query_in_training",
        description=f"None of the {what} is in the evaluation set or nearly repeats one that is: looked for in what is "
        "trained on, whatever was excluded before.",
        advice=f"Materialize {trained} and what is made of it again.",
        reads=(trained, names.EVALUATION_SET, names.CANDIDATES, names.PASSAGE_EMBEDDINGS),
        find=find,
    )


def _none_allowed(violations: Mapping[str, Any], what: str) -> Finding:
    count = int(violations["count"])
    return Finding(
        passed=count == 0,
        description=f"{count} {what}.",
        value=count,
        violations=count,
        examples=violations["examples"],
    )


def _recall(_store: ArtifactStore, settings: Settings, artifacts: Artifacts) -> Finding:
    from models.retrieval.dense_index import read_facts

    facts = read_facts(artifacts[names.DENSE_INDEX].folder)
    wanted = settings.index.min_recall
    if facts["kind"] == "flat":
        exact = "Exact: a search compares with every passage."
        return Finding(passed=True, description=exact, value=1.0, threshold=wanted)
    return Finding(
        passed=facts["recall"] >= wanted,
        description=f"Recall@100 {facts['recall']:.4f} of {facts['kind']} on {facts['recall_queries']} queries, "
        f"at least {wanted} is asked for.",
        value=facts["recall"],
        threshold=wanted,
        examples=[facts["effort"]],
    )


def find_failed_expectations(report: ExpectationReport, page: Path, severity: str) -> Finding:
    """Whether all expectations of a severity (`critical` or `warning`) held."""
    outcomes = [outcome for outcome in report.results if outcome.severity == severity]
    failed = [outcome for outcome in outcomes if not outcome.success]
    left_out = len(report.left_out)
    details = f" Failed: {', '.join(outcome.name for outcome in failed)}." if failed else ""
    details += f" {left_out} of the suite had no accepted version to compare with." if left_out else ""
    if any(outcome.name.endswith(_AGAINST_ACCEPTED) for outcome in failed):
        details += " Where the corpus changed on purpose, run once with --set corpus.hold_against_accepted=false."
    return Finding(
        passed=not failed,
        description=f"{len(outcomes) - len(failed)} of {len(outcomes)} {severity} expectations held.{details}",
        value=1 - len(failed) / max(len(outcomes), 1),
        threshold=1,
        violations=len(failed),
        examples=[_expectation(outcome) for outcome in failed],
        report=page,
    )


_AGAINST_ACCEPTED = "_accepted"
"""How the names of expectations end that compare with the accepted version."""


def _expectation(outcome: ExpectationOutcome) -> dict[str, Any]:
    rows = "; ".join(", ".join(f"{name}={value}" for name, value in row.items()) for row in outcome.examples[:3])
    return {
        "expectation": outcome.name,
        "severity": outcome.severity,
        "column": outcome.column,
        "expected": outcome.expected,
        "observed": outcome.observed,
        "rows": rows,
    }


def _expectations(asset: str) -> BlockingCheck:
    def find(store: ArtifactStore, settings: Settings, artifacts: Artifacts) -> Finding:
        from models.expectations.suite_results import suite_report

        return find_failed_expectations(*suite_report(store, settings, asset, artifacts), "critical")

    suite = asset.partition("/")[2]
    return BlockingCheck(
        asset=asset,
        name="expectations",
        description=f"Critical expectations of models/expectations/suites/{suite}.json: counts, shares and "
        "distributions.",
        advice="Look at that check's report, correct the source and run again.",
        reads=SUITE_READS[asset],
        find=find,
    )


_QUERIES_AND_DOCUMENTS = (names.PASSAGES, names.QUERIES, names.JUDGMENTS)

BLOCKING_CHECKS = (
    _contract(names.PASSAGES, "passages.parquet", "contract"),
    _contract(names.QUERIES, "queries.parquet", "contract"),
    _contract(names.JUDGMENTS, "judgments.parquet", "contract"),
    _contract(names.QUARANTINED_ROWS, "quarantined_rows.parquet", "contract"),
    _contract(names.QUARANTINED_ROWS, "corrections.parquet", "corrections_contract"),
    _contract(names.EVALUATION_SET, "queries.parquet", "queries_contract"),
    _contract(names.EVALUATION_SET, "judgments.parquet", "judgments_contract"),
    _contract(names.CANDIDATES, "candidates.parquet", "contract"),
    _contract(names.CANDIDATES, "training_candidates.parquet", "training_contract"),
    _contract(names.TRAINING_EXAMPLES, "training_examples.parquet", "contract"),
    _contract(names.TRAINING_EXAMPLES, "development_lists.parquet", "development_contract"),
    _contract(names.TRAINING_EXAMPLES, "excluded_queries.parquet", "excluded_queries_contract"),
    _contract(names.LOGGED_LISTS, "logged_lists.parquet", "contract"),
    _contract(names.LOGGED_LISTS, "excluded_queries.parquet", "excluded_queries_contract"),
    BlockingCheck(
        asset=names.PASSAGES,
        name="rejected_share",
        description="Refused rows are at most corpus.max_rejected_share of the documents, of the queries and of the "
        "judgments.",
        advice="Correct the rows (`rerankops quarantine list`) and run again, or raise corpus.max_rejected_share.",
        reads=(*_QUERIES_AND_DOCUMENTS, names.QUARANTINED_ROWS),
        find=_rejected_share,
    ),
    BlockingCheck(
        asset=names.JUDGMENTS,
        name="references_resolve",
        description="Every judgment names a query and a document of the corpus.",
        advice="Correct the source's judgments and run again.",
        reads=_QUERIES_AND_DOCUMENTS,
        find=_references,
    ),
    BlockingCheck(
        asset=names.QUERIES,
        name="splits_are_disjoint",
        description="No query text stands in two splits, after case, spaces and end punctuation are normalized.",
        advice="Keep each of these queries in one split of the source and run again.",
        reads=(names.QUERIES,),
        find=_splits,
    ),
    _no_leakage(names.TRAINING_EXAMPLES, "training queries"),
    _no_leakage(names.LOGGED_LISTS, "logged queries"),
    *(_expectations(asset) for asset in SUITE_READS),
    BlockingCheck(
        asset=names.DENSE_INDEX,
        name="recall",
        description="An approximate index finds `index.min_recall` of the best 100 passages that an exact search "
        "finds.",
        advice="Raise index.hnsw_m or index.ivf_pq_bytes, or lower index.min_recall, and run again.",
        reads=(names.DENSE_INDEX,),
        find=_recall,
    ),
)
"""Every blocking check of an asset that a release candidate is made of; contracts come first."""


def judge_origin(store: ArtifactStore, settings: Settings, candidate: Artifact) -> dict[BlockingCheck, Finding]:
    """What each blocking check finds of the artifacts that `candidate` was made of, whatever is current now.

    Logged lists are judged where a model learned from them, as those do that are distilled. A check that reads a table
    whose contract is broken fails too: it was not made for such rows. Raises `ArtifactError` where the candidate goes
    back to two versions of one asset, or to what was deleted.
    """
    artifacts = _made_of(store, candidate)
    findings: dict[BlockingCheck, Finding] = {}
    broken: set[str] = set()
    for check in BLOCKING_CHECKS:
        if check.asset not in artifacts:
            continue
        unsound = sorted(broken & set(check.reads))
        if unsound and not check.is_contract:
            description = f"Not looked for: the contract of {', '.join(unsound)} is broken."
            findings[check] = Finding(passed=False, description=description, advice=check.advice)
            continue
        findings[check] = check.judge(store, settings, {name: artifacts[name] for name in check.reads})
        if check.is_contract and not findings[check].passed:
            broken.add(check.asset)
    return findings


def _made_of(store: ArtifactStore, candidate: Artifact) -> dict[str, Artifact]:
    """The artifacts that the blocking checks read, as `candidate` was made of them; logged lists only where it has a
    model that learned from them."""
    from models.corpus.versions import TABLES, read_together
    from models.store.catalog import Catalog

    catalog = Catalog.read(store)
    origin = catalog.origin(candidate.manifest)
    read = {name: origin[name].data_version for name in TABLES if name in origin}
    artifacts = read_together(store, catalog, read)
    needed = {name for check in BLOCKING_CHECKS for name in check.reads}
    if not any(tier.asset in origin for tier in DISTILLED_TIERS):
        needed.discard(names.LOGGED_LISTS)
    for name in sorted(needed - artifacts.keys()):
        artifact = store.made_by(origin[name]) if name in origin else None
        if artifact is None:
            raise ArtifactError(
                f"{name}, which {candidate.asset} {candidate.data_version} was made of, is no longer stored",
                "Run `rerankops run` to make it again.",
            )
        artifacts[name] = artifact
    return artifacts
