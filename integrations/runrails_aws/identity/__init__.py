"""
Who is calling, proved by AWS.

`sign_proof` makes a proof where the credentials are; `AWSIdentity` verifies one by asking AWS's own STS; `Exchange`
turns it into a token of ours. `LambdaIdentity` reads who AWS has let in already, behind API Gateway or a function URL.
"""

from __future__ import annotations

from runrails_aws.identity.exchange import Exchange
from runrails_aws.identity.grants import Grant, Grants
from runrails_aws.identity.lambda_event import LambdaIdentity
from runrails_aws.identity.proof import Proof, is_proof, parse_proof
from runrails_aws.identity.reasons import REASONS
from runrails_aws.identity.sign import sign_proof
from runrails_aws.identity.transport import HTTPSTransport
from runrails_aws.identity.verify import AWSIdentity

__all__ = [
    "REASONS",
    "AWSIdentity",
    "Exchange",
    "Grant",
    "Grants",
    "HTTPSTransport",
    "LambdaIdentity",
    "Proof",
    "is_proof",
    "parse_proof",
    "sign_proof",
]
