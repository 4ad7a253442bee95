"""
A whole guarded `model.invoke` (bound, reserve, price, settle, detect; memory store, five 200-byte messages).

The yardstick is the same call unguarded, on a model that answers at once: what LangChain itself costs. What a handler
costs that has the same hooks and does nothing is reported beside it. Guarded and unguarded calls alternate, so that a
busy machine slows all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from rr_bench import Row, main, percentile

from runrails import Guard, Limits, Price
from runrails.stores.memory import MemoryStore
from runrails_langchain import GuardrailCallbackHandler, attach

CALLS = 3_000
WARM_UP = 300
GATE = 1.7
"""How much of the unguarded call's time the guard may add: 150 us over some 90."""


class Instant(BaseChatModel):
    """A model that answers at once."""

    max_tokens: int = 100

    @property
    def _llm_type(self) -> str:
        return "instant"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return {"ls_provider": "openai", "ls_model_name": "bench", "ls_model_type": "chat", "ls_max_tokens": 100}

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        usage: Any = {"input_tokens": 300, "output_tokens": 20, "total_tokens": 320}
        return ChatResult(generations=[ChatGeneration(message=AIMessage("fine", usage_metadata=usage))])


class Empty(BaseCallbackHandler):
    """The hooks of the guard's handler, without the guard."""

    raise_error = True
    run_inline = True

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        """Nothing."""

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        """Nothing."""

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        """Nothing."""


def measure() -> list[Row]:
    """Medians of the same call without callbacks, with an empty one, with ours, and inside `with guard.run():`."""
    attach()
    model = Instant()
    messages: list[BaseMessage] = [HumanMessage("x" * 200) for _ in range(5)]
    limits = Limits(run=None, steps=None)
    guard = Guard(limits, store=MemoryStore(), prices={"bench": Price(input="0.01", output="0.01")}, sinks=())
    handler = GuardrailCallbackHandler(guard)
    bare = _medians(
        {
            "plain": lambda: model.invoke(messages),
            "empty": lambda: model.invoke(messages, {"callbacks": [Empty()]}),
            "guarded": lambda: model.invoke(messages, {"callbacks": [handler]}),
        }
    )
    with guard.run():
        inside = _medians({"inside": lambda: model.invoke(messages)})["inside"]
    plain, empty, guarded = bare["plain"], bare["empty"], bare["guarded"]
    yardstick = "the same call unguarded"
    return [
        Row("model.invoke, unguarded", plain * 1e6, "us"),
        Row("added by a handler that does nothing", (empty - plain) * 1e6, "us", (empty - plain) / plain, yardstick),
        Row("added by GuardrailCallbackHandler", (guarded - plain) * 1e6, "us", (guarded - plain) / plain, yardstick,
            GATE),
        Row("added by with guard.run():", (inside - plain) * 1e6, "us", (inside - plain) / plain, yardstick, GATE),
    ]  # fmt: skip


def _medians(works: dict[str, Callable[[], object]]) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(WARM_UP + CALLS):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            if number >= WARM_UP:
                times[name].append(time.perf_counter() - began)
    return {name: percentile(sorted(values), 50) for name, values in times.items()}


if __name__ == "__main__":
    raise SystemExit(main(measure))
