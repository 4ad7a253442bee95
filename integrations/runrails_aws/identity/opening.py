"""
From settings to AWS identities: whom they are here, which server this is, and whose STS may be asked.

``RUNRAILS_AWS_GRANTS`` names a TOML file with a table for each IAM user and role that may come in:

    [[grant]]
    arn = "arn:aws:iam::123456789012:role/nightly"   # a role without its path; nothing by pattern
    user = "nightly"
    org = "acme"                                     # if it belongs to one
    scopes = ["ai:complete"]
    unique_id = "AROA…"                              # else the one that comes first is remembered

``RUNRAILS_AWS_SERVER_ID`` is the name that every proof is bound to, ``RUNRAILS_AWS_REGIONS`` the regions whose STS may
be asked, and ``RUNRAILS_AWS_STS_NETWORKS`` where it is, if it has VPC endpoints. There is no setting for another
address: whoever answers in its place names anybody. ``RUNRAILS_AWS_EVENTS=iam`` stands for all three: whom AWS itself
has let in, as the events of a Lambda function say.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from runrails.clocks import Clock, system_ms
from runrails.egress_rules import check_networks
from runrails.errors import ConfigError
from runrails.identity.opening import AWS_PREFIX
from runrails_aws.identity.canonical import check_server_id
from runrails_aws.identity.grants import Grant, Grants
from runrails_aws.identity.lambda_event import LambdaIdentity
from runrails_aws.identity.regions import REGIONS
from runrails_aws.identity.transport import HTTPSTransport
from runrails_aws.identity.verify import AWSIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runrails.documents import DocumentStore
    from runrails_aws.identity.transport import Transport

__all__ = ["EVENTS", "GRANTS", "NETWORKS", "REGION_NAMES", "SERVER_ID", "Described", "describe"]

SERVER_ID = "RUNRAILS_AWS_SERVER_ID"
GRANTS = "RUNRAILS_AWS_GRANTS"
REGION_NAMES = "RUNRAILS_AWS_REGIONS"
NETWORKS = "RUNRAILS_AWS_STS_NETWORKS"
EVENTS = "RUNRAILS_AWS_EVENTS"
FILE_BYTES_MAX = 1_048_576
_NEEDED = {
    SERVER_ID: "gateway.example.com, this server's own name",
    REGION_NAMES: "eu-central-1, the regions whose STS may be asked",
    GRANTS: "/path/to/grants.toml",
}
_TEXTS = ("arn", "user", "org", "unique_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What the settings say. Nothing is opened or asked yet."""

    grants: Grants
    server_id: str | None = None
    """None: nobody comes in by a proof."""
    regions: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    by_events: bool = False
    """Whether whom AWS names in a function's events comes in."""

    @property
    def told(self) -> str:
        """The same in words, for the start of a server and for the doctor."""
        count = f"{len(self.grants)} granted"
        if self.by_events:
            return f"{count}, as events of a function behind IAM name them"
        networks = f" in {', '.join(self.networks)}" if self.networks else ""
        return f"{count}, by proof to {self.server_id}, STS of {', '.join(self.regions)}{networks}"

    def open(
        self, documents: DocumentStore, *, clock: Clock = system_ms, transport: Transport | None = None
    ) -> AWSIdentity | None:
        """
        What verifies proofs; None where there are none.

        Args:
            documents: Shared by all hosts of this server.
            clock: Wall clock in milliseconds since the epoch.
            transport: Sends requests to STS; by default over HTTPS.
        """
        if self.server_id is None:
            return None
        return AWSIdentity(
            self.server_id, self.grants, documents, regions=self.regions, clock=clock,
            transport=transport or HTTPSTransport(networks=self.networks),
        )  # fmt: skip

    def open_events(self, documents: DocumentStore) -> LambdaIdentity | None:
        """What reads events of a function; None where those are not believed."""
        return LambdaIdentity("http", self.grants, documents) if self.by_events else None


def describe() -> Described:
    """What the environment says. Raises ConfigError: half of it is missing, or something is malformed."""
    said = {name: os.environ.get(name, "").strip() for name in (SERVER_ID, GRANTS, REGION_NAMES, NETWORKS, EVENTS)}
    unknown = sorted(name for name in os.environ if name.startswith(AWS_PREFIX) and name not in said)
    if unknown:
        raise ConfigError(f"There is no setting {unknown[0]}.", next_step=f"There are {', '.join(said)}.")
    if said[EVENTS]:
        _check_events(said)
    needed = {GRANTS: _NEEDED[GRANTS]} if said[EVENTS] else _NEEDED
    missing = [name for name in needed if not said[name]]
    if missing:
        raise ConfigError(
            f"Callers with AWS credentials need {' and '.join(missing)} as well.",
            next_step=f"Set {missing[0]} (for instance {needed[missing[0]]}), or unset all of {AWS_PREFIX}….",
            setting=missing[0],
        )
    grants = _grants(said[GRANTS])
    if said[EVENTS]:
        return Described(grants=grants, by_events=True)
    return Described(
        grants=grants, server_id=check_server_id(said[SERVER_ID]), regions=_regions(said[REGION_NAMES]),
        networks=_networks(said[NETWORKS]),
    )  # fmt: skip


def _check_events(said: Mapping[str, str]) -> None:
    others = [name for name in (SERVER_ID, REGION_NAMES, NETWORKS) if said[name]]
    if said[EVENTS] == "iam" and not others:
        return
    what = f"{EVENTS} goes without {others[0]}" if others else f"{EVENTS} says something unknown"
    raise ConfigError(f"{what}.", next_step=f"Set {EVENTS}=iam and {GRANTS} alone, or unset {EVENTS}.", setting=EVENTS)


def _regions(text: str) -> tuple[str, ...]:
    names = _items(text)
    unknown = [name for name in names if name not in REGIONS]
    if unknown or not names:
        raise ConfigError(
            f"{REGION_NAMES} names {'an unknown region' if unknown else 'no region'}.",
            next_step=f"Set {REGION_NAMES}=eu-central-1,us-east-1.", setting=REGION_NAMES,
        )  # fmt: skip
    return names


def _networks(text: str) -> tuple[str, ...]:
    names = _items(text)
    try:
        check_networks(names)
    except ValueError:
        raise ConfigError(
            f"{NETWORKS} is malformed.", next_step=f"Set {NETWORKS}=10.20.0.0/16.", setting=NETWORKS
        ) from None  # fmt: skip
    return names


def _items(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _grants(path: str) -> Grants:
    try:
        with Path(path).open("rb") as file:
            text = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise _malformed(f"cannot be read: {error.strerror}") from None
    if len(text) > FILE_BYTES_MAX:
        raise _malformed("is too large")
    try:
        told: dict[str, object] = tomllib.loads(text.decode())
    except (ValueError, RecursionError):  # the second for what is nested too deeply
        raise _malformed("is no TOML") from None
    tables = told.get("grant")
    if not isinstance(tables, list) or not tables or set(told) != {"grant"}:
        raise _malformed("has something else than [[grant]] tables")
    return Grants(_grant(number, table) for number, table in enumerate(cast("list[object]", tables), start=1))


def _grant(number: int, table: object) -> Grant:
    told = cast("dict[str, object]", table) if isinstance(table, dict) else {}
    scopes = told.get("scopes")
    texts = {name: told[name] for name in _TEXTS if name in told}
    fine = (
        {"arn", "user", "scopes"} <= set(told) <= {*_TEXTS, "scopes"}
        and all(isinstance(text, str) for text in texts.values())
        and isinstance(scopes, list)
        and all(isinstance(scope, str) for scope in cast("list[object]", scopes))
    )
    if not fine:
        raise _malformed(f"has a grant, number {number}, with a missing, unknown or malformed setting")
    make = cast("Callable[..., Grant]", Grant)
    try:
        return make(scopes=frozenset(cast("list[str]", scopes)), **texts)
    except ValueError as error:
        raise _malformed(f"has a grant, number {number}, that is none. {str(error).rstrip('.')}") from None


def _malformed(why: str) -> ConfigError:
    return ConfigError(
        f"The file that {GRANTS} names {why}.",
        next_step='Write [[grant]] with arn = "arn:aws:iam::123456789012:role/name", user = "name" and '
        'scopes = ["ai:complete"]; org and unique_id if there are any.',
        setting=GRANTS,
    )
