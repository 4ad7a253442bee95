"""`runrails keys`: API keys for others, made, listed, suspended, revoked and rotated."""

from __future__ import annotations

import re
import sys
from contextlib import closing, contextmanager
from enum import StrEnum
from pathlib import Path  # noqa: TC003 -- Typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from runrails.cli.output import AsJson, make_table, print_json, stderr, stdout, when
from runrails.cli.shell import NEGATIVE
from runrails.cli.unsaid import without_secrets
from runrails.clocks import system_ms
from runrails.errors import ConfigError
from runrails.identity.errors import UnknownKey
from runrails.identity.principal import SCOPES
from runrails.money import format_usd, usd

if TYPE_CHECKING:
    from collections.abc import Generator

    from runrails.cli.adopting import Adopted
    from runrails.identity.apikeys import ApiKeyInfo, ApiKeys
    from runrails.identity.apikeys.format import Environment
    from runrails.secretvalue import Secret

__all__ = ["keys"]

_SPAN = re.compile(r"([0-9]{1,6})([smhd])")
_PREFIX = re.compile(r"rr_(?:live|test)_([0-9A-Za-z]{16})(?![0-9A-Za-z])")
_SPAN_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

keys = typer.Typer(help="Make API keys for others, and take them back.", no_args_is_help=True)


class Where(StrEnum):
    """Older versions of Typer take no literals."""

    LIVE = "live"
    TEST = "test"


VaultUrl = Annotated[
    str | None,
    typer.Option("--vault", metavar="URL", help="Where keys are kept; by default RUNRAILS_VAULT, else by the store."),
]


def _id_of(text: str) -> str:
    """The id in what a list shows, or in how a key begins."""
    found = _PREFIX.match(text)
    return text if found is None else found[1]


KeyId = Annotated[
    str,
    typer.Argument(metavar="ID", parser=_id_of, help="The key's id: what stands between rr_live_ and the next _."),
]


@keys.command("create")
def create(  # noqa: PLR0917 -- Typer names them all
    user: Annotated[str, typer.Argument(metavar="USER", help="Whose key it is, and whose money it spends.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope", metavar="SCOPE", help=f"What it may do; several times for several. {', '.join(sorted(SCOPES))}."
        ),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="What it is for.")] = "",
    org: Annotated[str | None, typer.Option("--org", help="Whose organisation's money it spends as well.")] = None,
    expires_in: Annotated[
        str | None, typer.Option("--expires-in", metavar="TIME", help="No good after that, for instance 90d.")
    ] = None,
    month: Annotated[
        str | None, typer.Option("--month", metavar="AMOUNT", help="Dollars it may spend in a calendar month.")
    ] = None,
    requests: Annotated[
        int | None, typer.Option("--requests-per-minute", help="Requests it may send a minute.")
    ] = None,
    tokens: Annotated[int | None, typer.Option("--tokens-per-minute", help="Tokens it may use a minute.")] = None,
    environment: Annotated[Where, typer.Option("--environment", help="Where it is good.")] = Where.LIVE,
    vault: VaultUrl = None,
    as_json: AsJson = False,
) -> None:
    """
    Make a key and print it, once: only its hash is kept. Without --scope it may ask for completions (ai:complete).

    On stdout is the key alone (with --json an object that has it), so that it can go where secrets are kept:
    runrails keys create alice | my-secret-store put. All else is on stderr.
    """
    from runrails.rates import Rates

    try:
        rates = (
            Rates(requests_per_minute=requests, tokens_per_minute=tokens)
            if requests is not None or tokens is not None
            else None
        )
        month_pusd = None if month is None else usd(month, what="--month")
    except ValueError as error:
        # What stands there instead of a number may be anything.
        wrong = ConfigError(without_secrets(str(error)), next_step="Nothing was written.")
        raise wrong from None
    expires_ms = None if expires_in is None else system_ms() + _span_ms(expires_in, "--expires-in")
    with _opened(vault, environment.value, as_json=as_json) as opened:
        info, secret = opened.create(
            user, scopes=scope or ["ai:complete"], name=name, org=org, expires_ms=expires_ms, rates=rates,
            month_pusd=month_pusd,
        )  # fmt: skip
    _print_secret(info, secret, as_json=as_json)


@keys.command("list")
def list_keys(
    user: Annotated[str | None, typer.Option("--user", help="Only this user's keys.")] = None,
    vault: VaultUrl = None,
    as_json: AsJson = False,
) -> None:
    """List keys, oldest first. What is secret about them is nowhere."""
    with _opened(vault, as_json=as_json) as opened:
        found = opened.list(user)
    if as_json:
        print_json([info.as_dict() for info in found])
    elif not found:
        stdout().print("No keys yet. `runrails keys create USER` makes one.")
    else:
        columns = ("id", "name", "of", "status", "last used (UTC)")
        stdout().print(make_table("API keys", dict.fromkeys(columns, False), map(_row, found)))


@keys.command("show")
def show(key_id: KeyId, vault: VaultUrl = None, as_json: AsJson = False) -> None:
    """Show what is known of a key. Exit code 1 if there is none with that id."""
    with _opened(vault, as_json=as_json) as opened:
        _print_info(opened.show(key_id), as_json=as_json)


@keys.command("suspend")
def suspend(key_id: KeyId, vault: VaultUrl = None, as_json: AsJson = False) -> None:
    """Take a key no more until it is resumed. It counts everywhere within 5 seconds."""
    with _opened(vault, as_json=as_json) as opened:
        _print_info(opened.suspend(key_id), as_json=as_json)


@keys.command("resume")
def resume(key_id: KeyId, vault: VaultUrl = None, as_json: AsJson = False) -> None:
    """Take a suspended key again."""
    with _opened(vault, as_json=as_json) as opened:
        _print_info(opened.resume(key_id), as_json=as_json)


@keys.command("revoke")
def revoke(key_id: KeyId, vault: VaultUrl = None, as_json: AsJson = False) -> None:
    """Never take a key again, which is final. It counts everywhere within 5 seconds."""
    with _opened(vault, as_json=as_json) as opened:
        _print_info(opened.revoke(key_id), as_json=as_json)


@keys.command("rotate")
def rotate(
    key_id: KeyId,
    overlap: Annotated[
        str, typer.Option("--overlap", metavar="TIME", help="How long the secret before is taken as well.")
    ] = "24h",
    vault: VaultUrl = None,
    as_json: AsJson = False,
) -> None:
    """
    Give a key another secret and print it, once. Its id, scopes and budgets stay.

    For a secret that somebody has seen write --overlap 0s: then no earlier one is good.
    """
    overlap_ms = _span_ms(overlap, "--overlap")
    with _opened(vault, as_json=as_json) as opened:
        info, secret = opened.rotate(key_id, overlap_ms)
    _print_secret(info, secret, as_json=as_json)


@keys.command("adopt")
def adopt(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A line of JSON for each key; by default standard input.")
    ] = None,
    scope: Annotated[
        list[str] | None, typer.Option("--scope", metavar="SCOPE", help="For keys of which the line names no scopes.")
    ] = None,
    vault: VaultUrl = None,
    as_json: AsJson = False,
) -> None:
    """
    Take over keys of an older platform by their bcrypt hashes: {"id": "sk-…", "hash": "$2b$…", "user": "alice"}.

    The id is the key's first 12 characters. name, org, scopes and expires_ms may be there as well. Again is nothing
    new. Exit code 1 if a line was refused; the others are taken over. Servers need the extra `legacy` to check them.
    """
    from runrails.cli.adopting import adopt_lines

    try:
        lines = sys.stdin.buffer if file is None else file.open("rb")
    except OSError as error:
        why = error.strerror
    else:
        with lines, _opened(vault, as_json=as_json) as opened:
            done = adopt_lines(opened, lines, scope or ["ai:complete"])
        _print_adopted(done, as_json=as_json)
        return
    raise ConfigError(f"The file cannot be read: {why}.", next_step="Name one, or pipe its lines in.")


def _print_adopted(done: Adopted, *, as_json: bool) -> None:
    if as_json:
        refused = [{"line": number, "why": why} for number, why in done.refused]
        print_json({"adopted": done.adopted, "known": done.known, "refused": refused})
    else:
        stdout().print(
            f"{done.adopted:,} taken over, {done.known:,} were there already, {len(done.refused):,} refused."
        )
        for number, why in done.refused:
            stdout().print(f"Line {number:,}: {why}")
    if done.refused:
        raise typer.Exit(NEGATIVE)


@contextmanager
def _opened(vault: str | None, environment: Environment = "live", *, as_json: bool) -> Generator[ApiKeys]:
    """The keys of a vault. A key that is not there is a negative result."""
    from runrails.cli.lasting import check_lasting
    from runrails.documents.opening import open_documents
    from runrails.identity.apikeys import ApiKeys
    from runrails.identity.apikeys.opening import peppers_of_environment

    check_lasting(vault)
    peppers = peppers_of_environment(vault)
    with (
        closing(open_documents(vault)) as documents,
        closing(ApiKeys(documents, peppers, environment=environment)) as opened,
    ):
        try:
            yield opened
        except UnknownKey as error:
            if as_json:
                print_json(error.as_dict())
            else:
                stderr().print(f"{error.what} {error.next_step}")
            raise typer.Exit(NEGATIVE) from None


def _span_ms(text: str, what: str) -> int:
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"{what} is a number with s, m, h or d behind it.", next_step="Write 90d for ninety days, or 24h."
        )
    return int(found[1]) * _SPAN_MS[found[2]]


def _print_secret(info: ApiKeyInfo, secret: Secret, *, as_json: bool) -> None:
    if as_json:
        print_json({"key": secret.reveal(), **info.as_dict()})
    else:
        sys.stdout.write(secret.reveal() + "\n")
    error = stderr()
    error.print("This is the only time that the key is shown. Keep it where secrets are kept.")
    if not as_json:
        error.print(_told(info))


def _print_info(info: ApiKeyInfo, *, as_json: bool) -> None:
    if as_json:
        print_json(info.as_dict())
    else:
        stdout().print(_told(info))


def _told(info: ApiKeyInfo) -> str:
    whose = info.user if info.org is None else f"{info.user} of {info.org}"
    lines = [
        f"{info.prefix}: {info.status}, of {whose}{f', {info.name}' if info.name else ''}",
        f"may: {', '.join(sorted(info.scopes)) or 'nothing'}",
        f"made {when(info.created_ms)} UTC",
    ]
    if info.rates is not None:
        rates = info.rates
        limits = (("requests", rates.requests_per_minute), ("tokens", rates.tokens_per_minute))
        lines.append("at most " + ", ".join(f"{each:,} {what} a minute" for what, each in limits if each is not None))
    if info.month_pusd is not None:
        lines.append(f"at most {format_usd(info.month_pusd)} a month")
    for what, moment in (
        ("expires", info.expires_ms), ("rotated", info.rotated_ms), ("last used", info.last_used_ms),
        ("a secret of before is good until", info.previous_until_ms),
    ):  # fmt: skip
        if moment is not None:
            lines.append(f"{what} {when(moment)} UTC")
    return "\n".join(lines)


def _row(info: ApiKeyInfo) -> tuple[str, ...]:
    used = "never" if info.last_used_ms is None else when(info.last_used_ms)[:-3]
    whose = info.user if info.org is None else f"{info.user} of {info.org}"
    return info.id, info.name, whose, info.status, used
