"""
runrails on AWS: guarded Bedrock clients.

`client = guard.wrap(boto3.client("bedrock-runtime"))` guards one client, `guard_session(guard, session)` every client
a session makes from now on, `attach(guard)` every session of the process that is made from now on.
"""

from __future__ import annotations

from runrails_aws.bedrock import attach, guard_session, wrap

__all__ = ["attach", "guard_session", "wrap"]
