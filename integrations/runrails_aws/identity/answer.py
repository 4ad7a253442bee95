"""
What STS answers, read so strictly that nothing but STS's own answer passes. Pure.

Its form is that of the API reference of AWS STS, version 2011-06-15.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from runrails.identity.errors import Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import LiteralString
    from xml.etree.ElementTree import Element

__all__ = ["ANSWER_BYTES_MAX", "CallerIdentity", "STSAnswer", "read_answer"]

ANSWER_BYTES_MAX = 16 * 1024

_NAMESPACE = "{https://sts.amazonaws.com/doc/2011-06-15/}"
_FIELDS = ["Account", "Arn", "UserId"]
_TYPE = re.compile(r'(?:text|application)/xml(?:; ?charset="?utf-8"?)?', re.IGNORECASE)
_CODE = re.compile(rb"<Code>([A-Za-z.]{1,64})</Code>")
_CLOCK = re.compile(rb"Signature (?:expired|not yet current)")
_REASONS: Mapping[bytes, LiteralString] = MappingProxyType(
    {
        b"SignatureDoesNotMatch": "aws_signature_wrong",
        b"IncompleteSignature": "aws_signature_wrong",
        b"RequestExpired": "aws_sts_clock",
        b"InvalidClientTokenId": "aws_key_unknown",
        b"UnrecognizedClientException": "aws_key_unknown",
        b"ExpiredToken": "aws_session_expired",
        b"ExpiredTokenException": "aws_session_expired",
        b"Throttling": "aws_sts_throttled",
        b"ThrottlingException": "aws_sts_throttled",
        b"OptInRequired": "aws_region_disabled",
        b"RegionDisabledException": "aws_region_disabled",
    }
)


class STSAnswer(NamedTuple):
    """What came back over HTTPS."""

    status: int
    content_type: str | None
    body: bytes
    """At most `ANSWER_BYTES_MAX` and one more, by which it is known to be too long."""


class CallerIdentity(NamedTuple):
    """Who AWS says has signed a request."""

    arn: str
    user_id: str
    """The unique id, and behind a colon the session's name."""
    account: str


def read_answer(answer: STSAnswer) -> CallerIdentity:
    """Who STS says it is. Raises Unauthenticated, with the reason in `reason`."""
    if answer.status != 200:
        raise _refused(answer)
    if len(answer.body) > ANSWER_BYTES_MAX:
        raise Unauthenticated("aws_sts_oversized")
    if not _TYPE.fullmatch(answer.content_type or ""):
        raise Unauthenticated("aws_sts_not_xml")
    root = _parsed(answer.body)
    found = None if root is None else _identity(root)
    if found is None:
        raise Unauthenticated("aws_sts_malformed")
    return found


def _refused(answer: STSAnswer) -> Unauthenticated:
    """Redirects and whatever else is not 200 are all refusals; AWS's code says which kind to the operator."""
    if 300 <= answer.status < 400:
        return Unauthenticated("aws_sts_redirected")
    if answer.status >= 500:
        return Unauthenticated("aws_sts_unavailable")
    head = answer.body[:ANSWER_BYTES_MAX]
    found = _CODE.search(head)
    if _CLOCK.search(head):
        return Unauthenticated("aws_sts_clock")
    return Unauthenticated(_REASONS.get(found[1] if found else b"", "aws_sts_refused"))


def _parsed(body: bytes) -> Element | None:
    from xml.etree.ElementTree import ParseError, fromstring

    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    # No DTD, entity, comment, CDATA or instruction may stand there: parsers join the text around them.
    if "<!" in text or "<?" in text.removeprefix("<?xml "):
        return None
    try:
        return fromstring(text)  # noqa: S314 -- expat expands no entities where none can be declared
    except (ParseError, ValueError):
        return None


def _identity(root: Element) -> CallerIdentity | None:
    if not _is(root, "GetCallerIdentityResponse"):
        return None
    results = [child for child in root if _is(child, "GetCallerIdentityResult")]
    others = [child for child in root if not _is(child, "GetCallerIdentityResult")]
    if len(results) != 1 or not all(_is(child, "ResponseMetadata") for child in others):
        return None
    leaves = list(results[0])
    if sorted(leaf.tag for leaf in leaves) != [_NAMESPACE + name for name in _FIELDS]:
        return None
    if any(len(leaf) or leaf.attrib for leaf in leaves):
        return None
    account, arn, user_id = (results[0].findtext(_NAMESPACE + name, "") for name in _FIELDS)
    return CallerIdentity(arn=arn, user_id=user_id, account=account)


def _is(element: Element, name: str) -> bool:
    """Whether it is that element of STS's namespace, with nothing in it but elements."""
    texts = [element.text, *(child.tail for child in element)]
    return element.tag == _NAMESPACE + name and not element.attrib and not any((text or "").strip() for text in texts)
