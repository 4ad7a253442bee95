"""A request that names the answer it goes on from: bounded by what was reported of that, and never too low."""

from __future__ import annotations

import random
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rr_gateway import World, gateway
from runrails import Limits
from runrails.bounds import MESSAGE_TOKENS_MAX, image_tokens_max, input_tokens_bound
from runrails.calls import ModelResult
from runrails.testing.provider import Text
from runrails.usage import Usage
from runrails_gateway.continuing import Continued, continued_of, continuing, kept_after
from runrails_gateway.dialects import RESPONSES

LARGE = "fake-reasoner"
"""Its whole context costs 50 cents, as that of gpt-4.1 costs two dollars: more than a run here may spend."""
USED = Usage(input_tokens=30, output_tokens=50)


def large(script: Any = None, **options: Any) -> Any:
    """A gateway whose runs may cost less than a model's whole context does."""
    limits = Limits(run="0.30", month="100")
    return gateway(script or Text("Well.", usage=USED), limits, **options)


def client(made: World, key: str | None = None) -> openai.OpenAI:
    return openai.OpenAI(base_url=made.openai_url, api_key=key or made.key, max_retries=0)


def ask(body: dict[str, Any] | None = None, **more: Any) -> Any:
    """A request, read."""
    return RESPONSES.read({"model": LARGE, "input": "hi", "max_output_tokens": 100, **(body or {}), **more})


def went(used: Usage | None = USED, **more: Any) -> ModelResult:
    return ModelResult(**{"end": "completed", "usage": used, **more})


def after(request: Any, result: ModelResult, before: Continued | None = None, items: int = 1) -> Continued | None:
    return kept_after(request, request.plan.call, result, before, items)


@pytest.mark.parametrize(
    ("more", "result"),
    [
        ({"truncation": "auto"}, went()),
        ({"context_management": [{"type": "clear"}]}, went()),
        ({"previous_response_id": "resp_0"}, went()),
        ({}, went(None)),
        ({}, went(end="cut")),
        ({}, went(end="unknown")),
        ({}, went(end="failed")),
    ],
    ids=["truncated", "managed", "unknown_before", "no_usage", "cut", "unknown", "failed"],
)
def test_nothing_is_said_of_what_may_be_more(more: dict[str, Any], result: ModelResult) -> None:
    """Where the provider may have left something out, or nothing was reported, nothing bounds what it keeps."""
    assert after(ask(more), result) is None


def test_another_model_is_another_count() -> None:
    """What one model counted says nothing of what another one will."""
    kept = after(ask(), went())
    other = ask({"model": "fake-model", "previous_response_id": "resp_1"})
    assert kept is not None
    assert continuing(other.plan.call, other, kept) is other.plan.call
    assert kept_after(other, other.plan.call, went(), kept, 1) is None
    cheaper = ask()
    assert kept_after(cheaper, other.plan.call, went(), None, 1) is None


@pytest.mark.parametrize(
    "item", [{"type": "item_reference", "id": "msg_1"}, {"type": "reasoning", "id": "rs_1", "summary": []}],
    ids=["reference", "reasoning"],
)  # fmt: skip
def test_a_second_thing_in_the_providers_keeping_is_not_bounded_by_the_first(item: dict[str, Any]) -> None:
    """A request may name an answer and refer to another item beside it, of which nothing is known."""
    kept = after(ask(), went())
    request = ask({"previous_response_id": "resp_1", "input": [item]})
    assert continuing(request.plan.call, request, kept) is request.plan.call


@pytest.mark.parametrize("row", [None, [], ["m"], ["m", 1, 2], [1, 1, 1, 1], ["m", "1", 2, 3], {"model": "m"}])
def test_a_note_of_another_form_says_nothing(row: object) -> None:
    """What is not ours, or of another version, is as if it were not there."""
    assert continued_of(row) is None


def test_a_note_is_read_as_it_was_written() -> None:
    """Other workers read what one has noted."""
    kept = Continued(LARGE, 10, 2, 1)
    assert kept == continued_of(list(kept))


@given(st.integers(0, 2**32), st.integers(1, 6))
def test_the_bound_is_never_below_what_is_billed(seed: int, length: int) -> None:
    """
    A provider that keeps whole conversations, leaves reasoning out and puts it in again as it likes, fetches pictures
    anew and frames whatever it adds: its input is never more than the bound, however the chain goes.
    """
    draw = random.Random(seed)
    kept: Continued | None = None
    texts: list[int] = []
    pictures, images_most = 0, draw.choice((0, 0, 2))
    reasoning: list[int] = []
    for number in range(length):
        shown, images = draw.choice(("hi", "what?", "x" * 300)), draw.randint(0, images_most)
        content: list[dict[str, Any]] = [{"type": "input_text", "text": shown}]
        content += [{"type": "input_image", "image_url": "https://pictures.example/1.png"}] * images
        request = ask(input=[{"role": "user", "content": content}])
        if number:
            request = ask(input=[{"role": "user", "content": content}], previous_response_id=f"resp_{number}")
        call = continuing(request.plan.call, request, kept)
        pictures += images
        texts.append(len(shown) + MESSAGE_TOKENS_MAX)
        mine = sum(texts) + sum(reasoning) * draw.randint(0, 1) + MESSAGE_TOKENS_MAX * (images > 0)
        mine += sum(draw.choice((85, image_tokens_max("", LARGE))) for _ in range(pictures))
        bound = input_tokens_bound(call.prompt, model=LARGE, context_tokens_max=10**9)
        assert mine <= bound
        assert number == 0 or bound < 10**9
        thought, said, items = draw.choice((0, 1, 9_000)), draw.randint(1, 4_000), draw.randint(1, 30)
        used = Usage(input_tokens=mine, output_tokens=thought + said, reasoning_tokens=thought)
        kept = kept_after(request, call, went(used), kept, items)
        reasoning.append(thought)
        texts.append(said + said // 8 + MESSAGE_TOKENS_MAX * items)  # Split anew, and framed.


def test_a_conversation_in_the_providers_keeping_goes_on_within_a_runs_usual_budget() -> None:
    """Though the whole context of its model is worth more than a run may spend: each request names the last answer."""
    with large() as made:
        ours = client(made)
        last = None
        for _ in range(5):
            more: dict[str, Any] = {} if last is None else {"previous_response_id": last}
            last = ours.responses.create(model=LARGE, input="and?", max_output_tokens=500, **more).id
        with ours.responses.stream(
            model=LARGE, input="and?", max_output_tokens=500, previous_response_id=last
        ) as events:  # fmt: skip
            last = events.get_final_response().id
        ours.responses.create(model=LARGE, input="and?", max_output_tokens=500, previous_response_id=last)
        assert 7 == made.hits
        assert 1 == len({seen.run_id for seen in made.ended()})
        # Each hold was a few thousand tokens' worth, and no less than what came.
        assert all(row.actual_pusd <= row.estimated_pusd < 20_000_000_000 for row in made.rows())
        made.settled()


def test_an_answer_of_somebody_else_or_of_nobody_is_bounded_by_the_whole_context() -> None:
    """Who has not seen what an answer came to holds for the most it can be: this run cannot pay that."""
    with large() as made:
        answer_id = client(made).responses.create(model=LARGE, input="hi", max_output_tokens=100).id
        spent, hits = made.spent, made.hits
        bob = client(made, made.new_key("bob"))
        for ours, named in ((bob, answer_id), (client(made), "resp_unknown")):
            with pytest.raises(openai.APIStatusError) as refused:
                ours.responses.create(model=LARGE, input="and?", max_output_tokens=100, previous_response_id=named)
            assert 402 == refused.value.status_code
        assert (spent, 0, hits) == (made.spent, made.held, made.hits)


def test_another_worker_knows_what_an_answer_came_to() -> None:
    """What bounds it is noted where all processes look: the next request may come to any of them."""
    from rr_gateway import changed, serving
    from runrails.documents.memory import MemoryDocuments

    with large(documents=MemoryDocuments()) as made:
        first = client(made).responses.create(model=LARGE, input="hi", max_output_tokens=100).id
        with serving(changed(made.config, owned=())) as url:
            other = openai.OpenAI(base_url=f"{url}/v1", api_key=made.key, max_retries=0)
            second = other.responses.create(
                model=LARGE, input="and?", max_output_tokens=100, previous_response_id=first
            )  # fmt: skip
        assert second.output_text == "Well."
        made.settled()
