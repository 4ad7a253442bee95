"""Clients that were there before: every SDK's are found and guarded; what cannot be is said, or is none of ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rr_notebook import PRICES
from runrails.testing import FakeProvider, Text

pytest.importorskip("anthropic")
pytest.importorskip("boto3")
pytest.importorskip("openai")

PROGRAM = """
import sys, openai, anthropic, boto3
from botocore.config import Config
from runrails import Guard
from runrails.errors import BudgetExceeded
base, folder = sys.argv[1:3]
keys = dict(aws_access_key_id="a", aws_secret_access_key="s", region_name="us-east-1")
said = [{"role": "user", "content": "hi"}]
chat = openai.OpenAI(api_key="k", base_url=f"{base}/v1", max_retries=0)
afar = openai.AsyncOpenAI(api_key="k", base_url=f"{base}/v1", max_retries=0)
claude = anthropic.Anthropic(api_key="k", base_url=base, max_retries=0)
bedrock = boto3.client("bedrock-runtime", endpoint_url=base, config=Config(retries={"max_attempts": 0}), **keys)
s3 = boto3.client("s3", **keys)
class Half(openai.OpenAI):
    def __init__(self): "Never made, so it cannot be guarded."
half = Half()
mine = Guard(store=f"sqlite:///{folder}/mine.db")
own = mine.wrap(openai.OpenAI(api_key="k", base_url=f"{base}/v1"))
calls = [
    lambda: chat.chat.completions.create(model="fake-flat", messages=said, max_tokens=16),
    lambda: claude.messages.create(model="fake-flat", messages=said, max_tokens=16),
    lambda: bedrock.converse(modelId="fake-flat", messages=[{"role": "user", "content": [{"text": "hi"}]}],
                             inferenceConfig={"maxTokens": 16}),
]
from runrails_notebook.extension import attach, detach, greeting
from runrails_notebook.kernel import KernelGuard
from runrails_notebook.settings import Settings
kernel = KernelGuard(Settings(store=f"sqlite:///{folder}/ledger.db", budget="0.03"))
found = attach(kernel)
kernel.start()
for call in calls: call()
refused = 0
for call in calls:
    try: call()
    except BudgetExceeded: refused += 1
new = openai.OpenAI(api_key="k", base_url=f"{base}/v1", max_retries=0)
try: new.chat.completions.create(model="fake-flat", messages=said, max_tokens=16)
except BudgetExceeded: refused += 1
print(found.guarded, found.missed, kernel.spent_pusd, refused, own.runrails_edge.guard is mine)
print(greeting(kernel, found))
def plain(): return [openai.OpenAI(api_key="k"), anthropic.Anthropic(api_key="k")]
before = len(sys.meta_path)
detach()
print([hasattr(client, "runrails_edge") for client in plain()], before - len(sys.meta_path))
left = plain()
again = attach(kernel)
print([hasattr(client, "runrails_edge") for client in [*left, *plain()]], len(sys.meta_path) - before)
kernel.close()
"""


def test_clients_that_were_made_before_are_found_and_guarded(tmp_path: Path) -> None:
    """
    Of openai (both kinds), anthropic and Bedrock; another guard's stay with it; S3 costs nothing by the call. Once the
    extension is unloaded new clients are as the SDK makes them, and loading it again finds those as well.
    """
    (tmp_path / "runrails.toml").write_text(PRICES, encoding="utf-8")
    with FakeProvider(lambda _: Text("hi")) as provider:
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM, provider.url, str(tmp_path)],
            capture_output=True, text=True, cwd=tmp_path, timeout=110, check=False,
        )  # fmt: skip
        hits = len(provider.bill)

    assert 0 == ran.returncode, ran.stderr
    told, greeting, detached, again = ran.stdout.splitlines()
    assert ("4 ('__main__.Half',) 30000000000 4 True", 3) == (told, hits)
    assert greeting.endswith(
        "Clients made before: 4, guarded as well. NOT guarded, as nobody knows how: __main__.Half."
    )
    assert ("[False, False] 1", "[True, True, True, True] 0") == (detached, again)
