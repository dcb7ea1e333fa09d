"""The computations behind the checks of tables: contracts, expectations, and the facts of an accepted version."""

from collections.abc import Mapping

from models.store import asset_names as names
from models.store.steps import Step

_CORPUS = (names.PASSAGES, names.QUERIES, names.JUDGMENTS)
SUITE_READS: Mapping[str, tuple[str, ...]] = {
    names.PASSAGES: (names.PASSAGES,),
    names.QUERIES: _CORPUS,
    names.JUDGMENTS: _CORPUS,
    names.EVALUATION_SET: (names.EVALUATION_SET,),
}
"""Assets with a suite, and those whose tables it looks at."""

CONTRACTS = Step("contracts", "models.expectations.contract_results:count_violations")
EXPECTATIONS = Step(
    "expectations",
    "models.expectations.suite_results:validate_tables",
    data_files=(
        "expectations/suites/evaluation_set.json", "expectations/suites/judgments.json",
        "expectations/suites/passages.json", "expectations/suites/queries.json",
    ),
)  # fmt: skip
EXPECTATION_FACTS = Step("expectation_facts", "models.expectations.tables:facts_of")
