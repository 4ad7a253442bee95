"""Why an AWS identity was not let in: every `reason` of this package, for operators' logs. Pure."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["REASONS"]

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "aws_proof_malformed": "It is no proof, or a field of it is malformed.",
        "aws_region_not_allowed": "It is for a region that is not in `regions`.",
        "aws_proof_stale": "It was signed more than 5 minutes ago. If all are, compare this host's clock.",
        "aws_proof_early": "It was signed more than 30 s in the future. If all are, compare this host's clock.",
        "aws_proof_used": "It was used before, or the same key signed twice in one second: sign again.",
        "aws_busy": "As many proofs as `in_flight_max` allows wait for STS.",
        "aws_sts_unreachable": "STS cannot be reached: DNS, the firewall (443 to the region's STS), or half an answer.",
        "aws_sts_address": "The name of STS has an address that is not public. A VPC endpoint? Then name `networks`.",
        "aws_sts_slow": "STS did not answer within the time allowed.",
        "aws_sts_tls": "The TLS certificate of STS cannot be verified: somebody stands between, or CAs are missing.",
        "aws_sts_redirected": "STS answered with a redirect, which it never does: somebody stands between.",
        "aws_sts_unavailable": "STS answered with a fault of its own.",
        "aws_sts_throttled": "STS is asked too often from this account or key.",
        "aws_sts_oversized": "STS answered more than 16 KiB, which it never does: somebody stands between.",
        "aws_sts_not_xml": "STS answered something else than XML: somebody stands between.",
        "aws_sts_malformed": "STS answered XML that is not a caller's identity: somebody stands between.",
        "aws_sts_clock": "STS finds the signing time wrong although this host does not: compare this host's clock.",
        "aws_sts_refused": "STS refused the signature for a reason of its own.",
        "aws_signature_wrong": "Wrong secret, or it was signed for another server id, region or moment.",
        "aws_key_unknown": "AWS does not know the access key; in China and GovCloud, look at the region.",
        "aws_session_expired": "The temporary credentials it was signed with have expired.",
        "aws_region_disabled": "The caller's account has not enabled the region.",
        "aws_answer_inconsistent": "AWS's words for account, name and unique id do not go together.",
        "aws_kind_not_taken": "It is neither an IAM user nor an assumed role.",
        "aws_partition_wrong": "The identity is of another partition than the region that was asked.",
        "aws_not_granted": "There is no grant for this exact ARN.",
        "aws_id_changed": "A known name with another unique id: deleted and made anew. If by you: `forget(arn)`.",
        "aws_event_malformed": "The Lambda event has no requestContext of the configured form.",
        "aws_event_anonymous": "The route is not set to IAM authorisation, or the event is a test's.",
    }
)
"""The reason, and what it means. Callers are told none of it."""
