"""The fake provider as a server: speed, stories, several processes, what it keeps and what it lets go."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

import runrails
from rr_fake_provider import PLAIN, price
from runrails.testing.provider import (
    FakeProvider,
    ProviderMessage,
    ProviderRequest,
    Text,
    ToolCalls,
    looks_empty,
    never_gives_up,
    repeating,
    until_morning,
    works_through,
)
from runrails.testing.provider.bill import generated
from runrails.usage import Usage

ASK = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]})


def post(connection: http.client.HTTPConnection, path: str = "/v1/chat/completions", body: str = ASK):
    connection.request("POST", path, body, {"content-type": "application/json"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


@pytest.mark.parametrize("body", ["", "not json", "[]", "\udce9"])
def test_bodies_that_are_no_object_are_refused(body):
    """Malformed bodies get a 400 in the wire's shape; the connection lives on; nothing is billed."""
    with FakeProvider() as provider:
        connection = http.client.HTTPConnection(provider.url.removeprefix("http://"))
        status, answer = post(connection, body=body.encode("utf-8", "surrogateescape"))
        good, _ = post(connection)
        connection.close()
    assert (status, list(answer), good) == (400, ["error"], 200)
    assert [call.number for call in provider.bill] == [2]


def test_bodies_may_come_in_chunks():
    """Proxies pass bodies on without a length."""
    with FakeProvider() as provider:
        connection = http.client.HTTPConnection(provider.url.removeprefix("http://"))
        half = len(ASK) // 2
        pieces = [ASK[:half].encode(), ASK[half:].encode()]
        connection.request("POST", "/v1/chat/completions", iter(pieces), {"content-type": "application/json"})
        answer = connection.getresponse()
        said = json.loads(answer.read())["choices"][0]["message"]["content"]
        again, _ = post(connection)
        connection.close()
    assert (said, again) == ("hi", 200)


@pytest.mark.parametrize("length", ["-1", "x", "999999999999"])
def test_bodies_of_absurd_length_are_refused(length):
    """A length that cannot be is refused without reading it, and the connection ends."""
    with FakeProvider() as provider:
        connection = http.client.HTTPConnection(provider.url.removeprefix("http://"))
        connection.request("POST", "/v1/chat/completions", b"", {"content-length": length})
        answer = connection.getresponse()
        answer.read()
        connection.close()
    assert (answer.status, len(provider.bill)) == (413, 0)


def test_starting_twice_is_an_error():
    """A provider serves once."""
    with FakeProvider() as provider:
        with pytest.raises(RuntimeError, match="another one"):
            provider.start()
    provider.close()


def test_waiting_in_vain_is_a_timeout():
    """A wait for what does not come ends."""
    with FakeProvider() as provider:
        with pytest.raises(TimeoutError):
            provider.wait_received(1, timeout_s=0.01)
        provider.wait_idle(timeout_s=0.01)


@pytest.mark.parametrize("script", [3, {"m": 3}])
def test_scripts_of_a_wrong_type_are_refused(script):
    """What is no script says so before anything is served."""
    with pytest.raises(TypeError, match="A script is"):
        FakeProvider(script)


def test_empty_stories_are_refused():
    """A story needs something to tell."""
    with pytest.raises(ValueError, match="at least one"):
        repeating()
    with pytest.raises(ValueError, match="at least one"):
        works_through("tool", [])


def test_900_calls_in_a_row_and_64_clients_at_once():
    """Keep-alive and no delayed packets: with those, of 40 ms each, 900 calls would take twice as long as they may."""
    with FakeProvider(Text("ok", usage=PLAIN), price_pusd=price) as provider:
        connection = http.client.HTTPConnection(provider.url.removeprefix("http://"))
        started = time.perf_counter()
        for _ in range(900):
            post(connection)
        elapsed_s = time.perf_counter() - started
        connection.close()

        def client():
            own = http.client.HTTPConnection(provider.url.removeprefix("http://"))
            for _ in range(5):
                post(own)
            own.close()

        clients = [threading.Thread(target=client) for _ in range(64)]
        for each in clients:
            each.start()
        for each in clients:
            each.join()
    assert elapsed_s < 900 * 0.04 / 2
    assert (len(provider.bill), provider.bill.total_pusd()) == (1220, 1220 * 6_500)
    assert sorted(call.number for call in provider.bill) == list(range(1, 1221))


def test_idle_connections_do_not_keep_it_open():
    """Closing takes no longer for clients that never hang up."""
    with FakeProvider() as provider:
        connections = [http.client.HTTPConnection(provider.url.removeprefix("http://")) for _ in range(20)]
        for connection in connections:
            post(connection)
        started = time.perf_counter()
    elapsed_s = time.perf_counter() - started
    for connection in connections:
        connection.close()
    assert elapsed_s < 20


def test_bills_by_any_price():
    """The total can be asked for by a function or by a mapping of cards; an unknown model is a KeyError."""
    with FakeProvider(Text("ok", usage=PLAIN), price_pusd=price) as provider:
        connection = http.client.HTTPConnection(provider.url.removeprefix("http://"))
        post(connection)
        connection.close()
    bill = provider.bill
    assert (bill.total_pusd(), bill.total_pusd(lambda model, usage: usage.input_tokens)) == (6_500, 1000)
    assert bill.total_pusd({"m": lambda usage: usage.output_tokens}) == 500
    assert bill.total_tokens() == (1000, 500)
    with pytest.raises(KeyError):
        bill.total_pusd({})


def test_default_price_is_the_written_card():
    """Without a price function the fake models' cards are used, then the shipped prices."""
    body = json.dumps({"model": "fake-flat", "messages": [{"role": "user", "content": "hi"}]})
    with FakeProvider() as provider:
        connection = http.client.HTTPConnection(provider.url.removeprefix("http://"))
        post(connection, body=body)
        post(connection, body=body)
        connection.close()
    assert provider.bill.total_pusd() == 2 * 10**10


@pytest.mark.parametrize(("sent", "output"), [(0, 10), (1, 40), (2, 70), (3, 100)])
def test_generated_usage_is_never_short(sent, output):
    """Input and hidden reasoning count at once, the rest piece by piece, rounded up."""
    usage = Usage(input_tokens=5, output_tokens=100, reasoning_tokens=10)
    assert generated(usage, sent, 3) == Usage(input_tokens=5, output_tokens=output, reasoning_tokens=10)


# Stories


@pytest.mark.parametrize("text", ["", " \n", "null", "None", "[]", "{}", '""', "Classification failed - no result"])
def test_empty_results(text):
    """What says nothing is worth another try, in the eyes of the agent."""
    assert looks_empty(text)


@pytest.mark.parametrize("text", ["positive", "0", "[1]", "result: negative", "noresults"])
def test_results_that_say_something(text):
    """What says something is not."""
    assert not looks_empty(text)


def play(script, tool, limit=2000):
    """Drive a script as an agent with a short memory would; (texts, calls, last answer)."""
    asked = ProviderRequest(
        wire="openai_chat", path="", number=1, model="m", messages=(ProviderMessage(role="user", text="go"),)
    )
    texts, calls = [], []
    for number in range(2, limit):
        answer = script(asked)
        if not isinstance(answer, ToolCalls):
            return texts, calls, answer
        (use,) = answer.calls
        texts.append(answer.text)
        calls.append((use.name, use.args, use.id))
        result = ProviderMessage(role="tool", text=tool(use.args), tool_call_id=use.id)
        asked = ProviderRequest(wire="openai_chat", path="", number=number, model="m", messages=(result,))
    return texts, calls, None


def test_until_morning_retries_891_times():
    """891 failing calls with equal arguments and changing words, then a last answer."""
    texts, calls, last = play(until_morning("classify", {"text": "bonjour"}), lambda args: "")
    assert (len(calls), len({(call[0], str(call[1])) for call in calls})) == (891, 1)
    assert len({call[2] for call in calls}) == 891
    assert len(set(texts)) == 7
    assert all(before != after for before, after in pairwise(texts))
    assert isinstance(last, Text)


def test_never_gives_up_while_the_result_is_empty():
    """There is no end to it, unless something comes back."""
    _, calls, last = play(never_gives_up("classify", {}), lambda args: "", limit=1500)
    _, once, done = play(never_gives_up("classify", {}), lambda args: "positive")
    assert (len(calls), last, len(once), done) == (1498, None, 1, Text("All done."))


def test_works_through_goes_on_after_a_result():
    """Each piece of work gets its result before the next; failures add up over all of them."""
    work = [{"text": "good"}, {"text": "bonjour"}, {"text": "bad"}]
    script = works_through("classify", work, retries_max=3)
    _, calls, last = play(script, lambda args: "" if args["text"] == "bonjour" else "ok")
    assert [call[1]["text"] for call in calls] == ["good", "bonjour", "bonjour", "bonjour"]
    assert last == Text("Good morning. I could not finish the work.")


# As a process


def test_as_a_process():
    """It prints its address, serves other processes, shows its bill, and ends with its standard input."""
    root = str(Path(runrails.__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "runrails.testing.provider", "--script", "founding", "--delay-ms", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    with process:
        told = json.loads(process.stdout.readline())
        connection = http.client.HTTPConnection(told["url"].removeprefix("http://"))
        body = json.dumps({"model": "fake-flat", "messages": [{"role": "user", "content": "hi"}]})
        _, answer = post(connection, body=body)
        connection.request("GET", "/fake/bill")
        bill = json.loads(connection.getresponse().read())
        connection.close()
        process.stdin.close()
        assert process.wait(timeout=10) == 0
        assert process.stderr.read() == ""
    assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "classify_review"
    assert (bill["calls"], bill["total_pusd"], bill["ends"]["completed"]) == (1, 10**10, 1)
