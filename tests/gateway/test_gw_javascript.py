"""Clients of JavaScript, unchanged but for base URL and key: OpenAI's, Anthropic's, Vercel's AI SDK, LangChain."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rr_gateway import MODEL, USAGE, World, gateway
from runrails.testing.provider import Answer, ProviderRequest, Text, ToolCalls, ToolUse

SCRIPT = Path(__file__).parent / "javascript" / "clients.mjs"
WAYS = ("openai chat", "openai responses", "anthropic", "ai chat", "ai responses", "ai messages", "langchain")
"""The same as in the script."""


def never_answers(request: ProviderRequest) -> Answer:
    """Whoever has a tool is asked to use it, for ever."""
    if request.body.get("tools"):
        return ToolCalls([ToolUse("classify", {"text": "hola"})], usage=USAGE, ignores_max_tokens=True)
    return Text("Hello there.", usage=USAGE, ignores_max_tokens=True)


@pytest.fixture(scope="module")
def gw() -> Iterator[World]:
    with gateway(never_answers) as made:
        yield made


@pytest.fixture(scope="module")
def told(gw: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What every client made of it, by its way in."""
    packages, node = os.environ.get("RUNRAILS_JAVASCRIPT"), shutil.which("node")
    if not packages or not node:
        pytest.skip('needs Node.js and its packages: RUNRAILS_JAVASCRIPT="$(.ci/javascript)"')
    directory = tmp_path_factory.mktemp("javascript")
    script = shutil.copy(SCRIPT, directory)  # Modules are looked for beside whoever imports them.
    (directory / "node_modules").symlink_to(Path(packages) / "node_modules", target_is_directory=True)
    keys = {"GATEWAY": gw.url, "KEY": gw.key, "POOR_KEY": gw.new_key("bob", month_pusd=1), "MODEL": MODEL}
    ran = subprocess.run(
        [node, script], env={"PATH": os.environ["PATH"], **keys}, capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip
    assert 0 == ran.returncode, ran.stderr
    return {found["way"]: found for found in map(json.loads, ran.stdout.splitlines())}


@pytest.mark.parametrize("way", WAYS)
def test_answers_are_read(way: str, told: dict[str, Any]) -> None:
    """Whole and streamed, with one request each."""
    for kind in ("whole", "streamed"):
        found = told[way][kind]
        assert ("Hello there.", 1, None) == (found["said"], found["requests"], found["error"]), kind


@pytest.mark.parametrize("way", WAYS)
def test_without_money_there_is_one_request(way: str, told: dict[str, Any]) -> None:
    """Each of them would repeat what it takes for a passing failure."""
    found = told[way]["broke"]
    assert (402, 1) == (found["status"], found["requests"])
    assert "budget" in found["error"]


@pytest.mark.parametrize("way", WAYS)
def test_a_tool_that_never_answers_is_called_five_times(way: str, told: dict[str, Any]) -> None:
    """And nobody asks again after the stop."""
    found = told[way]["agent"]
    assert (403, 5, 6) == (found["status"], found["executed"], found["requests"]), found["error"]
    assert "classify" in found["error"]


def test_the_ledger_is_the_bill(gw: World, told: dict[str, Any]) -> None:
    """Of all that they did."""
    assert set(WAYS) == set(told)
    gw.settled()
    assert gw.spent > 0
