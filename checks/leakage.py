"""What must hold between tables, as blocking checks: references, disjoint splits, no evaluation query in training, not
even reworded."""

import dagster as dg

from assets import keys
from checks.blocking import blocking_check

references_resolve = blocking_check(keys.JUDGMENTS, "references_resolve", keys.PASSAGES, keys.QUERIES)
splits_are_disjoint = blocking_check(keys.QUERIES, "splits_are_disjoint")
no_evaluation_query_in_training = blocking_check(
    keys.TRAINING_EXAMPLES,
    "no_evaluation_query_in_training",
    keys.EVALUATION_SET,
    keys.CANDIDATES,
    keys.PASSAGE_EMBEDDINGS,
)
no_evaluation_query_in_logged_lists = blocking_check(
    keys.LOGGED_LISTS,
    "no_evaluation_query_in_training",
    keys.EVALUATION_SET,
    keys.CANDIDATES,
    keys.PASSAGE_EMBEDDINGS,
)

CHECKS: tuple[dg.AssetChecksDefinition, ...] = (
    references_resolve,
    splits_are_disjoint,
    no_evaluation_query_in_training,
    no_evaluation_query_in_logged_lists,
)
