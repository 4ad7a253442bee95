"""The callback: translates LangChain's events into the verbs of a `Run`."""

# ruff: noqa: ARG002 -- LangChain prescribes the signatures of the hooks

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import LLMResult

from runrails.advice import NOT_EXECUTED_NOW, not_executed
from runrails.aio import waits
from runrails.boundary import Trip
from runrails.calls import Block, ModelCall, ModelResult
from runrails.cover import withdraw_cover
from runrails.current import given_up
from runrails.errors import BudgetBusy, GuardFault, GuardrailStopped
from runrails.thrift import carried, tell_unchanged
from runrails_langchain.arriving import Arriving
from runrails_langchain.asked import asked_of, given_in
from runrails_langchain.chains import part_of
from runrails_langchain.drive import Blocked, ModelDrive, ToolDrive, model_drive, tool_drive
from runrails_langchain.enclosing import finding
from runrails_langchain.enclosures import STOPS_TOLD_MAX
from runrails_langchain.explicit import Guarding
from runrails_langchain.heard import Heard
from runrails_langchain.keys import key_place
from runrails_langchain.messages import Sized, prompt_of, text_prompt
from runrails_langchain.models import model_facts, placed
from runrails_langchain.payers import attribution_of
from runrails_langchain.quirks import RunInline, be_quiet_about, drop_unawaited
from runrails_langchain.results import answers, of_answer, of_error
from runrails_langchain.stops import answered, answered_for, is_control_flow, stop_for
from runrails_langchain.tools import outcome_of, outcome_of_error, tool_name
from runrails_langchain.tracking import ModelEntry, Spot, ToolEntry, Tracker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from langchain_core.documents import Document
    from langchain_core.messages import BaseMessage

    from runrails.calls import Permit
    from runrails.guard import Guard
    from runrails.run import Run
    from runrails_langchain.asked import Asked
    from runrails_langchain.enclosures import Enclosure

__all__ = ["GuardrailCallbackHandler", "tracker_of"]

_NO_PARAMS: Mapping[str, object] = {}


def tracker_of(guard: Guard) -> Tracker:
    """The guard's one tracker, which all its handlers share."""
    found = guard.adapters.get(Tracker)
    if found is None:
        found = guard.adapters.setdefault(Tracker, Tracker(guard))
    assert isinstance(found, Tracker)  # noqa: S101 -- for the type checker: the key is the type
    guard.before_close.add(found)
    return found


def _run_of(guard: Guard, parent_id: UUID) -> Run | None:
    found = guard.adapters.get(Tracker)
    return found.run_around(parent_id) if isinstance(found, Tracker) else None


finding(_run_of)


class GuardrailCallbackHandler(Guarding, BaseCallbackHandler):
    """
    Guards what it is attached to: `agent.invoke(inputs, config={"callbacks": [GuardrailCallbackHandler(guard)]})`.

    One handler serves many calls, threads and event loops. A root chain is one run, from its start to its end; calls of
    a model or a tool without a chain around them share a run per `thread_id`; inside ``with guard.run():`` everything
    belongs to that run. Stops are raised where a model or a tool is about to start, never at an end.

    It is a synchronous handler on purpose, for asynchronous agents too: LangChain swallows what an asynchronous
    handler raises under `invoke`. With a remote store or vault its hooks run off the event loop.

    `metadata` says whose calls are: `config={"metadata": {"runrails_user": "bob", "runrails_tags": {"team": "x"}}}`,
    also `runrails_key` and `runrails_org`; LangChain takes it to every model inside. See `Guard.attribute`.

    Args:
        guard: Limits, prices and the store. Handlers of one guard on the same call count it once.
    """

    raise_error = True
    run_inline = cast("bool", RunInline())
    """On the event loop, unless the store or the vault is remote; async managers are answered as they need it."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.off_loop = waits(guard)
        be_quiet_about(self)
        self._tracker = tracker_of(guard)
        self._key = self._tracker.new_key()

    @property
    def runs(self) -> tuple[Run, ...]:
        """The newest runs that handlers of this guard opened, at most 64; the last one is the newest."""
        return tuple(self._tracker.recent)

    @property
    def last_run(self) -> Run | None:
        """The newest of `runs`: `handler.last_run.stopped` and `.report()` tell what became of a call."""
        return self._tracker.recent[-1] if self._tracker.recent else None

    def close(self) -> None:
        """End the runs that calls without a chain around them share; `Guard.close` does it too."""
        self._tracker.close(self._key)

    # Chains and retrievers: only where they begin and end matters.

    def on_chain_start(
        self, serialized: dict[str, Any] | None, inputs: object, *, run_id: UUID, parent_run_id: UUID | None = None,
        tags: list[str] | None = None, metadata: dict[str, Any] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """
        A root chain opens a run.

        Raises:
            ConfigError: Inside a run of another guard, or the chain's metadata is malformed.
        """
        part = part_of(kwargs.get("name"), tags, metadata) if parent_run_id is not None else None
        self._tracker.chain_started(run_id, parent_run_id, part, metadata)

    def on_chain_end(self, outputs: object, *, run_id: UUID, **kwargs: Any) -> None:
        """A root chain's run ends with it."""
        self._end_chain(run_id)
        self._leave_nothing()

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """A root chain's run ends with it."""
        self._end_chain(run_id)

    def on_retriever_start(
        self, serialized: dict[str, Any] | None, query: str, *, run_id: UUID, parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        """Models may be called inside a retriever, so it counts as a chain."""
        self._tracker.chain_started(run_id, parent_run_id, metadata=kwargs.get("metadata"))

    def on_retriever_end(self, documents: Sequence[Document], *, run_id: UUID, **kwargs: Any) -> None:
        """As for a chain."""
        self._end_chain(run_id)

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """As for a chain."""
        self._end_chain(run_id)

    # Models.

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], *, run_id: UUID,
        parent_run_id: UUID | None = None, tags: list[str] | None = None, metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        """
        A gate.

        Raises:
            GuardrailStopped: The run is over; nothing starts any more. Inside `with guard.run():` a private exception.
            CallRefused: This call may not start.
            ConfigError: Its metadata says wrongly whose call it is.
        """
        params: Mapping[str, object] = kwargs.get("invocation_params") or _NO_PARAMS
        flat = messages[0] if len(messages) == 1 else [message for each in messages for message in each]
        try:
            spot = self._tracker.locate(self._key, parent_run_id, metadata)
            entry = self._tracker.model_starts(run_id, spot)
            if entry is not None:
                self._listen(spot, entry, flat)
                told = _Told(metadata, params, flat, serialized)
                self._start(run_id, spot, entry, told, kwargs.get("batch_size", 1))
        except BaseException:
            drop_unawaited()
            raise

    def on_llm_start(
        self, serialized: dict[str, Any], prompts: list[str], *, run_id: UUID, parent_run_id: UUID | None = None,
        tags: list[str] | None = None, metadata: dict[str, Any] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """The gate of models that take plain text. Raises as `on_chat_model_start` does."""
        spot = self._tracker.locate(self._key, parent_run_id, metadata)
        entry = self._tracker.model_starts(run_id, spot)
        if entry is not None:
            params: Mapping[str, object] = kwargs.get("invocation_params") or _NO_PARAMS
            told = _Told(metadata, params, prompts, serialized)
            self._start(run_id, spot, entry, told, kwargs.get("batch_size", 1))

    def on_llm_new_token(
        self, token: str | list[str | dict[str, Any]], *, run_id: UUID, chunk: object = None, **kwargs: Any
    ) -> None:
        """
        From the first token on the consumer may call other models, which this call's permit must not pay for. Its hold
        grows with what comes. Never raises.
        """
        withdraw_cover()
        found = self._tracker.in_flight(run_id)
        if found is None or found[1].permit is None:
            return
        run, entry = found
        try:
            if entry.arriving is None:
                entry.arriving = Arriving(run, found[1].permit, self)
            if entry.arriving.listener is self:
                entry.arriving.token(token, chunk)
        except Exception as exc:  # noqa: BLE001 -- the answer is the user's; what it cost is recorded in full
            self._failed("on_llm_new_token", exc, run)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Settles what the call cost. Never raises."""
        found = self._tracker.model_ended(run_id)
        if found is None:
            return
        run, entry = found
        result = ModelResult(end="completed")
        try:
            result = of_answer(response, tier=_asked_tier(entry))
            entry.talks.answered(entry.agent, answers(response), batch=str(run_id))
        except Exception as exc:  # noqa: BLE001 -- what cannot be read is settled at the hold; the answer is the user's
            self._failed("on_llm_end", exc, run)
        self._settle(run, entry, result)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Settles a call that failed or was broken off. Raises nothing of its own."""
        found = self._tracker.model_ended(run_id)
        if found is None:
            return
        run, entry = found
        result = ModelResult(end="unknown")
        try:
            response = kwargs.get("response")
            result = of_error(
                error, response if isinstance(response, LLMResult) else None, reasoning=entry.reasoning,
                tier=_asked_tier(entry),
            )  # fmt: skip
            if result.end == "unknown" and entry.arriving is not None:  # `agenerate` does not tell what had come
                result = entry.arriving.cut(reasoning=entry.reasoning)
        except Exception as exc:  # noqa: BLE001 -- as in on_llm_end
            self._failed("on_llm_error", exc, run)
        self._settle(run, entry, result)
        if isinstance(error, Trip):
            # A model that calls another one: LangChain's `agenerate` takes what is no Exception for an answer, and the
            # trip would end as an AttributeError. Raised from here it goes on.
            raise error

    # Tools.

    def on_tool_start(
        self, serialized: dict[str, Any] | None, input_str: str, *, run_id: UUID, parent_run_id: UUID | None = None,
        tags: list[str] | None = None, metadata: dict[str, Any] | None = None, inputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        """
        A gate.

        Raises:
            GuardrailStopped: The run is over; nothing starts any more. Inside `with guard.run():` a private exception.
        """
        spot = self._tracker.locate(self._key, parent_run_id, metadata)
        name = tool_name(serialized, kwargs)
        args: object = inputs if inputs is not None else input_str
        drive = _tool_drive(spot)
        entry = self._tracker.tool_starts(run_id, spot, name, args, _text(kwargs.get("tool_call_id")), drive=drive)
        if entry is None:
            return
        if drive is not None:
            drive.attempts.add(run_id)
        if entry.admitted:
            return
        try:
            verdict = spot.run.before_tool(entry.call, can_block=drive is not None)
        except BaseException as exc:  # noqa: BLE001 -- it, or what stands for it, is raised
            self._tracker.tool_ended(run_id)
            entry.talks.tool_ended(entry.asked, entry.call.id, entry.call.agent)
            raise _at_tool(entry, exc, spot.enclosure) from None
        if isinstance(verdict, Block):
            self._tracker.tool_ended(run_id)
            raise Blocked(verdict.message)

    def on_tool_end(self, output: object, *, run_id: UUID, **kwargs: Any) -> None:
        """Tells the loop detector what came back. Never raises."""
        entry = self._tracker.tool_ended(run_id)
        if entry is None:
            return
        try:
            entry.talks.tool_ended(entry.asked, entry.call.id, entry.call.agent)
            finding = entry.run.after_tool(
                entry.call, outcome_of(output, entry.call.id), can_block=entry.drive is not None
            )
            if entry.drive is not None:
                entry.drive.finding = finding
        except Exception as exc:  # noqa: BLE001 -- it observes; the result is the user's
            self._failed("on_tool_end", exc, entry.run)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Tells the loop detector what went wrong. A stop that leaves the tool goes on so that its call is answered."""
        entry = self._tracker.tool_ended(run_id)
        if entry is None:
            return
        try:
            entry.talks.tool_ended(entry.asked, entry.call.id, entry.call.agent)
            if not is_control_flow(error):
                finding = entry.run.after_tool(entry.call, outcome_of_error(error), can_block=entry.drive is not None)
                if entry.drive is not None:
                    entry.drive.finding = finding
        except Exception as exc:  # noqa: BLE001 -- as in on_tool_end
            self._failed("on_tool_error", exc, entry.run)
        stop = entry.run.stopped
        if isinstance(error, GuardrailStopped) and stop is not None and entry.is_bare and given_up() is None:
            if entry.asked is not None:
                entry.asked.stops += 1
            raise answered_for(entry.run, stop, not_executed(stop)) from None

    # Inside.

    def _listen(self, spot: Spot, entry: ModelEntry, messages: Sequence[BaseMessage]) -> None:
        """Learn from the messages what no hook tells: results of unknown tools, and that a person has spoken."""
        try:
            heard = spot.talks.hear(spot.place, messages)
            entry.agent = heard.agent
            newest = spot.run.adapters.get(Heard)
            if isinstance(newest, Heard) and not heard.agent:
                newest.messages = messages
            if heard.user_spoke or heard.taken_over:
                spot.run.user_message(heard.agent, taken_over=heard.taken_over)
            can_block = _model_drive(spot) is not None
            for call, outcome in heard.results:
                spot.run.after_tool(call, outcome, can_block=can_block)
        except Exception as exc:  # noqa: BLE001 -- it observes; the budget still decides
            self._failed("on_chat_model_start", exc, spot.run)

    def _start(self, run_id: UUID, spot: Spot, entry: ModelEntry, told: _Told, batch_size: int) -> None:
        try:
            entry.permit = _permit(run_id, spot, _call(entry, told))
            if batch_size > 1:
                self._tracker.group_started(run_id, told.params, batch_size)
        except BaseException as exc:
            self._tracker.model_ended(run_id)
            if batch_size > 1:
                self._tracker.group_refused(told.params, batch_size)
            if isinstance(exc, GuardrailStopped):
                raise stop_for(
                    spot.run, exc, in_tool=spot.enclosure is not None and spot.enclosure.may_tell()
                ) from None
            raise

    def _settle(self, run: Run, entry: ModelEntry, result: ModelResult) -> None:
        if entry.permit is None:
            return
        if entry.arriving is not None and entry.arriving.growth.held_pusd:
            result = replace(result, held_pusd=entry.arriving.growth.held_pusd)
        try:
            run.after_model(entry.permit, result)
        except Exception as exc:  # noqa: BLE001 -- the answer is the user's; the hold expires by the ledger's rules
            self._failed("after_model", exc, run)

    def _end_chain(self, run_id: UUID) -> None:
        try:
            self._tracker.chain_ended(run_id)
        except Exception as exc:  # noqa: BLE001 -- the result is the user's
            self._failed("on_chain_end", exc, None)

    def _leave_nothing(self) -> None:
        """
        What was left alone when the time was up ends here: a node that ends normally would have its graph save a state
        beside the one with which the conversation may have gone on.
        """
        stop = given_up()
        if stop is not None:
            raise Trip(stop.again())

    def _failed(self, hook: str, error: Exception, run: Run | None) -> None:
        self.guard.emit(
            "adapter_failed", "error", adapter="langchain", hook=hook, error=type(error).__name__,
            run=None if run is None else run.id,
        )  # fmt: skip


def _at_tool(entry: ToolEntry, error: BaseException, around: Enclosure | None) -> BaseException:
    """What to raise where a tool may not start. Who stands around the call answers for it, else a tool node can."""
    asked = entry.asked
    if entry.is_bare and asked is not None and given_up() is None:
        if isinstance(error, BudgetBusy):
            return answered(error, f"{NOT_EXECUTED_NOW} Please try again a little later.")
        if isinstance(error, GuardrailStopped):
            asked.stops += 1
            if asked.stops <= STOPS_TOLD_MAX:
                return answered_for(entry.run, error, not_executed(error))
    if not isinstance(error, GuardrailStopped):
        return error
    return stop_for(entry.run, error, in_tool=around is not None and around.may_tell())


def _model_drive(spot: Spot) -> ModelDrive | None:
    drive = model_drive.get()
    return drive if drive is not None and drive.run is spot.run else None


def _tool_drive(spot: Spot) -> ToolDrive | None:
    drive = tool_drive.get()
    if (
        drive is None
        or drive.run is not spot.run
        or (spot.enclosure is not None and spot.enclosure.is_in(drive.attempts))
    ):
        return None
    return drive


def _permit(run_id: UUID, spot: Spot, call: ModelCall) -> Permit:
    drive = _model_drive(spot)
    if drive is None:
        if spot.run.guard.saves:
            tell_unchanged(spot.run, call)
        return spot.run.before_model(call)
    drive.calls.append(run_id.int)
    planned = drive.take()
    if planned is None:
        return spot.run.before_model(call, can_block=True)
    return spot.run.revise(planned, carried(planned.call, call), can_block=True)


class _Told(NamedTuple):
    """What LangChain tells of a call that is about to be made."""

    metadata: Mapping[str, object] | None
    params: Mapping[str, object]
    said: Sequence[BaseMessage] | Sequence[str]
    serialized: object


def _call(entry: ModelEntry, told: _Told) -> ModelCall:
    """Translate; it decides, so a bug in here refuses the call. Raises ConfigError for malformed metadata."""
    by = attribution_of(told.metadata)
    try:
        given = given_in(told.serialized)
        asked = asked_of(told.params, given)
        facts = model_facts(placed(told.metadata, given), asked.params)
        entry.reasoning = facts.reasoning
        sized = _size(told.said, asked)
        return ModelCall(
            model=facts.name, provider=facts.provider, region=facts.region, service_tier=asked.tier,
            prompt=sized.prompt, max_tokens=facts.max_tokens, n=facts.n, cache_write=sized.cache_write,
            agent=entry.agent, by=by, place=key_place(told.metadata, told.serialized),
        )  # fmt: skip
    except Exception as exc:
        raise GuardFault(
            f"Reading what LangChain is about to send failed: {type(exc).__name__}.",
            next_step="The call was not started. Please report this with the traceback.",
        ) from exc


def _size(said: Sequence[BaseMessage] | Sequence[str], asked: Asked) -> Sized:
    texts = [item for item in said if isinstance(item, str)]
    if texts:
        return text_prompt(texts, asked.params, unbounded=asked.unbounded)
    messages = [item for item in said if not isinstance(item, str)]
    return prompt_of(messages, asked.params, unbounded=asked.unbounded, stored=asked.stored)


def _asked_tier(entry: ModelEntry) -> str | None:
    return None if entry.permit is None else entry.permit.call.service_tier


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
