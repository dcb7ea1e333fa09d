"""The computations of training: mined examples, logged lists, the cross-encoders, and what computes their scores."""

from models.contracts.tiers import DISTILLED_TIERS, MODEL_TIERS, TierSpec
from models.store import asset_names as names
from models.store.steps import Step

_LEAKAGE = ("training.leak_overlap", "training.leak_cosine")
_MINING = (
    "training.max_queries", "training.negatives", "training.draws", "training.negative_sources",
    "training.negative_depth", "training.negative_top_share", "training.random_share",
    "training.false_negative_margin", *_LEAKAGE,
)  # fmt: skip
_IN_THE_INPUTS = (
    "training.base_model", *(f"training.{tier.name}_base_model" for tier in DISTILLED_TIERS),
    "training.false_negative_teacher", "training.pseudo_queries", "training.pseudo_kinds", "training.pseudo_documents",
    "training.logged_queries", *_MINING,
)  # fmt: skip
"""Keys that reach the models through other inputs: the digest of the weights, the lists that they learn from."""

_WITHOUT_EFFECT = ("training.checkpoint_minutes", "training.minutes", "training.pairs_per_second")
_OF_DISTILLATION = ("training.teacher_weight", "training.distillation")


def _of_students(but: TierSpec | None = None) -> tuple[str, ...]:
    """The keys that distilled models have of their own, but for those of one of them."""
    return tuple(key for tier in DISTILLED_TIERS if tier is not but for key in tier.student_settings)


CORPUS_DEFAULTS = Step(
    names.CORPUS_DEFAULTS,
    "models.training.corpus_defaults:choose",
    (
        "corpus.source", "training.max_tokens", "training.passage_cut", "training.minutes", "training.pairs_per_second",
        "training.max_queries", "training.draws", "training.negatives", "evaluation.candidates", "tiers.models",
        *(f"training.{tier.name}_pairs" for tier in MODEL_TIERS), *(tier.candidates_setting for tier in MODEL_TIERS),
    ),
)  # fmt: skip
TRAINING_EXAMPLES = Step(names.TRAINING_EXAMPLES, "models.training.examples:mine", (*_MINING, "training.seed"))
LOGGED_LISTS = Step(
    names.LOGGED_LISTS,
    "models.training.logged_lists:collect",
    ("training.logged_queries", "training.negatives", *_LEAKAGE),
)
LARGE_RERANKER = Step(
    names.LARGE_RERANKER,
    "models.training.large_reranker:train",
    ("training",),
    without=(*_IN_THE_INPUTS, *_WITHOUT_EFFECT, *_OF_DISTILLATION, *_of_students()),
)
DISTILLED_RERANKERS = {
    tier.name: Step(
        tier.asset,
        "models.training.distilled_reranker:train",
        ("training",),
        without=(*_IN_THE_INPUTS, *_WITHOUT_EFFECT, *_of_students(but=tier)),
    )
    for tier in DISTILLED_TIERS
}
"""By tier."""
SCORING_ENGINES = Step(
    names.SCORING_ENGINES,
    "models.training.engine_selection:select_engines",
    ("engine", "training.max_tokens"),
    without=("engine.threads",),
)
MIXTURE = Step(
    names.MIXTURE,
    "models.training.mixture:mix",
    ("pretraining.pairs", "pretraining.compact_pairs", "pretraining.size_exponent", "tiers.models", *_LEAKAGE),
)
TRAINING_SPEED = Step("training_speed", "models.training.training_speed:measure")
NO_EVALUATION_QUERY_IN_TRAINING = Step(
    "no_evaluation_query_in_training",
    "models.training.leakage:leaked",
    _LEAKAGE,
)
