"""The log as JSON lines on stderr. It holds no text of a query or document, and no key."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime

from models.errors import RerankOpsError


class JsonLines(logging.Formatter):
    """One JSON object per line: time, level, logger, message, and the `facts` given in `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line of JSON."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line |= error_facts(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False, default=str)


def error_facts(error: BaseException) -> dict[str, object]:
    """An exception for the log: its class and where it was raised.

    Its text is left out unless it is ours: other libraries quote their input, which may be a query.
    """
    facts: dict[str, object] = {
        "error": type(error).__name__,
        "raised_at": [
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
        ],
    }
    if isinstance(error, RerankOpsError):
        facts["error_message"] = str(error)
    if error.__cause__ is not None:
        facts["cause"] = error_facts(error.__cause__)
    return facts


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send the whole process' log to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
