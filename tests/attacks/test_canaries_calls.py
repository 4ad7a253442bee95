"""Canaries through calls of models: guarded clients and LangChain, whatever the provider answers, and what is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI

import rr_canaries as birds
from rr_canaries import Canary, Lookout
from rr_clients import MODEL, in_loop
from rr_routed import Keys
from runrails import Guard, Limits
from runrails.calls import ToolCall, ToolOutcome
from runrails.clients.echoes import MASK, unsay
from runrails.credentials import CredentialId
from runrails.errors import LoopDetected, RunrailsError
from runrails.keyroutes import KeyPolicy
from runrails.secretvalue import Secret
from runrails.stores.sqlite import SQLiteStore
from runrails.testing.provider import Error, HangUp
from runrails.testing.provider.values import ToolCalls, ToolUse
from runrails_langchain import GuardrailCallbackHandler, attach, use_keys

SDK = (openai.OpenAIError, anthropic.AnthropicError, RunrailsError)
ALICE = CredentialId("user:alice", "openai")
ASKED: Any = [{"role": "user", "content": birds.PROMPT.text}]


class Routed(Keys):
    """A world whose ledger is a file, and whose user's keys are canaries."""

    def __init__(self, lookout: Lookout, directory: Path, policy: KeyPolicy | None = None, **options: Any) -> None:
        self.out = lookout
        self.directory = directory
        self.says: Any = None
        super().__init__(policy, store=SQLiteStore(directory / "books.db"), **options)

    def _answer(self, request: Any) -> Any:
        told = super()._answer(request)
        return self.says if self.says is not None else told

    def shown(self) -> None:
        """Everything there is after a call."""
        self.out.show(self.guard, self.router, self.vault, *self.events, *self.vault.list())
        self.out.show(*self.store.usage(), *self.store.balances())  # type: ignore[attr-defined]


Call = Callable[[Routed], object]


def _openai(world: Routed, **options: Any) -> object:
    client = world.openai(api_key=birds.HOUSE.text, **options)
    return client.chat.completions.create(model=MODEL, messages=ASKED, max_tokens=50)


def _responses(world: Routed) -> object:
    return world.openai(api_key=birds.HOUSE.text).responses.create(model=MODEL, input=birds.PROMPT.text)


def _anthropic(world: Routed) -> object:
    client = world.anthropic(api_key=birds.HOUSE.text)
    return client.messages.create(model=MODEL, messages=ASKED, max_tokens=50)


def _streamed(world: Routed) -> object:
    client = world.openai(api_key=birds.HOUSE.text)
    stream = client.chat.completions.create(model=MODEL, messages=ASKED, max_tokens=50, stream=True)
    return [each.id for each in stream]


def _asynchronous(world: Routed) -> object:
    async def work() -> object:
        made = openai.AsyncOpenAI(base_url=world.provider.openai_url, api_key=birds.HOUSE.text, max_retries=0)
        world._aclosing.append(made.close)
        return await world.guard.wrap(made).chat.completions.create(model=MODEL, messages=ASKED, max_tokens=50)

    return in_loop(world, work)


def _langchain(world: Routed, *, kind: Any = ChatOpenAI, url: str = "openai_url", stream: bool = False) -> object:
    attach()
    model = kind(
        model=MODEL, api_key=birds.HOUSE.text, base_url=getattr(world.provider, url), max_tokens=900, max_retries=0
    )
    use_keys(world.guard, model)
    world.out.show(model)
    handler = GuardrailCallbackHandler(world.guard)
    config: Any = {"callbacks": [handler], "metadata": {"runrails_user": "alice"}}
    try:
        if stream:
            return [each.id for each in model.stream(birds.PROMPT.text, config)]
        return model.invoke(birds.PROMPT.text, config).id
    finally:
        world.out.show(handler)
        handler.close()


CALLS: dict[str, tuple[Call, Canary]] = {
    "openai": (_openai, birds.OPENAI), "responses": (_responses, birds.OPENAI), "stream": (_streamed, birds.OPENAI),
    "async": (_asynchronous, birds.OPENAI), "anthropic": (_anthropic, birds.ANTHROPIC),
    "langchain": (_langchain, birds.OPENAI),
    "langchain stream": (lambda world: _langchain(world, stream=True), birds.OPENAI),
    "langchain anthropic": (lambda world: _langchain(world, kind=ChatAnthropic, url="anthropic_url"), birds.ANTHROPIC),
}  # fmt: skip


def _echo(status: int, canary: Canary) -> Error:
    message = f"Incorrect API key provided: {canary.text}. Beginning {canary.text[:24]}…, ending …{canary.text[-16:]}."
    return Error(status, message=message, headers={"x-key": canary.text, "retry-after": "0"})


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [200, 400, 401, 403, 429, 500, 0])
def test_calls_on_a_users_key(lookout: Lookout, tmp_path: Path, call: str, status: int) -> None:
    """Answered, refused with the key in the error, or hung up on (0)."""
    act, canary = CALLS[call]
    provider = "anthropic" if "anthropic" in call else "openai"
    with Routed(lookout, tmp_path) as world:
        which = world.own("user:alice", canary.text, provider=provider)
        if status == 0:
            world.says = HangUp(billed=False)
        elif status != 200:
            world.says = _echo(status, canary)
        if status == 200:
            act(world)
        else:
            lookout.fails(lambda: act(world), *SDK, Exception)
        assert {canary.text} == set(world.seen)
        assert ("invalid" if status == 401 else "unverified") == world.vault.peek(which).status  # type: ignore[union-attr]
        world.shown()


@pytest.mark.parametrize("call", ["openai", "async", "langchain"])
def test_the_next_key_is_taken(lookout: Lookout, tmp_path: Path, call: str) -> None:
    """The user's is refused, the organisation's too, the platform's pays: three keys, and none is told."""
    policy = KeyPolicy(fall_back=True)
    with Routed(lookout, tmp_path, policy, org="acme") as world:
        world.own("user:alice", birds.OPENAI.text)
        world.own("org:acme", birds.ORG_KEY.text)
        world.bad = {birds.OPENAI.text, birds.ORG_KEY.text}
        CALLS[call][0](world)
        assert {birds.OPENAI.text, birds.ORG_KEY.text, birds.HOUSE.text} == set(world.seen)
        world.shown()


ROUTES: dict[str, tuple[KeyPolicy, Callable[[Routed], object]]] = {
    "required": (KeyPolicy(byok="require"), lambda world: world.vault.remove(ALICE)),
    "forbidden model": (KeyPolicy(models=("other",)), lambda world: None),
    "invalid": (KeyPolicy(), lambda world: world.vault.mark(ALICE, "invalid", 1)),
    "suspended": (KeyPolicy(), lambda world: world.vault.mark(ALICE, "suspended")),
    "unsendable": (KeyPolicy(), lambda world: world.vault.rotate(ALICE, Secret(birds.OPENAI.text + "\nx: y"))),
    "not ASCII": (KeyPolicy(), lambda world: world.vault.rotate(ALICE, Secret(birds.OPENAI.text + "ü"))),
    "bytes": (KeyPolicy(), lambda world: world.vault.rotate(ALICE, Secret(b"\xff" + birds.OPENAI.text.encode()))),
}  # fmt: skip


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("call", ["openai", "async", "langchain"])
def test_calls_that_are_not_made(lookout: Lookout, tmp_path: Path, route: str, call: str) -> None:
    """Nobody's key may pay, or it cannot be sent: nothing leaves, and nothing is told."""
    policy, prepare = ROUTES[route]
    with Routed(lookout, tmp_path, policy) as world:
        world.own("user:alice", birds.OPENAI.text)
        prepare(world)
        lookout.fails(lambda: CALLS[call][0](world))
        assert [] == world.seen
        world.shown()


def test_a_provider_that_sends_keys_elsewhere(lookout: Lookout, tmp_path: Path) -> None:
    """A redirect is not followed, and what came of it is told without the key."""
    with Routed(lookout, tmp_path) as world:
        world.own("user:alice", birds.OPENAI.text)
        world.says = Error(307, headers={"location": f"http://127.0.0.1:9/?key={birds.OPENAI.text}"})
        lookout.fails(lambda: _openai(world), *SDK)
        assert [birds.OPENAI.text] == world.seen
        world.shown()


@pytest.mark.parametrize("status", [200, 401])
def test_raw_answers_do_not_keep_the_key(lookout: Lookout, tmp_path: Path, status: int) -> None:
    """`with_raw_response` hands out the request with its headers; so do errors."""
    with Routed(lookout, tmp_path) as world:
        world.own("user:alice", birds.OPENAI.text)
        world.says = _echo(401, birds.OPENAI) if status == 401 else None
        raw = world.openai(api_key="k").chat.completions.with_raw_response
        if status == 401:
            error: Any = lookout.fails(lambda: raw.create(model=MODEL, messages=ASKED), openai.AuthenticationError)
            response = error.response
            assert MASK in str(error) and MASK in response.text and MASK in json.dumps(error.body)
        else:
            response = raw.create(model=MODEL, messages=ASKED).http_response
        assert [birds.OPENAI.text] == world.seen
        shown = [*response.request.headers.items(), *response.headers.items(), response.text]
        lookout.hear("answer", repr(shown))
        lookout.show(response, response.request)


def test_an_error_keeps_what_is_no_key() -> None:
    """Only this key is taken out; an error without it keeps its very objects."""
    body = {"error": {"message": "no such model", "list": [("a", 1)]}}
    error = ValueError("no such model", body)
    error.body = body  # type: ignore[attr-defined]
    unsay(error, Secret(birds.OPENAI.text))
    assert error.args[1] is body and error.body is body  # type: ignore[attr-defined]
    told = ValueError(f"a {birds.OPENAI.text[3:20]} b", {birds.OPENAI.text: [birds.OPENAI.text.encode()]})
    unsay(told, Secret(birds.OPENAI.text))
    assert (f"a {MASK} b", {MASK: [MASK.encode()]}) == told.args
    unsay(told, Secret(b"\xff" * 40))


# What is said and done in a run.


def test_tools_and_prompts(lookout: Lookout, tmp_path: Path) -> None:
    """Arguments and outputs of tools that fail again and again: the stop, its report, the state and the books."""
    events: list[Any] = []
    guard = Guard(
        Limits(run="1", month="5"), user="alice", store=SQLiteStore(tmp_path / "books.db"), sinks=[events.append]
    )
    call = ToolCall(name="search", args={"q": birds.TOOL_ARGUMENT.text, birds.TOOL_ARGUMENT.text: 1})
    text = ToolCall(name="search", args=json.dumps({"q": birds.TOOL_ARGUMENT.text}))
    outcome = ToolOutcome(ok=False, result=f"failed: {birds.TOOL_OUTPUT.text}", error_type="ValueError")
    for each in (call, text):
        with guard.run("job") as run:

            def again(run: Any = run, each: ToolCall = each) -> None:
                for _ in range(12):
                    lookout.hear("finding", repr(run.before_tool(each, can_block=False)))
                    lookout.hear("finding", repr(run.after_tool(each, outcome, can_block=False)))

            lookout.fails(again, LoopDetected, frames=False)
            lookout.show(run.stopped, run.report(), run)
            lookout.hear("report", json.dumps(run.report().as_dict(), default=repr))
    lookout.show(guard, *events)
    guard.close()
    assert events


def test_an_agent_that_loops(lookout: Lookout, tmp_path: Path) -> None:
    """The whole way through LangChain: prompt, answer, tool arguments and outputs."""
    from langchain.agents import create_agent
    from langchain_core.tools import tool

    from runrails_langchain import GuardrailMiddleware

    @tool
    def search(query: str) -> str:
        """Search."""
        raise ValueError(f"{birds.TOOL_OUTPUT.text} {len(query)}")

    with Routed(lookout, tmp_path) as world:
        world.own("user:alice", birds.OPENAI.text)
        arguments = json.dumps({"query": birds.TOOL_ARGUMENT.text})
        world.says = ToolCalls([ToolUse(name="search", args=arguments)], text=birds.ANSWER.text)
        made: Any = ChatOpenAI
        model = made(
            model=MODEL, api_key=birds.HOUSE.text, base_url=world.provider.openai_url, max_tokens=90, max_retries=0
        )
        middleware = GuardrailMiddleware(world.guard)
        agent: Any = create_agent(use_keys(world.guard, model), [search], middleware=[middleware])
        try:
            agent.invoke({"messages": ASKED}, {"recursion_limit": 50})
        except Exception as error:
            # The tool's own error is the user's, with what the user's tool says.
            if isinstance(error, RunrailsError):
                lookout.raised(error, frames=False)
        assert birds.OPENAI.text in world.seen
        world.shown()
        lookout.show(middleware)


def test_a_store_that_fails_in_the_middle(lookout: Lookout, tmp_path: Path) -> None:
    """The vault is away when a call needs its key."""
    from rr_keys import CountingDocuments
    from runrails.documents.memory import MemoryDocuments

    with Routed(lookout, tmp_path) as world:
        documents = CountingDocuments(MemoryDocuments())
        world.vault._documents = documents
        world.own("user:alice", birds.OPENAI.text)
        documents.away = True
        lookout.fails(lambda: _openai(world))
        assert [] == world.seen
        world.shown()
