"""A guard: limits, prices, whose money, and the store that keeps the books. Makes runs."""

from __future__ import annotations

import threading
from contextvars import copy_context
from types import CodeType
from typing import TYPE_CHECKING, Literal, ParamSpec, Protocol, Self, TypeVar, cast
from weakref import WeakSet

from runrails import aio, current, settings
from runrails.admission import Room, on_event_loop
from runrails.anchoring import Margins
from runrails.attributing import Ambient, Attributing
from runrails.attribution import Attribution
from runrails.cardkeeping import CardKeeper
from runrails.clocks import Clock, monotonic_ms, system_ms
from runrails.errors import ConfigError, StoreUnavailable
from runrails.events import Emitter, Sink, log_sink
from runrails.figures import check_markup_bp
from runrails.housekeeping import Housekeeper
from runrails.ids import check_id, id_makers, new_id
from runrails.ledger import SCOPES_MAX, RunArchive, RunRecord, Store, SupportsUsage
from runrails.limits import Limits, check_limits
from runrails.periods import check_zone
from runrails.pricing.book import PriceBook
from runrails.run import Run, current_run
from runrails.stores import open_store, same_books
from runrails.zones import Zones

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping
    from contextvars import Context
    from pathlib import Path
    from types import TracebackType

    from runrails.grouping import GroupRow
    from runrails.keyroutes import SupportsRoutes
    from runrails.loops import ToolRule
    from runrails.pricing import PriceSpec, Term
    from runrails.savers.caching import ResponseCache
    from runrails.supervisor import Supervisor

__all__ = ["Guard"]

RUNS_NESTED_MAX = SCOPES_MAX - 3
"""Deepest nesting of runs: a reservation takes a hold in each of them and in the user, the key and the organisation."""
CO_COROUTINE = 0x80
"""The flag of `async def` in a code object, as the `inspect` module documents it."""
_P = ParamSpec("_P")
_R = TypeVar("_R")
_C = TypeVar("_C")


class Closable(Protocol):
    """What ends with the guard."""

    def close(self) -> None:
        """End it. Closing twice is fine."""
        ...


class Guard:
    """
    Configuration and store; `run` makes guarded executions. Thread-safe; share one per process and principal.

    Args:
        limits: What may be used; what `runrails.toml` says, else `Limits()`, which is safe by itself.
        user: Whose money; `RUNRAILS_USER`, else `local`.
        key: The API key the calls are made for, if budgets are kept per key.
        org: The organisation, if budgets are kept per organisation.
        tags: What all of its calls are for, to filter and group usage by: `{"team": "search"}`. See `Attribution`.
        store: An engine or its URL; `RUNRAILS_STORE`, else `runrails.toml`, else SQLite in the user-data directory.
        prices: Prices by model, over the project file and the built-in table:
            `{"my-model": Price(input="3", output="15")}` in dollars per million tokens, `Price(call="3.20")` per call,
            or `"0"` for a model that is free.
        price_file: The project's own prices; `RUNRAILS_PRICES`, else `runrails.toml` in the working directory.
        markup_bp: What is charged on top of a provider's price, in basis points (200 is 2 %), and counted in budgets;
            `RUNRAILS_MARKUP_BP`, else nothing. Never on a key of the user's own.
        byok: Whether calls go out on keys of the users' own, so that nothing is billed for them. Their cost counts for
            the run and `Limits(byok_month=…)`. `run`, `attribute` and calls may say otherwise.
        credentials: Who chooses the key that each call goes out on, and so says `byok`: a `Router` over a vault.
        cache: Stored answers, which cost nothing when they are asked for again; see `ResponseCache`. For guarded
            clients, and LangChain's models with a `runrails_langchain.ResponseCacheAdapter`.
        contract: What was agreed with providers, above the project file: `[Term(provider="openai", percent="-12")]`.
        assume: `dearest` prices a model that nobody has priced at the dearest of every rate of its provider, instead
            of refusing the call; such cards and events say so.
        mode: `enforce`, or `observe` to decide and report but stop nothing.
        zone: Time zone in which months begin; fixed at a scope's first use.
        tools: What is special about some tools, by name: `{"get_status": ToolRule(poll=True)}`.
        sinks: Who hears of events; by default the standard logger `runrails`, from WARNING up.
        on_store_error: `refuse` calls while the ledger is out of reach, or `allow` them and write the books later.

    Raises:
        ConfigError: A setting is wrong; the message names it.
    """

    def __init__(  # noqa: PLR0913 -- keyword-only settings, each with a default
        self,
        limits: Limits | None = None,
        *,
        user: str | None = None,
        key: str | None = None,
        org: str | None = None,
        tags: Mapping[str, str] | None = None,
        store: Store | str | None = None,
        prices: Mapping[str, PriceSpec] | None = None,
        mode: Literal["enforce", "observe"] = "enforce",
        zone: str = "UTC",
        tools: Mapping[str, ToolRule] | None = None,
        sinks: Iterable[Sink] | None = None,
        on_store_error: Literal["refuse", "allow"] = "refuse",
        price_file: str | Path | None = None,
        contract: Iterable[Term] = (),
        assume: Literal["dearest"] | None = None,
        markup_bp: int | None = None,
        byok: bool = False,
        credentials: SupportsRoutes | None = None,
        cache: ResponseCache | None = None,
        clock: Clock = system_ms,
        monotonic: Clock = monotonic_ms,
        make_id: Callable[[], str] = new_id,
    ) -> None:
        self.limits = settings.limits() if limits is None else check_limits(limits)
        if credentials is not None:
            from runrails.keyroutes import check_routes

            check_routes(credentials)
        self.credentials = credentials
        self.cache = _cache(cache)
        self.saves = cache is not None or self.limits.saves
        """Whether any call may be made cheaper: nothing looks further where it is not."""
        self.user = _id(user if user is not None else settings.user(), "user")
        self.key = None if key is None else _id(key, "key")
        self.org = None if org is None else _id(org, "org")
        said = None if byok is False else byok
        self.attribution = Attribution(user=self.user, key=self.key, org=self.org, tags=tags, byok=said)
        """Whose money it is where nothing else is said."""
        self.markup_bp = settings.markup_bp() if markup_bp is None else check_markup_bp(markup_bp)
        self.ambient = Ambient()
        self.mode = _one_of(mode, ("enforce", "observe"), "mode")
        self.on_store_error = _one_of(on_store_error, ("refuse", "allow"), "on_store_error")
        self.zone = _zone(zone)
        self.tools = dict(tools or {})
        self.prices = PriceBook.load(
            prices, price_file if price_file is not None else settings.price_file(), contract=contract, assume=assume
        )
        self.clock = clock
        self.monotonic = monotonic
        self.new_id = make_id
        self.call_id, self.run_id = id_makers(make_id)
        self.emit = Emitter((log_sink,) if sinks is None else sinks)
        self.room = Room()
        """Notified whenever a call of this guard ends, for calls that wait for its money."""
        self.adapters: dict[type[object], object] = {}
        """What adapters keep for this guard, by the type of it."""
        self.before_close: WeakSet[Closable] = WeakSet()
        """What is closed before the store is: the runs of guarded clients."""
        self.yields = False
        """True for the guard of a whole process: other guards may work inside its run, and take over what it guards."""
        self._owns_store = not _is_store(store)
        self.store: Store = open_store(store, clock=clock) if store is None or isinstance(store, str) else store
        if self.store.remote:
            self.prices.prepare()  # Later it would be read beside an event loop, which would stand still.
        self.price_cards = CardKeeper(self.store)
        self.margins = Margins()
        """By how much the input bounds of models are widened that were underestimated."""
        tolerant = self.on_store_error == "allow" or self.mode == "observe"
        self.housekeeper = Housekeeper(self.store, self.emit, monotonic=monotonic, tolerant=tolerant)
        self.zones = Zones(self.store, self.zone, self.emit, tolerant=tolerant)

    def run(
        self, name: str = "", *, limits: Limits | None = None, id: str | None = None,  # noqa: A002 -- users' word
        user: str | None = None, key: str | None = None, org: str | None = None, tags: Mapping[str, str] | None = None,
        byok: bool | None = None,
    ) -> Run:  # fmt: skip
        """
        A guarded execution, to be used in a `with` or driven by hand.

        Inside another run of this guard it is a child run that draws on its parent; then `limits` adds limits of its
        own, and without them only the parent's apply.

        `user`, `key`, `org`, `tags` and `byok` say whose it is, over what the parent and the guard say. What
        `attribute` or a call itself says goes before them.

        Raises:
            ConfigError: Inside a run of another guard, nested too deep, or an id or a tag is malformed.
            StoreUnavailable: The ledger is out of reach, unless `on_store_error` is `allow` or the guard only observes.

        On an event loop a remote store is not asked here: what it has against the run is raised by `async with`, or by
        the run's first call.
        """
        parent = current_run()
        own_parent = parent if parent is not None and parent.guard is self else None
        _check_parent(self, parent)
        whose = Attribution(user=user, key=key, org=org, tags=tags, byok=byok).over((own_parent or self).attribution)
        later = self.store.remote and on_event_loop()
        if not later:
            self.zones.fix(whose)
        if limits is not None:
            own = check_limits(limits)
        else:
            own = self.limits if own_parent is None else _child_limits(self.limits)
        self.saves = self.saves or own.saves
        run_id = self.run_id(whose.user or "") if id is None else _id(id, "run id")
        run = Run(self, name=name, run_id=run_id, limits=own, parent=parent, attribution=whose)
        if later:  # a remote store must not be asked here; whatever it says comes before anything is sent
            run.entry.postponed.append(lambda: self.zones.fix(whose))
        if current.opened is not None:
            current.opened(run_id)
        return run

    def run_for(self, said: Attribution | None, name: str = "", *, limits: Limits | None = None) -> Run:
        """For adapters: a run whose arguments say whose it is, over what the block around it says. Raises as `run`."""
        around = self.ambient.get()
        whose = said if around is None else around if said is None else said.over(around)
        if whose is None:
            return self.run(name, limits=limits)
        return self.run(
            name, limits=limits, user=whose.user, key=whose.key, org=whose.org, tags=dict(whose.tags), byok=whose.byok
        )

    def attribute(
        self, *, user: str | None = None, key: str | None = None, org: str | None = None,
        tags: Mapping[str, str] | None = None, byok: bool | None = None,
    ) -> Attributing:  # fmt: skip
        """
        Say whose the calls inside are: `with guard.attribute(user="bob", tags={"team": "search"}):`.

        It counts for every call of this guard that is started inside, whatever run it belongs to, in tasks and bound
        threads too, and goes before what the run and the guard say; only what a call itself says (LangChain's
        `metadata`) goes before it. Blocks nest: what the inner one says wins, field by field and tag by tag.

        What is lazy starts when it is first read: a LangChain stream, or the steps of a generator, belong to the block
        around whoever reads them.

        Raises:
            ConfigError: An id or a tag is malformed.
        """
        return Attributing(self.ambient, Attribution(user=user, key=key, org=org, tags=tags, byok=byok))

    def usage(
        self, by: str, *, month: str | None = None, user: str | None = None, run: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> tuple[GroupRow, ...]:  # fmt: skip
        """
        What the store's calls came to, summed by `user`, `key`, `org`, `model`, `agent`, `run`, `day` or `tag:NAME`.

        Args:
            by: What to sum by. Beyond 10,000 groups, what is new is summed under `(other)`.
            month: Only this month (UTC), as `2026-11`.
            user: Only this user's calls.
            run: Only this run's calls.
            tags: Only calls with all of these tags.

        Raises:
            ConfigError: Usage is not grouped by that, or the store keeps none.
            ValueError: The month is none.
        """
        from runrails.grouping import check_dimension, group_usage, with_tags

        check_dimension(by)
        if not isinstance(self.store, SupportsUsage):
            raise ConfigError("This store cannot be asked for usage.", next_step="Use one that implements `usage`.")
        records = self.store.usage(user=user, period=month, run=run)
        return group_usage(with_tags(records, tags or {}), by)

    def bind(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """
        Let `function` belong to the current run wherever it is called, for instance in a thread pool.

        A coroutine function may be bound as well; each call of it is then a task of its own.
        """
        context = copy_context()
        # Asked of the code's flags: inspect's own test would have to be loaded for it.
        code = getattr(function, "__code__", None)
        if isinstance(code, CodeType) and code.co_flags & CO_COROUTINE:
            return cast(
                "Callable[_P, _R]",
                _bind_coroutine(cast("Callable[_P, Coroutine[object, object, object]]", function), context),
            )

        def bound(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            return context.copy().run(function, *args, **kwargs)

        return bound

    def wrap(self, client: _C) -> _C:
        """
        Guard a client of a provider's SDK: every call that costs money goes through this guard from now on.

        The client itself is changed and returned; copies made with `with_options` are guarded too. Its calls belong to
        the run whose `with` block they are in, else to a run of the client's own. Wrapping twice is wrapping once.

        Raises:
            ConfigError: Nobody knows how to guard such a client, or another guard has it.
        """
        from runrails.clients import wrap

        return wrap(self, client)

    def run_of(self, client: object) -> Run:
        """
        The run that a wrapped client's calls belong to outside of any `with guard.run():`.

        It is the one to ask for a report, and to resume once a stop has ended it:
        `guard.run_of(client).resume(limits=Limits(run="5.00"))`.

        Raises:
            ConfigError: This guard has not wrapped it.
        """
        from runrails.clients import run_of

        return run_of(self, client)

    def supervise(
        self, executor: object, *, name: str = "", limits: Limits | None = None, wrap_up: object = None
    ) -> Supervisor:
        """
        Wrap an executor, so that a stop is an outcome instead of an exception: `guard.supervise(agent).invoke(inputs)`.

        Args:
            executor: A LangGraph graph, a LangChain runnable, an `AgentExecutor`, or a function, sync or async.
            name: Name of its runs.
            limits: Their limits; the guard's own if left out.
            wrap_up: Who is asked for a last answer after a stop, from money kept back for it: a chat model, or a
                function, sync or async, that answers a prompt with one guarded call of a model.

        Raises:
            ConfigError: Nothing of the kind can be asked.
        """
        from runrails.supervisor import Supervisor

        limits = None if limits is None else check_limits(limits)
        return Supervisor(self, executor, name=name, limits=limits, wrap_up=wrap_up)

    def flush(self) -> None:
        """Do now what is otherwise done in the background: postponed writes, holds to extend, warnings."""
        self.housekeeper.tick()

    def close(self) -> None:
        """End the runs of guarded clients, stop the background thread and, if the guard opened it, close the store."""
        try:
            self.housekeeper.settle_left_behind()
            for edge in tuple(self.before_close):
                edge.close()
            self.housekeeper.close()
        finally:
            if self._owns_store:
                aio.forget(self.store)
                self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Guard(user={self.user!r}, mode={self.mode!r}, limits={self.limits!r})"

    def enter_boundaries(self) -> None:
        """Attach every installed adapter, so that what runs inside `with guard.run():` needs no callbacks argument."""
        _attach_adapters()

    def archive(self, run: Run) -> None:
        """Keep a finished run's record, if the store keeps runs; a failing store does not change the user's result."""
        try:
            report = run.report()
        except Exception as exc:  # noqa: BLE001 -- a report observes: a bug in it must not hide how the user's code ended
            self.emit("run_lost", "error", run=run.id, reason=type(exc).__name__)
            return
        self.emit(
            "run_ended", run=run.id, steps=report.steps, cost_pusd=report.cost_pusd, stop_reason=report.stop_reason
        )
        if not isinstance(self.store, RunArchive) or (report.steps == 0 and not run.barren):
            return
        record = RunRecord(
            id=run.id, name=run.name, user=report.user, started_ms=report.started_ms,
            ended_ms=max(report.started_ms, self.clock()), mode=self.mode, stop_reason=report.stop_reason,
            report=report.as_dict(),
        )  # fmt: skip
        try:
            self.store.save_run(record)
        except Exception as exc:  # noqa: BLE001 -- the record is a courtesy; it must not hide how the user's code ended
            reason = exc.what if isinstance(exc, StoreUnavailable) else type(exc).__name__
            self.emit("run_lost", "warning", run=run.id, reason=reason)


_boundary_lock = threading.Lock()
_boundaries_attached = False


def _attach_adapters() -> None:
    """Call the entry points of `runrails.boundaries` whose framework is installed, once a process."""
    global _boundaries_attached  # noqa: PLW0603 -- attaching is per process, like the frameworks' own registries
    if _boundaries_attached:
        return
    from importlib.metadata import entry_points
    from importlib.util import find_spec

    with _boundary_lock:
        if _boundaries_attached:
            return
        for entry in entry_points(group="runrails.boundaries"):
            if find_spec(entry.name) is not None:
                attach: Callable[[], None] = entry.load()
                attach()
        _boundaries_attached = True


def _is_store(store: Store | str | None) -> bool:
    return store is not None and not isinstance(store, str)


def _bind_coroutine(
    function: Callable[_P, Coroutine[object, object, _R]], context: Context
) -> Callable[_P, Coroutine[object, object, _R]]:
    async def bound(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        from asyncio import create_task

        # A coroutine runs in the context of the task that awaits it, so it gets a task with the right one.
        return await create_task(function(*args, **kwargs), context=context.copy())

    return bound


def _check_parent(guard: Guard, parent: Run | None) -> None:
    if parent is not None and parent.guard is not guard:
        if not parent.guard.yields:
            raise ConfigError(
                "A run of one guard cannot be opened inside a run of another: the same calls would be paid twice.",
                next_step="Use the same Guard for both, or end the outer run first.",
            )
        if not same_books(parent.guard.store, guard.store):
            raise ConfigError(
                "This program has a Guard of its own with another store than the run it was started in, whose budget "
                "could not be held there.",
                next_step="Give both the same file (RUNRAILS_STORE), or start the program without `runrails run` (say "
                "`%guardrails off` in a notebook): it guards itself.",
            )
    depth = 0
    while parent is not None:
        # Each is an account, and where the guard changes there are up to three more.
        depth += 1 if parent.guard is guard else 4
        guard, parent = parent.guard, parent.parent
    if depth >= RUNS_NESTED_MAX:
        raise ConfigError(
            f"Runs can be nested {RUNS_NESTED_MAX} deep at most.",
            next_step="Let the inner calls belong to the run around them; they need no run of their own.",
        )


def _child_limits(limits: Limits) -> Limits:
    from dataclasses import replace

    return replace(limits, run=None, tokens=None, steps=None, model_calls=None, tool_calls=None, seconds=None)


def _id(value: str, what: str) -> str:
    try:
        return check_id(value, what=what)
    except ValueError as exc:
        raise ConfigError(str(exc), next_step=f"Pass Guard({what}=…) in that form.") from None


def _cache(cache: object) -> ResponseCache | None:
    if cache is None:
        return None
    from runrails.savers.caching import ResponseCache

    if not isinstance(cache, ResponseCache):
        raise ConfigError(
            f"cache must be a ResponseCache, not {type(cache).__name__}.",
            next_step="Write Guard(cache=ResponseCache()).",
        )
    return cache


def _zone(zone: str) -> str:
    try:
        return check_zone(zone)
    except ValueError as exc:
        raise ConfigError(str(exc), next_step='Pass Guard(zone="Europe/Berlin") or another IANA name.') from None


_L = TypeVar("_L", bound=str)


def _one_of(value: _L, allowed: tuple[_L, ...], what: str) -> _L:
    if value not in allowed:
        raise ConfigError(
            f"{what} must be one of {', '.join(allowed)}.", next_step=f'Write Guard({what}="{allowed[0]}").'
        )
    return value
