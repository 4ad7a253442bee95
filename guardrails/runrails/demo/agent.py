"""A real ReAct agent: LangGraph under `create_agent`, the openai SDK under `ChatOpenAI`. Only the provider is fake."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, cast

from langchain.agents import create_agent  # pyright: ignore[reportUnknownVariableType] -- LangChain leaves a parameter open
from langchain.agents.middleware import wrap_model_call
from langchain_core.messages import AnyMessage, ToolMessage
from langchain_openai import ChatOpenAI
from openai import DefaultHttpxClient

from runrails.demo.reviews import REVIEWS, Workbench

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from langchain.agents.middleware.types import ModelRequest, ModelResponse

__all__ = ["MESSAGES_MAX", "MODEL", "TASK", "Agent", "agent_of", "newest"]

MODEL = "gpt-4"
MESSAGES_MAX = 12
"""
How many of the newest messages go out with the system prompt. With the whole history each call would be longer than
the last, and 891 of them would take minutes.
"""
OUTPUT_TOKENS_MAX = 500
SYSTEM_PROMPT = (
    "You analyse customer reviews. For every review extract the sentiment and classify the issue, then write a summary "
    "report. If a tool gives you nothing, it has failed: try it again."
)
TASK = "Please analyse these reviews.\n" + "\n".join(f"{review.id}: {review.text}" for review in REVIEWS)


class Agent(Protocol):
    """What the demo needs of a compiled agent."""

    def invoke(self, input: Mapping[str, object], config: Mapping[str, object] | None = None) -> object:  # noqa: A002 -- LangChain's name
        """Run it to its end."""
        ...


@contextmanager
def agent_of(bench: Workbench, *, base_url: str) -> Generator[Agent]:
    """The agent of one pass. Every limit is at the framework's default: today's defaults let 891 retries through."""
    # Proxy variables are ignored: nothing may leave this machine.
    with DefaultHttpxClient(trust_env=False) as http:
        model = ChatOpenAI(
            model=MODEL,
            base_url=base_url,
            api_key=lambda: "not-needed",
            max_completion_tokens=OUTPUT_TOKENS_MAX,
            http_client=http,
            openai_proxy="",
        )
        yield cast("Agent", create_agent(model, _tools(bench), system_prompt=SYSTEM_PROMPT, middleware=[_newest_only]))


def newest(messages: Sequence[AnyMessage], count_max: int = MESSAGES_MAX) -> list[AnyMessage]:
    """The newest messages, never beginning with a tool result whose call is not shown: providers reject that."""
    kept = list(messages[-count_max:])
    while kept and isinstance(kept[0], ToolMessage):
        del kept[0]
    return kept


@wrap_model_call
def _newest_only(request: ModelRequest, handler: Callable[[ModelRequest], ModelResponse]) -> ModelResponse:
    return handler(request.override(messages=newest(request.messages)))


def _tools(bench: Workbench) -> list[Callable[..., str]]:
    def extract_sentiment(review_id: str) -> str:
        """Tell whether a review is positive, negative or neutral."""
        return bench.extract_sentiment(review_id)

    def classify_review(review_id: str) -> str:
        """Tell what a review is about."""
        return bench.classify_review(review_id)

    def write_report(title: str) -> str:
        """Write the summary report."""
        return bench.write_report(title)

    return [extract_sentiment, classify_review, write_report]
