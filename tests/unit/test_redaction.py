"""Secrets in log lines: five shapes at every place where one can be, and what is no secret beside them."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import structlog

from rr_jwt import ED, b64, drawn, pem, token
from runrails.events import Event, log_sink
from runrails.redaction import MASK, redact, redact_processor, redact_text

SECRETS: dict[str, str] = {
    "our key": "rr_live_9fK2mQx7LpZ3aB5c_" + "Vt8Yw2RkJ6nHs4DgXeUq0TzMbPiCfAoL1yN7vGhEj3K" + "a1B2c3",
    "a provider's key": "sk-ant-api03-" + b64(drawn("anthropic") * 2),
    "a token": token(),
    "a private key": pem(ED).decode(),
    "a webhook's secret": "whsec_" + b64(drawn("webhook")),
}


@dataclass
class Shown:
    """An object that shows what it holds."""

    inside: str


class Sly:
    """An object whose two texts differ."""

    def __init__(self, inside: str) -> None:
        self.inside = inside

    def __str__(self) -> str:
        return "nothing to see"

    def __repr__(self) -> str:
        return f"<{self.inside}>"


def raised(secret: str) -> Exception:
    """An exception with a cause and a context, each of which has the secret."""
    try:
        try:
            raise KeyError(secret)
        except KeyError as inner:
            raise ValueError(f"bad {secret}") from inner
    except ValueError as outer:
        return outer


def event(**fields: Any) -> dict[str, Any]:
    """An event as structlog hands it on."""
    return {"event": "runrails.call_refused", **fields}


PLACES: dict[str, Callable[[str], dict[str, Any]]] = {
    "the message": lambda secret: {"event": f"failed with {secret} there"},
    "a field": lambda secret: event(note=secret),
    "a field by its name": lambda secret: event(api_key=secret),
    "inside a text": lambda secret: event(note=f"before({secret})after"),
    "a dictionary": lambda secret: event(request={"headers": {"x": secret}}),
    "a list": lambda secret: event(values=["a", [secret]]),
    "a tuple": lambda secret: event(values=("a", (secret, 1))),
    "a set": lambda secret: event(values={"a", secret}),
    "bytes": lambda secret: event(body=b"\xff" + secret.encode()),
    "bytes that change": lambda secret: event(body=bytearray(secret.encode())),
    "a key of a dictionary": lambda secret: event(counts={"a": {secret: 1}, secret: 2}),
    "an object": lambda secret: event(value=Shown(secret)),
    "an object with two faces": lambda secret: event(value=Sly(secret)),
    "an exception": lambda secret: event(error=ValueError(secret)),
    "a traceback": lambda secret: event(exc_info=raised(secret)),
    "JSON in a text": lambda secret: event(body=json.dumps({"deep": json.dumps({"password": secret})})),
    "an address": lambda secret: event(url=f"https://x.example.com/?q=1&token={secret}"),
    "a name": lambda secret: {"event": "x", secret: "y"},
    "a header": lambda secret: event(line=f"Authorization: Bearer {secret}"),
}

RENDERERS: dict[str, Callable[..., Any]] = {
    "as pairs": structlog.processors.KeyValueRenderer(),
    "as JSON": structlog.processors.JSONRenderer(),
    "for people": structlog.dev.ConsoleRenderer(colors=False),
}


def leaks(text: str, secret: str) -> bool:
    """Whether any twelve letters of the secret are in it. The words around a key in PEM are no secret."""
    inner = secret.replace("-----BEGIN PRIVATE KEY-----", "").replace("-----END PRIVATE KEY-----", "")
    bare = text.replace("\\n", "\n")
    return any(inner[at : at + 12] in bare for at in range(len(inner) - 11))


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("shape", SECRETS)
def test_no_secret_is_told_wherever_it_is(shape: str, place: str, renderer: str) -> None:
    """Not a part of twelve letters, whatever renders the line."""
    secret = SECRETS[shape]
    told = dict(PLACES[place](secret))
    assert not leaks(str(RENDERERS[renderer](None, "error", redact_processor(None, "error", told))), secret)
    # The test sees leaks: without the processor the same line has the secret.
    if renderer == "as pairs" and place not in {"a traceback", "bytes that change"}:
        assert leaks(str(RENDERERS[renderer](None, "error", PLACES[place](secret))), secret)


def test_there_are_as_many_as_promised() -> None:
    """At least 17 places and 5 shapes."""
    assert len(PLACES) >= 17 and len(SECRETS) >= 5


@pytest.mark.parametrize("shape", SECRETS)
def test_our_own_log_is_redacted(shape: str, caplog: pytest.LogCaptureFixture) -> None:
    """The sink that is used by default masks what comes through it, at every level."""
    secret = SECRETS[shape]
    logging.getLogger("runrails").setLevel(logging.DEBUG)
    try:
        for level in ("info", "warning", "error"):
            log_sink(Event("runrails.x_y", level, {"model": f"m {secret}", secret: 1, "note": secret}))  # type: ignore[arg-type]
    finally:
        logging.getLogger("runrails").setLevel(logging.NOTSET)
    assert 3 == len(caplog.records)
    assert not leaks(caplog.text, secret)


NAMES = [
    "api_key",
    "API_KEY",
    "apiKey",
    "apikey",
    "x-api-key",
    "openai_api_key",
    "OPENAI_API_KEY",
    "client_secret",
    "secret",
    "aws_secret_access_key",
    "AWS_SESSION_TOKEN",
    "password",
    "db.password",
    "token",
    "access_token",
    "refreshToken",
    "id_token",
    "authorization",
    "Proxy-Authorization",
    "Cookie",
    "Set-Cookie",
    "private_key",
    "master_key",
    "pepper",
    "X-Amz-Signature",
    "X-Amz-Security-Token",
    "passphrase",
    "credential",
    "credentials",
    "secrets",
    "webhook_secret",
    "signing_key",
    "clientSecret",
    "dbPassword",
]
OPEN = [
    "key",
    "key_id",
    "user",
    "scope",
    "tokens",
    "input_tokens",
    "output_tokens",
    "max_tokens",
    "token_count",
    "tokens_per_minute",
    "secret_name",
    "password_set",
    "model",
    "run",
    "cost_pusd",
    "provider",
    "author",
    "keyboard",
    "passenger",
    "cookies_enabled",
    "monkey",
    "event",
]


@pytest.mark.parametrize("name", NAMES)
def test_what_such_a_name_has_is_masked(name: str) -> None:
    """Whatever its shape: by name alone, in fields, bytes, pairs inside a text and queries."""
    plain = "Zk9Qw3Er5Ty7"
    assert {name: MASK} == redact({name: plain})
    assert {name: MASK} == redact({name: [plain, {"a": plain}]})
    assert {name.encode(): MASK} == redact({name.encode(): plain})
    for text in (f"{name}={plain}", f"x {name}: {plain} y", f"{{'{name}': '{plain}'}}", f'{{"{name}": "{plain}"}}'):
        assert plain not in redact_text(text)


@pytest.mark.parametrize("name", OPEN)
def test_other_names_stay_open(name: str) -> None:
    """A log in which counts and names are masked helps nobody."""
    for value in ("alice", 12, "gpt-5.5", None):
        assert {name: value} == redact({name: value})
    assert f"{name}=alice-and-bob" == redact_text(f"{name}=alice-and-bob")


UNTOUCHED: list[Any] = [
    "",
    "short",
    "The budget of user:alice in 2026-11 is used up: $0.25 spent and $0.00 held of $0.25.",
    "0f3b8a7c6d5e4f3a2b1c0d9e8f7a6b5c",
    "run r-7f3 of user:alice@example.com",
    "sqlite:////var/lib/ledger.db",
    "https://api.openai.com/v1/chat/completions",
    "arn:aws:sns:eu-west-1:123456789012:topic",
    "a-task-that-asks-for-a-risk-report",
    "desk-lamp-and-a-disk-drive",
    "max_tokens: 512, tokens=99",
    "token: 5",
    "2026-11-22T07:00:00Z",
    "gpt-5.5-2026-11-01",
    "secret=None",
    "password: null",
    0,
    1.5,
    None,
    True,
    [1, "a"],
    ("a",),
    {"a": {"b": 1}},
    b"bytes",
    {1, 2},
]


@pytest.mark.parametrize("value", UNTOUCHED)
def test_what_is_no_secret_stays_as_it_is(value: Any) -> None:
    """Messages of ours, ids, numbers, addresses and names of models."""
    assert value == redact(value)
    assert type(value) is type(redact(value))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgres://admin:hunter2hunter2@db.example.com/x", f"postgres://{MASK}@db.example.com/x"),
        ("Basic dXNlcjpwYXNzd29yZA==", MASK),
        ("see AKIAIOSFODNN7EXAMPLE there", f"see {MASK} there"),
        ("https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX", f"https://{MASK}"),
        ("ghp_0123456789abcdefghijABCDEFGHIJ012345", MASK),
        ("key sk-proj-0123456789abcdef.", f"key {MASK}."),
        ("_rr_test_0123456789abcdef_xyz", f"_{MASK}"),
    ],
)
def test_what_is_left_of_a_line(text: str, expected: str) -> None:
    """Only the secret is taken out; the rest of the line still helps."""
    assert expected == redact_text(text)


def test_an_exception_is_rendered_before_it_is_looked_at() -> None:
    """`exc_info` becomes the text of the whole traceback, of the error that is there or is being handled."""
    error = raised("nothing")
    for given in (error, (type(error), error, error.__traceback__)):
        found = redact_processor(None, "error", {"event": "x", "exc_info": given})
        assert "exc_info" not in found and "ValueError: bad nothing" in str(found["exception"])
        assert "KeyError" in str(found["exception"])
    try:
        raise ValueError("in flight")
    except ValueError:
        assert "in flight" in str(redact_processor(None, "error", {"event": "x", "exc_info": True})["exception"])
    assert {"event": "x"} == redact_processor(None, "error", {"event": "x", "exc_info": True})
    assert {"event": "x"} == redact_processor(None, "error", {"event": "x", "exc_info": (None, None, None)})
    assert {"event": "x"} == redact_processor(None, "error", {"event": "x", "exc_info": False})


class Broken:
    """An object that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("rr_live_0123456789abcdef_secret")


class Odd(dict[str, str]):
    """A dictionary that cannot be read."""

    def items(self) -> Any:
        raise RuntimeError("no")


def test_nothing_makes_it_raise() -> None:
    """Circles, endless depth, broken objects and huge values end in a word that says so."""
    circle: dict[str, Any] = {}
    circle["me"] = [circle]
    assert {"me": ["[left out]"]} == redact(circle)
    deep: Any = "x"
    for _ in range(10_000):
        deep = [deep]
    assert "[left out]" in str(redact(deep))
    wide = [[["x"] * 100] * 100] * 100
    assert len(str(redact(wide))) < 100_000
    assert {"a": "[not shown]", "b": "[not shown]"} == redact({"a": Broken(), "b": Odd(a="b")})
    many = redact(dict.fromkeys(map(str, range(5_000)), 1))
    assert isinstance(many, dict) and len(many) <= 2_001 and many["[left out]"]


@pytest.mark.parametrize("shape", SECRETS)
def test_keys_of_any_kind_are_masked(shape: str) -> None:
    """Bytes and tuples can be keys of a dictionary as well."""
    secret = SECRETS[shape]
    assert not leaks(str(redact({secret.encode(): 1, (secret, 2): 3, frozenset({secret}): 4})), secret)


def test_masked_names_do_not_swallow_each_other() -> None:
    """Two keys that are secrets are two entries still."""
    found = redact({SECRETS["our key"]: 1, SECRETS["a webhook's secret"]: 2})
    assert {MASK: 1, f"{MASK}+": 2} == found


def test_other_values_are_told_as_they_show_themselves() -> None:
    """An object becomes its text, so that nobody renders it again in another way."""
    assert "PosixPath('/tmp/x')" == redact(Path("/tmp/x")) or sys.platform == "win32"
    assert "Decimal('1.50')" == redact(Decimal("1.50"))
    assert "ValueError: x" == redact(ValueError("x"))


def test_a_text_has_a_limit_and_a_secret_at_it_is_not_cut() -> None:
    """What is longer ends at a blank before the limit, and the time for a text is in proportion to it."""
    secret = SECRETS["a provider's key"]
    text = "word " * 13_100 + secret + " end"
    assert 65_500 == text.index(secret) and not leaks(redact_text(text), secret[:12] + secret[12:])
    assert redact_text("x" * 70_000).strip() == "[left out]"
    assert len(redact_text("word " * 100_000)) < 65_600


@pytest.mark.parametrize(
    "piece",
    [
        "eyJaaaaaaaa-",
        "a_",
        "token ",
        "token: ",
        'token="',
        'token=\\"',
        "://",
        "://a",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN ",
        "bearer    ",
        "apikey_",
        "aaaa.aaaa-aaaa_",
        "sk-",
        "eyJ",
        "a.b_c-",
        "x_api_key",
        "'",
        '\\"',
        "= ",
    ],
)
def test_no_text_takes_long(piece: str) -> None:
    """Texts made to keep a pattern busy are read in a moment: 64 KiB take less than a second on a slow machine."""
    from time import process_time

    text = (piece * 65_536)[:65_000]
    began = process_time()
    redact_text(text)
    redact_text(text[:-1] + "=")
    assert process_time() - began < 2
