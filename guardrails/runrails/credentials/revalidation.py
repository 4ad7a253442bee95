"""Checking stored keys again, now and then, so that one which was withdrawn is known before a call needs it."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

from runrails.clocks import Clock, system_ms
from runrails.errors import CredentialError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from runrails.credentials.records import Credential, CredentialId
    from runrails.credentials.validation import Validation
    from runrails.credentials.vault import Vault

__all__ = ["Checked", "Revalidator", "check_key"]

EVERY_MS = 6 * 3_600_000
ROUND_MS = 60_000
_PAUSE_S = 0.2
"""Between two checks: a provider must not take many keys of one place for an attack."""


class Validates(Protocol):
    """A `Validator`."""

    def validate(self, credential: Credential) -> Validation:
        """What the provider says."""
        ...


class Checked(NamedTuple):
    """What became of checking one key."""

    id: CredentialId
    validation: Validation


def check_key(vault: Vault, credential_id: CredentialId, validator: Validates, *, clock: Clock = system_ms) -> Checked:
    """
    Check a key and note what came of it. An answer that says nothing leaves what was known as it is.

    Raises:
        CredentialError: There is no such key, it is suspended, or it does not open. Nobody was asked.
        StoreUnavailable: The vault cannot be reached.
    """
    credential = vault.get(credential_id)
    validation = validator.validate(credential)
    if validation.status != "unverified":
        # Named by its secret: one that was replaced meanwhile is not meant.
        vault.mark(credential_id, validation.status, clock(), secret_id=credential.info.secret_id)
    return Checked(credential_id, validation)


class Revalidator:
    """
    Checks every key of a vault again in the background, one after the other.

    Args:
        vault: The keys.
        validator: Who asks the providers.
        every_ms: How old a check may be.
        clock: Wall clock in milliseconds since the epoch.
        tell: Is told of every check; what it raises is ignored.
    """

    def __init__(
        self,
        vault: Vault,
        validator: Validates,
        *,
        every_ms: int = EVERY_MS,
        clock: Clock = system_ms,
        tell: Callable[[Checked], object] = lambda _: None,
    ) -> None:
        self._vault = vault
        self._validator = validator
        self._every_ms = every_ms
        self._clock = clock
        self._tell = tell
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._asked_ms: dict[CredentialId, int] = {}
        """When a key was last checked without an answer: it is not asked for again at once."""

    def round(self) -> list[Checked]:
        """
        Check what is due now.

        Raises:
            StoreUnavailable: The vault cannot be reached.
        """
        checked: list[Checked] = []
        now_ms = self._clock()
        listed = self._vault.list()
        known = {info.id for info in listed}
        self._asked_ms = {each: at_ms for each, at_ms in self._asked_ms.items() if each in known}
        for info in listed:
            # What was noted by a clock ahead of this one counts for nothing: else it might for years.
            last_ms = max(
                (at_ms for at_ms in (info.checked_ms, self._asked_ms.get(info.id)) if at_ms and at_ms <= now_ms),
                default=0,
            )
            if self._ended.is_set() or (last_ms and now_ms - last_ms < self._every_ms):
                continue
            self._asked_ms[info.id] = now_ms
            try:
                found = check_key(self._vault, info.id, self._validator, clock=self._clock)
            except CredentialError:
                continue  # It went, is suspended, or does not open: `byok list` shows that.
            checked.append(found)
            with suppress(Exception):
                self._tell(found)
            self._ended.wait(_PAUSE_S)
        return checked

    def start(self) -> None:
        """Begin a thread that does a round a minute, until `close`. Starting twice is starting once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name="runrails-keychecks", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread. Closing twice is fine."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def __enter__(self) -> Revalidator:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _loop(self) -> None:
        while not self._ended.is_set():
            with suppress(Exception):  # The next round asks again, also where a check of somebody's failed.
                self.round()
            self._ended.wait(ROUND_MS / 1_000)
