"""Notifications: sent in the background, tried again, counted, and never in anybody's way."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from asyncio import CancelledError
from base64 import b64decode, b64encode
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from rr_core import Bench, model_step
from rr_ledger import START_MS
from rr_notify import receiving, warned
from rr_struck import struck
from runrails import ConfigError, Guard, Limits, Price
from runrails.deliveries import Delivered
from runrails.events import Event
from runrails.notify import Notice, Notifier, SendFailed, SlackWebhook, Webhook
from runrails.notify.webhook import sign
from runrails.stores.memory import MemoryStore
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock
from runrails_aws.notify import SNSSender

KEY = bytes(range(32))
SECRET = "whsec_" + b64encode(KEY).decode()
PATH = "/hook/T0P/S3CR3T?x=1"


class Flaky:
    """A sender that fails as often as it is told, and keeps what it was given."""

    name = "flaky"

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.tried: list[Notice] = []

    def send(self, notice: Notice) -> None:
        self.tried.append(notice)
        if self.errors:
            raise self.errors.pop(0)


class Stuck:
    """A sender that hangs until it is let go."""

    name = "stuck"

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go = threading.Event()

    def send(self, notice: Notice) -> None:
        self.entered.set()
        self.go.wait(30)


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    """Let go at the end."""
    sender = Stuck()
    yield sender
    sender.go.set()


def test_a_webhook_is_signed_so_that_the_receiver_can_tell() -> None:
    """Id, time and body are under the signature, as Standard Webhooks has it; the body tells amounts in dollars too."""
    with receiving() as receiver:
        sender = Webhook(receiver.url + PATH, secret=SECRET, clock=ManualClock(START_MS + 999))
        sender.send(Notice("n-1", START_MS, warned()))

    (got,) = receiver.received
    assert (PATH, "n-1", str(START_MS // 1_000), "application/json") == (
        got.path, got.headers["webhook-id"], got.headers["webhook-timestamp"], got.headers["content-type"],
    )  # fmt: skip
    assert got.headers["webhook-signature"] == sign(KEY, "n-1", START_MS // 1_000, got.body)
    data = got.json()["data"]
    assert isinstance(data, dict)
    assert ("runrails.budget_warned", "2026-11-18T11:06:40.000Z") == (got.json()["type"], got.json()["timestamp"])
    assert ("user:alice", 8 * 10**12, "8.00", "10.00") == (
        data["scope"], data["spent"], data["spent_usd"], data["limit_usd"],
    )  # fmt: skip


def test_the_signature_is_the_specifications_own_example() -> None:
    """The vector that its reference libraries are tested with."""
    key = b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'

    assert "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" == sign(
        key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body
    )


def test_slack_gets_the_text_with_its_three_letters_escaped() -> None:
    """A person reads it; nothing in it is taken for a link or a mention."""
    with receiving() as receiver:
        SlackWebhook(receiver.url + PATH).send(Notice("n-1", START_MS, warned(message="<!channel> & co")))

    assert {"text": "&lt;!channel&gt; &amp; co"} == receiver.received[0].json()


@pytest.mark.parametrize(
    ("status", "again"),
    [(301, False), (307, False), (400, False), (404, False), (410, False), (429, True), (503, True)],
)
def test_only_what_may_help_is_tried_again(status: int, again: bool) -> None:
    """No redirect is followed: it is an answer like another, and no success."""
    with receiving(status, headers={"location": "/elsewhere", "retry-after": "7"}) as receiver:
        with pytest.raises(SendFailed) as caught:
            SlackWebhook(receiver.url).send(Notice("n-1", START_MS, warned()))

    assert (f"HTTP {status}", again, 7.0) == (caught.value.reason, caught.value.again, caught.value.wait_s)
    assert ["/"] == [got.path for got in receiver.received]


def test_who_does_not_answer_is_left_after_the_timeout() -> None:
    """A receiver that takes the connection and says nothing, and one that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(SendFailed, match="timeout"):
            SlackWebhook(url, timeout_s=0.05).send(Notice("n-1", START_MS, warned()))
    with pytest.raises(SendFailed, match="ConnectionRefusedError"):
        SlackWebhook(url, timeout_s=1).send(Notice("n-1", START_MS, warned()))


@pytest.mark.parametrize(
    "url",
    [
        "", "hooks.example.com/x", "ftp://hooks.example.com/s3cr3t", "https://", "https:///s3cr3t", "http://[::1",
        "https://bob:s3cr3t@hooks.example.com/", "https://hooks.example.com/s3cr3t here", "https://h:99999/s3cr3t",
        "https://hooks.example.com/s3cr3t\r\nx: y", "https://hööks.example.com/s3cr3t", "http://hooks.example.com/s3cr3t",
        "http://10.0.0.1/s3cr3t", "http://127.0.0.1.example.com/s3cr3t",
    ],
)  # fmt: skip
def test_an_address_that_will_not_do_is_refused_and_not_shown(url: str) -> None:
    """No http beyond this machine, no credentials, no other scheme; the path may be a secret."""
    with pytest.raises(ConfigError) as caught:
        SlackWebhook(url)

    assert "s3cr3t" not in str(caught.value) + repr(caught.value.as_dict())


@pytest.mark.parametrize(
    "url", ["https://hooks.example.com", "http://localhost:1/x", "http://[::1]:80/", "http://127.9.9.9/"]
)
def test_addresses_that_will_do(url: str) -> None:
    """Https anywhere, http on this machine."""
    assert "S3CR3T" not in repr(SlackWebhook(f"{url}?S3CR3T"))


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", "not base64!", "whsec_" + "A" * 96])
def test_a_weak_secret_is_refused_and_not_shown(secret: str) -> None:
    """24 to 64 bytes; the message says how to make one."""
    with pytest.raises(ConfigError, match="token_bytes") as caught:
        Webhook("https://hooks.example.com", secret=secret)

    assert len(secret) < 8 or secret not in repr(caught.value.as_dict())


def test_secrets_are_in_no_repr_and_no_name() -> None:
    """Neither the address's path nor the signing secret."""
    webhook, slack = (
        Webhook(f"https://hooks.example.com{PATH}", secret=SECRET),
        SlackWebhook(f"https://s.example{PATH}"),
    )
    shown = " ".join([repr(webhook), repr(slack), webhook.name, slack.name, repr(vars(slack))])

    assert "S3CR3T" not in shown and SECRET not in shown
    assert ("webhook hooks.example.com", "slack s.example") == (webhook.name, slack.name)


def test_what_fails_is_tried_again_with_the_same_id() -> None:
    """Growing pauses with jitter, never shorter than the receiver asked for."""
    sender, pauses = Flaky(SendFailed("HTTP 503"), OSError("s3cr3t"), SendFailed("HTTP 429", wait_s=9)), list[float]()
    notifier = Notifier(sender, pause=pauses.append)
    notifier(warned())

    assert notifier.flush()
    assert {"flaky": Delivered(sent=1)} == notifier.counts()
    assert (4, 1) == (len(sender.tried), len({notice.id for notice in sender.tried}))
    assert pauses[0] <= 0.5 and pauses[1] <= 1.0 and pauses[2] >= 9


@pytest.mark.parametrize(
    ("errors", "tried", "reason"),
    [
        ([SendFailed("HTTP 503")] * 9, 5, "HTTP 503"),
        ([SendFailed("HTTP 404", again=False)], 1, "HTTP 404"),
        ([ZeroDivisionError("s3cr3t")] * 9, 5, "ZeroDivisionError"),
    ],
)
def test_what_does_not_get_through_is_given_up_and_said(
    errors: list[Exception], tried: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the sender and the error's class, not its text; the next notice is sent."""
    sender = Flaky(*errors)
    notifier = Notifier(sender, pause=lambda _: None)
    notifier(warned())
    notifier.flush()
    sender.errors.clear()
    notifier(warned())
    notifier.flush()

    assert tried + 1 == len(sender.tried)
    assert {"flaky": Delivered(sent=1, failed=1, error=reason)} == notifier.counts()
    assert "runrails.notification_failed" in caplog.text and reason in caplog.text
    assert "s3cr3t" not in caplog.text


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [CancelledError("s3cr3t"), SystemExit(3), KeyboardInterrupt()])
def test_no_error_ends_the_thread_that_sends(error: BaseException) -> None:
    """A function may meet a cancelled future, or call what exits: the next notice is sent all the same."""
    sender = Flaky(error)
    notifier = Notifier(sender, pause=lambda _: None)
    notifier(warned())
    assert notifier.flush()
    notifier(warned())

    assert notifier.flush()
    assert {"flaky": Delivered(sent=1, failed=1, error=type(error).__name__)} == notifier.counts()


def test_a_store_that_cannot_keep_it_ends_no_thread_either() -> None:
    """Whatever it raises: what became of notices is told with the next one."""

    class Books(MemoryStore):
        def note_delivery(self, sender: str, what: Delivered) -> None:
            if broken:
                raise TypeError(broken.pop())
            super().note_delivery(sender, what)

    broken, store = ["not a RunrailsError"], Books()
    notifier = Notifier(Flaky())
    notifier.bind(store)
    for _ in range(2):
        notifier(warned())
        assert notifier.flush()

    assert [2] == [row.sent for row in store.deliveries()]


def test_only_warnings_are_sent_unless_other_events_are_named() -> None:
    """To every sender; a function is one as well."""
    first, second = list[Event](), list[Event]()
    notifier = Notifier(first.append, Flaky())
    everything = Notifier(second.append, events={"runrails.run_ended"})
    for name in ("budget_warned", "run_ended", "budget_limit_reached"):
        for each in (notifier, everything):
            each(Event(f"runrails.{name}", "info", {}))
    assert notifier.flush() and everything.flush()

    assert ["runrails.budget_warned", "runrails.budget_limit_reached"] == [event.name for event in first]
    assert ["runrails.run_ended"] == [event.name for event in second]


def test_a_stuck_sender_delays_nobody(stuck: Stuck) -> None:
    """Neither who hands over the event, nor another sender; what is too much is dropped and counted."""
    heard = list[Event]()
    notifier = Notifier(stuck, heard.append, waiting_max=3)
    notifier(warned())
    stuck.entered.wait(10)
    began = time.monotonic()
    for _ in range(6):
        notifier(warned())
    took = time.monotonic() - began

    assert took < 15  # the sender is stuck for twice as long
    assert not notifier.flush(0.01)
    stuck.go.set()
    assert notifier.flush()
    counts = notifier.counts()
    assert Delivered(sent=4, dropped=3, error="QueueFull") == counts["stuck"]
    (others,) = [count for name, count in counts.items() if name != "stuck"]
    assert others.sent + others.dropped == 7 and others.sent == len(heard)


def test_a_guards_warning_reaches_the_sender_and_the_books() -> None:
    """Eight of ten cents: one notice, and the store says that it was sent. Closing the guard waits for it."""
    clock, store, heard = ManualClock(START_MS), None, list[Event]()
    store = MemoryStore(clock=clock)
    guard = Guard(
        Limits(run=None, month="0.10", steps=None), user="alice", store=store, prices={"cent": Price(call="0.01")},
        sinks=[Notifier(heard.append)], clock=clock, monotonic=clock,
    )  # fmt: skip
    run = guard.run()
    for _ in range(9):
        model_step(run)
    guard.close()

    assert ["user:alice"] == [event.fields["scope"] for event in heard]
    (row,) = store.deliveries()
    assert (1, 0, START_MS, False) == (row.sent, row.failed, row.sent_ms, row.failing)


def test_a_broken_sender_changes_nothing_for_the_calls() -> None:
    """Every call goes on, and its guard closes in time."""
    bench = Bench(Limits(run=None, month="0.10", steps=None))
    bench.guard.emit.sinks = (Notifier(Flaky(*[OSError()] * 99), pause=lambda _: None),)
    run = bench.guard.run()
    for _ in range(10):
        model_step(run)
    bench.guard.close()

    assert 10 * 10**10 == bench.spent("user:alice")


@pytest.mark.parametrize("senders", [(), (3,), ("https://hooks.example.com",)])
def test_what_cannot_send_is_refused(senders: tuple[object, ...]) -> None:
    """At once, and not with the first warning."""
    with pytest.raises(ConfigError, match="Notifier"):
        Notifier(*senders)  # type: ignore[arg-type]


def test_a_program_that_ends_sends_first(tmp_path: Path) -> None:
    """At exit what waits is sent; nothing has to be closed."""
    with receiving() as receiver:
        code = (
            "from runrails.notify import Notifier, SlackWebhook\nfrom runrails.events import Event\n"
            "def main():\n"
            f"    notifier = Notifier(SlackWebhook({receiver.url!r}))\n"
            "    for _ in range(3): notifier(Event('runrails.budget_warned', 'warning', {'message': 'hi'}))\n"
            "main()\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

    assert 3 == len(receiver.received)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_does_not_send_what_its_parent_sends(stuck: Stuck, tmp_path: Path) -> None:
    """It has a queue and a thread of its own, even if it was forked while one was sending."""
    heard = tmp_path / "heard"

    def note(event: Event) -> None:
        with heard.open("a") as file:
            file.write(f"{event.fields['scope']}\n")

    notifier = Notifier(stuck, note)
    notifier(warned("user:parent"))
    stuck.entered.wait(10)
    stuck.go.set()
    notifier.flush()
    child = os.fork()
    if child == 0:
        notifier(warned("user:child"))
        os._exit(0 if notifier.flush(10) else 1)
    assert 0 == os.waitpid(child, 0)[1]

    assert ["user:child", "user:parent"] == sorted(heard.read_text().split())


def test_sqlite_keeps_what_became_of_notices_for_other_processes(tmp_path: Path) -> None:
    """Counts add up over processes; a later success clears the alarm and keeps the last error."""
    clock = ManualClock(START_MS)
    stores = [SQLiteStore(tmp_path / "ledger.db", clock=clock) for _ in range(2)]
    stores[0].note_delivery("slack s.example", Delivered(sent=2, failed=1, error="HTTP 503"))
    clock.advance(5)
    stores[1].note_delivery("slack s.example", Delivered(dropped=4, error="QueueFull"))
    (row,) = stores[0].deliveries()
    assert (2, 1, 4, START_MS, "QueueFull", START_MS + 5, True) == (*row[1:], row.failing)
    clock.advance(5)
    stores[0].note_delivery("slack s.example", Delivered(sent=1))
    (row,) = stores[1].deliveries()
    assert (3, 1, 4, START_MS + 10, "QueueFull", START_MS + 5, False) == (*row[1:], row.failing)
    for store in stores:
        store.close()


@pytest.mark.parametrize("steps_ms", [0, -1_000])
def test_what_is_written_last_is_the_newest_by_whatever_clock(steps_ms: int, tmp_path: Path) -> None:
    """In the same millisecond, and after a clock was put back."""
    clock = ManualClock(START_MS)
    for store in (MemoryStore(clock=clock), SQLiteStore(tmp_path / "ledger.db", clock=clock)):
        failing: list[bool] = []
        for what in (Delivered(failed=1), Delivered(sent=1), Delivered(dropped=1), Delivered(sent=1, failed=1)):
            store.note_delivery("slack s.example", what)
            failing += [row.failing for row in store.deliveries()]
            clock.advance(steps_ms)
        store.close()
        assert [True, False, True, False] == failing


class FakeSNS:
    """What boto3's client would be."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.published: list[dict[str, object]] = []

    def publish(self, **request: object) -> object:
        self.published.append(request)
        if self.error is not None:
            raise self.error
        return {}


def test_sns_gets_a_short_subject_and_the_whole_notice() -> None:
    """The subject is ASCII and short enough; the type is an attribute to filter by."""
    client = FakeSNS()
    SNSSender("arn:aws:sns:eu-west-1:123456789012:spend", client=client).send(
        Notice("n-1", START_MS, warned(message="ü" * 200))
    )

    (got,) = client.published
    assert ("?" * 99, "arn:aws:sns:eu-west-1:123456789012:spend") == (got["Subject"], got["TopicArn"])
    message = json.loads(str(got["Message"]))
    assert ("n-1", "runrails.budget_warned", "8.00") == (message["id"], message["type"], message["data"]["spent_usd"])


@pytest.mark.parametrize(
    ("code", "again"),
    [("Throttling", True), ("ThrottledException", True), ("AuthorizationError", False), ("NotFound", False)],
)
def test_sns_errors_are_told_apart(code: str, again: bool) -> None:
    """A busy service is tried again; a missing permission is not."""
    from botocore.exceptions import ClientError

    sender = SNSSender(
        "arn:aws:sns:eu-west-1:123456789012:spend", client=FakeSNS(ClientError({"Error": {"Code": code}}, "Publish"))
    )
    with pytest.raises(SendFailed) as caught:
        sender.send(Notice("n-1", START_MS, warned()))

    assert (code, again) == (caught.value.reason, caught.value.again)


def test_sns_lost_connections_are_tried_again_and_wrong_arns_refused() -> None:
    """An error without an answer may have been a bad moment."""
    with pytest.raises(SendFailed) as caught:
        SNSSender("arn:aws:sns:eu-west-1:123456789012:spend", client=FakeSNS(OSError())).send(
            Notice("n-1", START_MS, warned())
        )
    assert caught.value.again
    for arn in ("", "spend", "arn:aws:sqs:eu-west-1:1:x", "arn:aws:sns::1:x"):
        with pytest.raises(ConfigError, match="ARN"):
            SNSSender(arn)


def test_sns_leaves_boto3s_default_session_alone() -> None:
    """It is not for several threads, and the program's own may be using it at this moment."""
    boto3 = pytest.importorskip("boto3")
    before = boto3.DEFAULT_SESSION
    SNSSender("arn:aws:sns:eu-west-1:123456789012:warnings")._connected()

    assert before is boto3.DEFAULT_SESSION


def test_ctrl_c_while_an_event_is_handed_over_blocks_nobody() -> None:
    """Struck wherever Python looks for signals, the next event is taken and sent."""
    for nth in range(1, 1_000):
        sender = Flaky()
        notifier = Notifier(sender)
        hit = struck(partial(notifier, warned()), nth, ("notifier.py", "threading.py"))
        after = threading.Thread(target=notifier, args=(warned(),), daemon=True)
        after.start()
        after.join(60)
        assert not after.is_alive(), nth
        assert notifier.flush(), nth
        assert 1 <= len(sender.tried) <= 2, nth
        if not hit:
            return
    raise AssertionError("it was never handed over")
