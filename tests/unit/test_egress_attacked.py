"""What an operator vouches for never opens the door to metadata, however the address is written."""

from __future__ import annotations

import pytest

from runrails.egress_rules import EgressRefused, check_addresses, check_networks, check_url


@pytest.mark.parametrize(
    ("network", "address"),
    [
        ("64:ff9b::/96", "64:ff9b::a9fe:a9fe"), ("64:ff9b:1::/48", "64:ff9b:1::a9fe:a9fe"),
        ("::ffff:0:0/96", "::ffff:169.254.169.254"), ("::/96", "::169.254.169.254"), ("2002::/16", "2002:a9fe:a9fe::1"),
        ("64:ff9b::/96", "64:ff9b::100.100.100.200"), ("64:ff9b::/96", "64:ff9b::a83f:8110"),
        ("64:ff9b::/96", "64:ff9b::10.0.0.1"), ("64:ff9b::/96", "64:ff9b::127.0.0.1"),
        ("2001::/32", "2001:0:4136:e378:8000:63bf:5601:5601"), ("fd12::/16", "fd12::5efe:a9fe:a9fe"),
        ("fd12::/16", "fd12::200:5efe:a9fe:a9fe"),
    ],
)  # fmt: skip
def test_an_ipv4_address_inside_is_looked_at(network: str, address: str) -> None:
    """NAT64, mapped, compatible, 6to4, Teredo and ISATAP lead to the IPv4 address that they carry."""
    with pytest.raises((EgressRefused, ValueError)):
        check_addresses([address], host="h.example.net", networks=check_networks([network]))


@pytest.mark.parametrize(
    ("networks", "address"),
    [
        (["64:ff9b::/96"], "64:ff9b::8.8.8.8"), (["64:ff9b::/96", "10.0.0.0/8"], "64:ff9b::10.0.0.1"),
        (["10.0.0.0/8"], "10.0.0.1"), (["fd12:3456::/32"], "fd12:3456::1"),
    ],
)  # fmt: skip
def test_what_is_vouched_for_is_taken(networks: list[str], address: str) -> None:
    """A network that has only IPv6 reaches public hosts through NAT64, and inner ones that are vouched for as well."""
    assert check_addresses([address], host="h.example.net", networks=check_networks(networks))


def test_a_plain_text_is_no_list_of_hosts() -> None:
    """Every part of the name would be a host that may be asked."""
    for url in ("https://openai.com/", "https://api.openai.com/"):
        with pytest.raises(TypeError, match="list"):
            check_url(url, allow_hosts="api.openai.com")
