"""
Which addresses outside may be asked. Pure: a URL's text and a resolver's answers come in, a decision goes out.

Whoever may name a host that our process connects to can reach what only our process reaches: the metadata of the cloud,
databases, other people's services. So nothing is allowed but public hosts, by name, over TLS, and only those that an
operator has listed. What is written in an unusual way is refused and not understood: two programs that read it
differently are how such guards are passed.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple

from runrails.errors import RunrailsError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import LiteralString

__all__ = [
    "ANSWERS_MAX",
    "ANY_HOST",
    "HTTPS_PORTS",
    "URL_CHARS_MAX",
    "EgressRefused",
    "Target",
    "check_addresses",
    "check_networks",
    "check_url",
]

URL_CHARS_MAX = 2_048
ANSWERS_MAX = 32
"""More addresses than that are no host of anybody's."""
ANY_HOST = "*"
"""In a list of hosts: every public one. It opens the door to whoever may write a URL, so it has to be written down."""
HTTPS_PORTS: frozenset[int] = frozenset({443})
_HOST_CHARS_MAX = 253
_URL = re.compile(r"https://([^/?]*)(/[^?]*)?(\?.*)?")
_TEXT = re.compile(r"[!$%&'()*+,./0-9:;=?@A-Z_a-z~\[\]-]+")
"""The characters that RFC 3986 knows, but for `#`: a fragment is never sent, so it can only be there to mislead."""
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")
"""As the last label it makes a browser read the whole host as an IPv4 address."""
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})|%(?:[01][0-9A-Fa-f]|7[fF])")
"""Half an escape, and those of control characters."""
_HIDDEN = re.compile(r"%(?:2[eEfF]|5[cC])")
"""Escapes of what divides a path or goes up in it: dots, slashes, backslashes."""
_NOWHERE = "alt arpa corp example home internal intranet invalid lan local localdomain localhost onion private test"
_SPECIAL = frozenset(_NOWHERE.split())
"""Last labels that are nobody's on the public internet (RFC 6761, RFC 6762, RFC 9476, and what routers use)."""


class EgressRefused(RunrailsError, ValueError):
    """
    An address that must not be asked. Nothing was sent.

    Args:
        reason: Which rule it breaks, as a word of ours.
        what: The same as a sentence, without anything of the address.
        host: The host, where it could be read and is not the secret itself.
    """

    code = "egress_refused"
    http_status = 400

    def __init__(self, reason: LiteralString, what: str, *, host: str | None = None) -> None:
        super().__init__(
            what,
            next_step="Use https://host/path of a public host that the operator allows.",
            reason=reason,
            host=host,
        )

    @property
    def reason(self) -> str:
        """Which rule it breaks."""
        return str(self.fields["reason"])


class Target(NamedTuple):
    """Where a request goes, read once: what was checked is what is used."""

    host: str
    """In lower case; also the name that the certificate must be for."""
    port: int
    path: str
    """With the query, as it is sent."""

    @property
    def origin(self) -> str:
        """Scheme, host and port, without the path: what may be shown."""
        return f"https://{self.host}" + ("" if self.port == 443 else f":{self.port}")

    @property
    def url(self) -> str:
        """The whole URL in its one spelling."""
        return self.origin + self.path


def check_url(url: str, *, allow_hosts: Collection[str] = (), ports: Collection[int] = HTTPS_PORTS) -> Target:
    """
    Read a URL that our process shall ask.

    Args:
        url: What somebody wrote.
        allow_hosts: The hosts that may be asked, letter by letter in lower case; `ANY_HOST` among them: every public
            name. None by default.
        ports: The ports that may be asked.

    Raises:
        EgressRefused: It is not https, names its host in any but the plain way, has a user, or is not allowed.
        TypeError: The list of hosts is a text: every part of it would be a host that may be asked.
    """
    if isinstance(allow_hosts, str):
        raise TypeError("allow_hosts must be a list of hosts, not a text.")
    if not 0 < len(url) <= URL_CHARS_MAX:
        raise EgressRefused("length", f"An address of a service has 1 to {URL_CHARS_MAX:,} characters.")
    if not _TEXT.fullmatch(url):
        raise EgressRefused("letters", "An address of a service is plain ASCII, without what no URL has unescaped.")
    found = _URL.fullmatch(url)
    if found is None:
        raise EgressRefused("scheme", "An address of a service must begin with https://.")
    host, port = _authority(found[1])
    if port not in ports:
        raise EgressRefused("port", "This port may not be asked.", host=host)
    path, query = found[2] or "/", found[3] or ""
    _check_path(path, query, host)
    if host not in allow_hosts:
        _check_unlisted(host, allow_hosts)
    return Target(host, port, path + query)


def _authority(text: str) -> tuple[str, int]:
    """The host and the port. What stands before a host, and every way to write a host that is no name, is refused."""
    if "@" in text:
        raise EgressRefused("userinfo", "An address of a service must not have a user or password.")
    if "[" in text or "]" in text:
        raise EgressRefused("address", "A service must be named, not numbered.")
    host, colon, digits = text.lower().partition(":")
    _check_host(host)
    if not colon:
        return host, 443
    if not re.fullmatch(r"[1-9][0-9]{0,4}", digits):
        raise EgressRefused("port", "A port is a plain number.", host=host)
    return host, int(digits)


def _check_host(host: str) -> None:
    if len(host) > _HOST_CHARS_MAX:
        raise EgressRefused("host", f"A host's name has at most {_HOST_CHARS_MAX} characters.")
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        raise EgressRefused("address", "A service must be named, not numbered.")
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise EgressRefused("host", "A host's name is of letters, digits and hyphens, with dots between.")
    if len(labels) < 2:
        raise EgressRefused("host", "A public host has a name with a dot.")
    if labels[-1] in _SPECIAL:
        raise EgressRefused("special", "A host with such an ending is not a public one.", host=host)


def _check_unlisted(host: str, allow_hosts: Collection[str]) -> None:
    if ANY_HOST not in allow_hosts:
        raise EgressRefused("not_allowed", "This host is not among those that may be asked.", host=host)
    if any(label[2:4] == "--" for label in host.split(".")):
        # Encoded letters look like others' names to people; an operator who means one lists it.
        raise EgressRefused("homograph", "A host with encoded letters must be listed by its name.", host=host)


def _check_path(path: str, query: str, host: str) -> None:
    if "[" in path + query or "]" in path + query:
        raise EgressRefused("path", "A path has brackets only as escapes.", host=host)
    if _ESCAPE.search(path + query) or _HIDDEN.search(path):
        raise EgressRefused("path", "A path has half an escape, or one that hides what divides it.", host=host)
    if path.startswith("//") or any(segment in {".", ".."} for segment in path.split("/")):
        raise EgressRefused("path", "A path has no steps up or in place, and begins with one slash.", host=host)


def _networks4(text: str) -> tuple[IPv4Network, ...]:
    return tuple(IPv4Network(each) for each in text.split())


def _networks6(text: str) -> tuple[IPv6Network, ...]:
    return tuple(IPv6Network(each) for each in text.split())


_NOT_PUBLIC_4 = _networks4(
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 "
    "192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24 "
    "203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 168.63.129.16/32"
)
"""IANA's special-purpose IPv4 addresses (RFC 6890, its registry), multicast, and Azure's metadata in public space."""
_GLOBAL_6 = IPv6Network("2000::/3")
"""All that IANA has given out as global unicast; the rest of IPv6 is mapped, translated, local or nobody's."""
_NOT_PUBLIC_6 = _networks6("2001::/23 2001:db8::/32 2002::/16 2620:4f:8000::/48 3ffe::/16 3fff::/20")
"""Within that: protocol assignments with Teredo and ORCHID, documentation, 6to4, AS112, 6bone."""
_ISATAP = frozenset({0x0000_5EFE, 0x0200_5EFE})
"""What the half of an IPv6 address before an embedded IPv4 address is under RFC 5214."""
_ENDING_IN_4 = _networks6("::/96 ::ffff:0:0/96 64:ff9b::/96 64:ff9b:1::/48")
"""Compatible, mapped, and NAT64 (RFC 6052, RFC 8215)."""
_NEVER: tuple[IPv4Network | IPv6Network, ...] = (
    *_networks4("0.0.0.0/8 169.254.0.0/16 168.63.129.16/32 100.100.100.200/32 192.0.0.192/32 224.0.0.0/4"),
    *_networks6("fe80::/10 fd00:ec2::/32 ff00::/8"),
)
"""Metadata of clouds, link-local and multicast: these nobody can vouch for."""


def check_networks(networks: Collection[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    """
    Networks of its own that an operator vouches for. Raises ValueError for what is none, or may never be asked.
    """
    found = tuple(ip_network(each) for each in networks)
    for each in found:
        if any(_overlap(each, never) for never in _NEVER):
            raise ValueError("A network with link-local, multicast or metadata addresses cannot be vouched for.")
    return found


def _overlap(one: IPv4Network | IPv6Network, other: IPv4Network | IPv6Network) -> bool:
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.overlaps(other)
    return isinstance(other, IPv6Network) and one.overlaps(other)


def check_addresses(answers: Sequence[str], *, host: str, networks: Collection[IPv4Network | IPv6Network] = ()) -> str:
    """
    Choose the address to connect to, of all that a resolver gave for a host.

    One that is not public refuses them all: a name with a public and a private address is an attempt, not an accident.

    Args:
        answers: IPv4 and IPv6 addresses as text.
        host: What was asked for, for the error.
        networks: From `check_networks`: addresses in these are taken although they are not public.

    Returns:
        The first of them, in its one spelling.

    Raises:
        EgressRefused: There is none, there are too many, or one is not public.
    """
    if not 0 < len(answers) <= ANSWERS_MAX:
        raise EgressRefused("unresolved", "This host has no address, or too many.", host=host)
    found = [_parsed(answer, host) for answer in answers]
    for address in found:
        if not _is_public(address) and not _is_vouched(address, networks):
            raise EgressRefused("not_public", "This host has an address that is not a public one.", host=host)
    return str(found[0])


def _is_vouched(address: IPv4Address | IPv6Address, networks: Collection[IPv4Network | IPv6Network]) -> bool:
    if not any(address in network for network in networks):
        return False
    # Whoever vouches for what translates IPv6 to IPv4 does not vouch for every address behind it.
    inside = [] if isinstance(address, IPv4Address) else _carried(address)
    return all(_is_public(each) or any(each in network for network in networks) for each in inside)


def _carried(address: IPv6Address) -> list[IPv4Address]:
    """The IPv4 addresses that an IPv6 address leads to, where its form says so."""
    last, found = IPv4Address(int(address) & 0xFFFF_FFFF), list[IPv4Address]()
    if any(address in network for network in _ENDING_IN_4) or (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
        found.append(last)
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    if address.teredo is not None:
        found.extend(address.teredo)
    return found


def _parsed(answer: str, host: str) -> IPv4Address | IPv6Address:
    try:
        address = ip_address(answer)
    except ValueError:
        address = None
    if address is None or "%" in answer:
        raise EgressRefused("unresolved", "This host's address cannot be read.", host=host)
    return address


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    # What carries an IPv4 address inside (mapped, compatible, NAT64) is outside of 2000::/3, but for the three below.
    if address not in _GLOBAL_6 or (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
        return False
    return not any(address in network for network in _NOT_PUBLIC_6)
