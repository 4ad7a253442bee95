"""The function on Lambda as it is deployed: a fresh process, settings alone, and books in a table."""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from rr_dynamo import ENDPOINT, REGION, needs_server, new_table

pytestmark = needs_server

RUNTIME = """
import json, sys
from runrails_gateway.aws_lambda import handler
class Invoked:
    def get_remaining_time_in_millis(self):
        return 30_000
print(json.dumps([handler(event, Invoked()) for event in json.load(sys.stdin)]))
"""
"""What Lambda's own runtime does with a function."""


def test_a_function_with_its_books_in_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three calls on money for two: each in the ledger at its price when the function has answered, the third 402."""
    from runrails.clocks import system_ms
    from runrails.documents.opening import open_documents
    from runrails.identity.apikeys import ApiKeys
    from runrails.identity.apikeys.opening import peppers_of_environment
    from runrails.ledger import Account
    from runrails.periods import month_of
    from runrails.stores import open_store
    from runrails.testing.provider import FakeProvider, Text

    with FakeProvider(Text("All is well.")) as provider:
        upstreams, prices = tmp_path / "upstreams.toml", tmp_path / "prices.toml"
        upstreams.write_text(
            f'[[upstream]]\nname = "fake"\ndialect = "openai"\nbase_url = "{provider.openai_url}"\n'
            'models = ["fake-*"]\n'
        )
        prices.write_text('[prices."fake-flat"]\ncall = "0.01"\n')
        said = {
            "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_LAMBDA_FUNCTION_NAME": "gateway",
            "RUNRAILS_STORE": f"dynamodb://{new_table()}?region={REGION}&endpoint={ENDPOINT}",
            "RUNRAILS_KEY_PEPPERS": "p1:env:PEPPER", "PEPPER": base64.b64encode(secrets.token_bytes(32)).decode(),
            "RUNRAILS_UPSTREAMS": str(upstreams), "RUNRAILS_PRICES": str(prices), "RUNRAILS_MONTH_BUDGET": "0.02",
            "RUNRAILS_AUTOGUARD": "0",
        }  # fmt: skip
        for name, text in said.items():
            monkeypatch.setenv(name, text)
        with closing(open_documents()) as documents, closing(ApiKeys(documents, peppers_of_environment())) as keys:
            key = keys.create("alice", scopes=("ai:complete",))[1].reveal()
        body = {"model": "fake-flat", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 16}
        event = {
            "version": "2.0", "rawPath": "/v1/chat/completions", "rawQueryString": "",
            "headers": {"authorization": f"Bearer {key}"}, "body": json.dumps(body), "isBase64Encoded": False,
            "requestContext": {"http": {"method": "POST", "sourceIp": "203.0.113.7"}, "stage": "$default"},
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", RUNTIME], input=json.dumps([event] * 3), capture_output=True, text=True, timeout=60,
            env=os.environ, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert [200, 200, 402] == [each["statusCode"] for each in json.loads(done.stdout)]
        assert 2 == sum(provider.requests.values())
    with closing(open_store()) as store:
        found = store.balance(Account("user:alice", month_of(system_ms())))
    assert (2 * 10**10, 0) == (found.spent, found.held)
