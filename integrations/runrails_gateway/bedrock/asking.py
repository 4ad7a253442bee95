"""Requests to Bedrock: where they go, how they are signed, and the frames that streams come in."""

from __future__ import annotations

import json
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast
from urllib.parse import quote

from runrails.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from runrails_gateway.bedrock.parts import Body

__all__ = ["Failed", "Frames", "Signer", "converse_path", "signer_of_environment"]


class Signer(Protocol):
    """Makes the headers that prove who asks."""

    def __call__(self, method: str, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        """The headers, with the signature. Raises ConfigError if there are no credentials."""
        ...


class Failed(Exception):
    """The stream says that the model, or the service, gave up. `kind` is AWS's name of it."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def converse_path(model: str, *, stream: bool) -> str:
    """Below the endpoint. A model may be an ARN; all of its signs are escaped, so it never leaves its place."""
    return f"/model/{quote(model, safe='')}/{'converse-stream' if stream else 'converse'}"


class _Credentials(Protocol):
    def get_frozen_credentials(self) -> object: ...


class _Session(Protocol):
    def get_credentials(self) -> _Credentials | None: ...


class _Request(Protocol):
    headers: Mapping[str, str]


class _Auth(Protocol):
    def add_auth(self, request: _Request) -> None: ...


class _Botocore(Protocol):
    """What is used of botocore, which brings no types."""

    Session: Callable[[], _Session]
    AWSRequest: Callable[..., _Request]
    SigV4Auth: Callable[[object, str, str], _Auth]


def signer_of_environment(region: str) -> Signer:
    """
    Signs with what botocore finds: the environment, a profile, or the role of the task or machine.

    Raises:
        ConfigError: botocore is not installed.
    """
    session = _botocore("session").Session()
    make_request, make_auth = _botocore("awsrequest").AWSRequest, _botocore("auth").SigV4Auth

    def sign(method: str, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        credentials = session.get_credentials()
        if credentials is None:
            raise ConfigError(
                "There are no AWS credentials for Bedrock.",
                next_step="Set AWS_PROFILE or AWS_ACCESS_KEY_ID, or give the machine a role.",
            )
        request = make_request(method=method, url=url, data=body, headers=headers)
        make_auth(credentials.get_frozen_credentials(), "bedrock", region).add_auth(request)
        return dict(request.headers.items())

    return sign


def _botocore(module: str) -> _Botocore:
    try:
        return cast("_Botocore", import_module(f"botocore.{module}"))
    except ImportError:
        raise ConfigError(
            "Bedrock needs botocore to sign requests.", next_step="pip install 'runrails[gateway,aws]'"
        ) from None


class _Frame(Protocol):
    def to_response_dict(self) -> dict[str, object]: ...


class _Buffer(Protocol):
    def add_data(self, data: bytes) -> None: ...
    def __iter__(self) -> Iterator[_Frame]: ...


class Frames:
    """Takes an AWS event stream apart, whose checksums botocore looks at."""

    def __init__(self) -> None:
        module = import_module("botocore.eventstream")
        self._buffer = cast("_Buffer", module.EventStreamBuffer())
        self._broken = cast("type[Exception]", module.ParserError)

    def feed(self, data: bytes) -> Iterator[tuple[str, Body]]:
        """
        The events that are complete by now: name and content.

        Raises:
            Failed: An event says so.
            ValueError: This is no event stream.
        """
        self._buffer.add_data(data)
        try:
            for frame in self._buffer:
                told = frame.to_response_dict()
                headers = cast("dict[str, object]", told["headers"])
                if headers.get(":message-type") in {"exception", "error"}:
                    raise Failed(str(headers.get(":exception-type") or headers.get(":error-code")))
                yield str(headers.get(":event-type")), _decoded(cast("bytes", told["body"]))
        except self._broken:
            raise ValueError("The frames of the stream are broken.") from None


def _decoded(body: bytes) -> Body:
    found: object = json.loads(body)
    if not isinstance(found, dict):
        raise ValueError("An event of the stream is no JSON object.")  # noqa: TRY004 -- of the data
    return cast("Body", found)
