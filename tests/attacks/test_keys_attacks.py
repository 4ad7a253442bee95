"""
Attacks on API keys, on the headers they come in, and on what somebody may do; and what must be let in all the same.

Every attack is on the real surface: `ApiKeys.verify`, `Authenticator.authenticate`, `authorise`, `authorise_grant` and
`enter`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from rr_attacks import Attack, Control, check_refused, named
from rr_keys import PEPPERS, START_MS, CountingDocuments, make_keys, open_documents_of, resealed, with_secret
from runrails.documents import Address
from runrails.identity.apikeys import ApiKeys
from runrails.identity.apikeys.format import checksum
from runrails.identity.apikeys.making import Terms, made
from runrails.identity.apikeys.records import encode
from runrails.identity.authenticate import Authenticator, Headers, enter
from runrails.identity.errors import Forbidden
from runrails.identity.operations import OPERATIONS, authorise, authorise_grant
from runrails.identity.principal import SCOPES, Principal
from runrails.testing import ManualClock

HOUR_MS = 3_600_000


class Keys:
    """Keys of several people in several states, and the doors they would open."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.clock = clock = ManualClock(START_MS)
        self.documents: CountingDocuments = open_documents_of(kind, directory, clock)
        self.live = make_keys(self.documents, clock=clock)
        self.test = make_keys(self.documents, clock=clock, environment="test")
        self.elsewhere = make_keys(self.documents, clock=clock)
        self.texts: dict[str, str] = {}
        self.ids: dict[str, str] = {}
        for name, scopes in (("alice", {"ai:complete"}), ("bob", {"ai:embed"}), ("admin", {"admin:keys"})):
            self._make(name, self.live, scopes=scopes, org="acme")
        for name in ("suspended", "revoked", "rotated", "twice", "overlapping"):
            self._make(name, self.live, scopes={"ai:complete"})
        self._make("expired", self.live, scopes={"ai:complete"}, expires_ms=START_MS + 1_000)
        self._make("lasting", self.live, scopes={"ai:complete"}, expires_ms=START_MS + HOUR_MS)
        self._make("testing", self.test, scopes={"ai:complete"})
        self.live.suspend(self.ids["suspended"])
        self.live.revoke(self.ids["revoked"])
        self.texts["rotated-new"] = self.live.rotate(self.ids["rotated"], 1_000)[1].reveal()
        for number in (2, 3):
            self.texts[f"twice-{number}"] = self.live.rotate(self.ids["twice"], 0)[1].reveal()
        self.texts["overlapping-new"] = self.live.rotate(self.ids["overlapping"], HOUR_MS)[1].reveal()
        clock.advance(1_000)
        self.door = Authenticator(self.live)

    def _make(self, name: str, keys: ApiKeys, **terms: object) -> None:
        info, secret = keys.create(name, **terms)  # type: ignore[arg-type]
        self.texts[name], self.ids[name] = secret.reveal(), info.id

    def of(self, name: str) -> str:
        """The text of a key."""
        return self.texts[name]

    def state(self) -> object:
        """Every record, byte for byte."""
        return self.documents.everything()

    def secrets(self) -> Sequence[str]:
        """The secret part of every key."""
        return [text[25:] for text in self.texts.values()]

    def put_in_place_of(self, name: str, data: bytes) -> None:
        """Overwrite somebody's record, as who has the store but no pepper could."""
        address = Address("api-key", self.ids[name], "key")
        known = self.documents.inner.get(address)
        assert known is not None
        self.documents.inner.put(address, data, expected=known.version)

    def record_of(self, name: str) -> bytes:
        """Somebody's record."""
        known = self.documents.inner.get(Address("api-key", self.ids[name], "key"))
        assert known is not None
        return known.data


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    """One world for all attacks: none may change it."""
    made = Keys(request.param, tmp_path_factory.mktemp("keys"))
    yield made
    made.live.close()
    made.documents.close()


def put(text: str, place: int, letters: str) -> str:
    """A text with other letters at a place."""
    return text[:place] + letters + text[place + len(letters) :]


def swapped(text: str) -> str:
    """The two letters of the checksum that stand last, exchanged or changed."""
    return text[:-2] + text[-1] + text[-2] if text[-1] != text[-2] else put(text, 72, "zz" if text[-1] != "z" else "yy")


Edit = Callable[[str, Keys], object]
PLAIN = "0" * 43
TEXTS: dict[str, Edit] = {
    # No key at all.
    "nothing": lambda t, w: "",
    "none": lambda t, w: None,
    "a number": lambda t, w: 74,
    "bytes of a good key": lambda t, w: t.encode(),
    "a list with a good key": lambda t, w: [t],
    "a dict with a good key": lambda t, w: {"key": t},
    "a blank": lambda t, w: " ",
    "nul": lambda t, w: "\0" * 74,
    "a megabyte": lambda t, w: "rr_live_" + "a" * 2**20,
    "a megabyte behind a good key": lambda t, w: t + "a" * 2**20,
    "74 blanks": lambda t, w: " " * 74,
    "74 of another script": lambda t, w: "а" * 74,
    "74 lone surrogates": lambda t, w: "\udc80" * 74,
    "sql": lambda t, w: "' OR '1'='1",
    "sql of the right length": lambda t, w: ("rr_live_' OR '1'='1" + "x" * 74)[:74],
    "a template": lambda t, w: "${jndi:ldap://x}",
    "a path": lambda t, w: "rr_live_../../../../etc/passwd",
    "json": lambda t, w: '{"id":"' + t[8:24] + '"}',
    # Parts of a good key, and more than it.
    "only the prefix": lambda t, w: t[:8],
    "only what may be shown": lambda t, w: t[:24],
    "only the secret": lambda t, w: t[25:],
    "without its checksum": lambda t, w: t[:-6],
    "without its last letter": lambda t, w: t[:-1],
    "without its first letter": lambda t, w: t[1:],
    "with a letter more": lambda t, w: t + "0",
    "twice": lambda t, w: t + t,
    "twice with a comma": lambda t, w: f"{t},{t}",
    "with a line break behind": lambda t, w: t + "\n",
    "with a line break in front": lambda t, w: "\n" + t,
    "with a blank behind": lambda t, w: t + " ",
    "with a blank in front": lambda t, w: " " + t,
    "with nul behind": lambda t, w: t + "\0",
    "a line break for its last letter": lambda t, w: t[:-1] + "\n",
    "quoted": lambda t, w: f'"{t}"',
    "with bearer": lambda t, w: f"Bearer {t}",
    "percent-encoded": lambda t, w: t.replace("_", "%5F"),
    "with a zero-width blank": lambda t, w: t[:30] + "\u200b" + t[30:],
    "with a byte order mark": lambda t, w: "\ufeff" + t,
    # A good key, changed.
    "in capitals": lambda t, w: t.upper(),
    "in small letters": lambda t, w: t.lower(),
    "with its case swapped": lambda t, w: t.swapcase(),
    "backwards": lambda t, w: t[::-1],
    "in full-width letters": lambda t, w: "".join(chr(ord(c) + 0xFEE0) for c in t),
    "one full-width digit": lambda t, w: put(t, 30, "０"),
    "an arabic digit": lambda t, w: put(t, 30, "٣"),
    "a cyrillic a": lambda t, w: put(t, 10, "а"),
    "a kelvin sign": lambda t, w: put(t, 40, "\u212a"),
    "a long s": lambda t, w: put(t, 40, "\u017f"),
    "a combining accent": lambda t, w: put(t, 40, "\u0301"),
    "hyphens for its underscores": lambda t, w: t.replace("_", "-"),
    "its checksum turned": lambda t, w: swapped(t),
    "its checksum all 0": lambda t, w: t[:-6] + "000000",
    "the checksum of its secret alone": lambda t, w: t[:-6] + checksum(t[25:68]),
    "the checksum of its id alone": lambda t, w: t[:-6] + checksum(t[8:24]),
    "the checksum of nothing": lambda t, w: t[:-6] + checksum(""),
    "the checksum of all in capitals": lambda t, w: t[:-6] + checksum(t[:-6].upper()),
    # Changed, and with the right checksum.
    "a secret of zeros": lambda t, w: with_secret(t, PLAIN),
    "a secret of another key": lambda t, w: with_secret(t, w.of("bob")[25:68]),
    "its secret turned": lambda t, w: with_secret(t, t[25:68][::-1]),
    "its secret in capitals": lambda t, w: with_secret(t, t[25:68].upper()),
    "its secret in small letters": lambda t, w: with_secret(t, t[25:68].lower()),
    "its secret moved by one": lambda t, w: with_secret(t, t[26:68] + t[25]),
    "its first letter changed": lambda t, w: with_secret(t, ("1" if t[25] == "0" else "0") + t[26:68]),
    "its last letter changed": lambda t, w: with_secret(t, t[25:67] + ("1" if t[67] == "0" else "0")),
    "its id as its secret": lambda t, w: with_secret(t, (t[8:24] * 3)[:43]),
    "its hash as its secret": lambda t, w: with_secret(t, PEPPERS.hash(t).rpartition("$")[2][:43]),
    "its record's tag as its secret": lambda t, w: with_secret(t, w.record_of("alice").split(b" ")[2].decode()[:43]),
    "the id of another": lambda t, w: resealed(t.replace(w.ids["alice"], w.ids["bob"])),
    "the id of an administrator": lambda t, w: resealed(t.replace(w.ids["alice"], w.ids["admin"])),
    "the id of nobody": lambda t, w: resealed(put(t, 8, "0123456789abcdeF")),
    "its id in capitals": lambda t, w: resealed(t.replace(t[8:24], t[8:23].upper() + t[23])),
    "its id with a small letter last": lambda t, w: resealed(put(t, 23, t[23].lower())),
    "an id of dots": lambda t, w: resealed(put(t, 8, "." * 15 + "A")),
    "an id of slashes": lambda t, w: resealed(put(t, 8, "/" * 15 + "A")),
    "an id with a hash sign": lambda t, w: resealed(put(t, 8, "#")),
    "the other environment": lambda t, w: resealed(t.replace("rr_live", "rr_test")),
    "an environment that does not exist": lambda t, w: resealed(t.replace("rr_live", "rr_prod")),
    "an environment in capitals": lambda t, w: resealed(t.replace("rr_live", "rr_LIVE")),
    "another maker's prefix": lambda t, w: resealed(t.replace("rr_live", "sk_live")),
    "no separator before the secret": lambda t, w: resealed(put(t, 24, "0")),
    "its separator elsewhere": lambda t, w: resealed(t[:23] + "_" + t[23] + t[25:68] + "000000"),
    "an underscore in the secret": lambda t, w: resealed(put(t, 40, "_")),
    "a hyphen in the secret": lambda t, w: resealed(put(t, 40, "-")),
    "a plus in the secret": lambda t, w: resealed(put(t, 40, "+")),
    # Keys that were good once, or are elsewhere.
    "a suspended key": lambda t, w: w.of("suspended"),
    "a revoked key": lambda t, w: w.of("revoked"),
    "an expired key": lambda t, w: w.of("expired"),
    "a key after its overlap": lambda t, w: w.of("rotated"),
    "the first of three secrets": lambda t, w: w.of("twice"),
    "the second of three secrets": lambda t, w: w.of("twice-2"),
    "a key for testing": lambda t, w: w.of("testing"),
    "a key for testing, rewritten": lambda t, w: resealed(w.of("testing").replace("rr_test", "rr_live")),
    "the secret of a suspended key, wrong": lambda t, w: with_secret(w.of("suspended"), PLAIN),
    "the secret of a revoked key, wrong": lambda t, w: with_secret(w.of("revoked"), PLAIN),
    "the secret of an expired key, wrong": lambda t, w: with_secret(w.of("expired"), PLAIN),
    # Credentials of others.
    "an older key": lambda t, w: "sk-" + "a" * 48,
    "a key of openai": lambda t, w: "sk-proj-" + "a" * 156,
    "a key of anthropic": lambda t, w: "sk-ant-api03-" + "a" * 95,
    "a token": lambda t, w: "eyJhbGciOiJub25lIn0.e30.",
    "a proof": lambda t, w: "runrails-aws-v1.eu-west-1.AKIA0123456789012345.20261122T063000Z." + "0" * 64,
    "a hash": lambda t, w: PEPPERS.hash(t),
    "a hash of bcrypt": lambda t, w: "$2b$04$" + "a" * 53,
    "basic credentials": lambda t, w: "YWxpY2U6cGFzc3dvcmQ=",
}


def bearer(text: str) -> tuple[str, str]:
    """The header that most clients send."""
    return "authorization", f"Bearer {text}"


HEADERS: dict[str, Callable[[str, Keys], Headers]] = {
    "none": lambda t, w: [],
    "only others": lambda t, w: [("host", "x"), ("cookie", f"key={t}"), ("proxy-authorization", f"Bearer {t}")],
    "an empty authorization": lambda t, w: [("authorization", "")],
    "an empty x-api-key": lambda t, w: [("x-api-key", "")],
    "only the scheme": lambda t, w: [("authorization", "Bearer")],
    "only the scheme and a blank": lambda t, w: [("authorization", "Bearer ")],
    "no scheme": lambda t, w: [("authorization", t)],
    "another scheme": lambda t, w: [("authorization", f"Basic {t}")],
    "digest": lambda t, w: [("authorization", f"Digest {t}")],
    "token": lambda t, w: [("authorization", f"Token {t}")],
    "a signature of aws": lambda t, w: [("authorization", f"AWS4-HMAC-SHA256 Credential={t}, Signature=0")],
    "two blanks": lambda t, w: [("authorization", f"Bearer  {t}")],
    "a tab": lambda t, w: [("authorization", f"Bearer\t{t}")],
    "a no-break blank": lambda t, w: [("authorization", f"Bearer\u00a0{t}")],
    "a blank in front": lambda t, w: [("authorization", f" Bearer {t}")],
    "a blank behind": lambda t, w: [("authorization", f"Bearer {t} ")],
    "a line break behind": lambda t, w: [("authorization", f"Bearer {t}\n")],
    "another header in it": lambda t, w: [("authorization", f"Bearer {t}\r\nx-user: admin")],
    "a comma behind": lambda t, w: [("authorization", f"Bearer {t},")],
    "two in one": lambda t, w: [("authorization", f"Bearer {t}, Bearer {t}")],
    "two keys in one": lambda t, w: [("authorization", f"Bearer {t} {w.of('bob')}")],
    "parameters": lambda t, w: [("authorization", f"Bearer {t};scope=admin")],
    "quotes": lambda t, w: [("authorization", f'Bearer "{t}"')],
    "angle brackets": lambda t, w: [("authorization", f"Bearer <{t}>")],
    "bearer twice": lambda t, w: [("authorization", f"Bearer Bearer {t}")],
    "bearer=": lambda t, w: [("authorization", f"Bearer={t}")],
    "the same twice": lambda t, w: [bearer(t), bearer(t)],
    "a good and a bad one": lambda t, w: [bearer(t), bearer("rr_live_x")],
    "a bad and a good one": lambda t, w: [bearer("rr_live_x"), bearer(t)],
    "a good and an empty one": lambda t, w: [bearer(t), ("authorization", "")],
    "both headers": lambda t, w: [bearer(t), ("x-api-key", t)],
    "both headers, in other spelling": lambda t, w: [("AUTHORIZATION", f"Bearer {t}"), ("X-Api-Key", w.of("bob"))],
    "both headers, one empty": lambda t, w: [("x-api-key", ""), bearer(t)],
    "twice, as text and bytes": lambda t, w: [bearer(t), (b"Authorization", f"Bearer {t}".encode())],
    "x-api-key twice": lambda t, w: [("x-api-key", t), ("X-API-KEY", t)],
    "x-api-key with a scheme": lambda t, w: [("x-api-key", f"Bearer {t}")],
    "x-api-key with a blank": lambda t, w: [("x-api-key", f"{t} ")],
    "x-api-key with a comma": lambda t, w: [("x-api-key", f"{t},{t}")],
    "x-api-key with a line break": lambda t, w: [("x-api-key", f"{t}\n")],
    "a name with a blank": lambda t, w: [("authorization ", f"Bearer {t}")],
    "a name with an underscore": lambda t, w: [("x_api_key", t)],
    "a name of wsgi": lambda t, w: [("HTTP_AUTHORIZATION", f"Bearer {t}")],
    "a forwarded one": lambda t, w: [("x-forwarded-authorization", f"Bearer {t}")],
    "a user that is named": lambda t, w: [("x-user", "alice"), ("x-forwarded-user", "alice"), ("remote-user", "alice")],
    "an event of lambda": lambda t, w: [
        ("x-amzn-request-context", '{"identity":{"userArn":"arn:aws:iam::1:user/alice"}}')
    ],
    "a name in another script": lambda t, w: [("аuthorization", f"Bearer {t}")],
    "a name with a kelvin sign": lambda t, w: [("x-api-\u212aey", t)],
    "a name with a dotted i": lambda t, w: [("author\u0130zation", f"Bearer {t}")],
    "not ascii, as bytes": lambda t, w: [(b"authorization", b"Bearer " + t.encode() + b"\xff")],
    "nul in it, as bytes": lambda t, w: [(b"authorization", b"Bearer \0" + t.encode())],
    "too long": lambda t, w: [bearer("rr_live_" + "a" * 8_192)],
    "very long": lambda t, w: [bearer("a" * 2**20)],
    "very many headers": lambda t, w: [*[("x", "y")] * 300, bearer(t)],
    "a wrong secret": lambda t, w: [bearer(with_secret(t, PLAIN))],
    "a token where there are none": lambda t, w: [bearer("eyJhbGciOiJub25lIn0.e30.x")],
    "a proof where there are none": lambda t, w: [bearer("runrails-aws-v1.x")],
    "an older key where there are none": lambda t, w: [bearer("sk-" + "a" * 48)],
}


def who(*scopes: str, user: str = "alice", org: str | None = None, expires_ms: int | None = None) -> Principal:
    """Somebody who was proven."""
    return Principal(user=user, org=org, scopes=frozenset(scopes), method="api_key", expires_ms=expires_ms)


ALL = frozenset(SCOPES)
FORBIDDEN: dict[str, Callable[[], object]] = {
    "another's run": lambda: authorise(who("ai:complete"), "chat.complete", owner="user:bob"),
    "another's usage": lambda: authorise(who(*ALL), "usage.own", owner="user:bob"),
    "another's budget": lambda: authorise(who(*ALL), "budgets.own", owner="user:bob"),
    "another's runs": lambda: authorise(who(*ALL), "runs.own", owner="user:bob"),
    "the organisation's, as one's own": lambda: authorise(who(*ALL, org="acme"), "usage.own", owner="org:acme"),
    "the platform's, as one's own": lambda: authorise(who(*ALL), "usage.own", owner="platform"),
    "a user whose name begins alike": lambda: authorise(who("ai:complete"), "chat.complete", owner="user:alice2"),
    "a user in capitals": lambda: authorise(who("ai:complete"), "chat.complete", owner="user:Alice"),
    "no kind of owner": lambda: authorise(who("ai:complete"), "chat.complete", owner="alice"),
    "an empty owner": lambda: authorise(who("ai:complete"), "chat.complete", owner=""),
    "embedding with completions": lambda: authorise(who("ai:complete"), "embeddings.create"),
    "agents with completions": lambda: authorise(who("ai:complete", "ai:embed"), "agents.run"),
    "completions with administration": lambda: authorise(who("admin:keys", "admin:budgets"), "chat.complete"),
    "keys with budgets": lambda: authorise(who("admin:budgets"), "keys.create"),
    "budgets with keys": lambda: authorise(who("admin:keys"), "budgets.set"),
    "credentials with keys": lambda: authorise(who("admin:keys"), "credentials.list"),
    "tokens with keys": lambda: authorise(who("admin:keys"), "tokens.issue"),
    "usage with budgets": lambda: authorise(who("admin:budgets"), "usage.list"),
    "a model call with nothing": lambda: authorise(who(), "messages.create"),
    "counting with nothing": lambda: authorise(who(), "messages.count_tokens"),
    "keys of another organisation": lambda: authorise(who("admin:keys", org="acme"), "keys.list", owner="org:other"),
    "a user of another organisation": lambda: authorise(
        who("admin:keys", org="acme"), "keys.revoke", owner="user:bob", owner_org="other"
    ),
    "a user of no organisation": lambda: authorise(who("admin:keys", org="acme"), "keys.revoke", owner="user:bob"),
    "an organisation that says it is ours": lambda: authorise(
        who("admin:keys", org="acme"), "keys.revoke", owner="org:other", owner_org="acme"
    ),
    "all keys, by an organisation": lambda: authorise(who("admin:keys", org="acme"), "keys.list"),
    "the platform's keys, by an organisation": lambda: authorise(
        who("admin:credentials", org="acme"), "credentials.rotate", owner="platform", owner_org="acme"
    ),
    "an operation that does not exist": lambda: authorise(who(*ALL), "keys.delete"),
    "an operation in capitals": lambda: authorise(who(*ALL), "KEYS.LIST"),
    "an operation with a blank": lambda: authorise(who(*ALL), "keys.list "),
    "every operation": lambda: authorise(who(*ALL), "*"),
    "every operation of keys": lambda: authorise(who(*ALL), "keys.*"),
    "no operation": lambda: authorise(who(*ALL), ""),
    "a power one has not, for a new key": lambda: authorise_grant(who("admin:keys"), "keys.create", ["ai:complete"]),
    "a power one has not, for a token": lambda: authorise_grant(who("admin:tokens"), "tokens.issue", ["admin:keys"]),
    "money for what spends none": lambda: enter(who(*ALL), "usage.own").run(),
    "money for administration": lambda: enter(who(*ALL), "keys.list").run(),
    **{
        f"{name} without {rule.scope}": lambda name=name, rule=rule: authorise(who(*(ALL - {rule.scope})), name)  # type: ignore[misc]
        for name, rule in OPERATIONS.items()
        if rule.scope is not None and rule.scope.startswith("admin:")
    },
}

ATTACKS: list[Attack[Keys]] = [
    *(
        Attack(f"verify: {name}", lambda w, edit=edit: w.live.verify(edit(w.of("alice"), w)))  # type: ignore[misc]
        for name, edit in TEXTS.items()
    ),
    *(
        Attack(f"headers: {name}", lambda w, form=form: w.door.authenticate(form(w.of("alice"), w)))  # type: ignore[misc]
        for name, form in HEADERS.items()
    ),
    *(Attack(f"authorise: {name}", lambda w, act=act: act(), Forbidden) for name, act in FORBIDDEN.items()),  # type: ignore[misc]
    Attack("enter: with a credential that is over", lambda w: enter(who("ai:complete", expires_ms=1), "chat.complete")),
    Attack("enter: with one that is over, for nothing", lambda w: enter(who(expires_ms=START_MS), "models.list")),
]

CONTROLS: list[Control[Keys]] = [
    Control("a good key", lambda w: w.live.verify(w.of("alice")).user, "alice"),
    Control("its scopes", lambda w: w.live.verify(w.of("alice")).scopes, frozenset({"ai:complete"})),
    Control("its organisation", lambda w: w.live.verify(w.of("alice")).org, "acme"),
    Control("another's key", lambda w: w.live.verify(w.of("bob")).user, "bob"),
    Control("again, while it is known", lambda w: [w.live.verify(w.of("bob")).user for _ in range(3)], ["bob"] * 3),
    Control("in another process", lambda w: w.elsewhere.verify(w.of("alice")).key_id == w.ids["alice"], True),
    Control("a key before its end", lambda w: w.live.verify(w.of("lasting")).user, "lasting"),
    Control("a rotated key", lambda w: w.live.verify(w.of("rotated-new")).user, "rotated"),
    Control("a key rotated twice", lambda w: w.live.verify(w.of("twice-3")).user, "twice"),
    Control("a key in its overlap", lambda w: w.live.verify(w.of("overlapping")).user, "overlapping"),
    Control("the new one in the overlap", lambda w: w.live.verify(w.of("overlapping-new")).user, "overlapping"),
    Control("a key for testing, there", lambda w: w.test.verify(w.of("testing")).user, "testing"),
    *(
        Control(f"headers: {name}", lambda w, form=form: w.door.authenticate(form(w.of("alice"))).user, "alice")  # type: ignore[misc]
        for name, form in {
            "bearer": lambda t: [("Authorization", f"Bearer {t}")],
            "bearer in small letters": lambda t: [("authorization", f"bearer {t}")],
            "as bytes": lambda t: [(b"authorization", f"Bearer {t}".encode())],
            "x-api-key": lambda t: [("x-api-key", t)],
            "x-api-key as bytes, in capitals": lambda t: [(b"X-API-KEY", t.encode())],
            "among others": lambda t: [("host", "x"), bearer(t), ("anthropic-version", "2023-06-01"), ("x", "\u00ff")],
            "others that are there twice": lambda t: [("accept", "a"), bearer(t), ("accept", "b"), ("api-key", t)],
            "from a generator": lambda t: (each for each in [bearer(t)]),
        }.items()
    ),
    Control("one's own run", lambda w: authorise(who("ai:complete"), "chat.complete", owner="user:alice").spends, True),
    Control("one's own usage, with no scope", lambda w: authorise(who(), "usage.own", owner="user:alice").scope, None),
    Control(
        "keys of one's organisation",
        lambda w: authorise(who("admin:keys", org="acme"), "keys.list", owner="org:acme").reach, "any",
    ),
    Control(
        "a user of one's organisation",
        lambda w: authorise(who("admin:keys", org="a"), "keys.revoke", owner="user:bob", owner_org="a").reach, "any",
    ),
    Control("an operator", lambda w: authorise(who("admin:keys"), "keys.revoke", owner="user:x").reach, "any"),
    Control("powers one has", lambda w: authorise_grant(who("admin:keys"), "keys.create", ["admin:keys"]), None),
    Control("models, for whoever is known", lambda w: enter(who(), "models.list").operation, "models.list"),
    Control(
        "all at once", lambda w: w.door.enter([bearer(w.of("alice"))], "chat.complete").principal.user, "alice"
    ),
]  # fmt: skip


@pytest.mark.parametrize("attack", named(ATTACKS))
def test_no_attack_gets_in(world: Keys, attack: Attack[Keys]) -> None:
    """It ends in its error, tells nothing of any secret, and changes no record."""
    check_refused(attack, world)


@pytest.mark.parametrize("control", named(CONTROLS))
def test_what_is_right_works(world: Keys, control: Control[Keys]) -> None:
    """In the same world, beside the attacks."""
    assert control.expected == control.act(world)


def test_the_corpus_is_large_enough() -> None:
    """As many cases as were promised, none twice (see `named`)."""
    assert len(ATTACKS) >= 200
    assert len(CONTROLS) >= 25


RECORDS: dict[str, Callable[[Keys], bytes]] = {
    "nothing": lambda w: b"",
    "not ours": lambda w: b"{}",
    "ours with another body": lambda w: w.record_of("alice").replace(b'"ai:complete"', b'"admin:keys"'),
    "with another budget": lambda w: w.record_of("alice").replace(b'"month_pusd":null', b'"month_pusd":9999'),
    "with a member twice": lambda w: w.record_of("alice")[:-1] + b',"user":"admin"}',
    "with a blank behind": lambda w: w.record_of("alice") + b" ",
    "of an administrator": lambda w: w.record_of("admin"),
    "of a suspended key": lambda w: w.record_of("suspended"),
    "with another's tag": lambda w: b" ".join(
        [
            *w.record_of("alice").split(b" ", 3)[:2],
            w.record_of("bob").split(b" ")[2],
            w.record_of("alice").split(b" ", 3)[3],
        ]
    ),
    "without a tag": lambda w: b"rrk1 p1  " + w.record_of("alice").split(b" ", 3)[3],
    "under a pepper of another name": lambda w: w.record_of("alice").replace(b"rrk1 p1 ", b"rrk1 p2 "),
    "of another version": lambda w: w.record_of("alice").replace(b"rrk1 ", b"rrk2 "),
    "tag and body exchanged": lambda w: b" ".join([b"rrk1", b"p1", *w.record_of("alice").split(b" ", 3)[:1:-1]]),
    "as text of another width": lambda w: w.record_of("alice").decode().encode("utf-16"),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_that_was_tampered_with_lets_nobody_in(tmp_path: Path, name: str) -> None:
    """Neither its owner nor whoever changed it; others are not concerned."""
    world = Keys("memory", tmp_path)
    world.put_in_place_of("alice", RECORDS[name](world))
    for edit in (lambda t, w: t, TEXTS["a secret of zeros"], TEXTS["its hash as its secret"]):
        check_refused(Attack(name, lambda w, edit=edit: w.live.verify(edit(w.of("alice"), w))), world)  # type: ignore[misc]
    assert world.live.verify(world.of("bob")).user == "bob"
    world.live.close()


def test_who_has_the_pepper_but_not_the_id_writes_no_record_for_it(tmp_path: Path) -> None:
    """A record is good at its own id only, even with a hash of the very key."""
    world = Keys("memory", tmp_path)
    text = world.of("alice")
    terms = Terms(user="mallory", scopes=ALL)
    record = made(terms, key_id=world.ids["bob"], environment="live", kept=PEPPERS.hash(text), now_ms=1)
    world.put_in_place_of("alice", encode(record, PEPPERS))
    check_refused(Attack("at another id", lambda w: w.live.verify(text)), world)
    world.live.close()
