"""
A gateway as the environment says.

``RUNRAILS_STORE`` and ``RUNRAILS_VAULT`` name the ledger and where keys are kept; ``RUNRAILS_RUN_BUDGET``,
``RUNRAILS_KEY_BUDGET`` and the others that ``runrails run`` knows say what may be spent. Upstreams are those whose keys
are set, ``OPENAI_API_KEY`` and ``ANTHROPIC_API_KEY``, at the providers' own addresses; or those that
``RUNRAILS_UPSTREAMS`` names, a TOML file with a table for each:

    [[upstream]]
    name = "openai"
    dialect = "openai"
    base_url = "https://api.openai.com/v1"
    key = "env:OPENAI_API_KEY"      # or file:/path, ssm:///name; never the key itself
    models = ["gpt-*", "o3*"]

    [[upstream]]
    name = "bedrock"
    dialect = "bedrock"
    region = "eu-west-1"            # requests are signed with the AWS credentials of the process

Bedrock is there only if it is named: credentials for AWS are on most machines, and seldom for this.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, cast

from runrails.errors import ConfigError
from runrails.secretrefs import resolve
from runrails_gateway.config import GatewayConfig, Limited, Upstream, UpstreamDialect
from runrails_gateway.options import cache_of, thrifty

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runrails.credentials import Vault
    from runrails.documents import DocumentStore
    from runrails.events import Sink
    from runrails.guard import Guard
    from runrails.identity.jwt.tokens import Tokens
    from runrails_gateway.config import Closable

__all__ = [
    "UPSTREAMS", "callers_of_environment", "config_of_environment", "limited_of_environment", "runs_url",
    "upstreams_of_environment",
]  # fmt: skip

UPSTREAMS = "RUNRAILS_UPSTREAMS"
_FILE_BYTES_MAX = 1_048_576
_USUAL = (
    ("openai", "https://api.openai.com/v1", "OPENAI_API_KEY",
     ("gpt-*", "chatgpt-*", "o1*", "o3*", "o4*", "codex-*", "text-embedding-*", "ft:*")),
    ("anthropic", "https://api.anthropic.com", "ANTHROPIC_API_KEY", ("claude-*",)),
)  # fmt: skip
_TEXTS = ("name", "dialect", "base_url", "key", "provider", "region")
_NUMBERS = ("retries", "connect_ms", "silence_ms")
_LIMITS = {
    "RUNRAILS_GATEWAY_BODY_BYTES_MAX": "body_bytes_max", "RUNRAILS_GATEWAY_REQUEST_MS_MAX": "request_ms_max",
    "RUNRAILS_GATEWAY_DRAIN_MS_MAX": "drain_ms_max", "RUNRAILS_GATEWAY_SHUTDOWN_MS_MAX": "shutdown_ms_max",
}  # fmt: skip
_YES = frozenset({"1", "true", "yes", "on"})


def config_of_environment() -> GatewayConfig:
    """
    The gateway that the environment describes, its stores opened.

    Raises:
        ConfigError: A setting is missing or malformed.
        StoreUnavailable: A store is out of reach.
    """
    from runrails.credentials.ring import SETTING as MASTER_KEYS
    from runrails.documents.opening import open_documents
    from runrails.identity.apikeys import ApiKeys
    from runrails.identity.apikeys.opening import peppers_of_environment
    from runrails.identity.authenticate import Authenticator
    from runrails.identity.opening import aws_of_environment
    from runrails.identity.startup import check_secrets
    from runrails.machinesecrets import setting_of
    from runrails_gateway.ops.watching import ops_of_environment

    check_secrets()
    upstreams, limited, aws = upstreams_of_environment(), limited_of_environment(), aws_of_environment()
    ops = ops_of_environment()
    owned: list[Closable] = list(ops.owned)
    try:
        documents = open_documents()
        owned.insert(0, documents)
        api_keys = ApiKeys(documents, peppers_of_environment())
        owned.insert(0, api_keys)
        tokens = _tokens(documents)
        vault = None
        if os.environ.get(MASTER_KEYS, "").strip() or setting_of("master-key") is not None:
            from runrails.credentials.opening import open_vault

            vault = open_vault()
            owned.insert(0, vault)
        runs = open_documents(runs_url())
        owned.insert(0, runs)
        guard = _guard(vault, ops.metrics)
        owned.insert(0, guard)
        ops.metrics.watch(guard)
        return GatewayConfig(
            guard=guard, upstreams=upstreams,
            authenticator=Authenticator(api_keys, tokens, None if aws is None else aws.open(documents)),
            documents=runs, api_keys=api_keys, vault=vault, tokens=tokens, limited=limited,
            hide_amounts=_is_set("RUNRAILS_GATEWAY_HIDE_AMOUNTS"), docs=_is_set("RUNRAILS_GATEWAY_DOCS"),
            watchers=ops.watchers, metrics=ops.metrics, owned=tuple(owned),
        )  # fmt: skip
    except BaseException:
        for each in owned:
            each.close()
        raise


def callers_of_environment() -> tuple[str, ...]:
    """Whose credentials are taken, in words. Raises ConfigError."""
    from runrails.identity.opening import aws_of_environment

    aws = aws_of_environment()
    found = ["API keys"]
    if _has_tokens():
        found.append("tokens (JWT)")
    if aws is not None:
        found.append(f"AWS identities: {aws.told}")
    return tuple(found)


def runs_url() -> str:
    """
    Where it is noted which run a conversation belongs to: beside the vault's file, in one of its own, which forgets its
    last seconds in a power cut. Every answer writes there, and nobody is to wait for that who has a key to prove.
    """
    from runrails.documents.opening import documents_url
    from runrails.stores import parse_sqlite

    url = documents_url()
    scheme, _, rest = url.partition(":")
    if scheme != "sqlite":
        return url
    path = parse_sqlite(rest)[0].removesuffix(".db").removesuffix(".vault")
    return f"sqlite:///{path}.runs.db?synchronous=normal"


def upstreams_of_environment() -> tuple[Upstream, ...]:
    """The upstreams that the environment names. Raises ConfigError."""
    path = os.environ.get(UPSTREAMS, "").strip()
    if path:
        return _read_file(path)
    found = [
        Upstream(
            name=name, dialect=cast("UpstreamDialect", name), base_url=url, key=resolve(f"env:{setting}", what=setting),
            models=models,
        )
        for name, url, setting, models in _USUAL
        if os.environ.get(setting, "").strip()
    ]  # fmt: skip
    if not found:
        raise ConfigError(
            "A gateway needs a provider to pass requests on to.",
            next_step=f"Set OPENAI_API_KEY or ANTHROPIC_API_KEY, or {UPSTREAMS}=/path/to/upstreams.toml.",
            setting=UPSTREAMS,
        )
    return tuple(found)


def _read_file(path: str) -> tuple[Upstream, ...]:
    try:
        with Path(path).open("rb") as file:
            text = file.read(_FILE_BYTES_MAX + 1)
        if len(text) > _FILE_BYTES_MAX:
            raise _malformed("is too large")
        told: dict[str, object] = tomllib.loads(text.decode())
    except OSError as error:
        raise _malformed(f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise _malformed("is no TOML") from None
    tables = told.get("upstream")
    if not isinstance(tables, list) or not tables or set(told) != {"upstream"}:
        raise _malformed("has something else than [[upstream]] tables")
    return tuple(_upstream(table) for table in cast("list[dict[str, object]]", tables))


def _upstream(table: Mapping[str, object]) -> Upstream:
    models = table.get("models", ["*"])
    texts = {name: table[name] for name in _TEXTS if name in table}
    numbers = {name: table[name] for name in _NUMBERS if name in table}
    fine = (
        {"name", "dialect"} <= set(table) <= {*_TEXTS, *_NUMBERS, "models"}
        and all(isinstance(text, str) for text in texts.values())
        and all(type(number) is int for number in numbers.values())
        and isinstance(models, list)
        and all(isinstance(name, str) for name in cast("list[object]", models))
    )
    if not fine:
        raise _malformed("has an upstream with a missing, unknown or malformed setting")
    key = texts.pop("key", None)
    secret = resolve(key, what=f"{UPSTREAMS} (key)") if isinstance(key, str) else None
    make = cast("Callable[..., Upstream]", Upstream)
    return make(key=secret, models=tuple(cast("list[str]", models)), **texts, **numbers)


def _malformed(why: str) -> ConfigError:
    return ConfigError(
        f"The file that {UPSTREAMS} names {why}.",
        next_step='Write [[upstream]] with name, dialect ("openai" or "anthropic"), base_url, key = "env:NAME" and '
        'models = ["gpt-*"]; or with name, dialect = "bedrock" and region.',
        setting=UPSTREAMS,
    )


def _guard(vault: Vault | None, metrics: Sink) -> Guard:
    from runrails.autoguard import boot
    from runrails.autoguard.plan import read_plan
    from runrails.credentials.router import Router
    from runrails.events import log_sink
    from runrails.guard import Guard
    from runrails.loops import ToolRule

    if boot.session is not None:
        raise ConfigError(
            "This process is guarded as one run, whose limits would stop the gateway for everybody.",
            next_step="Start it with `runrails serve`, or set RUNRAILS_AUTOGUARD=0: the limits are then its callers'.",
        )
    plan = read_plan(os.environ)
    return Guard(
        thrifty(plan.limits, os.environ), cache=cache_of(os.environ), tags=plan.tags, store=plan.store,
        prices=plan.prices, price_file=plan.price_file,
        mode="observe" if plan.observe else "enforce", zone=plan.zone, markup_bp=plan.markup_bp,
        tools={name: ToolRule(poll=True) for name in plan.polls},
        credentials=None if vault is None else Router(vault), sinks=(log_sink, metrics),
    )  # fmt: skip


def _tokens(documents: DocumentStore) -> Tokens | None:
    if not _has_tokens():
        return None
    from runrails.identity.jwt.opening import open_tokens

    return open_tokens(documents)


def _has_tokens() -> bool:
    return bool(os.environ.get("RUNRAILS_JWT_KEYS") or os.environ.get("RUNRAILS_JWT_JWKS_URL"))


def limited_of_environment() -> Limited:
    """What a single request may take, as the environment says. Raises ConfigError."""
    found: dict[str, int] = {}
    for setting, name in _LIMITS.items():
        text = os.environ.get(setting, "").strip()
        if text:
            if not (text.isascii() and text.isdigit() and 0 < len(text) < 13):
                raise ConfigError(f"{setting} must be a whole number.", next_step="Leave it out.", setting=setting)
            found[name] = int(text)
    return Limited(**found)


def _is_set(setting: str) -> bool:
    return os.environ.get(setting, "").strip().lower() in _YES
