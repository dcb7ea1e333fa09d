"""The answer to a ranked question: that of the language model, where one is set and writes what its quotes bear out in
time, else the extractive one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

from models.contracts.messages import GeneratedAnswer, GenerateRequest
from models.serving.chat_generator import PROMPT_VERSION, ChatGenerator, GenerationFailed
from models.serving.generator import refusal
from services.deadline import Deadline
from services.errors import CallerLeft
from services.log_lines import error_facts
from services.schemas import MIN_TIMEOUT_MS

_LOG = logging.getLogger(__name__)


async def write(
    chat: ChatGenerator | None,
    asked: GenerateRequest,
    extractive: GeneratedAnswer,
    deadline: Deadline,
    reserve_ms: float,
    gone: Awaitable[None],
) -> GeneratedAnswer:
    """The model's answer, or `extractive` with the reason why not; what no passage answers by the scores is not asked.

    `reserve_ms` of the deadline are kept for recording it. Raises `CallerLeft` once `gone` is done.
    """
    left = asyncio.ensure_future(gone)
    try:
        if chat is None or refusal(asked):
            return extractive
        timeout_ms = max(deadline.remaining_ms - reserve_ms, MIN_TIMEOUT_MS)
        writing = asyncio.ensure_future(chat.generate(asked.model_copy(update={"timeout_ms": timeout_ms})))
        try:
            await asyncio.wait({writing, left}, return_when=asyncio.FIRST_COMPLETED)
            if not writing.done():
                raise CallerLeft("The caller closed the connection")
            return writing.result()
        except GenerationFailed as failed:
            reason = str(failed)
            _LOG.warning("language model not used", extra={"facts": {"reason": reason}})
        except CallerLeft:
            raise
        except Exception as error:
            reason = "fault: the service failed inside"
            _LOG.error("language model not used", extra={"facts": error_facts(error)})
        finally:
            writing.cancel()
    finally:
        left.cancel()
    told = {"fallback_reason": reason, "model": chat.model, "prompt_version": PROMPT_VERSION}
    return extractive.model_copy(update={"generation": extractive.generation.model_copy(update=told)})
