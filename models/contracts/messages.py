"""Messages between services and with callers: pydantic models under `CONTRACT_VERSION`."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from models.contracts.rows import Candidate
from models.contracts.tiers import Tier

CONTRACT_VERSION = "1"
PROBE_HEADER = "X-RerankOps-Probe"
PROBE_CALLER = "probe"
"""Requests whose header has the deployment's own key for probes (`models.serving.api_keys.probe_key`) are recorded
under this caller, and are no traffic to monitoring."""


class Message(BaseModel):
    """A message between services; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class CandidateMessage(Message):
    """A passage that the first stage returned."""

    passage_id: str = Field(description="Passage.")
    document_id: str = Field(default="", description="Its document; empty for texts of the caller's own.")
    rank: int = Field(ge=1, description="Rank in the fused list, from 1.")
    retriever_score: float = Field(description="Score that the list is ordered by, higher is better.")
    dense_score: float = Field(description="Cosine similarity of the embeddings.")
    lexical_score: float = Field(description="BM25 score.")
    retriever: Literal["dense", "lexical", "hybrid"] = Field(default="hybrid", description="Which search found it.")

    @classmethod
    def of(cls, candidate: Candidate) -> Self:
        """The message that says what a candidate is; its row is the index's own affair."""
        return cls(**{name: getattr(candidate, name) for name in cls.model_fields})


class CandidateSet(Message):
    """What a retriever hands to a reranker."""

    query: str = Field(min_length=1, description="The question.")
    candidates: list[CandidateMessage] = Field(description="What was found, best first.")
    index_version: str = Field(description="Index that was searched.")
    corpus_version: str = Field(description="Corpus that it is of.")
    contract_version: str = Field(default=CONTRACT_VERSION, description="Version of these messages.")


class RankedPassage(Message):
    """A passage with its final score, calibrated to the probability of being relevant."""

    passage_id: str = Field(description="Passage.")
    rank: int = Field(ge=1, description="Final rank, from 1.")
    score: float = Field(ge=0, le=1, description="Probability of being relevant.")
    tier: Tier = Field(description="What gave the score.")


class Citation(Message):
    """Where a sentence of an answer comes from: offsets are characters in the document's text."""

    passage_id: str = Field(description="Passage that is quoted.")
    document_id: str = Field(description="Its document.")
    title: str = Field(description="Title of the document.")
    quote: str = Field(description="The words, as they stand there.")
    start: int = Field(description="Offset of the first character in the document's text.")
    end: int = Field(description="Offset behind the last character.")


class GivenPassage(Message):
    """A ranked passage as a generator is given it."""

    passage_id: str = Field(description="Passage.")
    document_id: str = Field(description="Its document.")
    title: str = Field(description="Title of the document.")
    text: str = Field(description="The passage.")
    start: int = Field(ge=0, description="Offset of its first character in the document's text.")
    score: float = Field(ge=0, le=1, description="Calibrated probability that it is relevant.")


class GenerateRequest(Message):
    """What a generator is asked: it needs neither index nor models."""

    query: str = Field(min_length=1, description="The question.")
    passages: list[GivenPassage] = Field(description="What was ranked, best first.")
    min_score: float | None = Field(
        default=None, description="Score of the best passage below which none answers; null where a release has none."
    )
    timeout_ms: float = Field(gt=0, description="Milliseconds that are left for the answer.")
    contract_version: str = Field(default=CONTRACT_VERSION, description="Version of these messages.")


class Generation(Message):
    """How an answer came about."""

    kind: Literal["answer", "no_answer", "passages_only"] = Field(
        description="An answer with citations; that no passage answers; or passages alone, since time was short."
    )
    reason: str = Field(default="", description="Why there is no answer; empty where there is one.")
    generator: Literal["extractive", "chat"] = Field(default="extractive", description="What wrote it.")
    model: str = Field(default="", description="The language model, where one wrote it.")
    prompt_version: str = Field(default="", description="Version of the prompt that it was given.")
    fallback_reason: str = Field(
        default="", description="Why the extractive generator wrote and not the language model, where one is set."
    )


class GeneratedAnswer(Message):
    """What a generator returns: mark `[n]` of the answer is the n-th citation."""

    answer: str = Field(description="The text.")
    citations: list[Citation] = Field(default=[], description="Quotes of the given passages.")
    generation: Generation = Field(description="How it came about.")


class Decision(Message):
    """The record of one answered request: why each passage was shown."""

    decision_id: str = Field(description="Id of the decision.")
    trace_id: str = Field(description="Trace of the request.")
    time: datetime = Field(description="When it was answered, UTC.")
    endpoint: str = Field(description="Path that was called.")
    caller: str = Field(description="Who called, as a digest of the key.")
    experiment_arm: str = Field(default="champion", description="Arm of the experiment; champion outside of one.")
    query: str = Field(description="The question, or what `monitoring.kept_query_characters` leaves of it.")
    query_characters: int | None = Field(default=None, description="Characters of a question that is not kept whole.")
    query_words: int | None = Field(default=None, description="Its words.")
    candidates: list[dict[str, Any]] = Field(description="What was ranked, with the first-stage scores.")
    ranking: list[dict[str, Any]] = Field(description="The same in its final order, with score and tier.")
    release_id: str = Field(description="Release that answered.")
    model_version: str = Field(description="Its MLflow version.")
    index_version: str = Field(description="Its index.")
    corpus_version: str = Field(description="Its corpus.")
    contract_version: str = Field(default=CONTRACT_VERSION, description="Version of these messages.")
    stage_ms: dict[str, float] = Field(description="Milliseconds of each stage.")
    degraded: bool = Field(default=False, description="Whether the budget or a fault cost quality.")
    degraded_reason: str = Field(default="", description="Why; empty otherwise.")
    answer: str | None = Field(default=None, description="The text that was given, if one was asked for.")
    citations: list[Citation] = Field(default=[], description="Quotes in that text.")
    generation: Generation | None = Field(default=None, description="How that text came about.")


class Feedback(Message):
    """What a caller says of an answer, or of a passage that it showed."""

    decision_id: str = Field(description="Decision that it is about.")
    passage_id: str | None = Field(default=None, description="Passage; null is the answer itself.")
    kind: Literal["click", "thumb", "citation"] = Field(
        description="A click on a passage, a thumb for a passage or the answer, or whether a citation bears it out."
    )
    value: float = Field(ge=-1, le=1, allow_inf_nan=False, description="-1 is against it, 1 for it.")


MESSAGES: tuple[type[Message], ...] = (
    CandidateMessage,
    CandidateSet,
    RankedPassage,
    Citation,
    GivenPassage,
    GenerateRequest,
    Generation,
    GeneratedAnswer,
    Decision,
    Feedback,
)
