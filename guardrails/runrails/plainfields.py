"""
What the ledger and the vault have, as JSON-ready fields: the same on the command line and over HTTP.

Amounts are picodollars, and dollars as exact text beside them: the first do not fit into a float.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.figures import figures_of
from runrails.money import format_usd, usd

if TYPE_CHECKING:
    from runrails.credentials import CredentialInfo
    from runrails.grouping import GroupRow
    from runrails.ledger import Balance, RunRecord, UsageRecord

__all__ = [
    "PARTS", "balance_fields", "call_fields", "credential_fields", "end_of", "group_fields", "limit_fields",
    "read_limit", "run_fields", "usd_text",
]  # fmt: skip

PARTS = ("provider_pusd", "discount_pusd", "markup_pusd", "own_key_pusd", "billed_pusd")
"""Of what a cost is made; see `runrails.figures`."""
_MONEY = "pusd"
_FACTS = (
    "user", "run", "step", "key", "org", "provider", "model", "request_type", "endpoint", "user_agent", "agent", "byok",
    "markup_bp", "input_bound_tokens",
)  # fmt: skip


def usd_text(amount: int | None, unit: str = _MONEY) -> str | None:
    """Dollars as plain exact text (`2851.20`); None for no amount and for what is not money."""
    return None if amount is None or unit != _MONEY else format_usd(amount).replace("$", "").replace(",", "")


def read_limit(amount: str, unit: str = _MONEY, *, what: str = "AMOUNT") -> int:
    """
    A limit as somebody has written it: dollars for money, a whole number for other units.

    Raises:
        ValueError: It is none, not more than 0, or too large.
    """
    limit = usd(amount, what=what) if unit == _MONEY else _whole(amount, what)
    if limit <= 0:
        # Elsewhere 0 often means "no limit"; here it would block. Whoever means either can say so.
        raise ValueError(
            "A limit must be more than 0. Write none to remove it, or the least there is to block the scope: "
            + ("0.000000000001." if unit == _MONEY else "1.")
        )
    if limit >= 2**63:
        raise ValueError("A limit must be less than 2^63.")
    return limit


def balance_fields(balance: Balance) -> dict[str, object]:
    """An account as it stands."""
    account = balance.account
    return {
        "scope": account.scope,
        "period": account.period,
        "unit": account.unit,
        "limit": balance.limit,
        "limit_source": balance.limit_source,
        "spent": balance.spent,
        "held": balance.held,
        "available": balance.available,
        "status": balance.status,
        "limit_usd": usd_text(balance.limit, account.unit),
        "spent_usd": usd_text(balance.spent, account.unit),
    }


def limit_fields(limit: tuple[str, str, int]) -> dict[str, object]:
    """An operator's limit of a scope that has no account yet."""
    scope, unit, amount = limit
    return {
        "scope": scope,
        "period": None,
        "unit": unit,
        "limit": amount,
        "limit_source": "operator",
        "limit_usd": usd_text(amount, unit),
    }


def group_fields(row: GroupRow) -> dict[str, object]:
    """What one group of calls came to."""
    return {
        "name": row.name,
        "calls": row.calls,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "cost_pusd": row.cost_pusd,
        "cost_usd": usd_text(row.cost_pusd),
        **{name: getattr(row, name) for name in PARTS},
    }


def call_fields(record: UsageRecord) -> dict[str, object]:
    """One call in the books."""
    facts, result, figures = record.facts, record.result, figures_of(record)
    counts = None if result is None else result.usage
    return {
        "id": record.id,
        "state": record.state,
        "at_ms": record.at_ms,
        "settled_at_ms": record.settled_at_ms,
        "estimated_pusd": record.estimated_pusd,
        "actual_pusd": record.actual_pusd,
        "cost_usd": usd_text(record.actual_pusd),
        **({} if figures is None else figures._asdict()),
        "corrected": record.corrected,
        **{name: getattr(facts, name) for name in _FACTS},
        "tags": dict(facts.tags),
        "end": None if result is None else result.end,
        "answer_id": None if result is None else result.answer_id,
        "duration_ms": None if result is None else result.duration_ms,
        "input_tokens": None if counts is None else counts.input_tokens,
        "output_tokens": None if counts is None else counts.output_tokens,
    }


def run_fields(record: RunRecord) -> dict[str, object]:
    """A finished run in a few fields; all that is known of it is its report."""
    return {
        "run": record.id,
        "name": record.name,
        "user": record.user,
        "mode": record.mode,
        "started_ms": record.started_ms,
        "ended_ms": record.ended_ms,
        "stop_reason": record.stop_reason,
        **{key: record.report.get(key) for key in ("model_calls", "tool_calls", "steps", "cost_pusd", "cost_usd")},
        "tags": record.report.get("tags", {}),
    }


def end_of(record: RunRecord) -> str:
    """How a run ended, in a word or three."""
    if record.stop_reason is not None:
        return record.stop_reason
    return "would have stopped" if record.report.get("would_have_stopped") else "ok"


def credential_fields(info: CredentialInfo) -> dict[str, object]:
    """What may be told of a stored provider key."""
    return {
        "owner": info.id.owner, "provider": info.id.provider, "label": info.id.label, "version": info.version,
        "status": info.status, "checked_ms": info.checked_ms, "hint": info.hint, "created_ms": info.created_ms,
        "rotated_ms": info.rotated_ms, "base_url": info.base_url, "region": info.region, "key_id": info.key_id,
        "readable": info.readable,
    }  # fmt: skip


def _whole(amount: str, what: str) -> int:
    # int() takes underscores, blanks and the digits of every script, too.
    digits = amount.removeprefix("-").replace(",", "")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= len(str(2**63))):
        raise ValueError(f"{what} must be a whole number like 200000, at most 2^63 - 1.")
    return int(amount.replace(",", ""))
