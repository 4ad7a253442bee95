"""Clients that libraries make later: guarded by their session, or by every session of the process."""

from __future__ import annotations

from typing import Any

import boto3
import botocore
import botocore.session
import pytest
from botocore.stub import Stubber

from rr_bedrock import BedrockWorld, a_session, converse, edge_of
from runrails import BudgetExceeded, ConfigError, Guard, Limits
from runrails.stores.memory import MemoryStore
from runrails.testing.provider import Text
from runrails_aws import attach, guard_session
from runrails_aws.bedrock import wrap
from runrails_aws.bedrock.gate import gate_of


def test_clients_made_later_are_guarded_and_share_a_run() -> None:
    """Every client of the session, once each call; wrapping one of them again changes nothing."""
    with BedrockWorld(Text("ok")) as world:
        session = a_session()
        early = world.boto(wrapped=False, session=session)
        assert session is guard_session(world.guard, guard_session(world.guard, session))
        clients = [world.boto(wrapped=False, session=session) for _ in range(2)]
        assert clients[0] is wrap(world.guard, clients[0])
        for client in (*clients, early):
            converse(client)
        one = world.billed // 3
        assert (2 * one, 0) == (world.spent, world.held)
        assert [2] == list({edge_of(client)._shared.report().model_calls for client in clients})


def test_session_of_botocore_itself() -> None:
    """It has no `events`, but the same emitter; a refusal is public, and nothing is sent."""
    with BedrockWorld(Text("ok"), limits=Limits(run="0.00000001")) as world:
        session = guard_session(world.guard, botocore.session.get_session())
        session.set_credentials("none", "none")
        client = session.create_client(
            "bedrock-runtime", region_name="us-east-1", endpoint_url=world.provider.bedrock_url
        )
        with pytest.raises(BudgetExceeded):
            converse(client)
        client.close()
        world.gone()


def test_other_services_are_left_alone() -> None:
    """Even Bedrock's own other client makes its calls where nothing may be spent."""
    with BedrockWorld(limits=Limits(run="0.00000001")) as world:
        client = guard_session(world.guard, a_session()).client("bedrock")
        with Stubber(client) as stubber:
            stubber.add_response("list_foundation_models", {"modelSummaries": []})
            assert [] == client.list_foundation_models()["modelSummaries"]
        client.close()
        world.gone()


def test_another_guard_is_an_error() -> None:
    """A session has one guard, and so have its clients."""
    with BedrockWorld() as world:
        session = guard_session(world.guard, a_session())
        other = Guard(store=MemoryStore(), sinks=())
        with pytest.raises(ConfigError, match="another guard"):
            guard_session(other, session)
        with pytest.raises(ConfigError, match="another guard"):
            wrap(other, world.boto(wrapped=False, session=session))
        other.close()


@pytest.mark.parametrize("given", [object(), 5, "session"])
def test_what_is_no_session_is_refused(given: Any) -> None:
    """By its type's name."""
    with BedrockWorld() as world:
        with pytest.raises(ConfigError, match="no session"):
            guard_session(world.guard, given)


def test_attached_guard_covers_sessions_made_later() -> None:
    """Nothing is patched, sessions made before are not found, and detaching ends it for those made afterwards."""
    before = list(botocore._INITIALIZERS)
    with BedrockWorld(Text("ok")) as world:
        early = a_session()
        detach = attach(world.guard)
        try:
            attach(world.guard)
            assert len(before) + 1 == len(botocore._INITIALIZERS)
            other = Guard(store=MemoryStore(), sinks=())
            with pytest.raises(ConfigError, match="Another guard"):
                attach(other)
            other.close()
            client = world.boto(wrapped=False, session=a_session())
            assert client is wrap(world.guard, client)
            converse(client)
            world.settled()
            assert None is gate_of(early.events)
        finally:
            detach()
            detach()
        assert before == botocore._INITIALIZERS
        assert None is gate_of(a_session().events)
        converse(client)
        world.settled()


def test_attached_guard_covers_boto3s_default_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """`boto3.client(…)` of a process that has called it before."""
    with BedrockWorld(Text("ok")) as world:
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", a_session())
        detach = attach(world.guard)
        try:
            client = boto3.client("bedrock-runtime", endpoint_url=world.provider.bedrock_url)
            converse(client)
            client.close()
            world.settled()
        finally:
            detach()


def test_asynchronous_sessions_are_left_alone_or_refused() -> None:
    """aiobotocore has events and streams of its own: attaching passes it over, guarding it by name is an error."""
    kind = type("AioSession", (botocore.session.Session,), {"__module__": "aiobotocore.session"})
    with BedrockWorld() as world:
        detach = attach(world.guard)
        try:
            session = kind()
            assert None is gate_of(session.get_component("event_emitter"))
        finally:
            detach()
        with pytest.raises(ConfigError, match="aiobotocore"):
            guard_session(world.guard, session)
