"""`runrails aws dashboard` and `runrails aws alarms`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from runrails.cli.output import AsJson, print_json, stdout
from runrails_aws.monitoring.alarms import alarms_of, detector_of
from runrails_aws.monitoring.dashboard import dashboard_of
from runrails_aws.monitoring.putting import client_of, put_alarms, put_dashboard, topic_of
from runrails_aws.monitoring.watched import Watched, check_watched, prefix_of

if TYPE_CHECKING:
    from runrails_aws.monitoring.putting import CloudWatch, Topics

__all__ = ["alarms", "dashboard"]

dashboard = typer.Typer(help="The dashboard on CloudWatch.", no_args_is_help=True)
alarms = typer.Typer(help="The alarms on CloudWatch.", no_args_is_help=True)

Region = Annotated[str, typer.Option("--region", help="AWS region of the gateway.")]
Profile = Annotated[str | None, typer.Option("--profile", help="A profile of the AWS configuration.")]
Service = Annotated[str, typer.Option("--service", help="The gateway's name, as in RUNRAILS_EMF_SERVICE.")]
Table = Annotated[str | None, typer.Option("--table", help="The ledger's table on DynamoDB.")]
Cluster = Annotated[str | None, typer.Option("--cluster", help="The ECS cluster that it runs in.")]
EcsService = Annotated[str | None, typer.Option("--ecs-service", help="The service there.")]
Balancer = Annotated[
    str | None, typer.Option("--load-balancer", metavar="app/NAME/ID", help="The load balancer, by its ARN's end.")
]
Function = Annotated[str | None, typer.Option("--function", help="The Lambda function, if it is one.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be sent, as JSON; send nothing.")]


@dashboard.command("put")
def put_the_dashboard(  # noqa: PLR0913 -- options of a command
    *,
    region: Region,
    service: Service = "gateway",
    table: Table = None,
    cluster: Cluster = None,
    ecs_service: EcsService = None,
    load_balancer: Balancer = None,
    function: Function = None,
    profile: Profile = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """
    Make the dashboard, or replace it: cost, tokens, refusals, stops, and what the gateway runs on.

    Example: runrails aws dashboard put --region eu-west-1 --table ledger --dry-run
    """
    watched = check_watched(Watched(region, service, table, cluster, ecs_service, load_balancer, function))
    if dry_run:
        print_json({"name": prefix_of(watched), "body": dashboard_of(watched)})
        return
    name = put_dashboard(cast("CloudWatch", client_of("cloudwatch", region=region, profile=profile)), watched)
    if as_json:
        print_json({"name": name})
    else:
        stdout().print(f"The dashboard {name} is there.")


@alarms.command("put")
def put_the_alarms(  # noqa: PLR0913 -- options of a command
    *,
    region: Region,
    topic: Annotated[
        str | None, typer.Option("--topic", help="Who is told: an SNS topic's ARN, or a name, which is made.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", metavar="USD", help="What an ordinary hour costs; 150 % of it alarm.")
    ] = None,
    service: Service = "gateway",
    table: Table = None,
    cluster: Cluster = None,
    ecs_service: EcsService = None,
    function: Function = None,
    profile: Profile = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """
    Make the alarms, or replace them: unusual cost, failures, holds, the ledger's state, memory. Again is nothing new.

    Example: runrails aws alarms put --region eu-west-1 --topic runrails-alarms --baseline 4.00 --dry-run
    """
    named = Watched(region, service, table, cluster, ecs_service, function=function, baseline_usd=baseline)
    watched = check_watched(named)
    if dry_run:
        print_json({"anomaly_detector": detector_of(watched), "alarms": alarms_of(watched, topic)})
        return
    arn = topic_of(topic, lambda: cast("Topics", client_of("sns", region=region, profile=profile))) if topic else None
    made = put_alarms(cast("CloudWatch", client_of("cloudwatch", region=region, profile=profile)), watched, arn)
    if as_json:
        print_json({"alarms": made, "topic": arn})
        return
    stdout().print("\n".join(made))
    if arn is None:
        stdout().print("Nobody is told of them: give --topic.")
    if baseline is None:
        stdout().print("Without --baseline only what CloudWatch has learned counts, which takes two weeks.")
