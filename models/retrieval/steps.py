"""The computations of first-stage retrieval: vectors, both indexes, and the candidates that are reranked."""

from models.store import asset_names as names
from models.store.steps import Step

PASSAGE_EMBEDDINGS = Step(
    names.PASSAGE_EMBEDDINGS,
    "models.retrieval.embedding:embed_passages",
    ("encoder.max_tokens", "encoder.query_prefix", "encoder.passage_prefix", "encoder.dimensions"),
)
DENSE_INDEX = Step(
    names.DENSE_INDEX,
    "models.retrieval.dense_index:index_embeddings",
    (
        "index.hnsw_m", "index.hnsw_ef_construction", "index.hnsw_ef_search", "index.hnsw_sq8", "index.ivf_lists",
        "index.ivf_pq_bytes", "index.ivf_probes", "index.rescore", "index.min_recall", "index.recall_queries",
        "index.max_delta_share",
    ),
)  # fmt: skip
LEXICAL_INDEX = Step(
    names.LEXICAL_INDEX,
    "models.retrieval.lexical_index:index_texts",
    ("index.bm25_k1", "index.bm25_b", "index.languages"),
)
QUERY_WRITING = Step(
    "query_writing",
    "models.retrieval.round_trip:query_writing",
    ("index.bm25_k1", "index.bm25_b", "index.languages"),
)
_IN_THE_INDEXES = (
    *DENSE_INDEX.settings, *LEXICAL_INDEX.settings, "index.kind", "index.flat_max_passages", "index.max_memory_mb",
)  # fmt: skip
"""Keys of `[index]` that reach candidates through the indexes; all others say how what they bring is ordered."""

FIRST_STAGE = Step(
    names.FIRST_STAGE, "models.retrieval.first_stage:learn_first_stage", ("index",), without=_IN_THE_INDEXES
)
CANDIDATES = Step(
    names.CANDIDATES,
    "models.retrieval.candidates:retrieve_candidates",
    ("index", "evaluation.candidates", "training.max_queries"),
    without=(*_IN_THE_INDEXES, "index.fusion"),
)
POOLED_CANDIDATES = Step(
    "index/pooled_candidates",
    "models.retrieval.pooled_candidates:pool",
    ("index", "encoder.max_tokens", "evaluation.candidates"),
    without=(*_IN_THE_INDEXES, "index.fusion"),
)
