"""
Questions of ours whose answers or headers are secrets, kept out of the AWS SDK's own log.

At DEBUG, botocore writes down whole answers (a data key of KMS, a parameter's value) and what it signs (the session's
token). It has no switch for one client, so its loggers are given a filter that drops what is below WARNING while such a
question is asked, in that thread or task alone. Everybody else's requests are logged as before.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator
    from logging import LogRecord

__all__ = ["quietly"]

_LIBRARIES = frozenset({"boto3", "botocore", "urllib3"})
_WARNING = 30

_quiet: ContextVar[bool] = ContextVar("runrails_aws_quiet", default=False)


@contextmanager
def quietly() -> Generator[None]:
    """Ask for a secret: of what the SDK logs meanwhile, only warnings and errors are heard."""
    import logging

    # Each time: loggers are made when modules are loaded, and a filter counts for its own logger alone.
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.partition(".")[0] in _LIBRARIES and isinstance(logger, logging.Logger):
            logger.addFilter(_is_heard)
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


def _is_heard(record: LogRecord) -> bool:
    return record.levelno >= _WARNING or not _quiet.get()
