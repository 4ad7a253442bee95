"""What goes in and out, as OpenAPI describes it. Amounts: `_pusd` are picodollars, `_usd` the same as exact text."""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from runrails.credentials.records import LABEL, SECRET_BYTES_MAX
from runrails.identity.apikeys.keys import OVERLAP_MS
from runrails.identity.apikeys.making import OVERLAP_MS_MAX
from runrails.identity.apikeys.records import NAME_CHARS_MAX
from runrails.identity.principal import TIME_MS_MAX, Scope
from runrails.ids import check_id
from runrails.money import usd
from runrails.rates.limiter import BURST_MINUTES_MAX, PER_MINUTE_MAX

__all__ = [
    "LABELLED",
    "OWNER",
    "PROVIDER",
    "SCOPE",
    "Account",
    "Amount",
    "BudgetOwn",
    "BudgetSet",
    "Credential",
    "CredentialAdd",
    "CredentialChecked",
    "CredentialRotate",
    "FindingTold",
    "Group",
    "Id",
    "Key",
    "KeyCreate",
    "KeyRotate",
    "KeyShown",
    "Listing",
    "Live",
    "Minute",
    "OwnAccount",
    "RateLimits",
    "RunDetail",
    "RunRow",
    "Saved",
    "Step",
    "TokenShown",
    "Usage",
    "UsageBy",
]  # fmt: skip

_T = TypeVar("_T")


def _check_id(value: str) -> str:
    return check_id(value, what="An id")


def _check_amount(value: str) -> str:
    try:
        usd(value)
    except ValueError:
        raise ValueError('must be a number of dollars like "12.50", with at most 12 places') from None
    return value


Id = Annotated[
    str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+=-]*$"), AfterValidator(_check_id)
]
# The domain has the last word; these tell readers of the OpenAPI document what it will say.
_NAME = "[A-Za-z0-9][A-Za-z0-9._@+=-]{0,127}"
OWNER = rf"^(platform|(user|org):{_NAME})$"
SCOPE = rf"^[a-z][a-z0-9_-]{{0,31}}:{_NAME}$"
PROVIDER = r"^[a-z][a-z0-9_-]{0,31}$"
LABELLED = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
Amount = Annotated[
    str,
    Field(pattern=r"^[0-9]{1,7}(\.[0-9]{1,12})?$", description="Dollars as text, exact.", examples=["50.00"]),
    AfterValidator(_check_amount),
]


class Answer(BaseModel):
    """What is answered."""

    # pydantic before 2.10 keeps names that begin as `model_calls` does for itself.
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class Ask(BaseModel):
    """What is asked for; members that are not known are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Listing(Answer, Generic[_T]):
    """A page of a list."""

    object: Literal["list"] = "list"
    data: list[_T]
    has_more: bool
    next_offset: int | None = Field(description="The `offset` of the next page; null on the last one.")


# API keys.


class RateLimits(Ask):
    """Requests and tokens a minute; null: no such limit."""

    requests_per_minute: int | None = Field(default=None, ge=1, le=PER_MINUTE_MAX)
    tokens_per_minute: int | None = Field(default=None, ge=1, le=PER_MINUTE_MAX)
    requests_burst: int | None = Field(default=None, ge=1, le=PER_MINUTE_MAX * BURST_MINUTES_MAX)
    tokens_burst: int | None = Field(default=None, ge=1, le=PER_MINUTE_MAX * BURST_MINUTES_MAX)


class KeyCreate(Ask):
    """A key to be made."""

    user: Id = Field(description="Whose it is, and whose money it spends.")
    scopes: list[Scope] = Field(min_length=1, max_length=16, description="What it may do; all are the caller's own.")
    name: str = Field(default="", max_length=NAME_CHARS_MAX, description="What it is for.")
    org: Id | None = Field(default=None, description="Whose organisation's money it spends as well.")
    expires_ms: int | None = Field(default=None, ge=0, lt=TIME_MS_MAX, description="Milliseconds since the epoch.")
    month_usd: Amount | None = Field(default=None, description="What it may spend in a calendar month.")
    rates: RateLimits | None = None


class KeyRotate(Ask):
    """How long the secret before is taken as well."""

    overlap_ms: int = Field(default=OVERLAP_MS, ge=0, le=OVERLAP_MS_MAX, description="0 for a secret that leaked.")


class Key(Answer):
    """What is known of a key. Nothing in it is secret."""

    id: str
    prefix: str
    name: str
    user: str
    org: str | None
    environment: str
    scopes: list[str]
    status: Literal["active", "suspended", "revoked"]
    created_ms: int
    expires_ms: int | None
    rates: RateLimits | None
    month_pusd: int | None
    month_usd: str | None
    rotated_ms: int | None
    previous_until_ms: int | None = Field(description="Until when a secret of before is taken as well.")
    last_used_ms: int | None


class KeyShown(Key):
    """A key with its secret: this once, and never again."""

    key: str = Field(description="The whole key. It is kept nowhere.")


class TokenShown(Answer):
    """A token, for `Authorization: Bearer`: this once."""

    token: str = Field(description="The whole token. It is kept nowhere.")
    expires_s: int = Field(description="For how many seconds it is good.")
    user: str
    org: str | None
    scopes: list[str]


# Budgets.


class BudgetSet(Ask):
    """A limit that an operator sets; it wins over those in code, in every period."""

    limit: str | None = Field(
        max_length=32, pattern=r"^[0-9][0-9,]*(\.[0-9]{1,12})?$", examples=["50.00"],
        description="Dollars for money, a whole number for other units; null removes the limit.",
    )  # fmt: skip
    unit: str = Field(default="pusd", pattern=r"^[a-z][a-z0-9_]{0,31}$", description="`pusd` is money.")


class Account(Answer):
    """An account as it stands, in its unit; money in picodollars."""

    scope: str
    period: str | None = Field(description="A month like 2026-11, `-` for runs; null: nothing has been spent yet.")
    unit: str
    limit: int | None
    limit_source: str
    spent: int = 0
    held: int = 0
    available: int | None = None
    status: Literal["active", "warning", "blocked"] = "active"
    limit_usd: str | None
    spent_usd: str | None = None
    held_usd: str | None = None
    available_usd: str | None = None


class OwnAccount(Answer):
    """One of the budgets that a call of the caller draws on."""

    scope: str
    period: str
    resets_ms: int = Field(description="When the next month begins, milliseconds since the epoch.")
    status: Literal["active", "warning", "blocked"]
    limit_usd: str | None = Field(description="Null: no limit, or the organisation's, which is its own business.")
    spent_usd: str | None
    held_usd: str | None = Field(description="What calls in flight may cost.")
    available_usd: str | None


class BudgetOwn(Answer):
    """Who the caller is, and what is left."""

    object: Literal["budget"] = "budget"
    user: str
    org: str | None
    key: str | None
    scopes: list[str]
    expires_ms: int | None
    rates: RateLimits | None
    run_limit_usd: str | None = Field(description="What one run may cost.")
    accounts: list[OwnAccount]


# Provider keys.


class CredentialAdd(Ask):
    """A provider key to be stored. It is sealed at once, and never given back."""

    owner: str = Field(pattern=OWNER, description="user:NAME, org:NAME or platform.")
    provider: str = Field(pattern=PROVIDER, examples=["openai"])
    label: str = Field(default=LABEL, pattern=LABELLED)
    key: SecretStr = Field(min_length=1, max_length=SECRET_BYTES_MAX)
    base_url: str | None = Field(default=None, max_length=1_024, pattern=r"^https?://[!-~]+$")
    region: str | None = Field(default=None, max_length=64, pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]{1,2}$")


class CredentialRotate(Ask):
    """The key that takes the place of another; base URL and region stay unless others are given."""

    key: SecretStr = Field(min_length=1, max_length=SECRET_BYTES_MAX)
    base_url: str | None = Field(default=None, max_length=1_024, pattern=r"^https?://[!-~]+$")
    region: str | None = Field(default=None, max_length=64, pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]{1,2}$")


class Credential(Answer):
    """What may be told of a stored provider key."""

    owner: str
    provider: str
    label: str
    version: int
    status: Literal["valid", "invalid", "unverified", "suspended"]
    checked_ms: int | None
    hint: str | None = Field(description="Its last four characters, if it is long.")
    created_ms: int
    rotated_ms: int
    base_url: str | None
    region: str | None
    key_id: str
    readable: bool = Field(description="False: the record is damaged.")


class CredentialChecked(Answer):
    """What the provider says of a key now, and what is noted of it."""

    answer: Literal["valid", "invalid", "unverified"]
    reason: str
    credential: Credential


# Usage.

UsageBy = Literal["user", "key", "org", "model", "agent", "run", "day"]


class Group(Answer):
    """What one group of calls came to."""

    name: str | None = Field(description="Null: the calls that have none.")
    calls: int
    input_tokens: int
    output_tokens: int
    cost_pusd: int
    cost_usd: str
    provider_pusd: int
    discount_pusd: int
    markup_pusd: int
    own_key_pusd: int = Field(description="The part that was paid on users' own keys.")
    billed_pusd: int


class Usage(Answer):
    """Sums of a month's calls, by one thing or several."""

    object: Literal["usage"] = "usage"
    month: str
    calls: int
    input_tokens: int
    output_tokens: int
    cost_pusd: int
    cost_usd: str
    billed_usd: str
    complete: bool = Field(description="False: there were more calls than are looked at, and the newest are left out.")
    groups: dict[str, list[Group]] = Field(description="By each dimension asked for, the dearest first; days in order.")


class Minute(Answer):
    """One minute of the last hour."""

    at_ms: int
    calls: int
    cost_pusd: int
    cost_usd: str


class Live(Answer):
    """Money, now. Costs are counted when a call was started, as far as they are known."""

    object: Literal["live"] = "live"
    as_of_ms: int
    month: str
    month_usd: str
    month_own_key_usd: str
    today_usd: str
    today_calls: int
    hour_usd: str
    hour_calls: int
    in_flight: int = Field(description="Calls that have begun and not ended, of the last hour.")
    in_flight_usd: str = Field(description="The most that they can cost.")
    open_runs: int | None = Field(description="Runs open in this process; null: not known.")
    minutes: list[Minute] = Field(description="The last 60 minutes, oldest first.")


# Runs.


class RunRow(Answer):
    """A run in a few fields."""

    run: str
    name: str
    user: str
    key: str | None = None
    org: str | None = None
    mode: str
    open: bool = Field(description="Whether it goes on.")
    started_ms: int
    ended_ms: int | None
    stop_reason: str | None
    stop_tool: str | None = Field(default=None, description="The tool whose repetitions stopped it.")
    would_have_stopped: str | None = None
    refused: str | None = Field(default=None, description="Why the newest of its refused calls was.")
    model_calls: int
    tool_calls: int
    steps: int
    tokens: int
    cost_pusd: int
    cost_usd: str
    limit_usd: str | None
    tags: dict[str, str]


class FindingTold(Answer):
    """Why the loop detector spoke."""

    level: str
    rule: str
    tool: str
    agent: str
    count: int
    threshold: int
    first_step: int
    last_step: int
    what_happened: str
    how_to_allow: str


class Saved(Answer):
    """What one way of saving came to."""

    what: str
    calls: int
    saved_usd: str


class Step(Answer):
    """One step of a run."""

    step: int
    kind: Literal["model", "tool"]
    name: str
    agent: str
    end: str
    at_ms: int | None
    duration_ms: int | None
    input_tokens: int
    output_tokens: int
    cost_pusd: int
    cost_usd: str
    call: str | None = Field(default=None, description="The call's id in the books.")
    provider: str = ""
    in_loop: bool = Field(default=False, description="Whether it is one of the repetitions that a finding is about.")


class RunDetail(RunRow):
    """A run, step by step, and what stopped it."""

    stop_message: str | None
    unresolved_usd: str
    overrun_usd: str
    hints: int
    blocks: int
    refusals: int
    input_tokens: int
    output_tokens: int
    findings: list[FindingTold]
    savings: list[Saved]
    timeline: list[Step]
    steps_left_out: int = Field(description="How many older steps are not in the timeline.")
