"""API keys over HTTP: what `runrails keys` does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import Body, Query

from runrails.money import usd
from runrails.plainfields import usd_text
from runrails.rates import Rates
from runrails_gateway.admin.errors import Unfit
from runrails_gateway.admin.models import Key, KeyCreate, KeyRotate, KeyShown, Listing, RateLimits
from runrails_gateway.admin.paging import Limit, Offset, Only, page_of
from runrails_gateway.admin.routing import CallerOf, Endpoint

if TYPE_CHECKING:
    from runrails.identity.apikeys import ApiKeyInfo

__all__ = ["KEYS"]

Status = Literal["active", "suspended", "revoked"]


def create_key(caller: CallerOf, ask: KeyCreate) -> KeyShown:
    """Make a key. Its text is in this answer and nowhere else."""
    # An administrator of an organisation makes keys of it: one without would be the platform's.
    org = ask.org or caller.org
    month_pusd = _month(ask.month_usd)
    if month_pusd is not None:
        caller.may_allow("key:", month_pusd)
    info, secret = caller.desk.keys.create(
        caller.principal, ask.user, scopes=ask.scopes, name=ask.name, org=org, expires_ms=ask.expires_ms,
        rates=_rates(ask.rates), month_pusd=month_pusd,
    )  # fmt: skip
    caller.told(key=info.id, user=info.user)
    return KeyShown(**_shown(info).model_dump(), key=secret.reveal())


def list_keys(
    caller: CallerOf,
    user: Only = None,
    q: Annotated[str | None, Query(max_length=128, description="Part of an id, a name, a user or an org.")] = None,
    status: Status | None = None,
    limit: Limit = 100,
    offset: Offset = 0,
) -> Listing[Key]:
    """Keys, newest first."""
    found = reversed(caller.desk.keys.list(caller.principal, user))
    wanted = (info for info in found if status in (None, info.status) and _fits(info, q))
    return page_of(map(_shown, wanted), limit, offset)


def show_key(caller: CallerOf, key_id: str) -> Key:
    """What is known of a key."""
    return _shown(caller.desk.keys.show(caller.principal, key_id))


def suspend_key(caller: CallerOf, key_id: str) -> Key:
    """Take a key no more until it is resumed. It counts everywhere within 5 seconds."""
    return _told(caller, caller.desk.keys.suspend(caller.principal, key_id))


def resume_key(caller: CallerOf, key_id: str) -> Key:
    """Take a suspended key again."""
    return _told(caller, caller.desk.keys.resume(caller.principal, key_id))


def revoke_key(caller: CallerOf, key_id: str) -> Key:
    """Never take a key again, which is final. It counts everywhere within 5 seconds."""
    return _told(caller, caller.desk.keys.revoke(caller.principal, key_id))


def rotate_key(caller: CallerOf, key_id: str, ask: Annotated[KeyRotate | None, Body()] = None) -> KeyShown:
    """Give a key another secret, which is in this answer and nowhere else."""
    overlap_ms = (ask or KeyRotate()).overlap_ms
    info, secret = caller.desk.keys.rotate(caller.principal, key_id, overlap_ms)
    caller.told(key=info.id, user=info.user)
    return KeyShown(**_shown(info).model_dump(), key=secret.reveal())


KEYS = (
    Endpoint("POST", "/keys", "keys.create", create_key, 201, (409,)),
    Endpoint("GET", "/keys", "keys.list", list_keys, errors=(409,)),
    Endpoint("GET", "/keys/{key_id}", "keys.show", show_key, errors=(404, 409)),
    Endpoint("POST", "/keys/{key_id}/suspend", "keys.suspend", suspend_key, errors=(404, 409)),
    Endpoint("POST", "/keys/{key_id}/resume", "keys.resume", resume_key, errors=(404, 409)),
    Endpoint("POST", "/keys/{key_id}/revoke", "keys.revoke", revoke_key, errors=(404, 409)),
    Endpoint("POST", "/keys/{key_id}/rotate", "keys.rotate", rotate_key, errors=(404, 409)),
)


def _told(caller: CallerOf, info: ApiKeyInfo) -> Key:
    caller.told(key=info.id, user=info.user)
    return _shown(info)


def _shown(info: ApiKeyInfo) -> Key:
    return Key.model_validate(info.as_dict() | {"month_usd": usd_text(info.month_pusd)})


def _fits(info: ApiKeyInfo, text: str | None) -> bool:
    if not text:
        return True
    return any(text.lower() in each.lower() for each in (info.id, info.prefix, info.name, info.user, info.org or ""))


def _rates(given: RateLimits | None) -> Rates | None:
    try:
        return None if given is None else Rates(**given.model_dump())
    except ValueError as error:
        raise Unfit(str(error)) from None


def _month(amount: str | None) -> int | None:
    found = None if amount is None else usd(amount)
    if found is not None and found <= 0:
        raise Unfit("A monthly budget must be more than $0. For no budget, leave it out.")
    return found
