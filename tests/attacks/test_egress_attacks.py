"""Addresses that lead where nobody may go, in every spelling, and public ones beside them."""

from __future__ import annotations

import pytest

from runrails.egress import Policy, fetch, resolve
from runrails.egress_rules import ANY_HOST, EgressRefused, check_addresses, check_networks, check_url

ALLOWED = ("api.example.com", ANY_HOST)

URLS: list[tuple[str, str]] = [
    ("", "length"),
    ("https://" + "a" * 60 + ".com/" + "x" * 2_000, "length"),
    ("api.example.com", "scheme"),
    ("//api.example.com/", "scheme"),
    ("http://api.example.com/", "scheme"),
    ("HTTPS://api.example.com/", "scheme"),
    ("ftp://api.example.com/", "scheme"),
    ("file:///etc/passwd", "scheme"),
    ("gopher://127.0.0.1:6379/_", "scheme"),
    ("javascript:alert(1)", "scheme"),
    ("data:text/plain,x", "scheme"),
    ("https:api.example.com", "scheme"),
    ("https:/api.example.com/", "scheme"),
    ("https:\\\\api.example.com/", "letters"),
    (" https://api.example.com/", "letters"),
    ("https://api.example.com/ ", "letters"),
    ("https://api.example.com\\@169.254.169.254/", "letters"),
    ("https://169.254.169.254\\@api.example.com/", "letters"),
    ("https://api.example.com/\r\nHost: evil", "letters"),
    ("https://api.example.com/\tx", "letters"),
    ("https://api.example.com/\0", "letters"),
    ("https://api.exa\nmple.com/", "letters"),
    ("https://api.example.com/#@evil.com", "letters"),
    ("https://api.example.com#.evil.com/", "letters"),
    ("https://api.example.com/<x>", "letters"),
    ("https://user@api.example.com/", "userinfo"),
    ("https://user:pass@api.example.com/", "userinfo"),
    ("https://api.example.com@169.254.169.254/", "userinfo"),
    ("https://api.example.com:443@evil.com/", "userinfo"),
    ("https://@api.example.com/", "userinfo"),
    ("https:///api.example.com/", "host"),
    ("https://", "host"),
    ("https://?x", "host"),
    ("https://127.0.0.1/", "address"),
    ("https://169.254.169.254/latest/meta-data/", "address"),
    ("https://169.254.170.2/v2/credentials", "address"),
    ("https://93.184.216.34/", "address"),
    ("https://127.1/", "address"),
    ("https://127.0.0.1./", "host"),
    ("https://2130706433/", "address"),
    ("https://017700000001/", "address"),
    ("https://0x7f000001/", "address"),
    ("https://0x7f.0.0.1/", "address"),
    ("https://0177.0.0.1/", "address"),
    ("https://0X7F.1/", "address"),
    ("https://127.0.0.0x1/", "address"),
    ("https://api.0x1/", "address"),
    ("https://api.1/", "address"),
    ("https://0/", "address"),
    ("https://[::1]/", "address"),
    ("https://[a.example.com/", "address"),
    ("https://a.example.com]/", "address"),
    ("https://[::ffff:169.254.169.254]/", "address"),
    ("https://[fd00:ec2::254]/", "address"),
    ("https://[64:ff9b::a9fe:a9fe]/", "address"),
    ("https://[2002:a9fe:a9fe::]/", "address"),
    ("https://[fe80::1%25eth0]/", "address"),
    ("https://[2606:4700::1]/", "address"),
    ("https://localhost/", "host"),
    ("https://metadata/", "host"),
    ("https://localhost./", "host"),
    ("https://api.localhost/", "special"),
    ("https://metadata.google.internal/", "special"),
    ("https://LOCAL.INTERNAL/", "special"),
    ("https://db.local/", "special"),
    ("https://printer.lan/", "special"),
    ("https://1.0.0.127.in-addr.arpa/", "special"),
    ("https://abc.onion/", "special"),
    ("https://api.example.com./", "host"),
    ("https://.example.com/", "host"),
    ("https://api..example.com/", "host"),
    ("https://-api.example.com/", "host"),
    ("https://api-.example.com/", "host"),
    ("https://api_x.example.com/", "host"),
    ("https://api%2eexample.com/", "host"),
    ("https://api.example.com%00.evil.com/", "host"),
    ("https://api.example.com%2f@evil.com/", "userinfo"),
    ("https://*.example.com/", "host"),
    ("https://api,example.com/", "host"),
    ("https://" + "a" * 64 + ".com/", "host"),
    ("https://" + ".".join(["a" * 60] * 5) + "/", "host"),
    ("https://127。0。0。1/", "letters"),
    ("https://①②⑦.⓪.⓪.①/", "letters"),
    ("https://аpi.example.com/", "letters"),
    ("https://api.example。com/", "letters"),
    ("https://ⓔxample.com/", "letters"),
    ("https://xn--pi-7cd.example.com/", "homograph"),
    ("https://xn--80ak6aa92e.com/", "homograph"),
    ("https://ab--cd.example.com/", "homograph"),
    ("https://api.example.com:80/", "port"),
    ("https://api.example.com:22/", "port"),
    ("https://api.example.com:6379/", "port"),
    ("https://api.example.com:8443/", "port"),
    ("https://api.example.com:/", "port"),
    ("https://api.example.com:0443/", "port"),
    ("https://api.example.com:+443/", "port"),
    ("https://api.example.com:443:443/", "port"),
    ("https://api.example.com:65979/", "port"),
    ("https://api.example.com:99999999999/", "port"),
    ("https://api.example.com:4٤3/", "letters"),
    ("https://api.example.com/../admin", "path"),
    ("https://api.example.com/v1/./x", "path"),
    ("https://api.example.com/v1/..", "path"),
    ("https://api.example.com/%2e%2e/admin", "path"),
    ("https://api.example.com/%2E./admin", "path"),
    ("https://api.example.com/a%2fb", "path"),
    ("https://api.example.com/a%5cb", "path"),
    ("https://api.example.com/%0d%0aHost:%20evil", "path"),
    ("https://api.example.com/?a=%00", "path"),
    ("https://api.example.com/%7f", "path"),
    ("https://api.example.com/%zz", "path"),
    ("https://api.example.com/?a=%", "path"),
    ("https://api.example.com//evil.com/", "path"),
    ("https://api.example.com/[x]", "path"),
    ("https://api.example.com/?a[]=1", "path"),
    ("https://api.example.com/?a[=1", "path"),
    ("https://api.example.com/a]b", "path"),
]

GOOD: list[tuple[str, str]] = [
    ("https://api.example.com", "https://api.example.com/"),
    ("https://api.example.com/", "https://api.example.com/"),
    ("https://API.Example.COM/v1", "https://api.example.com/v1"),
    ("https://api.example.com:443/v1", "https://api.example.com/v1"),
    ("https://api.example.com?x=1", "https://api.example.com/?x=1"),
    ("https://api.example.com/v1/models?limit=1&q=a%20b%2Fc", "https://api.example.com/v1/models?limit=1&q=a%20b%2Fc"),
    ("https://api.example.com/@scope/~user/a.b-c_d", "https://api.example.com/@scope/~user/a.b-c_d"),
    ("https://a.co/..x/x../...", "https://a.co/..x/x../..."),
    ("https://9gag.com/", "https://9gag.com/"),
    ("https://1.2.3.4.example.com/", "https://1.2.3.4.example.com/"),
    ("https://a-b--c.example.com/", "https://a-b--c.example.com/"),
    ("https://" + "a" * 63 + ".com/", "https://" + "a" * 63 + ".com/"),
]

NOT_PUBLIC_TEXT = """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 100.127.255.255 127.0.0.1 127.255.255.254
169.254.0.1 169.254.169.254 169.254.170.2 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.31.196.1
192.52.193.1 192.88.99.1 192.168.0.1 192.168.255.255 192.175.48.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1
224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 168.63.129.16 :: ::1 ::7f00:1 ::a9fe:a9fe ::ffff:127.0.0.1
::ffff:169.254.169.254 ::ffff:8.8.8.8 ::ffff:0:169.254.169.254 64:ff9b::169.254.169.254 64:ff9b::8.8.8.8 64:ff9b:1::1
100::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1::1 2002:a9fe:a9fe::1
2620:4f:8000::1 3ffe::1 3fff::1 4000::1 5f00::1 fc00::1 fd00:ec2::254 fd00:ec2::23 fd12:3456::1 fe80::1 fec0::1
ff02::1 2606:4700::5efe:a9fe:a9fe 2606:4700::200:5efe:7f00:1
"""
NOT_PUBLIC = NOT_PUBLIC_TEXT.split()
UNREADABLE = [
    "",
    "x",
    "127.1",
    "0x7f000001",
    "010.0.0.1",
    "1.2.3.4.5",
    "fe80::1%eth0",
    "8.8.8.8%1",
    "8.8.8.8 ",
    "2606:4700:::1",
]
PUBLIC_TEXT = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255
169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255
2606:4700::1111 2a00:1450:4001::200e 2001:4860:4860::8888 2400::1 2003::1
"""
PUBLIC = PUBLIC_TEXT.split()


def refuse(url: str, reason: str, **options: object) -> None:
    """It is refused for that reason, and nothing of it but a host is shown."""
    with pytest.raises(EgressRefused) as caught:
        check_url(url, **{"allow_hosts": ALLOWED, **options})  # type: ignore[arg-type]
    error = caught.value
    assert reason == error.reason
    shown = f"{error} {error.as_dict()}"
    assert "pass@" not in shown and "\n" not in shown and "169.254" not in shown


@pytest.mark.parametrize(("url", "reason"), URLS)
def test_urls_that_lead_astray_are_refused(url: str, reason: str) -> None:
    """Each is refused for its own reason, even where every public host may be asked."""
    refuse(url, reason)


@pytest.mark.parametrize(("url", "spelling"), GOOD)
def test_plain_urls_are_read(url: str, spelling: str) -> None:
    """A public host in a plain spelling is taken, and written in one way from then on."""
    assert spelling == check_url(url, allow_hosts=ALLOWED).url


@pytest.mark.parametrize(("url", "spelling"), GOOD)
def test_nothing_is_allowed_that_nobody_listed(url: str, spelling: str) -> None:
    """Without a list there is no host that may be asked, and a list is no pattern."""
    refuse(url, "not_allowed", allow_hosts=())
    refuse(
        url,
        "not_allowed",
        allow_hosts=("example.com", ".example.com", "*.example.com", "xapi.example.com", "co", "com"),
    )


def test_what_an_operator_lists_is_asked() -> None:
    """A listed host may have encoded letters, and a listed port may be another one; what is nobody's stays closed."""
    assert "xn--80ak6aa92e.com" == check_url("https://xn--80ak6aa92e.com/", allow_hosts={"xn--80ak6aa92e.com"}).host
    assert 8443 == check_url("https://api.example.com:8443/", allow_hosts=ALLOWED, ports={443, 8443}).port
    refuse("https://localhost/", "host", allow_hosts={"localhost"})
    refuse("https://db.internal/", "special", allow_hosts={"db.internal"})
    refuse("https://127.0.0.1/", "address", allow_hosts={"127.0.0.1"})


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    """Alone, behind a public one and before it: one of them refuses the host."""
    for answers in ([address], ["8.8.8.8", address], [address, "8.8.8.8"], ["2606:4700::1111", address]):
        with pytest.raises(EgressRefused) as caught:
            check_addresses(answers, host="api.example.com")
        assert "not_public" == caught.value.reason


@pytest.mark.parametrize("address", UNREADABLE)
def test_addresses_that_cannot_be_read_are_refused(address: str) -> None:
    """What is no address in its one spelling is none."""
    with pytest.raises(EgressRefused) as caught:
        check_addresses(["8.8.8.8", address], host="api.example.com")
    assert "unresolved" == caught.value.reason


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_taken(address: str) -> None:
    """Up to the last one before what is reserved."""
    assert address == check_addresses([address, "8.8.8.8"], host="api.example.com")


def test_a_host_has_some_addresses_and_not_hundreds() -> None:
    """None, and more than 32, are refused."""
    for answers in ([], ["8.8.8.8"] * 33):
        with pytest.raises(EgressRefused):
            check_addresses(answers, host="api.example.com")
    assert "8.8.8.8" == check_addresses(["8.8.8.8"] * 32, host="api.example.com")


NEVER = ("0.0.0.0/0", "169.254.0.0/16", "169.254.169.254/32", "168.0.0.0/8", "100.64.0.0/10", "::/0", "fe80::/10", "x",
         "fd00::/8", "224.0.0.0/8", "10.0.0.1/8")  # fmt: skip


@pytest.mark.parametrize("network", NEVER)
def test_nobody_can_vouch_for_metadata(network: str) -> None:
    """An operator's own networks may be private, but not those in which clouds keep credentials."""
    with pytest.raises(ValueError, match=r"vouched|network|host bits"):
        check_networks([network])


def test_an_operator_can_vouch_for_a_network() -> None:
    """Its addresses are taken then, and only those."""
    own = check_networks(["10.20.0.0/16", "fd12:3456::/32"])
    assert "10.20.1.2" == check_addresses(["10.20.1.2"], host="keys.example.com", networks=own)
    assert "fd12:3456::1" == check_addresses(["fd12:3456::1", "8.8.8.8"], host="keys.example.com", networks=own)
    for other in ("10.21.0.1", "169.254.169.254", "fd12:3457::1", "::ffff:10.20.1.2"):
        with pytest.raises(EgressRefused):
            check_addresses(["10.20.1.2", other], host="keys.example.com", networks=own)


def test_a_refused_url_is_not_even_looked_up() -> None:
    """The resolver is asked once for what is allowed, and never for anything else."""
    asked: list[str] = []

    def resolver(host: str, port: int, /) -> list[str]:
        asked.append(f"{host}:{port}")
        return ["169.254.169.254"]

    for url, _ in URLS:
        with pytest.raises(EgressRefused):
            fetch(url, policy=Policy(allow_hosts=ALLOWED), resolver=resolver)
    assert [] == asked
    with pytest.raises(EgressRefused):
        fetch("https://api.example.com/", policy=Policy(allow_hosts=ALLOWED), resolver=resolver)
    with pytest.raises(EgressRefused):
        resolve(check_url("https://api.example.com/", allow_hosts=ALLOWED), resolver)
    assert ["api.example.com:443"] * 2 == asked


def test_the_lists_are_as_long_as_promised() -> None:
    """At least 60 URLs and 10 good ones, none twice."""
    assert len({url for url, _ in URLS}) == len(URLS) >= 60 and len(GOOD) >= 10
