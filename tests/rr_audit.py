"""What the tests of the audit share: recordings, and an auditor whose only prices are written here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from runrails import Price
from runrails.audit import Auditor, BadInput, RunAudit
from runrails.pricing import PriceBook, PriceSpec

NOW_MS = 1_795_000_000_000
PRICES: Mapping[str, PriceSpec] = {"cent": Price(call="0.01"), "tokens": Price(input="10", output="30"), "free": "0"}
USAGE = {"prompt_tokens": 10, "completion_tokens": 5}

Json = dict[str, object]


def auditor(*poll_tools: str, line_bytes_max: int | None = None) -> Auditor:
    """An auditor with the prices above."""
    made = Auditor.at(NOW_MS, prices=PriceBook.load(PRICES), poll_tools=poll_tools)
    if line_bytes_max is None:
        return made
    return Auditor(find_card=made.find_card, poll_tools=made.poll_tools, line_bytes_max=line_bytes_max)


def asks(place: int, *, name: str = "search", args: object = "{}", **more: object) -> Json:
    """An assistant message with one tool call."""
    call = {"id": f"call_{place}", "type": "function", "function": {"name": name, "arguments": args}}
    return {"role": "assistant", "content": None, "tool_calls": [call], **more}


def answers(place: int, content: object = "no result", **more: object) -> Json:
    """The tool message that answers it."""
    return {"role": "tool", "tool_call_id": f"call_{place}", "content": content, **more}


def user(text: str = "go") -> Json:
    """A user message."""
    return {"role": "user", "content": text}


def rounds(count: int, *, first: int = 1, result: object = "no result", **more: object) -> list[Json]:
    """The same question asked `count` times with the same result; `more` goes into each assistant message."""
    places = range(first, first + count)
    return [message for place in places for message in (asks(place, **more), answers(place, result))]


def tool(name: str = "search", *, ok: bool = False, output: object = "no result", **more: object) -> Json:
    """A tool step."""
    return {"kind": "tool", "name": name, "args": {"q": "x"}, "ok": ok, "output" if ok else "error": output, **more}


def line(**fields: object) -> str:
    """One line of a recording."""
    return json.dumps({"id": "r1", **fields})


def one(judge: Auditor | None = None, **fields: object) -> RunAudit:
    """The answer to one good run."""
    [answer] = (judge or auditor()).lines([line(**fields)], source="test")
    assert isinstance(answer, RunAudit), str(answer)
    return answer


def bad(text: str | bytes, judge: Auditor | None = None) -> BadInput:
    """The complaint about one bad line, which must not keep the good lines around it from their answers."""
    good = [line(id="before", steps=[]), text, line(id="after", steps=[])]
    before, answer, after = (judge or auditor()).lines(good, source="test")
    assert isinstance(before, RunAudit)
    assert isinstance(after, RunAudit)
    assert isinstance(answer, BadInput), answer.as_json()
    assert (answer.source, answer.line) == ("test", 2)
    assert answer.what.endswith(".")
    assert answer.fix.endswith(".")
    return answer


def ladder(run: RunAudit) -> tuple[int | None, int | None, int | None]:
    """The three places of an answer."""
    return run.hint_at, run.block_at, run.stop_at


def text_of(runs: Iterable[str]) -> bytes:
    """Lines as the bytes of a file."""
    return "".join(run + "\n" for run in runs).encode("utf-8", "surrogatepass")
