"""`runrails byok`: users' own provider keys, and the master keys that seal them."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import contextmanager
from pathlib import Path  # noqa: TC003 -- Typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from runrails import settings
from runrails.cli import keychecks
from runrails.cli.output import AsJson, error_panel, make_table, print_json, stderr, stdout, when
from runrails.credentials import CredentialExists, CredentialId, CredentialInfo, CredentialNotFound
from runrails.credentials.errors import CredentialUnreadable, advice
from runrails.credentials.opening import open_vault
from runrails.credentials.records import LABEL, SECRET_BYTES_MAX, scope_of
from runrails.credentials.ring import SETTING, check_key_id, new_master_key
from runrails.documents.opening import documents_url
from runrails.errors import ConfigError, RunrailsError
from runrails.keyroutes import HOMES, is_sendable
from runrails.plainfields import credential_fields
from runrails.secretvalue import Secret

if TYPE_CHECKING:
    from collections.abc import Generator

    from runrails.credentials import Vault

__all__ = ["byok", "check_owner", "opened_vault"]

EXIT_NEGATIVE = 1
_EXTRA = {"allow_extra_args": True}

byok = typer.Typer(
    help="Store users' own provider keys, sealed with a master key that stands elsewhere.", no_args_is_help=True
)

keychecks.mount(byok)

Provider = Annotated[str, typer.Argument(metavar="PROVIDER", help="For instance openai, anthropic or bedrock.")]
Owner = Annotated[
    str | None,
    typer.Option("--owner", metavar="SCOPE", help="user:NAME, org:NAME or platform; by default you (RUNRAILS_USER)."),
]
Label = Annotated[str, typer.Option("--label", help="To have several keys for one provider.")]
BaseUrl = Annotated[
    str | None, typer.Option("--base-url", metavar="URL", help="Where the key is used, if not at the provider's own.")
]
Region = Annotated[str | None, typer.Option("--region", help="Where the key is used, for instance eu-west-1.")]
VaultUrl = Annotated[
    str | None,
    typer.Option("--vault", metavar="URL", help="The vault; by default RUNRAILS_VAULT or by the ledger."),
]


@byok.command()
def init(
    path: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Where to; by default in the user's data directory.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="What the key is called: another one for every key.")] = "k1",
    as_json: AsJson = False,
) -> None:
    """Make a master key in a new file that only you can read, and print the setting that names it."""
    check_key_id(name)
    place = _default_place(name) if path is None else path.absolute()
    if "," in str(place):
        raise ConfigError(
            f"A master key's path has no comma, which divides the keys in {SETTING}.",
            next_step="Name a file in another directory.",
            path=str(place),
        )
    _write_new(place, new_master_key())
    setting = f"{name}:file:{place}"
    if as_json:
        print_json({"key_id": name, "path": str(place), "setting": f"{SETTING}={setting}"})
        return
    out, word = stdout(), shlex.quote(setting)
    out.print(f"The master key {name} is in {place}.\n", soft_wrap=True, markup=False)
    if not os.environ.get(SETTING):
        out.print(
            f"Set this where keys are stored or used:\n\n  export {SETTING}={word}\n", soft_wrap=True, markup=False
        )
    else:
        out.print(
            f"Give every process both keys, the new one last; then make it the first everywhere:\n\n"
            f'  export {SETTING}="${SETTING}",{word}\n  export {SETTING}={word},"${SETTING}"\n\n'
            "Then run `runrails byok rewrap`, after which the old key can be left out.\n",
            soft_wrap=True,
            markup=False,
        )
    out.print("Keep a copy of the file elsewhere: without it no stored key ever opens again.")


@byok.command(context_settings=_EXTRA)
def add(
    context: typer.Context,
    provider: Provider,
    *,
    owner: Owner = None,
    label: Label = LABEL,
    base_url: BaseUrl = None,
    region: Region = None,
    vault: VaultUrl = None,
    as_json: AsJson = False,
) -> None:
    """Store a key. It is read from standard input, or asked for without being shown; never from the command line."""
    _check_beyond(context)
    which = _which(owner, provider, label)
    with opened_vault(vault) as opened:
        known = opened.peek(which)
        if known is not None:
            raise CredentialExists(owner=which.owner, provider=provider, label=label)
        _check_lasting(vault)
        info = opened.add(which, _read_key(provider), base_url=base_url, region=region)
    _tell(info, f"The {provider} key {label} of {info.id.owner} is stored.", as_json=as_json)


@byok.command(context_settings=_EXTRA)
def rotate(
    context: typer.Context,
    provider: Provider,
    *,
    owner: Owner = None,
    label: Label = LABEL,
    base_url: BaseUrl = None,
    region: Region = None,
    vault: VaultUrl = None,
    as_json: AsJson = False,
) -> None:
    """Replace a key by another one. Base URL and region stay, unless others are given."""
    _check_beyond(context)
    which = _which(owner, provider, label)
    with opened_vault(vault) as opened, _negative(as_json=as_json):
        if opened.peek(which) is None:
            raise CredentialNotFound(owner=which.owner, provider=provider, label=label)
        info = opened.rotate(which, _read_key(provider), base_url=base_url, region=region)
    _tell(info, f"The {provider} key {label} of {info.id.owner} is replaced.", as_json=as_json)


@byok.command()
def remove(
    provider: Provider,
    *,
    owner: Owner = None,
    label: Label = LABEL,
    vault: VaultUrl = None,
    as_json: AsJson = False,
) -> None:
    """Remove a key. This needs no master key. Exit 1: there was none."""
    which = _which(owner, provider, label)
    with opened_vault(vault, locked=True) as opened, _negative(as_json=as_json):
        if not opened.remove(which):
            raise CredentialNotFound(owner=which.owner, provider=provider, label=label)
    if as_json:
        print_json({"owner": which.owner, "provider": provider, "label": label, "removed": True})
    else:
        stdout().print(f"The {provider} key {label} of {which.owner} is removed.")


@byok.command()
def suspend(
    provider: Provider, *, owner: Owner = None, label: Label = LABEL, vault: VaultUrl = None, as_json: AsJson = False
) -> None:
    """Keep a key from being used until it is resumed, whatever its owner does with it meanwhile."""
    which = _which(owner, provider, label)
    with opened_vault(vault, locked=True) as opened, _negative(as_json=as_json):
        info = opened.mark(which, "suspended")
    _tell(info, f"The {provider} key {label} of {info.id.owner} is suspended.", as_json=as_json)


@byok.command()
def resume(
    provider: Provider, *, owner: Owner = None, label: Label = LABEL, vault: VaultUrl = None, as_json: AsJson = False
) -> None:
    """Let a suspended key be used again."""
    which = _which(owner, provider, label)
    with opened_vault(vault, locked=True) as opened, _negative(as_json=as_json):
        info = opened.resume(which)
    _tell(info, f"The {provider} key {label} of {info.id.owner} may be used.", as_json=as_json)


@byok.command("list")
def list_keys(
    owner: Annotated[str | None, typer.Option("--owner", metavar="SCOPE", help="Only this owner's keys.")] = None,
    *,
    opening: Annotated[bool, typer.Option("--open", help="Also open each, and say why one does not.")] = False,
    vault: VaultUrl = None,
    as_json: AsJson = False,
) -> None:
    """List what keys there are, never the keys. Exit 1: with --open, one does not open."""
    if owner is not None:
        check_owner(owner)
    with opened_vault(vault, locked=not opening) as opened:
        infos = opened.list(owner)
        faults = {info.id: _fault(opened, info) for info in infos} if opening else {}
    broken = {which: why for which, why in faults.items() if why is not None}
    if as_json:
        print_json([credential_fields(info) | (_opened_fields(faults[info.id]) if opening else {}) for info in infos])
    elif not infos:
        stdout().print("No keys. `runrails byok add PROVIDER` stores one.")
    else:
        columns: list[str] = ["owner", "provider", "label", "ends in", "status", "since (UTC)", "key"]
        stdout().print(make_table("Provider keys", dict.fromkeys(columns, False), map(_row, infos)))
        for which, why in broken.items():
            stdout().print(f"{which.owner} {which.provider} {which.label} does not open: {why.reason}. {why.advice}")
    if broken:
        raise typer.Exit(EXIT_NEGATIVE)


@byok.command()
def rewrap(
    owner: Annotated[str | None, typer.Option("--owner", metavar="SCOPE", help="Only this owner's keys.")] = None,
    *,
    vault: VaultUrl = None,
    as_json: AsJson = False,
) -> None:
    """Seal every key with the first master key, so that older ones can be left out. Exit 1: one still needs them."""
    if owner is not None:
        check_owner(owner)
    with opened_vault(vault) as opened:
        done = opened.rewrap(owner)
    failed = [
        {"owner": which.owner, "provider": which.provider, "label": which.label, "reason": reason}
        for which, reason in done.unreadable
    ]
    contended = [{"owner": each.owner, "provider": each.provider, "label": each.label} for each in done.contended]
    if as_json:
        print_json({"renewed": done.renewed, "current": done.current, "unreadable": failed, "contended": contended})
    else:
        stdout().print(f"{done.renewed:,} sealed anew, {done.current:,} were already.")
        for which, reason in done.unreadable:
            stdout().print(
                f"{which.owner} {which.provider} {which.label} does not open: {reason}. {advice(reason)}"
            )  # fmt: skip
        for which in done.contended:
            stdout().print(
                f"{which.owner} {which.provider} {which.label} is changed by others all the time, and may need an "
                "older key. See that every process has the new one first, and run this again.",
                soft_wrap=True,
            )
    if failed or contended:
        raise typer.Exit(EXIT_NEGATIVE)


class _Fault:
    """Why a key does not open."""

    def __init__(self, error: RunrailsError) -> None:
        self.reason = error.reason if isinstance(error, CredentialUnreadable) else error.code
        self.advice = advice(error.reason) if isinstance(error, CredentialUnreadable) else error.next_step


def _fault(vault: Vault, info: CredentialInfo) -> _Fault | None:
    if info.status == "suspended":
        return None
    try:
        vault.get(info.id)
    except RunrailsError as error:
        return _Fault(error)
    return None


@contextmanager
def opened_vault(url: str | None, *, locked: bool = False) -> Generator[Vault]:
    """A vault for as long as a command needs it. Raises ConfigError."""
    opened = open_vault(url, locked=locked)
    try:
        yield opened
    except ValueError as error:
        if isinstance(error, RunrailsError):
            raise
        raise ConfigError(str(error), next_step="See `runrails byok add --help`.") from None
    finally:
        opened.close()


@contextmanager
def _negative(*, as_json: bool) -> Generator[None]:
    """What is not there is an answer, not a failure."""
    try:
        yield
    except CredentialNotFound as error:
        if as_json:
            print_json(error.as_dict())
        else:
            stderr().print(error_panel(error))
        raise typer.Exit(EXIT_NEGATIVE) from None


def _which(owner: str | None, provider: str, label: str) -> CredentialId:
    try:
        return CredentialId(owner or f"user:{settings.user()}", provider, label)
    except ValueError as error:
        raise ConfigError(
            str(error), next_step="For instance: runrails byok add openai --owner user:alice --label work"
        ) from None


def check_owner(owner: str) -> None:
    """Check a scope that owns keys. Raises ConfigError."""
    try:
        scope_of(owner)
    except ValueError as error:
        raise ConfigError(str(error), next_step="For instance: --owner user:alice") from None


def _check_beyond(context: typer.Context) -> None:
    """Somebody may write the key there. Click would print it in its error."""
    if context.args:
        raise ConfigError(
            "A key is never written on the command line, where other users and the shell's history see it.",
            next_step="If that was a key, replace it at the provider. Leave it out here: the command asks for it, or "
            "reads it from standard input.",
        )


def _check_lasting(vault: str | None) -> None:
    if documents_url(vault).partition(":")[0] == "memory":
        raise ConfigError(
            "A vault in memory ends with this command, and the key with it.",
            next_step="Set RUNRAILS_VAULT=sqlite:////path/vault.db, or RUNRAILS_STORE to a ledger that lasts.",
        )


def _read_key(provider: str) -> Secret:
    """The key, from whoever types or pipes it; without blanks and line breaks around it."""
    given: Secret | None = None
    # Closed, it is None, whatever its type says.
    if sys.stdin is not None:  # pyright: ignore[reportUnnecessaryComparison] -- as above
        given = _typed(provider) if sys.stdin.isatty() else _held(sys.stdin.buffer.read(SECRET_BYTES_MAX + 1))
    if given is None:
        raise ConfigError(
            "There is no key on standard input.", next_step=f"Try: runrails byok add {provider} < FILE_WITH_THE_KEY"
        )
    if provider in HOMES and not is_sendable(given.reveal_bytes()):
        raise ConfigError(
            f"That is no {provider} key: it is one word of plain ASCII, without line breaks.",
            next_step=f"Try: runrails byok add {provider} < FILE_WITH_NOTHING_BUT_THE_KEY",
        )
    return given


def _typed(provider: str) -> Secret | None:
    from getpass import getpass

    try:
        return _held(getpass(f"{provider} key (not shown): ").encode(errors="surrogateescape"))
    except UnicodeDecodeError:
        pass  # Python's error has what was typed.
    raise ConfigError(
        "What was typed is no text in this terminal's encoding.",
        next_step=f"Try: runrails byok add {provider} < FILE_WITH_THE_KEY",
    )


def _held(given: bytes) -> Secret | None:
    given = given.strip()
    return Secret(given) if given else None


def _default_place(name: str) -> Path:
    from platformdirs import user_data_path

    directory = user_data_path("runrails", appauthor=False)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _not_made(directory, error) from None
    return directory / f"master-{name}.key"


def _write_new(place: Path, key: Secret) -> None:
    try:
        descriptor = os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        raise ConfigError(
            f"{place} is there already; a key that something may be sealed with is never overwritten.",
            next_step="For another key choose another --name, or another file.",
            path=str(place),
        ) from None
    except OSError as error:
        raise _not_made(place, error) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.reveal_bytes() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        place.unlink()  # Half a key would be in the way of the next try.
        raise _not_made(place, error) from None


def _not_made(place: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"{place} cannot be made: {error.strerror}.",
        next_step="Name a file in a directory that there is and that you may write to.",
        path=str(place),
    )


def _tell(info: CredentialInfo, words: str, *, as_json: bool) -> None:
    if as_json:
        print_json(credential_fields(info))
    else:
        stdout().print(words)


def _opened_fields(fault: _Fault | None) -> dict[str, object]:
    return {"opens": fault is None, "reason": fault and fault.reason, "advice": fault and fault.advice}


def _row(info: CredentialInfo) -> list[str]:
    return [
        info.id.owner, info.id.provider, info.id.label, info.hint or "-",
        info.status if info.readable else "damaged", when(info.rotated_ms)[:10] if info.readable else "-",
        info.key_id or "-",
    ]  # fmt: skip
