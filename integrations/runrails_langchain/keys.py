"""Letting a guard choose the key of every call of a chat model."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from runrails.clients.keys import place_of
from runrails.errors import ConfigError
from runrails.keyroutes import KeyPlace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from langchain_core.language_models import BaseChatModel

    from runrails.guard import Guard

__all__ = ["PLACE", "key_place", "serialized_of", "use_keys"]

PLACE = "runrails_place"
"""In a model's metadata: the provider and the address that its client's key goes to. Nothing secret."""
_CLIENTS = ("root_client", "root_async_client", "_client", "_async_client")
"""Where LangChain's models keep their SDK's clients: `ChatOpenAI`, and `ChatAnthropic`."""
_M = TypeVar("_M", bound="BaseChatModel")


def use_keys(guard: Guard, model: _M) -> _M:
    """
    Let the calls of a chat model go out on the keys that the guard chooses: ``Guard(credentials=Router(vault))``.

    The model itself is changed and returned: its SDK clients are guarded (see `Guard.wrap`), and its metadata says
    where their keys go. The callback or the middleware decides and counts as before.

    `bind`, `with_config` and `model_copy` share that. A model that is made anew from this one (`configurable_fields`)
    does not: its calls go out on the platform's key, as those of any model that has not been through here.

    Raises:
        ConfigError: The guard chooses no keys, or the model has no client whose key could be another one: so far
            `ChatOpenAI` and `ChatAnthropic` have, with a key and not with a sign-in of another kind.
    """
    if guard.credentials is None:
        raise ConfigError("This guard chooses no keys.", next_step="Give it a vault: Guard(credentials=Router(vault)).")
    places: list[KeyPlace] = []
    for name in _CLIENTS:
        client: object = getattr(model, name, None)
        if client is not None:
            place = place_of(guard.wrap(client))
            if place is not None:
                places.append(place)
    if not places or len(set(places)) > 1:
        raise ConfigError(
            f"A {type(model).__name__} has no client of its own whose key could be another one.",
            next_step="Use ChatOpenAI or ChatAnthropic with a plain API key.",
        )
    model.metadata = {**(model.metadata or {}), PLACE: _Place(places[0], serialized_of(model))}
    return model


class _Place(list[str | None]):
    """A place in a model's metadata, for traces as plain as a list, with the sign of the model that it is about."""

    def __init__(self, place: KeyPlace, serialized: object) -> None:
        super().__init__(place)
        self.serialized = serialized


def serialized_of(model: BaseChatModel) -> object:
    """
    What LangChain makes of a model once and then tells with every call of it; copies that share its clients share it.

    Metadata alone may be somebody else's, and a model that was made from another one has its metadata, but not its
    clients: the platform's key would go out, and count as the user's.
    """
    return model._serialized  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] -- there is no public form


def key_place(metadata: Mapping[str, object] | None, serialized: object) -> KeyPlace | None:
    """Where the key of a model goes that is told with this metadata, and as this."""
    said = None if metadata is None else metadata.get(PLACE)
    if not isinstance(said, _Place) or said.serialized is not serialized:
        return None
    provider, base_url = said
    return KeyPlace(provider or "", base_url)
