"""Print requirements that pin every lower bound of pyproject.toml, so that the oldest supported versions are tested."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

EXTRAS = ("langchain", "openai", "anthropic", "aws", "jwt", "legacy", "gateway")
"""With langchain-core before 1.0 the callback is supported; the other extras need newer frameworks."""
BESIDE = ("langchain==0.3.27", "langgraph==0.6.0", "websockets==13.0")
"""
Which we do not need: frameworks whose executors the callback guards, the first that go with that langchain-core, and
what the openai SDK needs for its realtime API.
"""
TOOLS = ("hypothesis", "opentelemetry-sdk", "pytest", "pytest-asyncio", "pytest-timeout", "pytest-xdist", "quicktok-v1")

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
bounds = [*project["dependencies"], *(line for extra in EXTRAS for line in project["optional-dependencies"][extra])]
for line in dict.fromkeys(bounds):
    found = re.fullmatch(r"([\w-]+(?:\[[\w,-]+\])?)>=([\d.]+)(,<[\d.]+)?(?:; .*)?", line)
    if found is None:
        sys.exit(f"{line!r} has no lower bound in the form name>=version")
    print(f"{found[1]}=={found[2]}")
for line in (*BESIDE, *project["optional-dependencies"]["tokens"], *project["optional-dependencies"]["dev"]):
    if line in BESIDE or line.startswith(TOOLS):
        print(line)
