"""Logs as lines of text or of JSON. Never what is in a picture or a prompt."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Literal

FIELDS = "fields"
"""The attribute of a log record that has more to say than its message, by name."""


class JsonLines(logging.Formatter):
    """One object a line: time (UTC), level, logger, message, the record's fields, its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextLines(logging.Formatter):
    """Level, message, and the record's fields as ``name=value``."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, FIELDS, {})
        shown = "".join(f" {name}={value}" for name, value in fields.items())
        text = f"{record.levelname}: {record.getMessage()}{shown}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def configure(form: Literal["text", "json"]) -> None:
    """Send the server's own log and uvicorn's to standard error, in one form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    for name in ("afterdetail", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False
