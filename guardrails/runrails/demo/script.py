"""
What the fake model says: an agent that works through the reviews and never takes "no result" for an answer.

The state is in the ids of the tool calls, which come back with every request, so the script is a function of the
request alone and does not mind that the agent shows it only its newest messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runrails.demo.reviews import REVIEWS
from runrails.testing.provider import Answer, ProviderRequest, Text, ToolCalls, ToolUse, looks_empty
from runrails.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CALL_USAGE", "MORNING", "never_gives_up", "thought"]

CALL_USAGE = Usage(input_tokens=3_500, output_tokens=500)
"""The founding article: "Each retry: 4,000 tokens of GPT-4". How they split is not told; most of a retry is input."""

MORNING = "Good morning. I could not classify R3; please have a look at it."

# 11 x 9 x 9 = 891 different thoughts, none of them saying anything new.
_OPENINGS = (
    "No result yet.", "Still nothing.", "That came back empty.", "Hm, no answer.", "The tool gave nothing.",
    "Empty again.", "No luck this time.", "That did not work.", "I see no result.", "The field is blank.",
    "Nothing came back.",
)  # fmt: skip
_REASONS = (
    "Perhaps the service was busy.", "It may have been a hiccup.", "The connection may have dropped.",
    "Maybe the cache was cold.", "The classifier may need a moment.", "It might be a timing issue.",
    "Possibly a worker was restarting.", "This looks like a passing glitch.", "It should work in principle.",
)  # fmt: skip
_PLANS = (
    "Let me try classifying again...", "I will call it once more.", "One more attempt should do.",
    "I will retry this review.", "Trying again now.", "Let me repeat the step.", "I will give it another go.",
    "A fresh attempt will settle it.", "Let me ask again.",
)  # fmt: skip


class _Place(NamedTuple):
    """Where the agent stands, as the id of its newest tool call tells."""

    stage: str
    review: int
    failures: int

    def __str__(self) -> str:
        return f"{self.stage}-{self.review}-{self.failures}"


def thought(failures: int) -> str:
    """What the model thinks after so many failures: 891 different texts before one comes again."""
    first, rest = failures % len(_OPENINGS), failures // len(_OPENINGS)
    return f"{_OPENINGS[first]} {_REASONS[rest % len(_REASONS)]} {_PLANS[rest // len(_REASONS) % len(_PLANS)]}"


def never_gives_up(*, retries: int) -> Callable[[ProviderRequest], Answer]:
    """The founding agent. After `retries` executions of the failing call the scripted morning comes."""

    def answer(request: ProviderRequest) -> Answer:
        last = request.last
        if last is None or last.role != "tool" or last.tool_call_id is None:
            return _extract_all()
        stage, review, failures = last.tool_call_id.split("-")
        return _next(_Place(stage, int(review), int(failures)), last.text, retries)

    return answer


def _next(place: _Place, result: str, retries: int) -> Answer:
    match place.stage:
        case "sentiment":
            return _classify("I have every sentiment. Now the topics, two at first.", 0, 1)
        case "classify" if looks_empty(result):
            if place.failures + 1 >= retries:
                return Text(MORNING, usage=CALL_USAGE)
            return _classify(thought(place.failures), place.review, failures=place.failures + 1)
        case "classify" if place.review + 1 < len(REVIEWS):
            return _classify("That worked. On to the next review.", place.review + 1)
        case "classify":
            use = ToolUse("write_report", {"title": "Customer feedback"}, id=str(_Place("report", 0, 0)))
            return ToolCalls([use], text="All reviews have a topic. I write the report.", usage=CALL_USAGE)
        case _:
            return Text("The reviews are analysed and the report is written.", usage=CALL_USAGE)


def _extract_all() -> Answer:
    uses = [
        ToolUse("extract_sentiment", {"review_id": review.id}, id=str(_Place("sentiment", index, 0)))
        for index, review in enumerate(REVIEWS)
    ]
    return ToolCalls(uses, text="First the sentiment of every review.", usage=CALL_USAGE)


def _classify(text: str, *reviews: int, failures: int = 0) -> Answer:
    uses = [
        ToolUse("classify_review", {"review_id": REVIEWS[index].id}, id=str(_Place("classify", index, failures)))
        for index in reviews
    ]
    return ToolCalls(uses, text=text, usage=CALL_USAGE)
