"""The founding agent as LangChain executors: six reviews, one of which the classifier has no answer for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage, ToolMessage
from langchain_core.tools import BaseTool, tool

from rr_lc import Starts
from runrails.loops.explain import MARK
from runrails.testing.langchain import ScriptedChatModel
from runrails.testing.provider.values import Answer, Text, ToolCalls, ToolUse

REVIEWS = ("late", "charged twice", "pękła", "lovely", "quick support", "broke")
BAD = REVIEWS[2]


class Desk:
    """What the agent has done."""

    def __init__(self) -> None:
        self.starts = Starts()
        self.topics: dict[str, str] = {}

    def tools(self) -> list[BaseTool]:
        """Classify a review; record one that could not be classified."""

        @tool
        def classify(review: str) -> str:
            """Classify a review."""
            self.starts.add(f"classify {review}")
            if review == BAD:
                return "no result"
            self.topics[review] = "ok"
            return "topic: ok"

        @tool
        def record(review: str) -> str:
            """Record a review as unclassified."""
            self.starts.add(f"record {review}")
            self.topics[review] = "unclassified"
            return "recorded"

        return [classify, record]

    def model(self) -> ScriptedChatModel:
        """An agent that tries again for as long as a result is empty, and records what it is told to take as final."""

        def answer(messages: Sequence[BaseMessage]) -> Answer:
            self.starts.add("model")
            last = messages[-1]
            number, blocked = 0, False
            if isinstance(last, ToolMessage):
                kind, at, _ = last.tool_call_id.split("_")
                blocked = last.text.startswith(MARK)
                retry = kind == "c" and "no result" in last.text
                number = int(at) + (0 if retry or blocked else 1)
            if number == len(REVIEWS):
                return Text("The reviews are classified.")
            step = self.starts.models
            if blocked:
                return ToolCalls(
                    [ToolUse("record", {"review": REVIEWS[number]}, id=f"r_{number}_{step}")], text="Noted."
                )
            use = ToolUse("classify", {"review": REVIEWS[number]}, id=f"c_{number}_{step}")
            return ToolCalls([use], text=f"Attempt {step}.")

        return ScriptedChatModel(answer, model_name="fake-flat", max_tokens=100)


def expected_topics() -> dict[str, str]:
    """Every review has a topic, and the bad one is recorded as unclassified."""
    return {review: "unclassified" if review == BAD else "ok" for review in REVIEWS}


def question() -> dict[str, Any]:
    """The task."""
    return {"messages": [("user", "Classify the reviews.")]}
