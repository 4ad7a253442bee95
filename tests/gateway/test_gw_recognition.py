"""Which run a request belongs to: conversations that grow, fork, are pruned, change workers, look like others."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rr_conversations import ACME, ALICE, BOB, Message, answer, failing, history, mark, result, said
from runrails.documents import Address, Document, DocumentStore
from runrails.documents.memory import MemoryDocuments
from runrails.documents.sqlite import SQLiteDocuments
from runrails.errors import StoreUnavailable
from runrails.events import Emitter, Event
from runrails.identity.principal import Principal
from runrails.ids import check_id
from runrails.loops import ToolRule
from runrails.testing import ManualClock
from runrails_gateway.errors import BadRequest
from runrails_gateway.history import AnswerMark, history_of, mark_of
from runrails_gateway.loopcheck import LoopCheck
from runrails_gateway.recognition import Recognised, Runs
from runrails_gateway.runnotes import KIND, REST_MS

HOUR_MS = 3_600_000
RESPONSES = "responses.create"


class Documents:
    """Documents in memory that count what they are asked, and may be away."""

    def __init__(self, *, remote: bool = False) -> None:
        self.clock = ManualClock()
        self.inner = MemoryDocuments(clock=self.clock)
        self.remote = remote
        self.away = False
        self.asked: list[str] = []
        self.threads: set[str] = set()

    def _ask(self, verb: str) -> None:
        self.asked.append(verb)
        self.threads.add(threading.current_thread().name)
        if self.away:
            raise StoreUnavailable("It is away.", next_step="Wait.")

    def get(self, address: Address) -> Document | None:
        self._ask("get")
        return self.inner.get(address)

    def put(self, address: Address, data: bytes, *, expected: int, expires_ms: int | None = None) -> Document | None:
        self._ask("put")
        return self.inner.put(address, data, expected=expected, expires_ms=expires_ms)

    def delete(self, address: Address, *, expected: int) -> bool:
        raise NotImplementedError

    def find(self, kind: str, owner: str | None = None) -> Any:
        return self.inner.find(kind, owner)

    def close(self) -> None:
        self.inner.close()


class World:
    """Workers over the same documents."""

    def __init__(self, documents: DocumentStore | None = None, **options: Any) -> None:
        self.counting = Documents()
        self.documents: DocumentStore = self.counting if documents is None else documents
        self.clock = self.counting.clock
        self.events: list[Event] = []
        self._options = options
        self._made = 0

    def worker(self) -> Runs:
        """One more process, or the same one after it was started anew."""
        return Runs(
            self.documents, clock=self.clock, new_id=self._new_id, emit=Emitter([self.events.append]), **self._options
        )

    def _new_id(self, user: str) -> str:
        self._made += 1
        return f"run-{self._made}-{user}"


class Conversation:
    """A client that sends all it knows each time."""

    def __init__(self, opening: str, user: Principal = ALICE, *before: Message) -> None:
        self.user = user
        self.messages: list[Message] = [*before, said(opening)]

    async def ask(self, runs: Runs, reply: Message | None = None, **how: Any) -> Recognised:
        """One request; with a reply, it is answered and the client keeps the answer."""
        found = await runs.recognise(self.user, history(self.messages), **how)
        if reply is not None:
            await runs.answered(found, mark(reply))
            self.messages.append(reply)
        return found

    def say(self, *messages: Message) -> Conversation:
        """What the client adds."""
        self.messages += messages
        return self


# One worker.


async def test_a_conversation_is_one_run() -> None:
    """The first request opens it, and every other one is known by the history it brings along."""
    runs, talk = World().worker(), Conversation("hi")
    first = await talk.ask(runs, answer("Hello!"))
    assert (first.how, first.steps_before, first.name) == ("new", 0, "")
    talk.say(said("What is x?"))
    second = await talk.ask(runs, answer(None, ("c1", "search", '{"q": "x"}')))
    assert (second.how, second.run_id, second.steps_before) == ("chain", first.run_id, 1)
    talk.say(result("c1", "42"))
    third = await talk.ask(runs)
    assert (third.how, third.run_id, third.steps_before) == ("chain", first.run_id, 3)
    # The SDK tries again: still that run.
    assert (await talk.ask(runs)).run_id == first.run_id
    assert third.key == third.keys[-1]


async def test_equal_openings_are_two_runs() -> None:
    """The same question of the same user, asked twice, begins two conversations; each goes on with its own answer."""
    runs = World().worker()
    one, two = Conversation("hi"), Conversation("hi")
    first = await one.ask(runs, answer("Hello!"))
    second = await two.ask(runs, answer("Good morning!"))
    assert first.run_id != second.run_id
    assert (await one.say(said("a")).ask(runs)).run_id == first.run_id
    assert (await two.say(said("a")).ask(runs)).run_id == second.run_id


async def test_equal_answers_too_are_two_runs() -> None:
    """Where even the answers are equal, nobody can tell which is which, but two runs stay two."""
    runs = World().worker()
    talks = [Conversation("hi") for _ in range(3)]
    opened = {(await talk.ask(runs, answer("Hello!"))).run_id for talk in talks}
    assert len(opened) == 3
    for word in ("a", "b"):
        found = {(await talk.say(said(word)).ask(runs, answer("Well."))).run_id for talk in talks}
        assert found == opened


async def test_what_is_done_every_night_is_a_new_run_every_night() -> None:
    """Letter by letter the same conversation, an hour later, goes on with its own run."""
    world = World()
    runs, nights = world.worker(), []
    for _ in range(3):
        talk, found = Conversation("Do the reports."), []
        for number in range(4):
            found.append(await talk.ask(runs, answer(f"Report {number}.")))
            talk.say(said("Next."))
        assert len({each.run_id for each in found}) == 1
        nights.append(found[0].run_id)
        world.clock.advance(HOUR_MS)
    assert len(set(nights)) == 3


async def test_users_never_share_a_run() -> None:
    """The same conversation of two users, or of one in two organisations, is two runs."""
    runs = World().worker()
    talks = [Conversation("hi", user) for user in (ALICE, BOB, ACME)]
    opened = [(await talk.ask(runs, answer("Hello!", ("c1", "f", "{}")))).run_id for talk in talks]
    assert len(set(opened)) == 3
    # Only Alice had an answer with that call's id; what Bob sends he may have read over her shoulder.
    thief = Conversation("hi", Principal(user="eve", method="local"))
    found = await thief.say(answer("Hello!", ("c1", "f", "{}")), result("c1", "1")).ask(runs)
    assert (found.how, found.run_id in opened) == ("new", False)


async def test_forks_belong_to_the_run() -> None:
    """Two ways on from one answer, an edited question, and a way on from far back are all the same run."""
    runs, talk = World().worker(), Conversation("hi")
    run_id = (await talk.ask(runs, answer("Hello!"))).run_id
    for number in range(40):
        await talk.say(said(f"{number}?")).ask(runs, answer(f"{number}!"))
    for length in (2, 10, 80):
        for word in ("this way", "that way"):
            fork = Conversation("")
            fork.messages = [*talk.messages[:length], said(word)]
            assert (await fork.ask(runs)).run_id == run_id


async def test_an_answer_that_was_broken_off_or_changed_is_no_break() -> None:
    """The client keeps half of it, or its own form of it: the request that was answered is known all the same."""
    runs, talk = World().worker(), Conversation("hi")
    first = await talk.ask(runs)  # hung up: nobody saw the end of the answer
    talk.say(answer("Hello, my fr"), said("Stop! What is x?"))
    second = await talk.ask(runs, answer("<think>hm</think> 42"))
    assert (second.how, second.run_id) == ("chain", first.run_id)
    talk.messages[-1] = answer("42")
    assert (await talk.say(said("Thanks")).ask(runs)).run_id == first.run_id


async def test_the_beginning_of_an_answer_may_be_given() -> None:
    """A last message of the assistant is for the model to go on with, and no answer of it."""
    runs, talk = World().worker(), Conversation("hi")
    first = await talk.ask(runs, answer("Hello!"))
    talk.say(said("As JSON."), answer("{"))
    assert (await talk.ask(runs)).run_id == first.run_id


async def test_pruned_histories_are_known_by_their_tool_calls() -> None:
    """A client that forgets the beginning still sends the ids of the last calls."""
    world = World()
    runs, talk = world.worker(), Conversation("Find x.")
    first = await talk.ask(runs, answer(None, ("call_0", "search", '{"page": 0}')))
    for page in range(1, 6):
        talk.say(result(f"call_{page - 1}", "nothing"))
        await talk.ask(runs, answer(None, (f"call_{page}", "search", f'{{"page": {page}}}')))
    talk.say(result("call_5", "nothing"))
    pruned = Conversation("")
    pruned.messages = [said("(shortened)"), *talk.messages[-4:]]
    found = await pruned.ask(runs, answer(None, ("call_6", "search", '{"page": 6}')))
    assert (found.how, found.run_id) == ("tool_call", first.run_id)
    other = await Conversation("Go on.", ALICE, *pruned.messages[2:]).ask(world.worker())
    assert (other.how, other.run_id) == ("tool_call", first.run_id)


async def test_ids_that_every_conversation_has_are_no_sign() -> None:
    """Some servers number the calls of each answer from 0."""
    runs = World().worker()
    await Conversation("Find x.").ask(runs, answer(None, ("call_0", "search", '{"q": "x"}')))
    talk = Conversation("Find y.", ALICE, said("hm"), answer(None, ("call_0", "search", '{"q": "y"}')))
    assert (await talk.ask(runs)).how == "new"


async def test_examples_before_the_question_are_no_conversation() -> None:
    """Every question begins with the same turns of user and assistant: each is a run, and none of its steps is old."""
    world = World()
    runs = world.worker()
    shots = [said("2+2?"), answer("4"), said("3+3?"), answer("6")]
    talks = [Conversation("7+7?", ALICE, *shots) for _ in range(3)]
    found = [await talk.ask(runs, answer("14")) for talk in talks]
    assert {(each.how, each.steps_before) for each in found} == {("new", 0)}
    assert len({each.run_id for each in found}) == 3
    assert world.counting.asked.count("get") == 2 + 2  # the examples once, and what two equal answers share
    again = await talks[0].say(said("8+8?")).ask(runs)
    assert again.run_id in {each.run_id for each in found}
    assert again.steps_before == 1


async def test_what_has_no_history_is_never_known() -> None:
    """Embeddings, and conversations that begin with an answer, do not meet in the empty history."""
    runs = World().worker()
    found = [await runs.recognise(ALICE, None) for _ in range(3)]
    assert len({each.run_id for each in found}) == 3
    assert len(runs) == 0
    pruned = await Conversation("hi", ALICE, answer("So far so good.")).ask(runs)
    assert pruned.how == "new"


# The header.


async def test_the_header_names_the_run() -> None:
    """All requests of a user with it are one run; the same word of another user is another run."""
    world = World()
    one, two = world.worker(), world.worker()
    found = [
        await Conversation("a").ask(one, answer("A"), header="nightly-7"),
        await Conversation("b").ask(two, header="nightly-7"),
    ]
    assert {(each.how, each.name) for each in found} == {("header", "nightly-7")}
    assert len({each.run_id for each in found}) == 1
    others = [await Conversation("a", user).ask(one, header="nightly-7") for user in (BOB, ACME)]
    others.append(await Conversation("a").ask(one, header="nightly-8"))
    assert len({each.run_id for each in (found[0], *others)}) == 4
    # The id of a run is no word that leads into it.
    assert (await Conversation("a").ask(one, header=found[0].run_id)).run_id != found[0].run_id
    assert world.counting.asked == []


@pytest.mark.parametrize("header", ["", " ", "a b", "ä", "x" * 129, "../x", "-x", "a\n", "a:b"])
async def test_a_header_that_is_no_identifier_is_refused(header: str) -> None:
    """Nothing of it is told back, and nothing is remembered."""
    runs = World().worker()
    with pytest.raises(BadRequest) as caught:
        await Conversation("hi").ask(runs, header=header)
    assert caught.value.reason == "invalid_run"
    assert not header.strip() or header not in str(caught.value)
    assert len(runs) == 0


# Responses.


def response(number: int, *, store: bool = True) -> AnswerMark:
    found = mark_of(RESPONSES, {"id": f"resp_{number}", "store": store, "output": [
        {"type": "function_call", "call_id": f"c{number}", "name": "f", "arguments": "{}"},
    ]})  # fmt: skip
    assert found is not None
    return found


async def test_a_response_goes_on_from_the_one_it_names() -> None:
    """In any process; only the new items are sent, and the steps are still known."""
    world = World()
    found = await world.worker().recognise(ALICE, history_of(RESPONSES, {"input": "hi"}))
    run_id, workers = found.run_id, [world.worker(), world.worker()]
    await workers[0].answered(found, response(0))
    for number in range(1, 4):
        items = [{"type": "function_call_output", "call_id": f"c{number - 1}", "output": "1"}]
        runs = workers[number % 2]
        found = await runs.recognise(ALICE, history_of(RESPONSES, {"input": items}), previous_id=f"resp_{number - 1}")
        assert (found.how, found.run_id, found.steps_before) == ("response", run_id, 2 * number)
        await runs.answered(found, response(number))
    stranger = await workers[0].recognise(BOB, history_of(RESPONSES, {"input": "x"}), previous_id="resp_3")
    assert (stranger.how, stranger.run_id != run_id) == ("derived", True)


async def test_a_response_that_nobody_knows_is_one_run_in_every_process() -> None:
    """It was given before, or elsewhere; its id is as good a name as any."""
    world = World()
    asked = history_of(RESPONSES, {"input": "x"})
    found = [await world.worker().recognise(ALICE, asked, previous_id="resp_9") for _ in range(2)]
    assert found[0].how == "derived"
    assert found[0].run_id == found[1].run_id
    assert found[0].keys == found[1].keys


@pytest.mark.parametrize("header", [None, "nightly"])
@pytest.mark.parametrize(
    "tools", [{}, {"f": ToolRule(poll=True)}, {"f": ToolRule(loop_key=lambda _: 0)}], ids=["", "poll", "key"]
)
async def test_a_loop_is_found_though_every_answer_is_named_in_another_process(
    header: str | None, tools: dict[str, ToolRule]
) -> None:
    """What the detector knows goes along with the answers' names, without anything that was said."""
    world = World()
    workers = [(world.worker(), LoopCheck(tools=tools)) for _ in range(3)]
    asked, previous, stopped = history_of(RESPONSES, {"input": "My password is swordfish."}), None, 0
    for number in range(7):
        runs, loops = workers[number % 3]
        found = await runs.recognise(ALICE, asked, header=header, previous_id=previous)
        if found.heard is not None:
            loops.recall(found.keys[0], found.heard)
        if loops.check(found.keys, asked, named=previous is not None) is not None:
            stopped = number
            break
        call = {"type": "function_call", "call_id": f"c{number}", "name": "f", "arguments": '{"token": "swordfish"}'}
        told = mark_of(RESPONSES, {"id": f"resp_{number}", "output": [call]})
        assert told is not None
        await runs.answered(found, told, heard=loops.answered(found.keys, told))
        previous = f"resp_{number}"
        items = [{"type": "function_call_output", "call_id": f"c{number}", "output": "Error: swordfish"}]
        asked = history_of(RESPONSES, {"input": items})
    assert stopped == (0 if tools else 5)
    assert not any(b"swordfish" in document.data for document in world.documents.find(KIND, "alice"))


def test_what_another_process_wrote_may_be_damaged() -> None:
    """It is passed over, and told."""
    told: list[str] = []
    check = LoopCheck(failed=told.append)
    for text in ("", "[]", "{}", "[1, 2, 3]", '[{"version": 0}, [0, 0, 0, ""], []]'):
        check.recall(b"key", text)
    assert len(told) == 5
    assert b"key" not in check._kept


async def test_without_documents_memory_has_to_do() -> None:
    """One process knows what it has served; another one begins anew."""
    runs, talk = Runs(None, clock=ManualClock(), new_id=lambda _: "r"), Conversation("hi")
    await talk.ask(runs, answer("Hello!"))
    assert (await talk.say(said("x")).ask(runs)).how == "chain"
    assert (await talk.ask(Runs(None, clock=ManualClock(), new_id=lambda _: "r"))).how == "new"
    runs.close()


async def test_a_response_with_all_its_items_is_known_as_well() -> None:
    """Clients may send everything again instead of a name."""
    world = World()
    found = await world.worker().recognise(ALICE, history_of(RESPONSES, {"input": "hi"}))
    await world.worker().answered(found, response(0))
    items = [
        {"role": "user", "content": "hi"},
        {"type": "function_call", "call_id": "c0", "name": "f", "arguments": "{}", "id": "fc_1", "status": "completed"},
        {"type": "function_call_output", "call_id": "c0", "output": "1"},
    ]
    again = await world.worker().recognise(ALICE, history_of(RESPONSES, {"input": items}))
    assert (again.how, again.run_id) == ("chain", found.run_id)


# Several workers.


@pytest.mark.parametrize("kind", ["memory", "sqlite", "remote"])
async def test_every_worker_knows_the_conversation(kind: str, tmp_path: Path) -> None:
    """Each request goes to another process, each of them started anew."""
    counting = Documents(remote=kind == "remote")
    documents: DocumentStore = counting
    if kind == "sqlite":
        documents = SQLiteDocuments(tmp_path / "notes.db", synchronous="NORMAL", clock=ManualClock())
    world, talk = World(documents), Conversation("hi")
    workers = [world.worker() for _ in range(6)]
    first = await talk.ask(workers[0], answer("Hello!"))
    for number, runs in enumerate(workers[1:], start=1):
        talk.say(said("Go on."))
        found = await talk.ask(runs, answer(None, (f"c{number}", "f", "{}")))
        assert (found.how, found.run_id, found.steps_before) == ("chain", first.run_id, 2 * number - 1)
        talk.say(result(f"c{number}", "1"))
    if kind == "remote":
        assert counting.threads
        assert all(name.startswith("runrails-gateway-runs") for name in counting.threads)
    assert not world.events
    for runs in workers:
        runs.close()
        runs.close()
    documents.close()


async def test_equal_conversations_on_two_workers_stay_two() -> None:
    """Whoever reads a name that stands for two runs takes one, and the next takes the other."""
    world = World()
    talks = [Conversation("hi"), Conversation("hi")]
    opened = {(await talk.ask(world.worker(), answer("Hello!"))).run_id for talk in talks}
    found = {(await talk.say(said("x")).ask(world.worker())).run_id for talk in talks}
    assert (len(opened), found) == (2, opened)


async def test_nothing_is_known_after_a_day() -> None:
    """Neither in memory nor in documents, and both forget it."""
    world = World(ttl_ms=HOUR_MS)
    runs, talk = world.worker(), Conversation("hi")
    first = await talk.ask(runs, answer("Hello!"))
    talk.say(said("x"))
    world.clock.advance(HOUR_MS - 1)
    assert (await talk.ask(world.worker())).run_id == first.run_id
    world.clock.advance(1)
    for worker in (runs, world.worker()):
        found = await talk.ask(worker)
        assert (found.how, found.run_id == first.run_id) == ("new", False)


async def test_an_answer_costs_one_small_document() -> None:
    """One write each, none to be read by the worker that wrote it, and nothing of the conversation in it."""
    world = World()
    runs, talk = world.worker(), Conversation("My password is swordfish.")
    for number in range(5):
        await talk.ask(runs, answer(f"secret answer {number}", (f"c{number}", "f", '{"token": "swordfish"}')))
        talk.say(result(f"c{number}", "swordfish"))
    assert world.counting.asked == ["put"] * 5
    for document in world.documents.find(KIND, "alice"):
        assert len(document.data) < 200
        assert not any(word in document.data for word in (b"swordfish", b"secret", b"token"))
        assert document.expires_ms == world.clock() + 24 * HOUR_MS


# Trouble.


async def test_documents_that_are_away_stop_nobody() -> None:
    """Memory goes on; a conversation of another worker has the same run everywhere; it is told once, and once again."""
    world, talk = World(), Conversation("hi")
    runs = world.worker()
    first = await talk.ask(runs, answer("Hello!"))
    world.counting.away = True
    second = await talk.say(said("x")).ask(runs, answer("y"))
    assert second.run_id == first.run_id
    strange = [await talk.say(said("z")).ask(world.worker()) for _ in range(2)]
    assert {each.how for each in strange} == {"derived"}
    assert len({each.run_id for each in strange}) == 1
    bob = Conversation("hi", BOB, *talk.messages)
    assert (await bob.ask(world.worker())).run_id != strange[0].run_id
    # For a while they are not even asked.
    asked = len(world.counting.asked)
    for number in range(5):
        await Conversation(f"{number}").ask(runs, answer("x"))
    assert len(world.counting.asked) == asked
    world.counting.away = False
    world.clock.advance(REST_MS)
    third = await Conversation("new").ask(runs, answer("x"))
    assert third.how == "new"
    names = [event.name for event in world.events]
    assert names.count("runrails.recognition_restored") == 1
    assert names.count("runrails.recognition_degraded") == 1 + 3  # each worker of its own


async def test_damaged_documents_are_nobodys() -> None:
    """What somebody else has written there is passed over, and written anew."""
    world, talk = World(), Conversation("hi")
    first = await talk.ask(world.worker(), answer("Hello!"))
    (document,) = world.documents.find(KIND, "alice")
    for data in (b"", b"\xff", b"{}", b'[["x"]]', b'[[1, 2, "x", "zz", 3, 4]]', b"null"):
        known = world.counting.inner.get(document.address)
        assert known is not None
        world.counting.inner.put(document.address, data, expected=known.version)
        found = await Conversation("x", ALICE, *talk.messages).ask(world.worker(), None)
        assert (found.how, found.run_id == first.run_id) == ("new", False)
    again = Conversation("hi")
    await again.ask(world.worker(), answer("Hello!"))
    assert (await again.say(said("x")).ask(world.worker())).how == "chain"


async def test_a_locked_file_stops_nobody(tmp_path: Path) -> None:
    """Another process holds the file for longer than anybody waits."""
    documents = SQLiteDocuments(tmp_path / "notes.db", busy_timeout_ms=10)
    world, talk = World(documents), Conversation("hi")
    runs = world.worker()
    holder = sqlite3.connect(tmp_path / "notes.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    first = await talk.ask(runs, answer("Hello!"))
    assert (await talk.say(said("x")).ask(runs)).run_id == first.run_id
    holder.execute("ROLLBACK")
    holder.close()
    assert [event.name for event in world.events] == ["runrails.recognition_degraded"]
    documents.close()


async def test_a_request_that_is_given_up_leaves_nothing_half_written() -> None:
    """A cancelled task waits no longer, and the document is written all the same."""
    documents = Documents(remote=True)
    world, talk = World(documents), Conversation("hi")
    runs = world.worker()
    found = await talk.ask(runs)
    task = asyncio.ensure_future(runs.answered(found, mark(answer("Hello!"))))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    talk.say(answer("Hello!"), said("x"))
    runs.close()
    while not list(documents.find(KIND, "alice")):  # noqa: ASYNC110 -- a thread writes it, which tells nobody
        await asyncio.sleep(0)
    assert (await talk.ask(world.worker())).run_id == found.run_id


async def test_memory_is_bounded() -> None:
    """However many conversations and names of one there are."""
    world = World(kept_max=50)
    runs = world.worker()
    for number in range(300):
        talk = Conversation(f"{number}")
        for turn in range(3):
            calls = [(f"c{number}-{turn}-{place}", "f", "{}") for place in range(20)]
            await talk.ask(runs, answer(None, *calls))
            talk.say(*[result(call[0], "x") for call in calls])
    places = runs._places
    assert len(runs) <= 50
    assert places.names <= 50 * 4 + 24
    assert places.names == len({name for seen in places._runs.values() for name in seen.names})
    long = Conversation("long")
    for number in range(200):
        await long.ask(runs, answer(f"{number}!"))
        long.say(said(f"{number}?"))
    seen = places.run((await long.ask(runs)).run_id)
    assert seen is not None
    assert len(seen.names) <= 26


async def test_requests_at_once_leave_nothing_behind() -> None:
    """More of them are under way than runs are remembered, and all are answered late."""
    world = World(Documents(remote=True), kept_max=3)
    runs = world.worker()

    async def converse(number: int) -> None:
        talk = Conversation(f"{number % 5}")
        for turn in range(4):
            found = await talk.ask(runs)
            await asyncio.sleep(0)
            reply = answer(f"{number} {turn}", (f"c{number % 7}", "f", "{}"))
            await runs.answered(found, mark(reply))
            talk.say(reply, result(f"c{number % 7}", "x"))

    await asyncio.gather(*[converse(number) for number in range(40)])
    places = runs._places
    assert len(runs) <= 3
    assert set(places._places) == {name for seen in places._runs.values() for name in seen.names}
    assert all(places._runs.get(place.seen.id) is place.seen for known in places._places.values() for place in known)
    runs.close()


async def test_names_are_identifiers() -> None:
    """Whatever way a run was found, its id names money."""
    world = World()
    runs, talk = world.worker(), Conversation("hi")
    found = [await talk.ask(runs, answer("x")), await talk.ask(runs, header="A.b_c@d+e=f-g")]
    found.append(await runs.recognise(ALICE, history(failing(2)), previous_id="resp /\n ü"))
    world.counting.away = True
    found.append(await Conversation("y", ALICE, said("a"), answer("b")).ask(world.worker()))
    assert [each.how for each in found] == ["new", "header", "derived", "derived"]
    for each in found:
        check_id(each.run_id, what="A run")


USERS = (ALICE, BOB, ACME)
MOVE = st.tuples(
    st.integers(0, 4), st.integers(0, 2),
    st.sampled_from(["open", "ask", "fork", "prune", "away", "restart", "header"]),
    st.sampled_from(["Hello!", "Well.", "calls"]),
)  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(st.lists(MOVE, min_size=1, max_size=30), st.integers(1, 4))
def test_nobody_ever_gets_into_somebody_elses_run(moves: list[Any], kept_max: int) -> None:
    """Whatever users do, on three workers that forget, fail and are started anew: no run has two of them."""

    async def play() -> None:
        world = World(kept_max=kept_max)
        workers = [world.worker() for _ in range(3)]
        talks = [Conversation("hi", USERS[number % 3]) for number in range(5)]
        owners: dict[str, Principal] = {}
        for number, (which, worker, kind, said_back) in enumerate(moves):
            talk, header = talks[which], "nightly" if kind == "header" else None
            if kind == "open":
                talk.messages = [said("hi")]
            elif kind == "fork":
                # With the words of somebody else's conversation.
                talk.messages = [*talks[(which + 1) % 5].messages[:-1], said("go on")]
            elif kind == "prune":
                talk.messages = talk.messages[-3:]
            elif kind == "restart":
                workers[worker] = world.worker()
            world.counting.away = kind == "away"
            calls = [(f"call_{number % 2}", "f", "{}")] if said_back == "calls" else []
            found = await talk.ask(workers[worker], answer(said_back, *calls), header=header)
            assert owners.setdefault(found.run_id, talk.user) == talk.user
            talk.say(*[result(call[0], "x") for call in calls], said("go on"))
            world.clock.advance(REST_MS)

    asyncio.run(play())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.booleans()), min_size=1, max_size=30))
def test_with_answers_of_their_own_conversations_keep_their_runs(moves: list[Any]) -> None:
    """However requests are spread over workers that are started anew, and whatever the openings have in common."""

    async def play() -> None:
        world = World()
        workers = [world.worker() for _ in range(3)]
        talks = [Conversation("hi", USERS[number % 2]) for number in range(5)]
        runs: dict[int, str] = {}
        for number, (which, worker, restarted) in enumerate(moves):
            if restarted:
                workers[worker] = world.worker()
            found = await talks[which].ask(workers[worker], answer(f"Answer {number}"))
            assert runs.setdefault(which, found.run_id) == found.run_id
            talks[which].say(said("go on"))
        assert len(set(runs.values())) == len(runs)

    asyncio.run(play())
