"""Messages of our own HTTP interfaces, and what the messages of `services.dialects` are made of."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from fastapi import Header
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from models.contracts.messages import Citation, Generation
from models.contracts.tiers import Tier
from models.retrieval.passage_filter import PassageFilter

MIN_TIMEOUT_MS, MAX_TIMEOUT_MS = 0.001, 60_000.0
MAX_TOP_K = 1000
DECISION_ID = r"^[0-9a-f]{32}$"
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?", re.ASCII)
"""Python reads 1_000 and nan as numbers too."""


def _check_number(value: object) -> object:
    if isinstance(value, str) and not _NUMBER.fullmatch(value.strip()):
        raise PydanticCustomError("number", "Input should be a number, as in 1000 or 2.5")
    return value


def _check_question(text: str) -> str:
    if "\x00" in text or not text.strip():
        raise PydanticCustomError("unreadable", "Input should have a visible character, and no NUL")
    return text


_BLANK = r"\t-\r\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""What `str.strip` takes away, as a pattern of JSON Schema."""
_QUESTION = rf"^[^\u0000]*[^\u0000{_BLANK}][^\u0000]*$"

Question = Annotated[
    str,
    StringConstraints(min_length=1),
    AfterValidator(_check_question),
    Field(json_schema_extra={"pattern": _QUESTION}),
]
"""Some visible character, and no NUL, which PostgreSQL cannot store."""
Text = Annotated[str, StringConstraints(min_length=0)]
"""Any text. A constraint, even this one, makes pydantic look at the characters and refuse lone surrogates."""
TimeoutMs = Annotated[
    # In this order: behind a validator, pydantic says `ge` in the schema, which is no word of JSON Schema.
    float, Field(ge=MIN_TIMEOUT_MS, le=MAX_TIMEOUT_MS, allow_inf_nan=False), BeforeValidator(_check_number)
]
TimeBudget = Annotated[
    TimeoutMs | None,
    Field(description="Time budget, milliseconds; before the header X-Timeout-Ms and tiers.budget_ms."),
]
"""A field of a request that says how long its answer may take."""

TimeoutHeader = Annotated[
    TimeoutMs | None,
    WithJsonSchema({"type": "number", "minimum": MIN_TIMEOUT_MS, "maximum": MAX_TIMEOUT_MS}),
    Header(),
]
"""The same as a header, which can be left out and has no null."""


Labels = list[Annotated[str, StringConstraints(min_length=1, max_length=200)]]
_LABELS = "Access labels of the end user, vouched for by the caller; public passages need none."


class ApiVersion(BaseModel):
    """Version of the dialect."""

    version: str


class BilledUnits(BaseModel):
    """Cohere's unit: one query with up to 100 documents."""

    search_units: int


class TokenCounts(BaseModel):
    """Tokens that the models read."""

    input_tokens: int
    output_tokens: int = 0


class RerankMeta(BaseModel):
    """Cohere's meta, and behind it who decided what. `tiers` is aligned with `results`."""

    api_version: ApiVersion
    billed_units: BilledUnits
    tokens: TokenCounts
    warnings: list[str] | None = None
    decision_id: str | None = None
    release_id: str
    model_version: str
    degraded: bool
    degraded_reason: str
    tiers: list[Tier]
    tier_counts: dict[str, int]
    truncated: int
    stage_ms: dict[str, float]


class AnswerRequest(BaseModel):
    """A question to the released corpus."""

    model_config = ConfigDict(extra="forbid")

    query: Question = Field(description="The question.")
    top_k: int | None = Field(default=None, ge=1, le=MAX_TOP_K, description="Passages retrieved; serving.candidates.")
    max_passages: int | None = Field(
        default=None, ge=1, le=MAX_TOP_K, description="Passages returned; 10, or fewer when fewer are retrieved."
    )
    labels: Labels = Field(default=[], max_length=100, description=_LABELS)
    timeout_ms: TimeBudget = None
    stream: bool = Field(
        default=False, description="Answer as server-sent events; the header Accept: text/event-stream asks for it too."
    )

    @property
    def passage_filter(self) -> PassageFilter:
        """What passages must be like to be retrieved."""
        return PassageFilter(labels=frozenset(self.labels))


class RetrieveRequest(BaseModel):
    """A question to the first stage."""

    model_config = ConfigDict(extra="forbid")

    query: Question = Field(description="The question.")
    top_k: int | None = Field(default=None, ge=1, le=MAX_TOP_K, description="Passages retrieved; serving.candidates.")
    labels: Labels = Field(default=[], max_length=100, description=_LABELS)
    timeout_ms: TimeBudget = None

    @property
    def passage_filter(self) -> PassageFilter:
        """What passages must be like to be retrieved."""
        return PassageFilter(labels=frozenset(self.labels))


class RetrievedPassage(BaseModel):
    """A passage with its scores in the first stage; `retriever` says which search found it."""

    passage_id: str
    document_id: str
    title: str
    text: str
    rank: int
    retriever_score: float
    dense_score: float
    lexical_score: float
    retriever: Literal["dense", "lexical", "hybrid"]


class FeedbackRequest(BaseModel):
    """What a user did with an answer, or thinks of it."""

    model_config = ConfigDict(extra="forbid")

    decision_id: str = Field(pattern=DECISION_ID, description="The answer's decision_id.")
    passage_id: Annotated[str, StringConstraints(min_length=1, max_length=1000)] | None = Field(
        default=None, description="A passage that it ranked; left out for the answer itself."
    )
    kind: Literal["click", "thumb", "citation"] = Field(
        description="A click on a passage, a thumb for a passage or the answer, or whether a citation bears it out."
    )
    value: float = Field(default=1.0, ge=-1, le=1, allow_inf_nan=False, description="-1 is against it, 1 for it.")


class AnswerPassage(BaseModel):
    """A ranked passage of the corpus."""

    passage_id: str
    document_id: str
    title: str
    text: str
    score: float
    tier: Tier
    rank: int


class Versions(BaseModel):
    """What exactly answered."""

    release_id: str
    bundle_version: str
    model_version: str
    index_version: str
    corpus_version: str


class RetrieveResponse(BaseModel):
    """Passages in the order of the first stage, best first."""

    passages: list[RetrievedPassage]
    versions: Versions
    contract_version: str
    milliseconds: float


class AnswerResponse(BaseModel):
    """An answer in the corpus' own words; mark `[n]` of `answer` is the n-th citation.

    `generation.kind` tells an answer from a question that no passage answers, and from a service in a hurry, which
    leaves the answer empty and gives the passages alone. `decision_id` is null where the decision could not be
    recorded.
    """

    decision_id: str | None
    answer: str
    citations: list[Citation]
    generation: Generation
    passages: list[AnswerPassage]
    degraded: bool
    degraded_reason: str
    versions: Versions
    stage_ms: dict[str, float]


class PassagesEvent(BaseModel):
    """Data of the event `passages`: what was ranked, before an answer is written."""

    passages: list[AnswerPassage]


class DeltaEvent(BaseModel):
    """Data of an event `delta`: the next part of the answer. All of them together are the answer."""

    text: str


class RefreshResponse(BaseModel):
    """The release that serves now. `swapped` is false when it already did; `warm_up_ms` is empty then."""

    release_id: str
    bundle_version: str
    model_version: str
    swapped: bool
    seconds: float
    warm_up_ms: dict[str, float]


class ServedObjectives(BaseModel):
    """Answers of the last `window_minutes`, milliseconds, beside the objectives; percentiles are None without any."""

    window_minutes: int
    requests: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    p95_objective_ms: float
    p99_objective_ms: float
    over_p95_share: float
    over_p99_share: float
    p95_budget_left: float
    p99_budget_left: float
    degraded_share: float


class LoadFailure(BaseModel):
    """The last load that failed; `message` is shown to callers with the key."""

    release_id: str
    error: str
    at: str
    attempts: int
    message: str | None = None


class DecisionLogState(BaseModel):
    """`failure` says why decisions cannot be recorded now, so that answers have no id; `waiting` are on disk until the
    database takes them."""

    recorded: bool
    failure: str | None
    waiting: int


class HealthResponse(BaseModel):
    """`ready` when a release is loaded and warm; `load_failure` when a newer one does not load; `outage` while answers
    are lean since the process that runs the models is being replaced; `remembered` when the ledger could not be
    reached since the start, and what it said before is served."""

    status: str
    ready: bool
    outage: str | None
    served: dict[str, Any] | None
    load_failure: LoadFailure | None
    ledger_reachable: bool
    remembered: bool
    decisions: DecisionLogState
