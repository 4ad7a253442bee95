"""
Proving to AWS who asks: signatures (SigV4), and the credentials they are made with.

The signature is our own, as botocore's costs more than the rest of a request and writes session tokens into debug logs.
Finding credentials is left to botocore: the environment, a profile, the role of a task or a machine. That may wait for
files and networks, so it happens in a thread, and before what is there expires.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol, cast
from urllib.parse import quote, urlsplit

from runrails.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runrails.clocks import Clock

__all__ = [
    "Credentials", "Frozen", "NoCredentials", "Session", "Source", "check_installed", "session_of_environment",
    "signed",
]  # fmt: skip

AT_LEAST_S = 60
"""Credentials that expire sooner are not used without asking for newer ones first."""
ASK_AGAIN_MS = 30_000
"""How long until one looks for others again: what AWS refuses, and what can be had, does not change any faster."""
_SERVICE = "bedrock"
_PORTS = {"https": 443, "http": 80}


class NoCredentials(Exception):
    """There are none, or they cannot be had. `kind` is the name of what went wrong."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Frozen(Protocol):
    """Credentials that do not change."""

    @property
    def access_key(self) -> str:
        """Which."""
        ...

    @property
    def secret_key(self) -> str:
        """What proves it."""
        ...

    @property
    def token(self) -> str | None:
        """What belongs to those that expire."""
        ...


class Source(Protocol):
    """Credentials as botocore has them. Those that expire have a `refresh_needed` as well."""

    def get_frozen_credentials(self) -> Frozen:
        """Those of now; waits for others where they are about to expire."""
        ...


class Session(Protocol):
    """What is used of a session of botocore, which brings no types."""

    def get_credentials(self) -> Source | None:
        """What was found; None: nothing."""
        ...


def check_installed() -> None:
    """See that credentials can be looked for. Raises ConfigError."""
    if find_spec("botocore") is None:
        raise ConfigError(
            "Bedrock needs botocore to find AWS credentials.",
            next_step="pip install 'runrails[gateway,aws]', or give the upstream an API key of Bedrock.",
        )


def session_of_environment() -> Session:
    """A session that finds what any AWS SDK finds."""
    return cast("Session", import_module("botocore.session").Session())


class Credentials:
    """
    Those of this process. For one event loop, which never waits for them: only who needs them does.

    Args:
        find: Makes a session. Called in a thread.
        monotonic: Milliseconds of a clock that never jumps.
    """

    def __init__(self, find: Callable[[], Session], monotonic: Clock) -> None:
        self._find = find
        self._monotonic = monotonic
        self._source: Source | None = None
        self._frozen: Frozen | None = None
        self._loading: asyncio.Task[None] | None = None
        self._found_ms = 0

    async def frozen(self) -> Frozen:
        """Those to sign with now. Raises NoCredentials."""
        frozen = self._frozen
        if frozen is None or _expires(self._source, AT_LEAST_S):
            await asyncio.shield(self._load())
            frozen = self._frozen
        elif _expires(self._source, None) and self._is_time():
            self._load()  # while those that are there are used
        if frozen is None:
            raise NoCredentials("NoCredentials")
        return frozen

    def refused(self) -> None:
        """AWS does not take them: look for others, which somebody may have put there."""
        if self._is_time():
            self._source = self._frozen = None

    def _is_time(self) -> bool:
        return self._monotonic() - self._found_ms >= ASK_AGAIN_MS

    def _load(self) -> asyncio.Task[None]:
        """One thread at a time asks for them, for all who wait."""
        if self._loading is None:
            self._loading = asyncio.create_task(self._look())
            self._loading.add_done_callback(self._looked)
        return self._loading

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._loading = None
        if not task.cancelled():
            task.exception()  # Whoever waits has it.

    async def _look(self) -> None:
        self._found_ms = self._monotonic()
        try:
            self._source, self._frozen = await asyncio.to_thread(self._found, self._source)
        except NoCredentials:
            raise
        except Exception as exc:  # noqa: BLE001 -- botocore's and those of its plugins; they may name hosts and roles
            raise NoCredentials(type(exc).__name__) from None

    def _found(self, source: Source | None) -> tuple[Source, Frozen]:
        source = self._find().get_credentials() if source is None else source
        if source is None:
            raise NoCredentials("NoCredentials")
        return source, source.get_frozen_credentials()


def _expires(source: Source | None, within_s: int | None) -> bool:
    """Whether they are over that soon; None: so soon that botocore would look for others."""
    needed = cast("Callable[[int | None], bool] | None", getattr(source, "refresh_needed", None))
    return needed is not None and needed(within_s)


def signed(
    frozen: Frozen, *, region: str, url: str, headers: Mapping[str, str], body: bytes, now_ms: int
) -> dict[str, str]:
    """
    The headers of a POST with the proof that it is ours, by AWS Signature Version 4.

    Args:
        frozen: Who asks.
        region: Where.
        url: Its path as it is sent, escaped once.
        headers: Those that are signed too; names in any case.
        body: What is sent.
        now_ms: Since the epoch. AWS takes it for five minutes.
    """
    at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_ms // 1_000))
    made = {**headers, "X-Amz-Date": at}
    if frozen.token:
        made["X-Amz-Security-Token"] = frozen.token
    parts = urlsplit(url)
    bare = parts.port is None or parts.port == _PORTS.get(parts.scheme)
    host = parts.netloc.rpartition(":")[0] if bare and parts.port is not None else parts.netloc
    stated = {"host": host, **{name.lower(): " ".join(value.split()) for name, value in made.items()}}
    names = sorted(stated)
    request = "\n".join(
        # What is escaped already is escaped once more: so all services but S3 have it.
        ["POST", quote(parts.path or "/", safe="/~"), "", *(f"{name}:{stated[name]}" for name in names), "",
         ";".join(names), hashlib.sha256(body).hexdigest()]
    )  # fmt: skip
    scope = f"{at[:8]}/{region}/{_SERVICE}/aws4_request"
    key = f"AWS4{frozen.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    told = "\n".join(["AWS4-HMAC-SHA256", at, scope, hashlib.sha256(request.encode()).hexdigest()])
    proof = hmac.digest(key, told.encode(), "sha256").hex()
    made["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={frozen.access_key}/{scope}, SignedHeaders={';'.join(names)}, Signature={proof}"
    )
    return made
