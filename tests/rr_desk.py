"""The founding agent over the wire, for any framework: six reviews, one of which the classifier has no answer for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from runrails.loops.explain import MARK
from runrails.testing.provider import Answer, ProviderRequest, Text, ToolCalls, ToolUse

REVIEWS = ("late", "charged twice", "pękła", "lovely", "quick support", "broke")
BAD = REVIEWS[2]
EXPECTED = {review: "unclassified" if review == BAD else "ok" for review in REVIEWS}
TASK = "Classify the reviews."


class Desk:
    """What the agent has done; its methods are the tools."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.topics: dict[str, str] = {}

    def classify(self, review: str) -> str:
        """Classify a review."""
        self.calls[f"classify {review}"] += 1
        if review == BAD:
            return "no result"
        self.topics[review] = "ok"
        return "topic: ok"

    def record(self, review: str) -> str:
        """Record a review as unclassified."""
        self.calls[f"record {review}"] += 1
        self.topics[review] = "unclassified"
        return "recorded"


def desk(request: ProviderRequest) -> Answer:
    """A model that tries again for as long as a result is empty, and records what it is told to take as final."""
    last, number, blocked = request.last, 0, False
    if last is not None and last.role == "tool":
        kind, at, _ = (last.tool_call_id or "").split("_")
        blocked = last.text.startswith(MARK)
        retry = kind == "c" and "no result" in last.text
        number = int(at) + (0 if retry or blocked else 1)
    if number == len(REVIEWS):
        return Text("The reviews are classified.")
    name, kind = ("record", "r") if blocked else ("classify", "c")
    return ToolCalls([ToolUse(name, {"review": REVIEWS[number]}, id=f"{kind}_{number}_{request.number}")])


def deaf(*uses: ToolUse, most: int = 60) -> Callable[[ProviderRequest], Answer]:
    """A model that makes the same calls whatever it is told; at last it gives up, so that every test ends."""

    def answer(request: ProviderRequest) -> Answer:
        if request.number > most:
            return Text("I give up.")
        return ToolCalls([ToolUse(one.name, one.args, id=f"d{request.number}_{at}") for at, one in enumerate(uses)])

    return answer


def hears_of_failures(request: ProviderRequest) -> int:
    """How many results of tools the request shows."""
    return sum(message.role == "tool" for message in request.messages)
