"""
Stored answers in LangChain's own cache seam: `ChatOpenAI(..., cache=ResponseCacheAdapter(guard))`, or for all models
`langchain_core.globals.set_llm_cache(ResponseCacheAdapter(guard))`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from langchain_core.caches import BaseCache
from langchain_core.messages import AIMessage, message_to_dict, messages_from_dict
from langchain_core.outputs import ChatGeneration, Generation

from runrails.cover import call_above
from runrails.errors import ConfigError
from runrails.savers.caching import Tenant, key_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runrails.guard import Guard

__all__ = ["ResponseCacheAdapter"]


class ResponseCacheAdapter(BaseCache):
    """
    Answers of `Guard(cache=...)` for LangChain's models. Each tenant has answers of their own.

    Whose a call is, the guard's callback knows; a call without it is neither answered nor kept, nor is one of a model
    that LangChain does not describe by its name and parameters (a class of your own without them). LangChain asks its
    cache for `invoke` and `batch`, never for streams. The callback asks for leave before LangChain looks here, so a hit
    needs room for the call in the budget, which is given back at once.

    Raises:
        ConfigError: The guard has no cache.
    """

    def __init__(self, guard: Guard) -> None:
        if guard.cache is None:
            raise ConfigError(
                "This guard has no cache for LangChain to use.", next_step="Write Guard(cache=ResponseCache())."
            )
        self._guard = guard
        self._cache = guard.cache

    def lookup(self, prompt: str, llm_string: str) -> Sequence[Generation] | None:
        """The stored answer, if there is one."""
        key = self._key(prompt, llm_string)
        body = None if key is None else self._cache.get(key, self._failed)
        if key is None or body is None:
            return None
        try:
            found = [_generation(each) for each in cast("list[dict[str, Any]]", json.loads(body))]
        except Exception as exc:  # noqa: BLE001 -- it only saves money: without it the model is asked
            self._failed(type(exc).__name__)
            self._cache.drop(key, self._failed)
            return None
        return found

    def update(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """Keep an answer whose usage was reported."""
        key = self._key(prompt, llm_string)
        if key is None:
            return
        try:
            told = [_told(each) for each in return_val]
            body = json.dumps(told, allow_nan=False)
            if told and all(each is not None for each in told) and _is_same(body, return_val):
                self._cache.put(key, body.encode(), self._failed)
        except Exception as exc:  # noqa: BLE001 -- the answer is the user's
            self._failed(type(exc).__name__)

    async def alookup(self, prompt: str, llm_string: str) -> Sequence[Generation] | None:
        """As `lookup`; a local file does not keep the event loop waiting for long."""
        return self.lookup(prompt, llm_string)

    async def aupdate(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """As `update`."""
        self.update(prompt, llm_string, return_val)

    def clear(self, **kwargs: Any) -> None:
        """Forget all answers, those of guarded clients too."""
        del kwargs
        self._cache.clear()

    def _key(self, prompt: str, llm_string: str) -> str | None:
        above = call_above(self._guard)
        # What LangChain cannot serialise it describes by the class alone: that could be any model, asked in any way.
        if above is None or above.model not in llm_string:
            return None
        by = above.by
        return key_of(Tenant(by.user, by.key, by.org), {"provider": "langchain", "model": llm_string}, prompt)

    def _failed(self, reason: str) -> None:
        above = call_above(self._guard)
        self._guard.emit("cache_failed", "warning", run=None if above is None else above.run.id, reason=reason)


def _told(generation: Generation) -> dict[str, object] | None:
    """A generation as JSON; None for one that is not to be kept."""
    if not isinstance(generation, ChatGeneration) or not isinstance(generation.message, AIMessage):
        return None
    if generation.message.usage_metadata is None:
        return None
    # Two messages with one id would be one message to an agent's state.
    message = generation.message.model_copy(update={"id": None})
    return {"message": message_to_dict(message), "info": generation.generation_info}


def _generation(told: Mapping[str, Any]) -> ChatGeneration:
    message = messages_from_dict([told["message"]])[0]
    if not isinstance(message, AIMessage):
        raise TypeError("a stored answer is no answer of a model")
    return ChatGeneration(message=message, generation_info=told["info"])


def _is_same(body: str, generations: Sequence[Generation]) -> bool:
    """Whether what would be read again is what came: content may hold what JSON cannot express."""
    again = [_generation(each) for each in cast("list[dict[str, Any]]", json.loads(body))]
    return all(
        isinstance(before, ChatGeneration) and before.message.model_copy(update={"id": None}) == after.message
        for before, after in zip(generations, again, strict=True)
    )
