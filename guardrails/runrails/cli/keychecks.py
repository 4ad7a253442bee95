"""`runrails byok validate`: ask the providers whether stored keys are good, by requests that are free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from runrails.cli.output import AsJson, make_table, print_json, stderr, stdout
from runrails.errors import CredentialError
from runrails.settings import KEY_HOSTS, key_hosts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runrails.credentials import CredentialInfo, Vault
    from runrails.credentials.validation import Validator

__all__ = ["HOSTS", "mount", "validate"]

HOSTS = KEY_HOSTS
"""Hosts besides the providers' own that keys with a base URL may be sent to, separated by commas."""
EXIT_NEGATIVE = 1


def mount(app: typer.Typer) -> None:
    """Add the command to a group."""
    app.command()(validate)


def validate(
    provider: Annotated[str | None, typer.Argument(metavar="PROVIDER", help="Only keys for this provider.")] = None,
    *,
    owner: Annotated[str | None, typer.Option("--owner", metavar="SCOPE", help="Only this owner's keys.")] = None,
    label: Annotated[str | None, typer.Option("--label", help="Only keys with this label.")] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="HOST", help=f"A host that keys may be sent to; also {HOSTS}."),
    ] = None,
    vault: Annotated[str | None, typer.Option("--vault", metavar="URL", help="The vault; as for `list`.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask providers whether keys are good, by free requests, and note what they say. Exit 1: one is not valid."""
    from runrails.cli.byok import check_owner, opened_vault

    if owner is not None:
        check_owner(owner)
    hosts = [*(allow_host or []), *key_hosts()]
    with opened_vault(vault) as opened:
        wanted = [
            info for info in opened.list(owner)
            if provider in (None, info.id.provider) and label in (None, info.id.label)
        ]  # fmt: skip
        rows = list(_checked(opened, _validator(hosts), wanted))
    if as_json:
        print_json(rows)
    elif not rows:
        stdout().print("No keys to validate. `runrails byok add PROVIDER` stores one.")
    else:
        names: list[str] = ["owner", "provider", "label", "now", "answer", "noted"]
        columns = dict.fromkeys(names, False)
        stdout().print(make_table("Provider keys", columns, [[str(each) for each in row.values()] for row in rows]))
    if any(row["noted"] != "valid" for row in rows):
        raise typer.Exit(EXIT_NEGATIVE)


def _validator(hosts: list[str]) -> Validator:
    from runrails.credentials.validation import Validator

    return Validator(allow_hosts=[host.strip() for host in hosts])


def _checked(vault: Vault, validator: Validator, infos: list[CredentialInfo]) -> Iterator[dict[str, str]]:
    from rich.progress import track

    from runrails.credentials.revalidation import check_key

    errors = stderr()
    for info in track(infos, "Asking providers", console=errors, transient=True, disable=not errors.is_terminal):
        row = {"owner": info.id.owner, "provider": info.id.provider, "label": info.id.label}
        try:
            validation = check_key(vault, info.id, validator).validation
        except CredentialError as error:
            yield row | {"now": "unverified", "answer": error.code, "noted": info.status}
            continue
        now = vault.peek(info.id)
        yield row | {
            "now": validation.status, "answer": validation.reason, "noted": "removed" if now is None else now.status
        }  # fmt: skip
