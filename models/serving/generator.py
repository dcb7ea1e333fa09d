"""What writes answers, behind one interface that needs neither index nor models: `GenerateRequest` in,
`GeneratedAnswer` out.

The extractive generator is the default and what every other one falls back to.
"""

from __future__ import annotations

from collections.abc import Sequence

from models.contracts.messages import GeneratedAnswer, GenerateRequest, Generation, GivenPassage
from models.contracts.rows import Passage
from models.serving.answer import NO_ANSWER, ScoreSentences, extractive_answer
from models.settings import GeneratorSettings


def given_passages(passages: Sequence[tuple[Passage, float]]) -> list[GivenPassage]:
    """Ranked passages with their calibrated scores as a generator is given them."""
    return [
        GivenPassage(
            passage_id=passage.passage_id,
            document_id=passage.document_id,
            title=passage.title,
            text=passage.text,
            start=passage.start,
            score=min(1.0, max(0.0, float(score))),
        )
        for passage, score in passages
    ]


def refusal(asked: GenerateRequest) -> str:
    """Why no passage answers, by the scores alone; empty where one may."""
    if not asked.passages:
        return "no_passage: nothing was retrieved"
    best = asked.passages[0].score
    if asked.min_score is not None and best < asked.min_score:
        return f"score: the best passage has {best:.3f}, below {asked.min_score:.3f}, the release's answer threshold"
    return ""


def no_answer(reason: str) -> GeneratedAnswer:
    """That no passage answers, and why."""
    return GeneratedAnswer(answer=NO_ANSWER, generation=Generation(kind="no_answer", reason=reason))


def passages_only(reason: str) -> GeneratedAnswer:
    """That there was no time to write one."""
    return GeneratedAnswer(answer="", generation=Generation(kind="passages_only", reason=reason))


def generate_extractive(
    asked: GenerateRequest, settings: GeneratorSettings, score_sentences: ScoreSentences | None = None
) -> GeneratedAnswer:
    """Quote the sentences that answer, or say that no passage does."""
    if reason := refusal(asked):
        return no_answer(reason)
    answer = extractive_answer(asked.query, asked.passages, settings, score_sentences)
    if not answer.citations:
        return no_answer("sentence: no sentence of the best passages is about the question")
    return GeneratedAnswer(answer=answer.text, citations=answer.citations, generation=Generation(kind="answer"))
