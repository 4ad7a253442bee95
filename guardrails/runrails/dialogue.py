"""
What adapters share of agent frameworks whose hooks stand around every model call and every tool call: one agent's
exchange with its model, from leave to result.

It asks the run's door and tells it what came of it, and decides nothing. A bug in reading what is about to be sent
refuses the call; a bug in telling what came of it is an event and changes nothing for the user.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Self, TypeVar

from runrails import aio
from runrails.advice import NOT_EXECUTED_NOW, not_executed
from runrails.calls import Block, ModelResult, ToolCall
from runrails.cover import withdraw_cover
from runrails.current import current_run, inside
from runrails.errors import BudgetBusy, CallRefused, ConfigError, GuardFault, GuardrailStopped, RunrailsError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from types import TracebackType

    from runrails.calls import CallEnd, ModelCall, Permit, ToolOutcome
    from runrails.guard import Guard
    from runrails.run import Run

__all__ = ["Dialogue", "ModelTurn", "dialogue_here", "open_dialogue"]

_T = TypeVar("_T")

ASKED_KEPT_MAX = 1_000
QUESTIONS_KEPT_MAX = 1_000
_CAUSES_MAX = 8
_NOT_SENT = frozenset(
    {"ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "InvalidURL", "ConnectionRefusedError",
     "gaierror", "EndpointConnectionError", "NoCredentialsError", "ConnectTimeoutError"}
)  # fmt: skip
"""Errors of the HTTP libraries and of botocore that come before a byte of the request has left."""


class ModelTurn:
    """
    One model call: `async with dialogue.model_call(…) as turn:`. It is asked for at the beginning of the block, and
    what it came to is settled at the end, however the block ends.
    """

    # A class, since an event loop that has shut its generators down, as after `Runner.run_sync`, takes no new ones.
    __slots__ = ("_began", "_dialogue", "_read", "_result", "permit")

    def __init__(self, dialogue: Dialogue, read: Callable[[], ModelCall]) -> None:
        self.permit: Permit | None = None
        """None if the guard only observes and cannot tell what the call may cost."""
        self._dialogue = dialogue
        self._read = read
        self._began = False
        self._result: ModelResult | None = None

    async def __aenter__(self) -> Self:
        self.permit = await self._dialogue.admit(self._read)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._result is None:
            # What is raised once the answer has begun may be the reader's own, and proves nothing.
            free = error is not None and not self._began and _costs_nothing(error)
            end: CallEnd = "completed" if error is None else "failed" if free else "unknown"
            self._result = ModelResult(end=end)
        if self.permit is not None:
            await self._dialogue.settle(self.permit, self._result)

    @property
    def cap(self) -> int | None:
        """The cap on output tokens to put into the request; None if the request stays as it is."""
        permit = self.permit
        return None if permit is None or permit.max_tokens == permit.call.max_tokens else permit.max_tokens

    def began(self) -> None:
        """The answer has begun: what is requested below from here on is another call."""
        if not self._began:
            self._began = True
            withdraw_cover()

    def tell(self, read: Callable[[], ModelResult]) -> None:
        """What the call came to. What nobody tells, or cannot be read, is settled at the hold."""
        result = self._dialogue.observed("after_model", read)
        self._result = ModelResult(end="completed") if result is None else result


class Dialogue:
    """
    One agent's exchange with its model, inside a run. For one event loop; made by `open_dialogue`.

    The hooks of an adapter call, in this order: `heard` and `model_call` for a request, `asked` for its answer,
    `before_tool`, `nested` and `after_tool` for each of the tool calls, and `close` at the end.
    """

    def __init__(self, run: Run, agent: str, *, owns_run: bool = False, outer: Dialogue | None = None) -> None:
        self.run = run
        self.agent = agent
        self.outer = outer
        """The dialogue inside a tool call of which this one happens."""
        self.busy = False
        self._owns_run = owns_run
        self._asked: dict[str, ToolCall] = {}
        """Tool calls that were asked for and whose result has not been counted, by the model's id."""
        self._started: dict[str, ToolCall] = {}
        self._answers = 0

    # The model.

    def model_call(self, read: Callable[[], ModelCall]) -> ModelTurn:
        """
        Stand around one model call.

        Args:
            read: What is about to be sent; asked once, at the beginning of the block.

        Raises:
            GuardrailStopped: At the beginning: the run is over; it stays over.
            CallRefused: At the beginning: this call may not start, and nothing was sent; the run goes on.
        """
        return ModelTurn(self, read)

    async def admit(self, read: Callable[[], ModelCall]) -> Permit | None:
        """Ask for a call; for its turn alone."""
        try:
            call = replace(read(), agent=self.agent)
        except CallRefused as exc:
            self._refused(exc)
            return None
        except Exception as exc:  # noqa: BLE001 -- refused, unless the guard only observes
            fault = GuardFault(
                f"Reading what the agent is about to send failed: {type(exc).__name__}.",
                next_step="The call was not started. Please report this with the traceback.",
            )
            fault.__cause__ = exc
            self._refused(fault)
            return None
        # Tools that the adapter cannot answer for are stopped at the model; those it can are blocked before.
        return await aio.before_model(self.run, call, can_block=False, sends=False)

    async def settle(self, permit: Permit, result: ModelResult) -> None:
        """Hand a permit back; for its turn alone. Never raises a stop, nor anything else of ours."""
        try:
            await aio.after_model(self.run, permit, result)
        except Exception as exc:  # noqa: BLE001 -- the answer is the user's; the hold expires by the ledger's rules
            self._failed("after_model", exc)

    def asked(self, read: Callable[[], Iterable[tuple[str, object, str]]]) -> None:
        """The model has answered: the tool calls it asks for, each with name, arguments and id."""
        self._answers += 1
        for name, args, call_id in self.observed("asked", lambda: list(read())) or ():
            self._started.pop(call_id, None)  # Some models number their calls anew in every answer.
            self._asked.pop(call_id, None)
            self._asked[call_id] = ToolCall(name=name, args=args, id=call_id, batch=self._answers, agent=self.agent)
            if len(self._asked) > ASKED_KEPT_MAX:
                del self._asked[next(iter(self._asked))]

    def heard(self, read: Callable[[], Iterable[tuple[str, ToolOutcome]]]) -> None:
        """
        The results, by the id of the call, that the next request shows the model.

        Those that no tool hook has told are counted here: of unknown tools, of calls that a framework answered itself.
        Results of calls that were asked for before this dialogue are what it begins with, and are not counted.
        """
        for call_id, outcome in self.observed("heard", lambda: list(read())) or ():
            call = self._asked.pop(call_id, None)
            if call is not None:
                started = self._started.pop(call_id, None) is not None
                self._told(call, outcome, can_block=started)

    # Tools.

    def before_tool(self, name: str, args: object, call_id: str) -> str | None:
        """
        Ask for a tool call. Raises no stop: the run ends at the model, where the conversation is whole.

        Returns:
            What to give the model in the tool's place; None if the tool may be executed.
        """
        if call_id in self._started:  # a framework that asks twice, as before and after an approval
            return None
        call = self._asked.get(call_id) or ToolCall(name=name, args=args, id=call_id, agent=self.agent)
        try:
            verdict = self.run.before_tool(call, can_block=True)
        except GuardrailStopped as stop:
            instead = not_executed(stop)
        except BudgetBusy:
            instead = f"{NOT_EXECUTED_NOW} Please try again a little later."
        else:
            if not isinstance(verdict, Block):
                self._started[call_id] = call
                if len(self._started) > ASKED_KEPT_MAX:
                    del self._started[next(iter(self._started))]
                return None
            instead = verdict.message
        self._asked.pop(call_id, None)
        return instead

    def after_tool(self, call_id: str, read: Callable[[], ToolOutcome]) -> str | None:
        """Tell what a tool gave back. Returns a hint for the model, to be added to the result, if there is one."""
        call = self._started.pop(call_id, None)
        if call is None:
            return None
        self._asked.pop(call_id, None)
        outcome = self.observed("after_tool", read)
        return None if outcome is None else self._told(call, outcome, can_block=True)

    def nested(self) -> Dialogue:
        """What an agent that is called by a tool of this one says to its model."""
        return _dialogues_of(self.run).new(self.run, outer=self)

    # Where it happens.

    @contextmanager
    def inside(self) -> Generator[None]:
        """Whatever is called in here belongs to the run and, where nothing else is known, to this dialogue."""
        token = _current.set(self)
        try:
            with inside(self.run):
                yield
        finally:
            _current.reset(token)

    def enter(self) -> None:
        """As `inside`, for the rest of the task that this is called in."""
        _current.set(self)

    def close(self) -> None:
        """It is over, and with it the run if that was opened for it. Closing twice is fine."""
        self.busy = False
        if self._owns_run:
            self.observed("close", self.run.close)

    async def aclose(self) -> None:
        """As `close`; a remote store does not keep the event loop waiting."""
        if self.run.guard.store.remote:
            await aio.off_loop(self.run.guard, self.close)
        else:
            self.close()

    # Inside.

    def _refused(self, refusal: CallRefused) -> None:
        if self.run.guard.mode != "observe":
            raise refusal
        self.run.guard.emit("call_would_refuse", "warning", run=self.run.id, **refusal.as_dict())

    def observed(self, hook: str, ask: Callable[[], _T]) -> _T | None:
        """What only tells must not change the user's result: a bug in there is an event, and None."""
        try:
            return ask()
        except Exception as exc:  # noqa: BLE001 -- see above
            self._failed(hook, exc)
            return None

    def _told(self, call: ToolCall, outcome: ToolOutcome, *, can_block: bool) -> str | None:
        finding = self.observed("after_tool", lambda: self.run.after_tool(call, outcome, can_block=can_block))
        return None if finding is None or finding.level != "hint" else finding.for_model

    def _failed(self, hook: str, error: Exception) -> None:
        self.run.guard.emit("adapter_failed", "error", run=self.run.id, hook=hook, error=type(error).__name__)


class _Dialogues:
    """Those of one run, by what a person asked. Asked again it is the same one: a retry must count as such."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[int, Dialogue] = {}
        self._count = 0
        self._unasked: Dialogue | None = None

    def new(self, run: Run, *, owns_run: bool = False, outer: Dialogue | None = None) -> Dialogue:
        """Another one. The first agent of a run is the root of its paths."""
        with self._lock:
            return self._new(run, owns_run=owns_run, outer=outer)

    def asked(self, run: Run, question: str) -> Dialogue:
        """That of a question. Asked while it is being answered, it is another sample, which counts apart."""
        key = hash(question)
        with self._lock:
            known = self._known.get(key)
            if known is None or known.busy:
                known = self._known[key] = self._new(run)
                if len(self._known) > QUESTIONS_KEPT_MAX:
                    del self._known[next(iter(self._known))]
            known.busy = True
            return known

    def unasked(self, run: Run) -> Dialogue:
        """That of agents of which nobody told when they began."""
        with self._lock:
            if self._unasked is None:
                self._unasked = self._new(run)
            return self._unasked

    def _new(self, run: Run, *, owns_run: bool = False, outer: Dialogue | None = None) -> Dialogue:
        self._count += 1
        agent = "" if self._count == 1 else f"#{self._count}"
        return Dialogue(run, agent, owns_run=owns_run, outer=outer)


_current: ContextVar[Dialogue | None] = ContextVar("runrails_dialogue", default=None)


def open_dialogue(guard: Guard, question: str) -> Dialogue:
    """
    An agent begins to work: in the run around it, else in a run of its own, which `Dialogue.close` ends.

    Args:
        guard: Whose run it is.
        question: What it was asked. Kept as a hash, in memory only.

    Raises:
        ConfigError: Inside a run of another guard.
    """
    around = current_run()
    if around is None or around.guard is not guard:
        run = guard.run()
        return _dialogues_of(run).new(run, owns_run=True)
    here = _current.get()
    if here is not None and here.run is around and here.outer is not None:
        return _dialogues_of(around).new(around, outer=here)
    return _dialogues_of(around).asked(around, question)


def dialogue_here(guard: Guard) -> Dialogue:
    """
    The dialogue that this code is in.

    Raises:
        ConfigError: It is in none, and in no run of the guard either.
    """
    here, around = _current.get(), current_run()
    if around is None or around.guard is not guard:
        raise ConfigError(
            "A guarded agent is used where no run of its guard is open.",
            next_step="Put the call inside `with guard.run():`, or use the runner of the adapter.",
        )
    return here if here is not None and here.run is around else _dialogues_of(around).unasked(around)


def _dialogues_of(run: Run) -> _Dialogues:
    found = run.adapters.get(_Dialogues)
    if found is None:
        found = run.adapters.setdefault(_Dialogues, _Dialogues())
    assert isinstance(found, _Dialogues)  # noqa: S101 -- for the type checker: the key is the type
    return found


def _costs_nothing(error: BaseException) -> bool:
    """Whether an error proves that nothing was paid: a definite error answer, nothing sent, a refusal of ours."""
    cause: BaseException | None = error
    for _ in range(_CAUSES_MAX):
        if cause is None:
            return False
        status = getattr(cause, "status_code", None)
        known = isinstance(status, int) and 400 <= status <= 599
        if known or isinstance(cause, RunrailsError) or type(cause).__name__ in _NOT_SENT:
            return True
        cause = cause.__cause__
    return False
