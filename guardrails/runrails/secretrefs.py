"""
Where secrets are kept, and whether they are any good.

A setting holds a reference, `env:NAME`, `file:/path` or `ssm:///name[:version]`, and never the secret: settings are
printed, committed and mailed. A reference is resolved once, when what needs it is made, and never from what a request
says.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Protocol, cast

from runrails.errors import ConfigError
from runrails.secretvalue import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ENTRY_POINTS",
    "SECRET_BYTES_MAX",
    "Source",
    "check_distinct",
    "check_environment",
    "check_strength",
    "resolve",
]

ENTRY_POINTS = "runrails.secrets"
"""Places outside the core: the name is a reference's scheme, the value a `Source`."""
SECRET_BYTES_MAX = 65_536
"""A secret is a key, not a file. PEM files and key rings fit many times over."""
_REFERENCE = re.compile(r"([a-z][a-z0-9+.-]{0,15}):(.*)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_SETTINGS = {"RUNRAILS_KEY_PEPPERS": 1, "RUNRAILS_MASTER_KEYS": 1, "RUNRAILS_JWT_KEYS": 2}
"""Settings that are lists of references, and how many names stand before each: `p1:env:X`, `k1:HS256:env:X`."""
_FORMS = "env:NAME, file:/path or ssm:///name"


class Source(Protocol):
    """Reads what a reference of its scheme names."""

    def __call__(self, rest: str, *, what: str) -> str | bytes:
        """
        Read the secret.

        Args:
            rest: What stands behind the scheme and its colon.
            what: The setting that holds the reference, for the error.

        Raises:
            ConfigError: There is no such secret, or it cannot be read. Nothing of what was read is in it.
        """
        ...


def resolve(reference: str, *, what: str, allow_plain: bool = False) -> Secret:
    """
    Read the secret that a setting refers to.

    Args:
        reference: ``env:NAME``; ``file:/absolute/path`` (one line break at the end of a text is left out); the scheme
            of an installed integration, as ``ssm:///name`` or ``ssm:///name:3`` for version 3.
        what: What the setting is called, for the error.
        allow_plain: Take what is no reference for the secret itself. What begins like a reference never is one: a
            mistyped scheme must not become a key that everybody can guess.

    Raises:
        ConfigError: It is no reference, or there is no secret behind it. The error never has a secret, nor what might
            be one that was written in the place of a reference.
    """
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        if allow_plain and reference:
            return _held(reference, what)
        raise ConfigError(
            f"{what} must refer to a secret, not hold one." if reference else f"{what} is empty.",
            next_step=f"Write {_FORMS}.",
            setting=what,
        )
    scheme, rest = found[1], found[2]
    if scheme == "env":
        return _held(_read_env(rest, what), what)
    if scheme == "file":
        return _held(_read_file(rest, what), what)
    return _held(_elsewhere(scheme, what)(rest, what=what), what)


def _held(value: str | bytes, what: str) -> Secret:
    size = len(value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value)
    if not 0 < size <= SECRET_BYTES_MAX:
        raise ConfigError(
            f"The secret that {what} refers to is "
            + (f"longer than {SECRET_BYTES_MAX:,} bytes." if size else "empty."),
            next_step="Store the secret there, and nothing else.",
            setting=what,
        )
    try:
        return Secret(value)
    except ValueError:  # text without a UTF-8 form; Python's error would carry it
        pass
    raise ConfigError(
        f"The secret that {what} refers to is no text.", next_step="Keep it in a file if it is bytes.", setting=what
    )


def _read_env(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{what} must name a variable: env:NAME.", next_step="Check it for blanks and other letters.", setting=what
        )
    value = os.environ.get(name)
    if value is None:
        # The name is shown only if it looks like one: somebody may have written the secret itself.
        shown = f" {name}" if name.isupper() and "_" in name else ""
        raise ConfigError(
            f"The environment has no variable{shown}, which {what} refers to.",
            next_step="Set it for this process.",
            setting=what,
        )
    return value


def _read_file(path: str, what: str) -> bytes:
    path = path.removeprefix("//")
    if not os.path.isabs(path):  # noqa: PTH117 -- a str, as given
        raise ConfigError(
            f"{what} must name a file by its absolute path: file:/path.",
            next_step="Write the path from the root.",
            setting=what,
        )
    try:
        with open(path, "rb") as file:  # noqa: PTH123 -- pathlib takes 3 ms to load
            return _without_line_break(file.read(SECRET_BYTES_MAX + 3))  # a line break more than what fits
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "no such name"
    # Outside of the clause: Python's error has the path, which may be the secret itself, written in its place.
    raise ConfigError(
        f"The file that {what} refers to cannot be read: {why}.",
        next_step="Check its path and who may read it.",
        setting=what,
    )


def _without_line_break(data: bytes) -> bytes:
    """Editors end a text with a line break that nobody means; the last of random bytes is one of them."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return data
    return data.removesuffix(b"\n").removesuffix(b"\r")


def _elsewhere(scheme: str, what: str) -> Source:
    from importlib.metadata import entry_points

    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name == scheme:
            return cast("Source", entry.load())
    # Not even the scheme is shown: it may be the beginning of a secret that was written there itself.
    raise ConfigError(
        f"{what} refers to a place of secrets that is not known here.",
        next_step=f"Write {_FORMS}; for ssm, install runrails[aws].",
        setting=what,
    )


def check_strength(secret: Secret, *, what: str, bytes_min: int = 32) -> Secret:
    """
    Refuse a secret that somebody could guess. Returns it.

    This finds what people really write where a secret belongs: short ones, placeholders, repetitions. It cannot tell a
    key that was drawn from one that was thought up.

    Raises:
        ConfigError: It names the setting and what is wrong, never the value.
    """
    from runrails.secretrules import weakness

    weak = weakness(secret.reveal_bytes(), bytes_min=bytes_min)
    if weak is not None:
        raise ConfigError(
            f"The secret in {what} {weak}.",
            next_step='Make one: python -c "import secrets; print(secrets.token_urlsafe(32))".',
            setting=what,
        )
    return secret


def check_distinct(secrets: Mapping[str, Secret]) -> None:
    """
    Refuse one secret in two places: whoever learns it through the weaker one has the stronger one as well.

    Args:
        secrets: What each is for (a setting's name), and the secret.

    Raises:
        ConfigError: It names two settings that are equal.
    """
    known = list(secrets.items())
    for at, (name, secret) in enumerate(known):
        for other, earlier in known[:at]:
            if secret == earlier:
                raise ConfigError(
                    f"{other} and {name} are the same secret.",
                    next_step="Make a secret of its own for each.",
                    setting=name,
                )


def check_environment(environ: Mapping[str, str] | None = None) -> None:
    """
    See that no pepper, master key and token key of this process's settings is one secret. For the start of a server.

    What cannot be read is left out here: whoever needs it says so better.

    Raises:
        ConfigError: It names two settings that are equal.
    """
    found: dict[str, Secret] = {}
    for setting, names in _SETTINGS.items():
        for at, item in enumerate((os.environ if environ is None else environ).get(setting, "").split(",")):
            reference = item.strip().split(":", names)[-1]
            try:
                found[f"{setting}[{at}]"] = resolve(reference, what=setting)
            except ConfigError:
                continue
    check_distinct(found)
