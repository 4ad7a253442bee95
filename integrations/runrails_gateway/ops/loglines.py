"""What `runrails serve` writes on stderr: one line of JSON for each thing that is worth one."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Literal, get_args

from runrails.errors import ConfigError
from runrails.redaction import redact_text
from runrails_gateway.ops.requestlog import LOGGER
from runrails_gateway.ops.unblocked import Unblocked

__all__ = ["LOG", "Choice", "Lines", "choice_of_environment", "configure"]

LOG = "RUNRAILS_GATEWAY_LOG"
Choice = Literal["all", "problems", "off"]
"""Which requests are logged."""
_LEVELS: dict[Choice, int] = {"all": logging.INFO, "problems": logging.WARNING, "off": logging.CRITICAL + 1}


_TOLD = ("event='runrails.run_stopped'", "event='runrails.call_refused'")
"""Of each request that is refused, the log of requests has a line, if it is wanted; a second one says nothing more."""


class Lines(logging.Formatter):
    """Each record as one line of JSON. What others have logged goes through the redaction; ours has no secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        text = record.getMessage()
        if record.name == LOGGER:  # is JSON already
            return text
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": at, "level": record.levelname.lower(), "logger": record.name, "message": redact_text(text)}
        if record.exc_info:
            line["traceback"] = redact_text(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False, separators=(",", ":"))


def choice_of_environment() -> Choice:
    """Which requests are logged. Raises ConfigError."""
    text = os.environ.get(LOG, "").strip().lower() or "problems"
    if text not in _LEVELS:
        raise ConfigError(f"{LOG} must be one of {get_args(Choice)}.", next_step="Leave it out.", setting=LOG)
    return text


def configure() -> None:
    """
    Send what is logged to stderr, for a process that does nothing but serve. No request waits for whoever reads it.

    Raises:
        ConfigError: `RUNRAILS_GATEWAY_LOG` says something else than it may.
    """
    level = _LEVELS[choice_of_environment()]
    handler = Unblocked(_to_stderr)
    handler.setFormatter(Lines())
    handler.addFilter(lambda record: not record.getMessage().startswith(_TOLD))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger(LOGGER).setLevel(level)
    # Anybody can have it warn of requests that are none, as often as they like.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


def _to_stderr(line: str) -> None:
    # Past Python's own file, whose lock would be taken for ever in a worker that is forked while the thread writes.
    left = line.encode("utf-8", "backslashreplace")
    while left:
        left = left[os.write(sys.stderr.fileno(), left) :]
