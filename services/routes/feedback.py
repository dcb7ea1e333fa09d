"""POST /v1/feedback: what a user did with an answer, or thinks of it."""

from __future__ import annotations

from fastapi import APIRouter, Request

from models.contracts.messages import Decision, Feedback
from models.records import feedback
from services.auth import NEEDS_KEY
from services.context import Context
from services.decision_record import stored_decision
from services.errors import InvalidRequest, error_responses
from services.schemas import FeedbackRequest

router = APIRouter(dependencies=NEEDS_KEY)


@router.post("/v1/feedback", responses=error_responses(400, 401, 404, 408, 413, 422, 500, 503))
def give_feedback(body: FeedbackRequest, request: Request, context: Context) -> Feedback:
    """Store a click, a thumb or what is thought of a citation; sent again it changes nothing, with another value it
    takes the place of what was said before."""
    _check_passage(body, stored_decision(context, body.decision_id))
    said = Feedback.model_validate(body.model_dump())
    feedback.put(context.database, said, request.scope["state"]["caller"])
    return said


def _check_passage(body: FeedbackRequest, decision: Decision) -> None:
    """Raise `InvalidRequest` for feedback on what the decision did not show."""
    if body.passage_id is None:
        if body.kind != "thumb":
            raise InvalidRequest(f"passage_id: a {body.kind} is one of a passage", param="passage_id")
        return
    if body.kind == "citation":
        known, what = {citation.passage_id for citation in decision.citations}, "cited"
    else:
        known, what = {entry["passage_id"] for entry in decision.ranking}, "ranked"
    if body.passage_id not in known:
        raise InvalidRequest(f"passage_id: the decision has {what} no passage of this id", param="passage_id")
