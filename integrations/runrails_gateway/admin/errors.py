"""How these endpoints say no: OpenAI's shape for every error, and nothing of the request in it."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from runrails.errors import ConfigError, CredentialError, RunrailsError
from runrails_gateway.dialects.telling import rule_of, tell
from runrails_gateway.dialects.told import Told
from runrails_gateway.dialects.wording import openai_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runrails_gateway.dialects.told import Kind

__all__ = ["ANSWERS", "Busy", "ErrorAnswer", "NotSetUp", "NotThere", "Unfit", "answer", "documented"]


class NotSetUp(RunrailsError):
    """The gateway was started without the part that this needs."""

    code = "not_set_up"
    http_status = 409


class NotThere(RunrailsError):
    """Nothing is there, or nothing that the caller may see."""

    code = "not_found"
    http_status = 404

    def __init__(self, what: str) -> None:
        super().__init__(f"There is no such {what}.", next_step="Look at the list of those there are.")


class Unfit(RunrailsError):
    """A value has the right type and makes no sense. Nothing was changed."""

    code = "invalid_value"
    http_status = 422

    def __init__(self, what: str) -> None:
        super().__init__(what, next_step="Nothing was changed.")


class Busy(RunrailsError):
    """Something that takes a while is being worked out."""

    code = "busy"
    http_status = 503

    def __init__(self) -> None:
        super().__init__("This takes a while to add up, and has not ended yet.", next_step="Ask again in some seconds.")


class ErrorBody(BaseModel):
    """What is wrong, and what to do about it."""

    model_config = ConfigDict(extra="allow")

    message: str = Field(description="What happened, and what to do about it.")
    type: str = Field(description="What sort of error it is, in OpenAI's words.")
    param: str | None = Field(default=None, description="Which part of the request it is about.")
    code: str = Field(description="Which error it is; stable.")
    request_id: str = Field(description="Of this request, for the operator's log; also in the header `x-request-id`.")


class ErrorAnswer(BaseModel):
    """The shape of every error, which is OpenAI's."""

    error: ErrorBody


_KINDS: Mapping[int, Kind] = {404: "not_found", 409: "conflict", 413: "too_large", 503: "unavailable"}
ANSWERS: Mapping[int, str] = {
    400: "The body is no JSON object, or one that two readers could understand differently.",
    401: "No valid credential was presented.",
    403: "The credential may not do this, or not there.",
    404: "There is no such thing, or it is out of reach.",
    408: "The body did not come in time.",
    409: "It cannot be done as things are: it exists already, is revoked, or is not set up.",
    413: "The body is too large.",
    422: "A value is missing or malformed.",
    503: "The store is out of reach, or what it has cannot be read. Nothing was changed, unless it says so.",
}
_ID = "1 to 128 ASCII letters, digits or one of . _ @ + = -, the first a letter or digit"
_FORMS = {
    "limit": "a limit of more than 0: dollars like 12.50 for money, a whole number for other units",
    "month_usd": "dollars like 12.50", "unit": "a short lower-case word like pusd or tokens",
    "owner": "user:NAME, org:NAME or platform", "scope": "kind:id, for instance user:alice or org:acme",
    "provider": "1 to 32 of a-z, 0-9, _ and -, the first a letter", "region": "a region like eu-west-1",
    "label": "1 to 64 letters, digits or one of . _ -, the first a letter or digit",
    "base_url": "a base URL like https://HOST/PATH", "month": "a month like 2026-11", "period": "a month like 2026-11",
}  # fmt: skip
"""How a value is written that has a form, by its name; for people, to whom a pattern says little."""
_ALWAYS = (401, 403, 422, 503)


def documented(*more: int, body: bool = False) -> dict[int | str, dict[str, object]]:
    """The error answers of an endpoint, for its documentation."""
    codes = sorted({*_ALWAYS, *more, *((400, 408, 413) if body else ())})
    return {code: {"model": ErrorAnswer, "description": ANSWERS[code]} for code in codes}


def answer(error: Exception, *, changes: bool, request_id: str) -> Response | None:
    """The answer to an error that a caller may be told of; None for a bug, which is nobody's business but ours."""
    told = _told(error, changes=changes, request_id=request_id)
    if told is None:
        return None
    return Response(openai_error(told), told.status, dict(told.headers), "application/json")


def _told(error: Exception, *, changes: bool, request_id: str) -> Told | None:
    if isinstance(error, RunrailsError):
        own = _own(error, changes=changes)
        told = tell(error, request_id=request_id)
        # In other places a call of a model would not be started for these; here something is asked for and cannot be.
        return told if own is None else replace(told, status=own[0], kind=own[1], code=own[2], message=str(error))
    if isinstance(error, RequestValidationError):
        told = _invalid(cast("Iterable[Mapping[str, object]]", error.errors()))
        return replace(told, request_id=request_id)
    if isinstance(error, HTTPException):
        code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
        return _plain(error.status_code, code, "Bad request.", request_id=request_id)
    return None


def _own(error: RunrailsError, *, changes: bool) -> tuple[int, Kind, str] | None:
    """Status, sort and code of what is told otherwise here than where models are called."""
    if isinstance(error, ConfigError):
        # What was asked for does not fit with what is there; or, if nothing was asked for, what is there is damaged.
        return (409, "conflict", "conflict") if changes else (503, "unavailable", "unreadable")
    if isinstance(error, NotSetUp | NotThere | Unfit | Busy):
        return error.http_status, _KINDS.get(error.http_status, "invalid_request"), error.code
    if isinstance(error, CredentialError) and rule_of(error).status == 403:
        return 409, "conflict", error.code  # 403 is about the caller alone
    return None


def _invalid(errors: Iterable[Mapping[str, object]]) -> Told:
    """The first that is wrong. Names of members that nobody has asked for are not repeated."""
    first = next(iter(errors), cast("Mapping[str, object]", {}))
    kind, place = str(first.get("type", "")), cast("tuple[str | int, ...]", first.get("loc", ()))
    if kind == "json_invalid":
        return _plain(400, "invalid_json", "The body is no JSON.", param="body")
    known = place[1:] if kind != "extra_forbidden" else place[1:-1]
    param = ".".join(str(each) for each in known)[:128] or None
    if kind == "extra_forbidden":
        told = "There is a member that is not known here"
    elif kind == "string_pattern_mismatch":
        told = f"It must be {_FORMS.get(str(place[-1]), _ID)}"
    else:
        told = str(first.get("msg", "Invalid"))
    where = f" ({param})" if param else ""
    return _plain(422, kind or "invalid", f"{told.removeprefix('Value error, ').rstrip('.')}{where}.", param=param)


def _plain(status: int, code: str, message: str, *, param: str | None = None, request_id: str = "") -> Told:
    kind = _KINDS.get(status, "invalid_request")
    return Told(status=status, kind=kind, code=code, message=message, param=param, request_id=request_id)
