"""What the core does for callers that send requests: retries, smaller caps, covers, the asynchronous edge."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rr_core import CENT, Bench, cent_call, done
from runrails import BudgetBusy, BudgetExceeded, Limits, aio
from runrails.bounds import output_within
from runrails.calls import ModelCall, ModelResult, Prompt
from runrails.cover import take_cover
from runrails.errors import BoundUnknown
from runrails.request_wire import anthropic_messages, may_reason, openai_chat, openai_embeddings, openai_responses
from runrails.stores.memory import MemoryStore
from runrails.testing import FlakyStore
from runrails.usage import Usage

HI = Prompt(texts=("hi",), messages=1)


def tokens_call(max_tokens: int | None, **options: object) -> ModelCall:
    """A call at $10 and $30 a million tokens whose cap may be lowered."""
    return replace(ModelCall(model="tokens", prompt=HI, max_tokens=max_tokens, can_cap=True), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("left", "retries"), [("0.03", 2), ("0.05", 2), ("0.029", 1), ("0.02", 1), ("0.01", 0)])
def test_retries_are_held_for_as_far_as_there_is_room(left: str, retries: int) -> None:
    """Each granted retry is part of the hold."""
    bench = Bench(Limits(run=left))
    run = bench.guard.run()
    permit = run.before_model(replace(cent_call(), retries=2))
    assert (retries, (1 + retries) * CENT, CENT) == (permit.retries, permit.bound_pusd, permit.attempt_pusd)
    assert (1 + retries) * CENT == bench.held(f"run:{run.id}", "-")
    run.after_model(permit, done())
    assert (CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


def test_call_without_room_for_one_attempt_is_refused() -> None:
    """Retries never make a refusal into a smaller call, nor a call that fits into a refusal."""
    bench = Bench(Limits(run="0.009"))
    with pytest.raises(BudgetExceeded):
        bench.guard.run().before_model(replace(cent_call(), retries=2))
    assert (0, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


@pytest.mark.parametrize(
    ("result", "cents", "unresolved"),
    [
        (done(), 1, False),
        (replace(done(), unknown_attempts=1), 2, True),
        (ModelResult(end="failed", unknown_attempts=2), 2, True),
        (ModelResult(end="failed"), 0, False),
        (ModelResult(end="unknown", unknown_attempts=2), 3, True),
        (ModelResult(end="unknown"), 1, True),
        (ModelResult(end="completed"), 1, True),
        (ModelResult(end="cut", reasoning=True), 1, True),
    ],
)
def test_each_attempt_of_unknown_end_is_charged_its_bound(result: ModelResult, cents: int, unresolved: bool) -> None:
    """The last attempt as it ended, earlier ones by what is known of them."""
    bench = Bench()
    run = bench.guard.run()
    run.after_model(run.before_model(replace(cent_call(), retries=2)), result)
    assert (cents * CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))
    assert unresolved == (run.report().unresolved_pusd > 0)


def test_observing_holds_no_retries() -> None:
    """They must not look like a refusal."""
    bench = Bench(Limits(run="0.01"), mode="observe")
    run = bench.guard.run()
    permit = run.before_model(replace(cent_call(), retries=2))
    assert (CENT, None) == (permit.bound_pusd, run.report().would_have_stopped)


def test_reported_input_of_a_cut_answer_replaces_its_bound() -> None:
    """Input exactly as told, output by what came."""
    bench = Bench()
    run = bench.guard.run()
    told = Usage(input_tokens=100, output_tokens=5)
    run.after_model(
        run.before_model(tokens_call(1000)), ModelResult(end="cut", input_usage=told, output_text=("four",))
    )
    assert 100 * 10**7 + 4 * 3 * 10**7 == bench.spent("user:alice")


@pytest.mark.parametrize("asked", [None, 100_000])
def test_cap_is_lowered_to_what_is_left(asked: int | None) -> None:
    """The largest output whose bound fits every limit, and not one token more."""
    bench = Bench(Limits(run="0.10", month="0.09"))
    run = bench.guard.run()
    permit = run.before_model(tokens_call(asked))
    assert permit.max_tokens is not None
    assert (True, False) == (1024 <= permit.max_tokens < 3100, permit.uncapped)
    assert permit.bound_pusd <= 9 * CENT
    run.after_model(permit, ModelResult(end="unknown"))
    assert bench.spent("user:alice") == permit.bound_pusd


def test_unlimited_calls_are_not_capped() -> None:
    """Where nothing is limited nothing needs a cap."""
    bench = Bench(Limits(run=None))
    permit = bench.guard.run().before_model(tokens_call(None))
    assert (None, True) == (permit.max_tokens, permit.uncapped)


def test_unknown_maximum_is_capped_modestly() -> None:
    """A request without a cap, for a model whose own nobody knows, gets one that every model takes."""
    permit = Bench(Limits(run="100")).guard.run().before_model(tokens_call(None))
    assert 4096 == permit.max_tokens


def test_models_own_maximum_is_held_and_not_sent() -> None:
    """While it fits, the request stays as it is."""
    call = replace(tokens_call(None), model="capped")
    assert None is Bench(Limits(run="100")).guard.run().before_model(call).max_tokens
    permit = Bench(Limits(run="0.1")).guard.run().before_model(call)
    assert permit.max_tokens is not None
    assert 1024 <= permit.max_tokens < 50_000


def test_small_calls_are_not_shrunk() -> None:
    """Below 1,024 tokens a cap stands; what does not fit is refused."""
    bench = Bench(Limits(run="0.01"))
    with pytest.raises(BudgetExceeded):
        bench.guard.run().before_model(tokens_call(500))
    assert 0 == bench.held("user:alice")


def test_money_that_others_hold_is_waited_for_before_a_cap_is_lowered() -> None:
    """A neighbour's hold is no reason for a shorter answer."""
    bench = Bench(Limits(run="0.10", hold_wait_ms=0))
    run = bench.guard.run()
    first = run.before_model(tokens_call(2000))
    with pytest.raises(BudgetBusy):
        run.before_model(tokens_call(2000))
    run.after_model(first, ModelResult(end="failed"))
    assert 2000 == run.before_model(tokens_call(2000)).max_tokens


@settings(max_examples=200, deadline=None)
@given(amount=st.integers(0, 10**6), floor=st.integers(1, 50), ceiling=st.integers(1, 5000), rate=st.integers(0, 300))
def test_output_within_is_the_largest_that_fits(amount: int, floor: int, ceiling: int, rate: int) -> None:
    """Checked against the definition, cliffs included."""

    def cost(tokens: int) -> int:
        return 7 + tokens * rate + (500 if tokens > 1000 else 0)

    found = output_within(amount, cost, floor=floor, ceiling=ceiling)
    fitting = [tokens for tokens in range(floor, max(floor, ceiling) + 1) if cost(tokens) <= amount]
    assert (fitting[-1] if fitting else None) == found


def test_cover_is_for_one_call_of_the_same_kind_while_it_is_open() -> None:
    """Taken once; not by another model, another guard, another kind of request, nor after the end."""
    bench, other = Bench(), Bench()
    run = bench.guard.run()
    call = cent_call()

    def scene() -> None:
        permit = run.before_model(call)
        assert not take_cover(other.guard, call)
        assert not take_cover(bench.guard, replace(call, model="dear"))
        assert not take_cover(bench.guard, replace(call, request_type="embedding"))
        assert (True, False) == (take_cover(bench.guard, call), take_cover(bench.guard, call))
        run.after_model(permit, done())
        run.after_model(run.before_model(call), done())
        assert not take_cover(bench.guard, call)
        sent = run.before_model(call, sends=True)
        assert not take_cover(bench.guard, call)
        run.after_model(sent, done())

    contextvars.copy_context().run(scene)


def test_one_cover_in_many_threads_is_taken_once() -> None:
    """A context may be copied to several threads; one of them is covered."""
    bench = Bench()
    run, call = bench.guard.run(), cent_call()
    taken: list[bool] = []

    def scene() -> None:
        run.before_model(call)
        contexts = [contextvars.copy_context() for _ in range(8)]
        threads = [
            threading.Thread(target=context.run, args=(lambda: taken.append(take_cover(bench.guard, call)),))
            for context in contexts
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    contextvars.copy_context().run(scene)
    assert (1, 8) == (sum(taken), len(taken))


def test_busy_that_is_asked_again_is_no_refusal() -> None:
    """Only what the caller gets in the end is noted."""
    bench = Bench(Limits(run="0.01", hold_wait_ms=0))
    run = bench.guard.run()
    run.before_model(cent_call())
    for may_wait, refusals in ((True, 0), (False, 1)):
        with pytest.raises(BudgetBusy):
            run.before_model(cent_call(), may_wait=may_wait)
        assert refusals == run.report().refusals
    assert 1 == run.report().model_calls


@pytest.mark.parametrize("remote", [False, True])
async def test_asynchronous_edge_settles_as_the_core_does(remote: bool) -> None:
    """A call there and back, with a store at hand and with a remote one."""
    bench = Bench(store=FlakyStore(MemoryStore(), remote=remote))
    run = await aio.off_loop(bench.guard, bench.guard.run)
    await aio.after_model(run, await aio.before_model(run, cent_call()), done())
    assert (CENT, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


async def test_cancelled_wait_gives_back_what_is_granted_after_it() -> None:
    """The task is gone when the store answers; its hold must not stay."""
    entered, answer = threading.Event(), threading.Event()

    class Slow(MemoryStore):
        remote = True

        def reserve(self, reservation: object) -> object:  # type: ignore[override]
            entered.set()
            answer.wait(10)
            return super().reserve(reservation)  # type: ignore[arg-type]

    bench = Bench(store=Slow())
    run = await aio.off_loop(bench.guard, bench.guard.run)
    task = asyncio.create_task(aio.before_model(run, cent_call()))
    await asyncio.to_thread(entered.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    answer.set()
    for _ in range(3_000):
        if not run.tally.model_calls and not bench.held("user:alice"):
            break
        await asyncio.sleep(0.01)
    assert (0, 0, 0) == (run.report().steps, bench.spent("user:alice"), bench.held("user:alice"))


# Requests of the wire.


@pytest.mark.parametrize(
    ("read", "body", "named"),
    [
        (openai_chat, {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input_audio"),
        (openai_chat, {"messages": [{"role": "user", "content": [{"type": "brand_new"}]}]}, "brand_new"),
        (openai_chat, {"messages": ["hi"]}, "str"),
        (openai_chat, {"messages": [], "audio": {"voice": "x"}}, "audio"),
        (openai_chat, {"messages": [], "service_tier": "priority"}, "priority"),
        (openai_responses, {"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input_file"),
        (openai_responses, {"input": "x", "tools": [{"type": "mcp"}]}, "mcp"),
        (openai_embeddings, {"input": {"a": 1}}, "dict"),
        (anthropic_messages, {"messages": [], "container": "c"}, "container"),
        (anthropic_messages, {"messages": [], "tools": [{"type": "web_search_20250305"}]}, "web_search"),
        (anthropic_messages, {"messages": [{"role": "user", "content": [{"no": "type"}]}]}, "untyped"),
    ],
)
def test_what_cannot_be_bounded_is_named(read: object, body: dict[str, object], named: str) -> None:
    """Unknown kinds of content are unbounded; a guess would be silent."""
    prompt = read(body).prompt  # type: ignore[operator]
    assert named in (prompt.unbounded or "")


@pytest.mark.parametrize(
    "body",
    [
        {"input": "x", "previous_response_id": "r"}, {"input": "x", "conversation": "c"}, {"prompt": {"id": "p"}},
        {"input": [{"type": "item_reference", "id": "i"}]},
        {"input": [{"type": "reasoning", "id": "r", "summary": []}]},
    ],
)  # fmt: skip
def test_what_the_provider_keeps_is_bounded_by_the_context(body: dict[str, object]) -> None:
    """Held at the model's context; refused where that is not known."""
    prompt = openai_responses(body).prompt
    assert prompt.stored is not None
    run = Bench(Limits(run="10")).guard.run()
    permit = run.before_model(ModelCall(model="capped", prompt=prompt, max_tokens=10))
    assert permit.bound_pusd == 400_000 * 10**6 + 10 * 2 * 10**6
    with pytest.raises(BoundUnknown, match="known to the provider alone"):
        run.before_model(ModelCall(model="tokens", prompt=prompt, max_tokens=10))


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=200), name=st.text(max_size=20), n=st.integers(1, 4))
def test_every_text_of_a_request_is_in_its_bound(text: str, name: str, n: int) -> None:
    """Wherever a text stands, it is measured: the prompt's texts are at least as long as what was said."""
    said = len(text.encode("utf-8", "surrogatepass"))
    calls = [{"id": "c", "type": "function", "function": {"name": name, "arguments": text}}]
    bodies = [
        openai_chat({"messages": [{"role": "user", "content": text}] * n}),
        openai_chat({"messages": [{"role": "user", "content": [{"type": "text", "text": text}]}] * n}),
        openai_chat({"messages": [{"role": "assistant", "tool_calls": calls}] * n}),
        openai_responses({"input": [{"type": "function_call_output", "call_id": "c", "output": text}] * n}),
        openai_responses({"input": [{"role": "user", "content": [{"type": "input_text", "text": text}]}] * n}),
        anthropic_messages({"messages": [{"role": "user", "content": text}] * n}),
        anthropic_messages({"messages": [{"role": "u", "content": [{"type": "tool_result", "content": text}]}] * n}),
        anthropic_messages({"messages": [{"role": "u", "content": [{"type": "tool_use", "input": {"a": text}}]}] * n}),
    ]
    for body in bodies:
        measured = sum(len(part.encode("utf-8", "surrogatepass")) for part in body.prompt.texts)
        assert body.prompt.unbounded is None
        assert measured >= n * said


def test_reasoners_are_known_by_name() -> None:
    """What they write before their answer is not shown."""
    assert [True, True, False, False] == [may_reason(name) for name in ("o3", "gpt-5-mini", "gpt-4o", "claude-3")]
