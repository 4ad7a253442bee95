"""API keys: made, shown once, proven, suspended, revoked and rotated."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, LiteralString

from runrails.clocks import Clock, monotonic_ms, system_ms
from runrails.errors import ConfigError, RunrailsError
from runrails.identity.apikeys.format import ENVIRONMENTS, Environment, make_key, new_key_id, parse_key
from runrails.identity.apikeys.known import Known, Moment
from runrails.identity.apikeys.legacy import BcryptPool
from runrails.identity.apikeys.making import PREVIOUS_MAX, Terms, adopted, made, resumed, revoked, rotated, suspended
from runrails.identity.apikeys.managing import KeyBook
from runrails.identity.apikeys.records import ApiKeyInfo, ApiKeyRecord, decode, encode
from runrails.identity.apikeys.used import LastUsed
from runrails.identity.errors import Unauthenticated
from runrails.identity.principal import TIME_MS_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from runrails.documents import Document, DocumentStore
    from runrails.identity.apikeys.format import Parsed
    from runrails.identity.apikeys.hashing import Peppers
    from runrails.identity.apikeys.legacy import CheckHash
    from runrails.identity.principal import Principal
    from runrails.rates import Rates
    from runrails.secretvalue import Secret

__all__ = ["CACHE_MS_MAX", "OVERLAP_MS", "ApiKeys"]

CACHE_MS_MAX = 5_000
"""What is changed about a key counts everywhere after this long."""
OVERLAP_MS = 86_400_000
"""How long the secret before a rotation is taken as well, if nobody says otherwise: a day."""
_DRAWS_MAX = 8


class ApiKeys:
    """
    The keys of one environment in one store. Safe in many threads; changes made elsewhere count here after `cache_ms`.

    Args:
        documents: Where records are kept.
        peppers: What keys are hashed with; every process on the store needs the same.
        clock: Wall clock in milliseconds since the epoch, by which keys expire.
        monotonic: The other clock that the cache is timed by: one that is set back does not keep a revoked key alive,
            nor does one that stood still while the machine slept.
        environment: Keys of the other one are refused.
        cache_ms: How long an answer is kept, at most 5 seconds; 0: not at all.
        cache_max: How many are kept.
        legacy: Whether older keys with bcrypt hashes are known; needs the extra `legacy`. See `adopt`.

    Raises:
        ConfigError: A setting is wrong.
    """

    def __init__(  # noqa: PLR0913 -- keyword-only settings, each with a default
        self, documents: DocumentStore, peppers: Peppers, *, clock: Clock = system_ms, monotonic: Clock = monotonic_ms,
        environment: Environment = "live", cache_ms: int = CACHE_MS_MAX, cache_max: int = 10_000, legacy: bool = False,
        random: Callable[[int], bytes] = os.urandom, check_hash: CheckHash | None = None,
    ) -> None:  # fmt: skip
        if environment not in ENVIRONMENTS:
            raise ConfigError("A key's environment must be live or test.", next_step='Write environment="live".')
        if not (type(cache_ms) is type(cache_max) is int and 0 <= cache_ms <= CACHE_MS_MAX and cache_max > 0):
            raise ConfigError(
                f"cache_ms must be 0 to {CACHE_MS_MAX:,}, and cache_max at least 1.",
                next_step="Leave them out: a revoked key must not be taken for longer.",
            )
        self.environment: Environment = environment
        self.waits = legacy or bool(getattr(documents, "remote", True))
        """Whether `verify` may wait for a network, or for slow checks of older keys: then no event loop may call it."""
        self._peppers = peppers
        self._clock = clock
        self._monotonic = monotonic
        self._random = random
        self._book = KeyBook(documents, peppers)
        self._known = Known(count_max=cache_max, for_ms=cache_ms)
        self._used = LastUsed(documents)
        self._pool = BcryptPool(check_hash) if legacy else None
        self._nobody = self._make_nobody()

    def verify(self, text: str) -> Principal:
        """
        Whom a key proves.

        What is written wrong is refused without asking the store. What a key's status or expiry is, is looked at only
        after its secret is proven.

        Raises:
            Unauthenticated: It proves nobody; one message whatever the reason.
            AuthBusy: An older key could not be checked now.
            StoreUnavailable: The store is out of reach.
        """
        # What was proven was written right. Nothing but a text ever was.
        known = self.recall(text) if type(text) is str else None
        if known is not None:
            return known
        parsed = parse_key(text, legacy=self._pool is not None)
        if parsed is None:
            raise Unauthenticated("malformed")
        now_ms = self._clock()
        asked = Moment(now_ms, self._monotonic())
        digest = self._known.digest(text)
        reason = self._known.refused(digest, asked)
        if reason is not None:
            raise Unauthenticated(reason)
        changes = self._known.changes
        principal = self._prove(text, parsed, digest, asked)
        self._known.add_proven(digest, principal, asked, changes=changes)
        self._used.note(parsed.key_id, now_ms)
        return principal

    def recall(self, text: str) -> Principal | None:
        """
        Whom a key proved a moment ago here; None: ask `verify`, which may refuse it.

        It neither asks the store nor waits for anything, so an event loop may call it.
        """
        now_ms = self._clock()
        principal = self._known.proven(self._known.digest(text), Moment(now_ms, self._monotonic()))
        if principal is None or principal.key_id is None:
            return None
        if principal.expires_ms is not None and now_ms >= principal.expires_ms:
            return None
        self._used.note(principal.key_id, now_ms)
        return principal

    def create(
        self, user: str, *, scopes: Iterable[str], name: str = "", org: str | None = None,
        expires_ms: int | None = None, rates: Rates | None = None, month_pusd: int | None = None,
    ) -> tuple[ApiKeyInfo, Secret]:  # fmt: skip
        """
        Make a key. Its text is in the answer and nowhere else.

        Args:
            user: Whose it is, and whose money it spends.
            scopes: What it may do; see `runrails.identity.principal.SCOPES`.
            name: What it is for.
            org: Whose organisation's money it spends as well.
            expires_ms: From when on it is no good, since the epoch; None: never.
            rates: Requests and tokens a minute of this key.
            month_pusd: Picodollars it may spend in a calendar month.

        Raises:
            ConfigError: Something is malformed, or over already.
            StoreUnavailable: The store is out of reach. A key may have been written that nobody has.
        """
        terms = Terms(
            user=user, scopes=scopes, name=name, org=org, expires_ms=expires_ms, rates=rates, month_pusd=month_pusd
        )
        for _ in range(_DRAWS_MAX):
            key_id = new_key_id(self._random)
            secret = make_key(self.environment, key_id, self._random)
            kept = self._peppers.hash(secret.reveal())
            record = made(terms, key_id=key_id, environment=self.environment, kept=kept, now_ms=self._clock())
            if self._book.add(record):
                return record.info, secret
        raise ConfigError("No free id was found for a key.", next_step="Check the source of random bytes.")

    def adopt(  # noqa: PLR0913 -- keyword-only terms, most with a default
        self, key_id: str, kept: str, *, user: str, scopes: Iterable[str], name: str = "", org: str | None = None,
        expires_ms: int | None = None, rates: Rates | None = None, month_pusd: int | None = None,
    ) -> ApiKeyInfo:  # fmt: skip
        """
        Take over a key of an older platform by its bcrypt hash, with `sk-` and 48 characters, the first 12 its id.

        It is checked the slow way when it is used first, and hashed like all others from then on.

        Args:
            key_id: Its first 12 characters.
            kept: Its bcrypt hash, `$2b$…`.
            user: Whose it is; the other arguments are those of `create`.

        Raises:
            ConfigError: Something is malformed, or there is such a key.
        """
        terms = Terms(
            user=user, scopes=scopes, name=name, org=org, expires_ms=expires_ms, rates=rates, month_pusd=month_pusd
        )
        record = adopted(terms, key_id=key_id, environment=self.environment, kept=kept, now_ms=self._clock())
        if not self._book.add(record):
            raise ConfigError("There is a key with that id already.", next_step="Nothing was changed.")
        return record.info

    def list(self, user: str | None = None) -> list[ApiKeyInfo]:
        """A user's keys, or all (that reads the whole store), oldest first. Raises ConfigError, StoreUnavailable."""
        found = [self._with_use(record.info) for record in self._book.find(user)]
        return sorted(found, key=lambda info: (info.created_ms, info.id))

    def show(self, key_id: str) -> ApiKeyInfo:
        """What is known of a key. Raises UnknownKey, ConfigError, StoreUnavailable."""
        return self._with_use(self._book.get(key_id)[1].info)

    def suspend(self, key_id: str) -> ApiKeyInfo:
        """Take a key no more until it is resumed. Raises UnknownKey, ConfigError, StoreUnavailable."""
        return self._change(key_id, suspended)

    def resume(self, key_id: str) -> ApiKeyInfo:
        """Take a suspended key again. Raises UnknownKey, ConfigError, StoreUnavailable."""
        return self._change(key_id, resumed)

    def revoke(self, key_id: str) -> ApiKeyInfo:
        """Never take a key again. Raises UnknownKey, ConfigError, StoreUnavailable."""
        return self._change(key_id, revoked)

    def rotate(self, key_id: str, overlap_ms: int = OVERLAP_MS) -> tuple[ApiKeyInfo, Secret]:
        """
        Give a key another secret; its id, terms and budgets stay.

        Args:
            key_id: Which.
            overlap_ms: How long the secret before is taken as well, so that its users can change over. The one before
                that keeps the time it was given. 0, for a secret that somebody has seen: no earlier one is good.

        Raises:
            UnknownKey: There is none with that id.
            ConfigError: It is revoked, or from an older platform.
            StoreUnavailable: The store is out of reach.
        """
        _, record = self._book.get(key_id)
        secret = make_key(record.info.environment, key_id, self._random)
        kept, now_ms = self._peppers.hash(secret.reveal()), self._clock()
        info = self._book.change(key_id, lambda known: rotated(known, kept=kept, now_ms=now_ms, overlap_ms=overlap_ms))
        self._known.forget(key_id)
        return info, secret

    def flush(self) -> None:
        """Write now what waits: when keys were used last, and hashes under a new pepper."""
        self._used.flush()

    def close(self) -> None:
        """Write what waits, and end the threads. The documents stay open."""
        self._used.flush()
        if self._pool is not None:
            self._pool.close()

    def __repr__(self) -> str:
        return f"ApiKeys(environment={self.environment!r})"

    def _prove(self, text: str, parsed: Parsed, digest: bytes, asked: Moment) -> Principal:
        """Whom a key proves, by the store. The same is done for a key that exists and one that does not."""
        document, record = self._read(parsed.key_id)
        known = record or self._nobody[0]
        place = self._place(text, known)
        pool = self._pool if parsed.environment is None else None  # keys of today never wait for older ones
        if place is None and pool is not None and pool.proves(text, known.hash, digest):
            # It may have waited for seconds, and the key may have been taken back meanwhile, or hashed anew.
            checked = known.hash
            document, record = self._read(parsed.key_id)
            known = record or self._nobody[0]
            place = 0 if known.hash == checked else self._place(text, known)
        expires_ms = known.info.expires_ms
        if place:
            expires_ms = min(known.previous[place - 1].until_ms, expires_ms or TIME_MS_MAX)
        principal = known.principal(expires_ms=expires_ms)
        if document is None or record is None or place is None:
            wrong = "unknown" if document is None else "unreadable" if record is None else "wrong_secret"
            self._known.add_refused(digest, wrong, asked)
            raise Unauthenticated(wrong)
        if place == 0 and not self._peppers.is_current(record.hash):
            # Whatever its status: who goes on with an older key that was taken back costs one slow check, not many.
            self._hash_anew(document, record, text, at_once=parsed.environment is None)
        reason = self._against(record.info, expires_ms, self._clock())
        if reason is not None:
            if record.info.status != "suspended":  # which may end at any moment; nothing else does
                self._known.add_refused(digest, reason, asked)
            raise Unauthenticated(reason)
        return principal

    def _read(self, key_id: str) -> tuple[Document | None, ApiKeyRecord | None]:
        """A key's document and the record in it. A record is opened in any case, so that both take as long."""
        document = self._book.read(key_id)
        nobody, data = self._nobody
        if document is None:
            decode(data, nobody.info.id, self._peppers)
            return None, None
        return document, decode(document.data, key_id, self._peppers)

    def _place(self, text: str, known: ApiKeyRecord) -> int | None:
        """Which of a record's hashes the key is the text of. As many are looked at whatever it has."""
        earlier = [each.hash for each in known.previous]
        earlier += [self._nobody[0].hash] * (PREVIOUS_MAX - len(earlier))
        return self._peppers.which(text, (known.hash, *earlier))

    def _against(self, info: ApiKeyInfo, expires_ms: int | None, now_ms: int) -> LiteralString | None:
        """What speaks against a key whose secret is proven."""
        if info.environment != self.environment:
            return "other_environment"
        if info.status != "active":
            return "not_active"
        if expires_ms is not None and now_ms >= expires_ms:
            return "expired"
        return None

    def _hash_anew(self, document: Document, record: ApiKeyRecord, text: str, *, at_once: bool) -> None:
        """Under the active pepper. Another process may have done so, or its next use will: the caller is in anyway."""
        write = partial(self._book.replace, document, replace(record, hash=self._peppers.hash(text)))
        if not at_once:
            self._used.later(record.info.id, write)
            return
        with suppress(RunrailsError):  # an older key has waited already, and shall do so once
            write()

    def _change(self, key_id: str, change: Callable[[ApiKeyInfo], ApiKeyInfo]) -> ApiKeyInfo:
        info = self._book.with_status(key_id, change)
        self._known.forget(key_id)
        return info

    def _with_use(self, info: ApiKeyInfo) -> ApiKeyInfo:
        return replace(info, last_used_ms=self._used.read_ms(info.id))

    def _make_nobody(self) -> tuple[ApiKeyRecord, bytes]:
        """What is looked at where there is no key: a record like others, whose key nobody has."""
        terms = Terms(user="nobody", scopes=("ai:complete", "ai:embed"), name="nobody")
        key_id = new_key_id(os.urandom)
        kept = self._peppers.hash(make_key(self.environment, key_id, os.urandom).reveal())
        record = made(terms, key_id=key_id, environment=self.environment, kept=kept, now_ms=0)
        return record, encode(record, self._peppers)
