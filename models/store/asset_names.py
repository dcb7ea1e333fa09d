"""Names of assets in the artifact store: stage and noun. `assets.keys` reads them."""

PASSAGES = "corpus/passages"
QUERIES = "corpus/queries"
JUDGMENTS = "corpus/judgments"
QUARANTINED_ROWS = "corpus/quarantined_rows"
EVALUATION_SET = "corpus/evaluation_set"

PASSAGE_EMBEDDINGS = "index/passage_embeddings"
DENSE_INDEX = "index/dense_index"
LEXICAL_INDEX = "index/lexical_index"
FIRST_STAGE = "index/first_stage"
CORPUS_DEFAULTS = "index/corpus_defaults"
CANDIDATES = "index/candidates"

TRAINING_EXAMPLES = "training/training_examples"
LOGGED_LISTS = "training/logged_lists"
LARGE_RERANKER = "training/large_reranker"
SCORING_ENGINES = "training/scoring_engines"
MIXTURE = "training/mixture"
"""Of `rerankops pretrain`; no asset of the lifecycle."""

SCORED_CANDIDATES = "evaluation/scored_candidates"
SCORE_CALIBRATION = "evaluation/score_calibration"
OFFLINE_EVALUATION = "evaluation/offline_evaluation"
CHAMPION_EVALUATION = "evaluation/champion_evaluation"
LATENCY_PROFILE = "evaluation/latency_profile"

RELEASE_CANDIDATE = "release/release_candidate"
GATE_DECISION = "release/gate_decision"
RELEASE = "release/release"

ONLINE_SCORING = "serving/online_scoring"

DECISION_LOG = "monitoring/decision_log"
DRIFT_REPORT = "monitoring/drift_report"
