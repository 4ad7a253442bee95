"""
Way B: behind API Gateway or a function URL with IAM authorisation AWS has checked the signature already.

Who it was stands in the event that the Lambda runtime hands over, and nowhere else: headers of the same or a similar
name come from the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias, assert_never, cast, get_args

from runrails.errors import ConfigError
from runrails.identity.errors import Unauthenticated
from runrails_aws.identity.answer import CallerIdentity
from runrails_aws.identity.roster import Roster

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runrails.documents import DocumentStore
    from runrails.identity.principal import Principal
    from runrails_aws.identity.grants import Grant, Grants

__all__ = ["EventForm", "LambdaIdentity", "read_event"]

EventForm: TypeAlias = Literal["rest", "http"]
"""`rest`: a REST API's (payload 1.0); `http`: an HTTP API's or a function URL's (payload 2.0)."""
Part: TypeAlias = Mapping[str, object]


class LambdaIdentity:
    """
    Lets in whom API Gateway or a function URL has let in by IAM. Safe in many threads.

    It trusts the event, so it is only for functions that nobody may invoke but that gateway (a resource policy with its
    ARN says so): whoever may invoke a function directly writes the whole event.

    Args:
        form: Which events this function gets; those of the other form are refused.
        grants: Whom each IAM user and role is here.
        documents: Where the unique ids of identities are kept.

    Raises:
        ConfigError: There is no such form.
    """

    def __init__(self, form: EventForm, grants: Grants | Iterable[Grant], documents: DocumentStore) -> None:
        if form not in get_args(EventForm):
            raise ConfigError("There is no such form of events.", next_step='Give "rest" or "http".')
        self._form: EventForm = form
        self._roster = Roster(grants, documents)

    def verify(self, event: Mapping[str, object]) -> Principal:
        """
        Who has called.

        Raises:
            Unauthenticated: The same for every fault; `reason` is for the operator, see `REASONS`.
            StoreUnavailable: Nobody knows whether it is the same user or role as before.
        """
        return self._roster.admit(read_event(event, form=self._form))

    def forget(self, arn: str) -> bool:
        """Forget the unique id of a user or role that its operator has made anew. See `Roster.forget`."""
        return self._roster.forget(arn)


def read_event(event: Mapping[str, object], *, form: EventForm) -> CallerIdentity:
    """Whom AWS has put into an event. Pure. Raises Unauthenticated, with the reason in `reason`."""
    context = _part(event, "requestContext")
    version = event.get("version")
    match form:
        case "rest":
            is_expected = version is None or version == "1.0"
            found, user_id = _part(context, "identity"), "user"
        case "http":
            is_expected = version == "2.0"
            found, user_id = _part(_part(context, "authorizer"), "iam"), "userId"
        case _:
            assert_never(form)
    if not context or not is_expected:
        raise Unauthenticated("aws_event_malformed")
    match [found.get(name) for name in ("userArn", user_id, "accountId")]:
        case [str(arn), str(unique), str(account)]:
            return CallerIdentity(arn=arn, user_id=unique, account=account)
        case _:
            raise Unauthenticated("aws_event_anonymous")


def _part(whole: Part, name: str) -> Part:
    part = whole.get(name)
    return cast("Part", part) if isinstance(part, Mapping) else {}
