"""Asset keys and groups. A key is (stage, noun); its op in run config is `stage__noun`."""

import dagster as dg

from models.contracts.tiers import MODEL_TIERS

CORPUS, INDEX, TRAINING, EVALUATION, RELEASES, SERVING, MONITORING = (
    "corpus",
    "index",
    "training",
    "evaluation",
    "release",
    "serving",
    "monitoring",
)

PASSAGES = dg.AssetKey([CORPUS, "passages"])
QUERIES = dg.AssetKey([CORPUS, "queries"])
JUDGMENTS = dg.AssetKey([CORPUS, "judgments"])
QUARANTINED_ROWS = dg.AssetKey([CORPUS, "quarantined_rows"])
EVALUATION_SET = dg.AssetKey([CORPUS, "evaluation_set"])

PASSAGE_EMBEDDINGS = dg.AssetKey([INDEX, "passage_embeddings"])
DENSE_INDEX = dg.AssetKey([INDEX, "dense_index"])
LEXICAL_INDEX = dg.AssetKey([INDEX, "lexical_index"])
FIRST_STAGE = dg.AssetKey([INDEX, "first_stage"])
CORPUS_DEFAULTS = dg.AssetKey([INDEX, "corpus_defaults"])
CANDIDATES = dg.AssetKey([INDEX, "candidates"])

TRAINING_EXAMPLES = dg.AssetKey([TRAINING, "training_examples"])
LOGGED_LISTS = dg.AssetKey([TRAINING, "logged_lists"])
LARGE_RERANKER = dg.AssetKey([TRAINING, "large_reranker"])
RERANKERS = tuple(dg.AssetKey(tier.asset.split("/")) for tier in MODEL_TIERS)
"""The models of all tiers; an asset that takes them has them in its keyword parameters."""
SCORING_ENGINES = dg.AssetKey([TRAINING, "scoring_engines"])

SCORED_CANDIDATES = dg.AssetKey([EVALUATION, "scored_candidates"])
SCORE_CALIBRATION = dg.AssetKey([EVALUATION, "score_calibration"])
OFFLINE_EVALUATION = dg.AssetKey([EVALUATION, "offline_evaluation"])
CHAMPION_EVALUATION = dg.AssetKey([EVALUATION, "champion_evaluation"])
LATENCY_PROFILE = dg.AssetKey([EVALUATION, "latency_profile"])

RELEASE_CANDIDATE = dg.AssetKey([RELEASES, "release_candidate"])
GATE_DECISION = dg.AssetKey([RELEASES, "gate_decision"])
RELEASE = dg.AssetKey([RELEASES, "release"])

ONLINE_SCORING = dg.AssetKey([SERVING, "online_scoring"])

DECISION_LOG = dg.AssetKey([MONITORING, "decision_log"])
DRIFT_REPORT = dg.AssetKey([MONITORING, "drift_report"])


def artifact_name(key: dg.AssetKey) -> str:
    """Name of an asset in the artifact store, as in `corpus/passages`."""
    return "/".join(key.path)
