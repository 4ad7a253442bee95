"""`runrails aws`: the ledger's table on DynamoDB, and what a process must be allowed to use it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from runrails.cli.output import AsJson, print_json, stdout
from runrails.errors import ConfigError
from runrails_aws.dynamodb import table as tables
from runrails_aws.dynamodb.opening import open_url
from runrails_aws.dynamodb.schema import check_name, policy
from runrails_aws.dynamodb.store import DynamoDBStore

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["app"]

EXIT_NEGATIVE = 1

app = typer.Typer(help="The shared ledger on DynamoDB: its table and its permissions.", no_args_is_help=True)
table = typer.Typer(help="Make the table of a ledger, or check one.", no_args_is_help=True)
app.add_typer(table, name="table")

Name = Annotated[str, typer.Argument(metavar="TABLE", help="The table's name, or the URL of its store.")]
Region = Annotated[str | None, typer.Option("--region", help="AWS region; by default the configured one.")]
Endpoint = Annotated[str | None, typer.Option("--endpoint", metavar="URL", help="Another server than AWS's.")]
Profile = Annotated[str | None, typer.Option("--profile", help="A profile of the AWS configuration.")]


@table.command()
def create(
    name: Name,
    *,
    region: Region = None,
    endpoint: Endpoint = None,
    profile: Profile = None,
    protect: Annotated[bool, typer.Option(help="Protect the table from being deleted.")] = True,
    as_json: AsJson = False,
) -> None:
    """
    Make the table, on demand and encrypted, or what an existing one lacks. Again is nothing new.

    A table that is something else is left as it is.
    """
    with _store(name, region, endpoint, profile) as store:
        done = tables.create(store.caller, protect=protect)
    if as_json:
        print_json({"table": store.table, "done": done})
    else:
        stdout().print("\n".join(line.capitalize() + "." for line in done) or "It is a ledger already.")


@table.command()
def check(
    name: Name, *, region: Region = None, endpoint: Endpoint = None, profile: Profile = None, as_json: AsJson = False
) -> None:
    """Check that a table is a ledger: keys, index, deletion of old records. Exit 0: it is, 1: it is not."""
    with _store(name, region, endpoint, profile) as store:
        faults = tables.faults_of(store.caller)
    if as_json:
        listed = [{"fault": what, "fix": fix} for what, fix in faults]
        print_json({"table": store.table, "ok": not faults, "faults": listed})
    else:
        stdout().print("\n".join(f"{what} {fix}" for what, fix in faults) or f"{store.table} is a ledger.")
    if faults:
        raise typer.Exit(EXIT_NEGATIVE)


@app.command("policy")
def print_policy(
    name: Annotated[str, typer.Argument(metavar="TABLE", help="The table's name.")],
    *,
    region: Annotated[str, typer.Option("--region", help="AWS region; by default any.")] = "*",
    account: Annotated[str, typer.Option("--account", metavar="ID", help="AWS account; by default any.")] = "*",
    administer: Annotated[bool, typer.Option("--administer", help="Also what `runrails aws table` does.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the least an IAM policy must allow a process that spends from this ledger. It is JSON in any case."""
    del as_json
    print_json(policy(check_name(name), region=region, account=account, administer=administer))


@contextmanager
def _store(name: str, region: str | None, endpoint: str | None, profile: str | None) -> Generator[DynamoDBStore]:
    if name.startswith("dynamodb:"):
        if region or endpoint or profile:
            raise ConfigError("A store's URL says all there is to say.", next_step="Leave out the options, or the URL.")
        store = open_url(name)
    else:
        store = DynamoDBStore(check_name(name), region=region, endpoint=endpoint, profile=profile)
    try:
        yield store
    finally:
        store.close()
