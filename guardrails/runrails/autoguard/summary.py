"""What a guarded program came to: the ledger's word on the money, the processes' on everything else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from runrails.autoguard.stops import stop_from
from runrails.ledger import RUN_PERIOD, Account, Balance, SupportsUsage
from runrails.periods import month_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runrails.autoguard.folder import Folder
    from runrails.autoguard.plan import Plan
    from runrails.errors import GuardrailStopped
    from runrails.ledger import Store, UsageRecord

__all__ = ["ModelLine", "Refusals", "Summary", "gather"]

MODELS_MAX = 100
"""Beyond these many models, what is new is summed under `(other)`."""
ROWS_KEPT_MAX = 1_000


@dataclass(slots=True, kw_only=True)
class ModelLine:
    """What one model was used for."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_pusd: int = 0

    def add(self, record: UsageRecord) -> None:
        """Count one call."""
        usage = None if record.result is None else record.result.usage
        self.calls += 1
        self.cost_pusd += record.actual_pusd or 0
        if usage is not None:
            self.input_tokens += usage.input_tokens
            self.output_tokens += usage.output_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusals:
    """Calls that were refused for one reason."""

    code: str
    count: int
    message: str
    """Of the newest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A program's run when it is over, or when its first process is."""

    run: str
    plan: Plan
    started_ms: int
    ended_ms: int
    stop: GuardrailStopped | None
    would_have_stopped: str | None
    seen: bool
    """Whether any Python of the program has loaded the guard."""
    modules: Sequence[str]
    """The SDKs that were patched."""
    without_runrails: Sequence[str]
    """Pythons in which runrails is not installed."""
    reports: Sequence[Mapping[str, object]]
    """Of its processes that ended by themselves."""
    refused: Sequence[Refusals]
    messages: Sequence[str]
    models: Mapping[str, ModelLine] = field(default_factory=dict[str, ModelLine])
    held_pusd: int = 0
    """What calls hold whose end nobody has told: they are charged when their holds expire."""
    held_calls: int = 0
    unresolved_pusd: int = 0
    cost_pusd: int = 0
    """What was spent, by the account of the run."""
    balances: Sequence[Balance] = ()

    @property
    def model_calls(self) -> int:
        """Calls that started."""
        return sum(line.calls for line in self.models.values())

    def count(self, key: str) -> int:
        """The sum of one of the numbers that the processes reported."""
        return sum(value for report in self.reports if isinstance(value := report.get(key), int))


def gather(folder: Folder, store: Store, plan: Plan, *, run_id: str, started_ms: int, now_ms: int) -> Summary:
    """
    Read what is known. What the store cannot tell is left out.

    Raises:
        StoreUnavailable: The ledger is out of reach.
    """
    words = list(folder.reports())
    reports = [cast("Mapping[str, object]", word["report"]) for word in words if isinstance(word.get("report"), dict)]
    models: dict[str, ModelLine] = {}
    held = held_calls = unresolved = 0
    for record in _records(store, [run_id, *folder.runs()]):
        if record.state == "held":
            held, held_calls = held + record.estimated_pusd, held_calls + 1
        elif record.state == "unresolved":
            unresolved += record.actual_pusd or 0
        name = (None if record.result is None else record.result.model) or record.facts.model
        models.setdefault(name if name in models or len(models) < MODELS_MAX else "(other)", ModelLine()).add(record)
    return Summary(
        run=run_id, plan=plan, started_ms=started_ms, ended_ms=now_ms, stop=stop_from(folder.stopped()),
        would_have_stopped=next((str(text) for report in reports if (text := report.get("would_have_stopped"))), None),
        seen=folder.was_seen(), modules=folder.modules(), without_runrails=folder.without_runrails(), reports=reports,
        refused=_refused(words), messages=_messages(words), models=models, held_pusd=held, held_calls=held_calls,
        unresolved_pusd=unresolved,
        cost_pusd=store.balance(Account(f"run:{run_id}", RUN_PERIOD)).spent, balances=_balances(store, plan, now_ms),
    )  # fmt: skip


def _records(store: Store, runs: Sequence[str]) -> list[UsageRecord]:
    if not isinstance(store, SupportsUsage):
        return []
    ids = dict.fromkeys(runs)
    return [record for run in ids for record in store.usage(run=run) if record.state != "released"]


def _refused(words: Sequence[Mapping[str, object]]) -> list[Refusals]:
    found: dict[str, Refusals] = {}
    for word in words:
        for item in cast("list[dict[str, object]]", word.get("refused") or []):
            code, count = str(item.get("code")), item.get("count")
            before = found[code].count if code in found else 0
            found[code] = Refusals(
                code=code, count=before + (count if isinstance(count, int) else 0), message=str(item.get("message"))
            )
    return list(found.values())


def _messages(words: Sequence[Mapping[str, object]]) -> list[str]:
    return list(dict.fromkeys(str(text) for word in words for text in cast("list[object]", word.get("messages") or [])))


def _balances(store: Store, plan: Plan, now_ms: int) -> list[Balance]:
    month = month_of(now_ms, plan.zone)
    scopes = [("user", plan.user), ("key", plan.key), ("org", plan.org)]
    return [store.balance(Account(f"{kind}:{name}", month)) for kind, name in scopes if name is not None]
