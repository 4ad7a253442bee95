"""Users' own provider keys over HTTP: what `runrails byok` does. A key comes in a body, and none ever goes out."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query, Response

from runrails.credentials import CredentialId, CredentialInfo, CredentialNotFound
from runrails.credentials.records import scope_of
from runrails.credentials.revalidation import check_key
from runrails.errors import RunrailsError
from runrails.plainfields import credential_fields
from runrails.secretvalue import Secret
from runrails_gateway.admin.errors import Unfit
from runrails_gateway.admin.models import (
    LABELLED,
    OWNER,
    PROVIDER,
    Credential,
    CredentialAdd,
    CredentialChecked,
    CredentialRotate,
    Listing,
)
from runrails_gateway.admin.paging import Limit, Offset, page_of
from runrails_gateway.admin.routing import CallerOf, Endpoint

__all__ = ["CREDENTIALS"]

Owner = Annotated[str, Path(pattern=OWNER, description="user:NAME, org:NAME or platform.")]
Provider = Annotated[str, Path(pattern=PROVIDER)]
Label = Annotated[str, Path(pattern=LABELLED)]


def add_credential(caller: CallerOf, ask: CredentialAdd) -> Credential:
    """Store a provider key, sealed."""
    which = _which(caller, ask.owner, ask.provider, ask.label)
    try:
        info = caller.desk.vault.add(
            which, _secret(ask.key.get_secret_value()), base_url=ask.base_url, region=ask.region
        )
    except ValueError as error:
        raise _unfit(error) from None
    return _told(caller, info)


def list_credentials(
    caller: CallerOf,
    owner: Annotated[str | None, Query(pattern=OWNER, description="Only this owner's.")] = None,
    provider: Annotated[str | None, Query(pattern=PROVIDER)] = None,
    limit: Limit = 100,
    offset: Offset = 0,
) -> Listing[Credential]:
    """Provider keys, by owner, provider and label. None is opened."""
    if owner is None and caller.org is not None:
        owner = f"org:{caller.org}"
    if owner is not None:
        _may(caller, owner)
    found = caller.desk.vault.list(owner)
    return page_of((_shown(each) for each in found if provider in (None, each.id.provider)), limit, offset)


def validate_credential(caller: CallerOf, owner: Owner, provider: Provider, label: Label) -> CredentialChecked:
    """Ask the provider whether a key is good, by a free request, and note what it says."""
    which = _which(caller, owner, provider, label)
    services, vault = caller.desk.services, caller.desk.vault
    checked = check_key(vault, which, caller.desk.validator, clock=services.clock).validation
    info = _existing(caller, which)
    caller.told(**_names(which), status=checked.status)
    return CredentialChecked(answer=checked.status, reason=checked.reason, credential=_shown(info))


def rotate_credential(
    caller: CallerOf, owner: Owner, provider: Provider, label: Label, ask: CredentialRotate
) -> Credential:  # fmt: skip
    """Replace a provider key by another one."""
    which = _which(caller, owner, provider, label)
    try:
        info = caller.desk.vault.rotate(
            which, _secret(ask.key.get_secret_value()), base_url=ask.base_url, region=ask.region
        )
    except ValueError as error:
        raise _unfit(error) from None
    return _told(caller, info)


def suspend_credential(caller: CallerOf, owner: Owner, provider: Provider, label: Label) -> Credential:
    """Let no call go out on a provider key until it is resumed."""
    return _told(caller, caller.desk.vault.mark(_which(caller, owner, provider, label), "suspended"))


def resume_credential(caller: CallerOf, owner: Owner, provider: Provider, label: Label) -> Credential:
    """End a suspension; the key counts as unverified."""
    return _told(caller, caller.desk.vault.resume(_which(caller, owner, provider, label)))


def remove_credential(caller: CallerOf, owner: Owner, provider: Provider, label: Label) -> Response:
    """Remove a provider key."""
    which = _which(caller, owner, provider, label)
    if not caller.desk.vault.remove(which):
        raise CredentialNotFound(owner=which.owner, provider=which.provider, label=which.label)
    caller.told(**_names(which))
    return Response(status_code=204)


_ONE = "/credentials/{owner}/{provider}/{label}"
CREDENTIALS = (
    Endpoint("POST", "/credentials", "credentials.add", add_credential, 201, (409,)),
    Endpoint("GET", "/credentials", "credentials.list", list_credentials, errors=(409,)),
    Endpoint("POST", f"{_ONE}/validate", "credentials.validate", validate_credential, errors=(404, 409)),
    Endpoint("POST", f"{_ONE}/rotate", "credentials.rotate", rotate_credential, errors=(404, 409)),
    Endpoint("POST", f"{_ONE}/suspend", "credentials.suspend", suspend_credential, errors=(404, 409)),
    Endpoint("POST", f"{_ONE}/resume", "credentials.resume", resume_credential, errors=(404, 409)),
    Endpoint("DELETE", _ONE, "credentials.remove", remove_credential, 204, (404, 409)),
)


def _which(caller: CallerOf, owner: str, provider: str, label: str) -> CredentialId:
    """A key that may be touched, if there is one. Raises Unfit or Forbidden."""
    try:
        which = CredentialId(owner, provider, label)
    except ValueError as error:
        raise Unfit(str(error)) from None
    _may(caller, owner)
    return which


def _unfit(error: ValueError) -> RunrailsError:
    return error if isinstance(error, RunrailsError) else Unfit(str(error))


def _may(caller: CallerOf, owner: str) -> None:
    try:
        scope_of(owner)
    except ValueError as error:
        raise Unfit(str(error)) from None
    kind, _, name = owner.partition(":")
    if kind == "user":
        caller.may_user(name)
    else:
        caller.may(owner)


def _existing(caller: CallerOf, which: CredentialId) -> CredentialInfo:
    info = caller.desk.vault.peek(which)
    if info is None:
        raise CredentialNotFound(owner=which.owner, provider=which.provider, label=which.label)
    return info


def _secret(text: str) -> Secret:
    held = text.strip().encode("utf-8", "surrogatepass")
    if not held:
        raise Unfit("The key is empty.")
    return Secret(held)


def _shown(info: CredentialInfo) -> Credential:
    return Credential.model_validate(credential_fields(info))


def _told(caller: CallerOf, info: CredentialInfo) -> Credential:
    caller.told(**_names(info.id))
    return _shown(info)


def _names(which: CredentialId) -> dict[str, str]:
    return {"owner": which.owner, "provider": which.provider, "label": which.label}
