"""Way A: a caller anywhere proves who it is by a signature that only AWS can check, and AWS checks it."""

from __future__ import annotations

from hashlib import sha256
from threading import BoundedSemaphore
from typing import TYPE_CHECKING

from runrails.clocks import Clock, system_ms
from runrails.documents import Address
from runrails.errors import ConfigError
from runrails.forks import renew_after_fork
from runrails.identity.errors import AuthBusy, Unauthenticated
from runrails_aws.identity.answer import read_answer
from runrails_aws.identity.canonical import check_server_id, signed_request
from runrails_aws.identity.proof import Proof, parse_proof
from runrails_aws.identity.regions import REGIONS
from runrails_aws.identity.roster import Roster
from runrails_aws.identity.transport import HTTPSTransport

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runrails.documents import DocumentStore
    from runrails.identity.principal import Principal
    from runrails_aws.identity.answer import STSAnswer
    from runrails_aws.identity.canonical import STSRequest
    from runrails_aws.identity.grants import Grant, Grants
    from runrails_aws.identity.regions import Region
    from runrails_aws.identity.transport import Transport

__all__ = ["AHEAD_MS", "PROOF_KIND", "WINDOW_MS", "AWSIdentity"]

WINDOW_MS = 5 * 60_000
"""A proof is good for this long. STS itself would take it for 15 minutes."""
AHEAD_MS = 30_000
"""A caller's clock may be this far ahead."""
PROOF_KIND = "proof"
"""Documents that keep which proofs were used."""
_KEPT_MS = 60 * 60_000
"""How long a used proof is remembered after it is stale, for hosts whose clocks differ."""
_IN_FLIGHT_MAX = 256


class AWSIdentity:
    """
    Lets in whom AWS vouches for. Safe in many threads; blocks for as long as the transport allows.

    Args:
        server_id: This server's name, which every proof is bound to; not shared with other servers or environments.
        grants: Whom each IAM user and role is here.
        documents: Where used proofs and the unique ids of identities are kept: with several hosts, a shared one.
        regions: Those whose STS may be asked. No other host is ever spoken to.
        clock: Wall clock in milliseconds since the epoch.
        transport: Sends the request; by default over HTTPS with five seconds.
        in_flight_max: Proofs that may wait for STS at the same time; those above are told to come again.

    Raises:
        ConfigError: The id, a region or a number is not one.
    """

    def __init__(
        self,
        server_id: str,
        grants: Grants | Iterable[Grant],
        documents: DocumentStore,
        *,
        regions: Iterable[str],
        clock: Clock = system_ms,
        transport: Transport | None = None,
        in_flight_max: int = 16,
    ) -> None:
        self._server_id = check_server_id(server_id)
        self._regions = _checked_regions(regions)
        self._roster = Roster(grants, documents)
        self._documents = documents
        self._clock = clock
        self._transport = HTTPSTransport() if transport is None else transport
        if type(in_flight_max) is not int or not 1 <= in_flight_max <= _IN_FLIGHT_MAX:
            raise ConfigError("in_flight_max is out of range.", next_step=f"Give 1 to {_IN_FLIGHT_MAX}.")
        self._in_flight_max = in_flight_max
        self._in_flight = BoundedSemaphore(in_flight_max)
        renew_after_fork(self)

    def verify(self, proof: Proof | str) -> Principal:
        """
        Who has signed a proof. It is used up when it has let somebody in.

        Raises:
            Unauthenticated: The same for every fault; `reason` is for the operator, see `REASONS`.
            AuthBusy: Too many wait for STS. The proof is not used up.
            StoreUnavailable: Nobody knows whether it was used before.
        """
        return self._verified(_parsed(proof))

    def after_fork(self) -> None:
        """In a child: proofs that wait in threads of the parent take no place here."""
        self._in_flight = BoundedSemaphore(self._in_flight_max)

    def forget(self, arn: str) -> bool:
        """Forget the unique id of a user or role that its operator has made anew. See `Roster.forget`."""
        return self._roster.forget(arn)

    def _verified(self, proof: Proof) -> Principal:
        region = self._regions.get(proof.region)
        if region is None:
            raise Unauthenticated("aws_region_not_allowed")
        self._check_window(proof)
        used = Address(PROOF_KIND, proof.key_id, sha256(proof.signature.reveal_bytes()).hexdigest())
        if self._documents.get(used) is not None:  # before AWS is asked, which costs more
            raise Unauthenticated("aws_proof_used")
        identity = read_answer(self._asked(signed_request(region, self._server_id, proof)))
        expires_ms = proof.signed_ms + WINDOW_MS
        principal = self._roster.admit(identity, partition=region.partition, expires_ms=expires_ms)
        # One of any number of writers succeeds, so of all who show the same proof one comes in. Whoever is not granted
        # anything has written nothing by now.
        if self._documents.put(used, b"used", expected=0, expires_ms=expires_ms + _KEPT_MS) is None:
            raise Unauthenticated("aws_proof_used")
        return principal

    def _check_window(self, proof: Proof) -> None:
        age_ms = self._clock() - proof.signed_ms
        if age_ms > WINDOW_MS:
            raise Unauthenticated("aws_proof_stale")
        if age_ms < -AHEAD_MS:
            raise Unauthenticated("aws_proof_early")

    def _asked(self, request: STSRequest) -> STSAnswer:
        if not self._in_flight.acquire(blocking=False):
            raise AuthBusy("aws_busy")
        answer: STSAnswer | None = None
        try:
            answer = self._transport(request)
        except Unauthenticated:
            raise
        except Exception:  # noqa: BLE001, S110 -- somebody else's transport may raise anything
            pass
        finally:
            self._in_flight.release()
        if answer is None:  # raised out here, because what it was may have the request in it
            raise Unauthenticated("aws_sts_unreachable")
        return answer


def _parsed(proof: object) -> Proof:
    if isinstance(proof, Proof):
        return proof
    try:
        if isinstance(proof, str):
            return parse_proof(proof)
    except ValueError:
        pass
    raise Unauthenticated("aws_proof_malformed")


def _checked_regions(regions: Iterable[str]) -> dict[str, Region]:
    if isinstance(regions, str):
        raise ConfigError("regions must be several.", next_step=f'Write regions={{"{regions}"}}.')
    names = set(regions)
    found = {name: REGIONS[name] for name in names if name in REGIONS}
    unknown = sorted(names - found.keys())
    if unknown or not found:
        what = f"There is no region {unknown[0]}." if unknown else "Without a region nobody can prove anything."
        raise ConfigError(what, next_step="Name those whose STS callers may use, for instance eu-central-1.")
    return found
