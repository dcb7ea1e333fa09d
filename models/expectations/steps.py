"""The computations behind the checks of tables: contracts, expectations, and the facts of an accepted version."""

from models.store.steps import Step

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
