"""`runrails tokens`: signed tokens for services, made, taken back, and the keys that others verify them with."""

from __future__ import annotations

import re
import sys
from contextlib import closing
from typing import Annotated

import typer

from runrails.cli.output import AsJson, print_json, stderr, stdout, when
from runrails.errors import ConfigError
from runrails.identity.principal import SCOPES, Principal, check_scopes

__all__ = ["tokens"]

_SPAN = re.compile(r"([0-9]{1,4})([sm])")

tokens = typer.Typer(help="Make tokens for services, and take them back.", no_args_is_help=True)

VaultUrl = Annotated[
    str | None,
    typer.Option(
        "--vault", metavar="URL", help="Where revocations are kept; by default RUNRAILS_VAULT, else by the store."
    ),
]


@tokens.command("issue")
def issue(
    user: Annotated[str, typer.Argument(metavar="USER", help="Whom it is for, and whose money it spends.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope", metavar="SCOPE", help=f"What it may do; several times for several. {', '.join(sorted(SCOPES))}."
        ),
    ] = None,
    org: Annotated[str | None, typer.Option("--org", help="Whose organisation's money it spends as well.")] = None,
    ttl: Annotated[
        str, typer.Option("--ttl", metavar="TIME", help="How long it is good: seconds or minutes, at most 60m.")
    ] = "15m",
    vault: VaultUrl = None,
    as_json: AsJson = False,
) -> None:
    """
    Make a token and print it. Without --scope it may ask for completions (ai:complete).

    It needs RUNRAILS_JWT_KEYS, RUNRAILS_JWT_ISSUER and RUNRAILS_JWT_AUDIENCE. On stdout is the token alone (with
    --json an object that has it); all else is on stderr.
    """
    from runrails.documents.opening import open_documents
    from runrails.identity.jwt.opening import open_tokens

    found = _SPAN.fullmatch(ttl)
    if found is None:
        raise ConfigError("--ttl is a number with s or m behind it.", next_step="Write 15m for a quarter of an hour.")
    ttl_ms = int(found[1]) * (1_000 if found[2] == "s" else 60_000)
    with closing(open_documents(vault)) as documents:
        opened = open_tokens(documents)
        try:
            principal = Principal(user=user, org=org, scopes=check_scopes(scope or ["ai:complete"]), method="local")
            text = opened.issue(principal, ttl_ms).reveal()
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(str(error), next_step="No token was made.") from None
        made = opened.verify(text)
    if as_json:
        print_json({"token": text, "id": made.session_id, "user": user, "org": org, "scopes": sorted(made.scopes)})
    else:
        sys.stdout.write(text + "\n")
        stderr().print(f"Token {made.session_id} of {user}, good until {when(made.expires_ms or 0)} UTC.")


@tokens.command("revoke")
def revoke(
    jti: Annotated[str, typer.Argument(metavar="ID", help="The token's id (its `jti`, never the token itself).")],
    vault: VaultUrl = None,
    as_json: AsJson = False,
) -> None:
    """Take a token back. It ends everywhere within 5 seconds."""
    from runrails.cli.lasting import check_lasting
    from runrails.clocks import system_ms
    from runrails.documents.opening import open_documents
    from runrails.identity.jwt.revocation import Revocations

    check_lasting(vault)
    with closing(open_documents(vault)) as documents:
        try:
            Revocations(documents, clock=system_ms).revoke(jti)
        except ValueError:
            # Not its text: whoever takes the token for its id would find it in a log.
            raise ConfigError("That is not the id of a token.", next_step="Write its jti.") from None
    if as_json:
        print_json({"id": jti, "revoked": True})
    else:
        stdout().print(f"Token {jti} is revoked; it ends everywhere within 5 seconds.")


@tokens.command("jwks")
def jwks(*, as_json: AsJson = False) -> None:
    """Print the public keys that other services verify with (RFC 7517). It is JSON in any case."""
    from runrails.identity.jwt.keyset import KeySet
    from runrails.identity.jwt.opening import open_keys

    del as_json
    keys = open_keys()
    if not isinstance(keys, KeySet):
        raise ConfigError("The keys are published by another service.", next_step="Ask that one.")
    print_json(keys.public_jwks())
