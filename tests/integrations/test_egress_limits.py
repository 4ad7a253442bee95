"""The edges of the egress guard: the longest address, the first and last redirect, what is closed on the way out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from rr_tls import HOST, Server, says
from runrails import egress
from runrails.egress import EgressFailed, fetch, resolve
from runrails.egress_rules import URL_CHARS_MAX, EgressRefused, check_networks, check_url


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts one server, and ends it."""
    made: list[Server] = []

    def start(answer: Callable[[Any], None]) -> Server:
        made.append(Server(tmp_path, answer))
        return made[0]

    yield start
    for server in made:
        server.close()


def ask(server: Server, **changes: Any) -> int:
    """The status of an answer."""
    return fetch(
        server.url(), policy=server.policy(), resolver=server.resolver, context=server.context, **changes
    ).status  # fmt: skip


def test_the_longest_address_is_one() -> None:
    """2,048 characters, and not one more."""
    url = f"https://{HOST}/" + "a" * (URL_CHARS_MAX - len(f"https://{HOST}/"))
    assert url == check_url(url, allow_hosts=(HOST,)).url
    for wrong in (url + "a", ""):
        with pytest.raises(EgressRefused) as caught:
            check_url(wrong, allow_hosts=(HOST,))
        assert "length" == caught.value.reason


def test_the_longest_host_is_one() -> None:
    """253 characters, as in DNS, and not one more; none at all is no host either."""
    host = ".".join(["a" * 63] * 3 + ["b" * 57, "com"])
    assert 253 == len(host)
    assert host == check_url(f"https://{host}/", allow_hosts=(host,)).host
    for wrong in (f"b{host}", ""):
        with pytest.raises(EgressRefused) as caught:
            check_url(f"https://{wrong}/", allow_hosts=(wrong,))
        assert "host" == caught.value.reason


def test_networks_of_two_kinds_do_not_meet() -> None:
    """What is vouched for in IPv6 is compared with what is never asked in IPv6."""
    assert 2 == len(check_networks(["2001:db8::/32", "10.0.0.0/8"]))
    for never in ("fe80::/16", "169.254.0.0/24", "::/0", "0.0.0.0/0"):
        with pytest.raises(ValueError, match="cannot be vouched for"):
            check_networks([never])


@pytest.mark.parametrize(
    ("status", "reason"), [("299 Odd", ""), ("300 Many", "redirect"), ("399 Odd", "redirect"), ("400 Bad", "")]
)
def test_what_begins_with_three_is_a_redirect(serve: Callable[..., Server], status: str, reason: str) -> None:
    """All of it, and nothing beside it."""
    server = serve(says(b"x", status))
    if not reason:
        assert int(status[:3]) == ask(server)
        return
    with pytest.raises(EgressFailed) as caught:
        ask(server)
    assert reason == caught.value.reason


def test_a_connection_that_came_too_late_is_closed(serve: Callable[..., Server]) -> None:
    """The time was over when it stood: nothing is left open, which Python would warn of."""
    server = serve(says(b"x"))
    for looks in range(1, 4):
        ticks = chain(repeat(0, looks), repeat(10**9))
        with pytest.raises(EgressFailed) as caught:
            ask(server, clock=lambda: next(ticks))  # noqa: B023 -- used at once
        assert "timeout" == caught.value.reason
        del caught
        gc.collect()


def test_without_a_thread_nobody_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has no more of them says so, and keeps no place taken."""

    class None_(Thread):  # noqa: N801 -- there is none
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    target = check_url(f"https://{HOST}/", allow_hosts=(HOST,))
    before = egress._lookups.places._value
    monkeypatch.setattr(egress, "Thread", None_)
    with pytest.raises(EgressFailed) as caught:
        resolve(target, lambda host, port, /: ["8.8.8.8"])
    assert ("resolver_busy", before) == (caught.value.reason, egress._lookups.places._value)
