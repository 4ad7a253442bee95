"""How long records are kept, and what the table tells of it to whoever adds them up."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from runrails.errors import ConfigError
from runrails.ledger import RUN_PERIOD
from runrails.periods import check_period, month_start_ms
from runrails_aws.dynamodb import requests
from runrails_aws.dynamodb.items import key
from runrails_aws.dynamodb.wire import Item, Operation, integer, n

if TYPE_CHECKING:
    from runrails.ledger import Account
    from runrails_aws.dynamodb.calling import Caller

__all__ = ["RETENTION_DAYS_MIN", "Retention", "check_days", "may_lack_records"]

RETENTION_DAYS_MIN = 35
"""A month, and some days for its bill to come: so long a record may be asked for."""
_DAYS_MAX = 36_500
_DAY_S = 86_400
_KEY = key("T", "retention")


def check_days(days: int | None) -> int | None:
    """Return it if records may be deleted so many days after they were resolved. Raises ConfigError."""
    if days is None or (type(days) is int and RETENTION_DAYS_MIN <= days <= _DAYS_MAX):
        return days
    raise ConfigError(
        f"retention_days must be a whole number from {RETENTION_DAYS_MIN}: the month's bill must still find its calls.",
        next_step="Keep records longer, or leave the option out to keep them for good.",
    )


class Retention:
    """
    How long this process lets records be kept after they are resolved. Thread-safe.

    Before the first record gets its end, the table learns the shortest time that any process has ever said: that is how
    whoever adds up the records knows which may be missing.
    """

    def __init__(self, table: str, caller: Caller, days: int | None) -> None:
        self.days = check_days(days)
        self._table = table
        self._caller = caller
        self._told = False

    def keep_s(self) -> int | None:
        """Seconds from a record's resolution to its end; None: for good. Writes once what it says."""
        if self.days is None:
            return None
        if not self._told:
            operation = Operation(
                Key=_KEY, UpdateExpression="SET days = :d",
                ConditionExpression="attribute_not_exists(days) OR days > :d",
                ExpressionAttributeValues={":d": n(self.days)},
            )  # fmt: skip
            self._caller.write(requests.update(self._table, operation), self._caller.begin())
            self._told = True
        return self.days * _DAY_S

    def horizon_s(self, now_ms: int) -> int | None:
        """What was resolved before this may have been deleted, in seconds since the epoch; None: nothing was."""
        found = self._caller.read(requests.get(self._table, _KEY), self._caller.begin()).get("Item")
        return None if found is None else now_ms // 1_000 - integer(cast("Item", found), "days") * _DAY_S


def may_lack_records(account: Account, made_s: int, horizon_s: int | None) -> bool:
    """
    Whether records of an account may have been deleted.

    Args:
        account: Whose.
        made_s: When it was made; 0 if nobody knows.
        horizon_s: See `Retention.horizon_s`.
    """
    if horizon_s is None:
        return False
    if account.period != RUN_PERIOD:
        try:
            # A month begins up to 14 hours before that of UTC.
            made_s = max(made_s, month_start_ms(check_period(account.period)) // 1_000 - _DAY_S)
        except ValueError:
            return True
    return made_s < horizon_s
