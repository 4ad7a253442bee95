"""A gateway that has served many conversations has no more of anything in memory than one that has served some."""

from __future__ import annotations

import gc
import json
from collections import Counter
from pathlib import Path
from typing import ClassVar

import pytest

from rr_gateway import HI, MODEL, World, asked, drained, running, world
from runrails.stores import _sqlite_rows, open_store
from runrails_gateway import conversations
from runrails_gateway.app import Gateway
from runrails_gateway.growing import Growing
from runrails_gateway.keeping import RunKeeper
from runrails_gateway.loopcheck import LoopCheck

FEW = 20
ANSWER = json.dumps(
    {"id": "a", "object": "chat.completion", "model": MODEL,
     "choices": [{"index": 0, "message": {"role": "assistant", "content": "Fine."}, "finish_reason": "stop"}],
     "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}}
).encode()  # fmt: skip
CONVERSATIONS = 80
"""Several times more than is kept of anything."""


class Told:
    """An answer that nobody keeps a copy of, and what sends it."""

    status = 200
    headers: ClassVar[dict[str, str]] = {"content-type": "application/json"}

    async def send(self, *_: object) -> Told:
        return self

    async def whole(self, _: int) -> bytes:
        return ANSWER

    def close(self) -> None:
        pass


async def serve(app: Gateway, made: World, batch: int) -> None:
    """So many conversations, each of a question, a tool's result, and another question. What they say differs."""
    for number in range(CONVERSATIONS):
        call = {"id": f"c{batch}_{number}", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        said = [{"role": "user", "content": f"question {batch} {number} " + "word " * 1_700}]
        asks = {"role": "assistant", "content": "", "tool_calls": [call]}
        result = {"role": "tool", "tool_call_id": call["id"], "content": f"result {batch} {number}"}
        for messages in (said, [*said, asks, result], [*said, asks, result, *HI]):
            caller = asked(made, messages=messages)
            await app(caller.scope, caller.receive, caller.send)
            assert 200 == caller.status
    await drained(app)


def counted() -> Counter[str]:
    gc.collect()
    return Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects())


async def test_memory_does_not_grow_with_what_was_served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of no kind of object there are more after half as many conversations again. Limits are low, for a quick look."""
    monkeypatch.setattr(conversations, "KNOWN_MAX", FEW)
    monkeypatch.setattr(_sqlite_rows, "_ACCOUNTS_KNOWN_MAX", FEW)
    monkeypatch.setitem(LoopCheck.__init__.__kwdefaults__, "kept_max", FEW)
    monkeypatch.setitem(RunKeeper.__init__.__kwdefaults__, "kept_max", FEW)
    monkeypatch.setitem(Growing.__init__.__kwdefaults__, "bytes_max", FEW * 40_000)
    store = open_store(f"sqlite:///{tmp_path}/ledger.db?synchronous=normal")
    with world(store=store) as made:
        made.watching.ended = lambda exchange: None  # type: ignore[method-assign] # or it keeps each of them
        async with running(made.config) as app:
            hot = app.hot
            assert hot is not None
            senders = hot._lines.senders
            kept, senders["openai"] = senders["openai"], Told()  # type: ignore[index, assignment]
            await serve(app, made, 0)
            await serve(app, made, 1)
            made.events.clear()
            before = counted()
            await serve(app, made, 2)
            made.events.clear()
            after = counted()
            senders["openai"] = kept  # type: ignore[index]
            assert hot.open_runs()
    # Python's sqlite3 looks through its weak references to cursors after every 200.
    slack = {"weakref.ReferenceType": 250}
    assert {} == {
        kind: count - before[kind]
        for kind, count in after.items()
        if count > before[kind] + slack.get(kind, CONVERSATIONS * 3 // 4)
    }
