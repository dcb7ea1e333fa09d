"""The computations of the corpus: one reading of the source into four tables, and the frozen evaluation set."""

from models.store import asset_names as names
from models.store.steps import Step

_READING = "models.corpus.reading:Reading.take"
_READ_SETTINGS = (
    "corpus.source", "corpus.max_decompressed_bytes", "corpus.passage_tokens", "corpus.overlap_tokens",
    "corpus.dev_share", "corpus.test_share", "training.pseudo_queries", "training.pseudo_kinds",
    "training.pseudo_documents", "query_writer.documents", "query_writer.task", "query_writer.examples",
    "query_writer.temperature", "query_writer.round_trip_rank", "query_writer.model", "query_writer.url",
)  # fmt: skip
"""Beside the source's fingerprint, which stands for its path and the settings of its kind."""

PASSAGES = Step(names.PASSAGES, _READING, _READ_SETTINGS)
QUERIES = Step(names.QUERIES, _READING, _READ_SETTINGS)
JUDGMENTS = Step(names.JUDGMENTS, _READING, _READ_SETTINGS)
QUARANTINED_ROWS = Step(names.QUARANTINED_ROWS, _READING, _READ_SETTINGS)
TABLES = {"passages": PASSAGES, "queries": QUERIES, "judgments": JUDGMENTS, "quarantined_rows": QUARANTINED_ROWS}
"""By the name of the table. One function makes them, at once."""

EVALUATION_SET = Step(
    names.EVALUATION_SET,
    "models.corpus.freezing:freeze",
    ("evaluation.max_dev_queries", "evaluation.max_test_queries"),
)
REJECTED_SHARE = Step("rejected_share", "models.corpus.integrity:rejected_rows")
REFERENCES_RESOLVE = Step("references_resolve", "models.corpus.integrity:unresolved")
SPLITS_ARE_DISJOINT = Step("splits_are_disjoint", "models.corpus.integrity:repeated")
