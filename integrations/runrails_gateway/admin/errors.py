"""How these endpoints say no: OpenAI's shape for every error, and nothing of the request in it."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, cast

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from runrails.errors import ConfigError, RunrailsError
from runrails.identity.errors import AuthError
from runrails_gateway.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["ANSWERS", "ErrorAnswer", "NotSetUp", "NotThere", "Unfit", "answer", "documented"]


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

    def __init__(self, what: str, param: str | None = None) -> None:
        super().__init__(what, next_step="Nothing was changed.", param=param)


class ErrorBody(BaseModel):
    """What is wrong, and what to do about it."""

    model_config = ConfigDict(extra="allow")

    message: str = Field(description="What happened, and what to do about it.")
    type: str = Field(description="What sort of error it is, in OpenAI's words.")
    param: str | None = Field(default=None, description="Which part of the request it is about.")
    code: str = Field(description="Which error it is; stable.")


class ErrorAnswer(BaseModel):
    """The shape of every error, which is OpenAI's."""

    error: ErrorBody


_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
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
_ALWAYS = (401, 403, 422, 503)


def documented(*more: int, body: bool = False) -> dict[int | str, dict[str, object]]:
    """The error answers of an endpoint, for its documentation."""
    codes = sorted({*_ALWAYS, *more, *((400, 408, 413) if body else ())})
    return {code: {"model": ErrorAnswer, "description": ANSWERS[code]} for code in codes}


def answer(error: Exception, *, changes: bool) -> JSONResponse | None:
    """The answer to an error that a caller may be told of; None for a bug, which is nobody's business but ours."""
    if isinstance(error, RunrailsError):
        return _told(error, changes=changes)
    if isinstance(error, RequestValidationError):
        return _invalid(cast("Iterable[Mapping[str, object]]", error.errors()))
    if isinstance(error, HTTPException):
        return _write(error.status_code, HTTPStatus(error.status_code).phrase.lower().replace(" ", "_"), "Bad request.")
    return None


def _told(error: RunrailsError, *, changes: bool) -> JSONResponse:
    fields = dict(error.fields)
    status, code = error.http_status, error.code
    if isinstance(error, ConfigError):
        # What was asked for does not fit with what is there; or, if nothing was asked for, what is there is damaged.
        status, code = (409, "conflict") if changes else (503, "unreadable")
    elif isinstance(error, BadRequest):
        code = error.reason
    elif status == 500 or (status in (402, 403) and not isinstance(error, AuthError)):
        status = 409  # 403 is about the caller alone
    param = fields.pop("param", None)
    return _write(status, code, str(error), param=param if isinstance(param, str) else None, **fields)


def _invalid(errors: Iterable[Mapping[str, object]]) -> JSONResponse:
    """The first that is wrong. Names of members that nobody has asked for are not repeated."""
    first = next(iter(errors), cast("Mapping[str, object]", {}))
    kind, place = str(first.get("type", "")), cast("tuple[str | int, ...]", first.get("loc", ()))
    if kind == "json_invalid":
        return _write(400, "invalid_json", "The body is no JSON.", param="body")
    known = place[1:] if kind != "extra_forbidden" else place[1:-1]
    param = ".".join(str(each) for each in known)[:128] or None
    told = "There is a member that is not known here" if kind == "extra_forbidden" else str(first.get("msg", "Invalid"))
    where = f" ({param})" if param else ""
    return _write(422, kind or "invalid", f"{told.removeprefix('Value error, ').rstrip('.')}{where}.", param=param)


def _write(
    status: int, code: str, message: str, *, param: str | None = None, **fields: str | int | bool | None
) -> JSONResponse:
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    told = {"message": message, "type": kind, "param": param, "code": code}
    headers = {"www-authenticate": "Bearer"} if status == 401 else {}
    if status >= 500 or status == 409:
        headers["x-should-retry"] = "false"  # SDKs would ask again, to no avail
    return JSONResponse({"error": {**fields, **told}}, status_code=status, headers=headers)
