"""Secrets in records of Python's own logging: the message, what is added to it, the error and the stack."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rr_jwt import b64, drawn, token
from runrails.redaction import MASK, RedactingFilter

SECRETS = (
    "rr_live_9fK2mQx7LpZ3aB5c_Vt8Yw2RkJ6nHs4DgXeUq0TzMbPiCfAoL1yN7vGhEj3Ka1B2c3",
    "sk-ant-api03-" + b64(drawn("x")),
    token(),
)
LOGGER = logging.getLogger("tests.redaction.below")


class Broken:
    """Cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class Keeping(logging.Handler):
    """Keeps records as they come, as handlers for JSON and trackers of errors read them."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def handlers() -> Iterator[tuple[io.StringIO, Keeping]]:
    """One that writes lines and is filtered, and one after it that is not."""
    lines, keeping = io.StringIO(), Keeping()
    writing = logging.StreamHandler(lines)
    writing.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    writing.addFilter(RedactingFilter())
    root = logging.getLogger("tests.redaction")
    root.handlers, root.propagate = [writing, keeping], False
    root.setLevel(logging.DEBUG)
    yield lines, keeping
    root.handlers, root.propagate = [], True


def _raise(secret: str) -> None:
    try:
        raise ValueError(f"bad {secret}") from KeyError(secret)
    except ValueError:
        LOGGER.exception("it failed")


WAYS: dict[str, Callable[[str], object]] = {
    "a message": lambda secret: LOGGER.info("with %s inside" % secret),  # noqa: G002, UP031 -- as some do
    "an argument": lambda secret: LOGGER.info("with %s inside", secret),
    "a dictionary": lambda secret: LOGGER.info("headers %s", {"x": secret}),
    "arguments by name": lambda secret: LOGGER.info("with %(key)s", {"key": secret}),
    "a pair": lambda secret: LOGGER.info("api_key=%s", secret),
    "an extra field": lambda secret: LOGGER.info("x", extra={"headers": {"authorization": secret}, "note": secret}),
    "an error": _raise,
    "a stack": lambda secret: LOGGER.info("x", stack_info=True, extra={"note": secret}),
    "arguments that do not fit": lambda secret: LOGGER.info("%d and %s", secret, secret),
    "arguments that are too few": lambda secret: LOGGER.info("%s and %s", secret),  # noqa: PLE1206 -- that is the mistake
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("secret", SECRETS, ids=["ours", "a provider's", "a token"])
def test_a_secret_is_masked(handlers: Any, way: str, secret: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In the line, in the record that the next handler gets, and in what logging says of its own mistakes."""
    lines, keeping = handlers
    WAYS[way](secret)
    (record,) = keeping.records
    told = lines.getvalue() + json.dumps(vars(record), default=repr) + "".join(capsys.readouterr())
    assert not any(secret[at : at + 12] in told for at in range(8, len(secret) - 11))
    assert MASK in told and lines.getvalue().startswith(record.levelname)
    assert record.exc_info is None


def test_what_is_no_secret_stays(handlers: Any) -> None:
    """Words, numbers, fields and the error's own text; a record without arguments and with a percent sign."""
    lines, keeping = handlers
    LOGGER.warning("%d calls of %s, 5 %%", 3, "gpt", extra={"tokens": 1_200, "run": "r1"})
    LOGGER.warning("100 % of it")
    try:
        raise ValueError("too long")
    except ValueError:
        LOGGER.exception("it failed")
    assert ["WARNING 3 calls of gpt, 5 %", "WARNING 100 % of it", "ERROR it failed"] == lines.getvalue().split("\n")[:3]
    assert "ValueError: too long" in lines.getvalue()
    assert (1_200, "r1", ()) == (keeping.records[0].tokens, keeping.records[0].run, keeping.records[0].args)


def test_what_cannot_be_shown_is_not(handlers: Any) -> None:
    """It never raises, and never keeps a record back."""
    lines, _ = handlers
    LOGGER.info(Broken())
    LOGGER.info("x %s", Broken())
    LOGGER.info("x", extra={"broken": Broken()})
    assert ["INFO [not shown]", "INFO [not shown]", "INFO x"] == lines.getvalue().splitlines()


def test_it_is_set_up_like_any_filter(capsys: pytest.CaptureFixture[str]) -> None:
    """By `logging.config` as well."""
    from logging.config import dictConfig

    dictConfig({
        "version": 1, "disable_existing_loggers": False,
        "filters": {"mask": {"()": "runrails.redaction.RedactingFilter"}},
        "handlers": {"out": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "filters": ["mask"]}},
        "loggers": {"tests.redaction.set": {"handlers": ["out"], "level": "INFO", "propagate": False}},
    })  # fmt: skip
    logging.getLogger("tests.redaction.set").info("with %s", SECRETS[0])
    assert f"with {MASK}\n" == capsys.readouterr().out
