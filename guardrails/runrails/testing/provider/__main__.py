"""
The fake provider as a process: `python -m runrails.testing.provider --script founding`.

Prints one JSON line with its addresses, serves until standard input ends or it is terminated, and shows its books under
`/fake/bill`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from typing import TYPE_CHECKING

from runrails.testing.provider.server import FakeProvider
from runrails.testing.provider.stories import echo, founding, until_morning
from runrails.testing.provider.values import Answer, Delay, ProviderRequest, Text
from runrails.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runrails.testing.provider.script import ScriptFunction

SCRIPTS: Mapping[str, Callable[[], ScriptFunction]] = {
    "echo": lambda: echo,
    "founding": founding,
    "morning": lambda: until_morning("classify_review", {"text": "Le produit est arrivé cassé."}),
    "steady": lambda: lambda _request: Text("ok", usage=Usage(input_tokens=1000, output_tokens=500)),
}


def _delayed(script: ScriptFunction, ms: int) -> ScriptFunction:
    def answer(request: ProviderRequest) -> Answer:
        return Delay(ms, script(request))

    return answer if ms else script


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to end. Exit code 0."""
    parser = argparse.ArgumentParser(prog="python -m runrails.testing.provider", description="A fake model provider.")
    parser.add_argument("--port", type=int, default=0, help="0 for any free port")
    parser.add_argument("--script", choices=sorted(SCRIPTS), default="echo")
    parser.add_argument("--delay-ms", type=int, default=0, help="pause before every answer")
    options = parser.parse_args(arguments)
    name: str = options.script
    delay_ms: int = options.delay_ms
    port: int = options.port
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    with FakeProvider(_delayed(SCRIPTS[name](), delay_ms), port=port) as provider:
        addresses = {"url": provider.url, "openai_url": provider.openai_url, "script": name}
        sys.stdout.write(json.dumps(addresses) + "\n")
        sys.stdout.flush()
        try:
            while sys.stdin.buffer.read(4096):
                pass
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
