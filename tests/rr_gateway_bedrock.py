"""What tests of models on Bedrock behind the gateway share: one whose only upstream is a fake provider's Converse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from rr_gateway import TOLD, World, serving, world
from runrails import Limits
from runrails.testing.provider.script import Script
from runrails_gateway.config import Upstream

KEY_ID, SECRET, TOKEN = "ASIAEXAMPLEEXAMPLE00", "aws-secret-0123456789abcdefghijklmnop", "aws-token-0123456789abcdef"


def credentials(patch: pytest.MonkeyPatch) -> None:
    """Credentials in the environment that nobody checks, and no others anywhere."""
    bare(patch)
    patch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    patch.setenv("AWS_SESSION_TOKEN", TOKEN)


def bare(patch: pytest.MonkeyPatch) -> None:
    """No credentials anywhere."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION",
                 "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                 "AWS_WEB_IDENTITY_TOKEN_FILE"):  # fmt: skip
        patch.delenv(name, raising=False)
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        patch.setenv(name, "/nonexistent")


@contextmanager
def bedrock_world(
    script: Script = TOLD, limits: Limits | None = None, *, upstream: dict[str, Any] | None = None, **options: Any
) -> Iterator[World]:
    """A world with Bedrock alone. Nothing serves yet."""
    with world(script, limits, **options) as made:
        terms: dict[str, Any] = {"region": "us-east-1", "models": ("fake-*", "*"), "retries": 0, **(upstream or {})}
        only = Upstream(name="bedrock", dialect="bedrock", base_url=made.provider.bedrock_url, **terms)
        made.config = replace(made.config, upstreams=(only,))
        yield made


@contextmanager
def bedrock_gateway(script: Script = TOLD, limits: Limits | None = None, **options: Any) -> Iterator[World]:
    """The same over real sockets. See `bedrock_world`."""
    with bedrock_world(script, limits, **options) as made, serving(made.config) as url:
        made.url = url
        yield made
