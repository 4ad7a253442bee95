"""`runrails aws`: the ledger's table, what a process must be allowed, dashboard and alarms, and who this process is."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from runrails.cli.output import AsJson, print_json, stderr, stdout
from runrails.errors import ConfigError
from runrails_aws.deploy.cli import print_template
from runrails_aws.dynamodb import table as tables
from runrails_aws.dynamodb.opening import open_url
from runrails_aws.dynamodb.schema import check_name, export_commands, policy
from runrails_aws.dynamodb.store import DynamoDBStore
from runrails_aws.estimate.cli import estimate_costs
from runrails_aws.monitoring.cli import alarms, dashboard

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["app"]

EXIT_NEGATIVE = 1

app = typer.Typer(help="The ledger on DynamoDB, what watches it, and proofs of AWS identities.", no_args_is_help=True)
table = typer.Typer(help="Make the table of a ledger, or check one.", no_args_is_help=True)
app.add_typer(table, name="table")
app.add_typer(dashboard, name="dashboard")
app.add_typer(alarms, name="alarms")
app.command("estimate")(estimate_costs)
app.command("template")(print_template)

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
    reindex: Annotated[
        bool, typer.Option("--reindex", help="Look again for records that older versions have written since.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Make the table, on demand and encrypted, or what an existing one lacks. Again is nothing new.

    A table of an older version gets its indexes, and its records what they are found by: up to three write units a
    record, once. Stop the older version before. A table that is something else is left as it is.
    """

    def tell(count: int) -> None:
        stderr().print(f"{count:,} items …")

    with _store(name, region, endpoint, profile) as store:
        done = tables.create(store.caller, protect=protect, reindex=reindex, tell=tell)
    if as_json:
        print_json({"table": store.table, "done": done})
    else:
        stdout().print("\n".join(line.capitalize() + "." for line in done) or "It is a ledger already.")


@table.command()
def check(
    name: Name, *, region: Region = None, endpoint: Endpoint = None, profile: Profile = None, as_json: AsJson = False
) -> None:
    """Check that a table is a ledger: keys, indexes, deletion by age (TTL). Exit 0: it is, 1: it is not."""
    with _store(name, region, endpoint, profile) as store:
        faults = tables.faults_of(store.caller)
    if as_json:
        listed = [{"fault": what, "fix": fix} for what, fix in faults]
        print_json({"table": store.table, "ok": not faults, "faults": listed})
    else:
        stdout().print("\n".join(f"{what} {fix}" for what, fix in faults) or f"{store.table} is a ledger.")
    if faults:
        raise typer.Exit(EXIT_NEGATIVE)


@table.command("export")
def print_export(
    name: Annotated[str, typer.Argument(metavar="TABLE", help="The table's name.")],
    bucket: Annotated[str, typer.Argument(metavar="BUCKET", help="The S3 bucket that it is exported to.")],
    *,
    region: Annotated[str, typer.Option("--region", help="AWS region of the table.")],
    account: Annotated[str, typer.Option("--account", metavar="ID", help="AWS account of the table.")],
    prefix: Annotated[str, typer.Option("--prefix", help="Beginning of the files' names.")] = "runrails/",
    as_json: AsJson = False,
) -> None:
    """
    Print the commands by which DynamoDB itself exports the whole table to S3, beside the calls that are made.

    It takes no read units and is billed by the GB; it needs point-in-time recovery, which the first command turns on.
    Nothing is sent, and we have never run these on AWS. Records of calls are the items whose key begins with R# and
    that have an attribute fa; for one user's month or a run, `runrails usage export` is simpler.
    """
    commands = export_commands(check_name(name), bucket, region=region, account=account, prefix=prefix)
    if as_json:
        print_json({"commands": commands})
    else:
        print("\n".join(commands))  # noqa: T201 -- for a shell to read, so without the console's line breaks


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


@app.command("proof")
def print_proof(
    server: Annotated[str, typer.Argument(metavar="SERVER_ID", help="The server's name, as its operator gives it.")],
    *,
    region: Annotated[str, typer.Option("--region", help="AWS region whose STS the server may ask.")],
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """
    Print a proof of this shell's AWS identity, for `Authorization: Bearer`. Nothing is sent.

    It opens one server, once, within five minutes; the secret key is not in it.
    """
    from runrails_aws.identity.sign import sign_proof

    proof = sign_proof(server, region, profile=profile).reveal()
    if as_json:
        print_json({"proof": proof})
    else:
        print(proof)  # noqa: T201 -- for a program to read, so without the console's line breaks


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
