"""`runrails aws template`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from runrails.cli.output import AsJson, print_json
from runrails_aws.deploy.template import template

__all__ = ["print_template"]


class VariantName(StrEnum):
    """Where the gateway runs."""

    FARGATE = "fargate"
    LAMBDA = "lambda"


def print_template(
    variant: Annotated[VariantName, typer.Argument(help="Where the gateway is to run.")] = VariantName.FARGATE,
    *,
    as_json: AsJson = False,
) -> None:
    """
    Print a CloudFormation template: the gateway, its ledger, its network, what it may do, alarms and a dashboard.

    Nothing is sent. Its parameters are described in it, and what has to be there before.

    Example: runrails aws template fargate > gateway.yaml
    """
    text = template(variant.value)
    if as_json:
        print_json({"variant": variant.value, "template": text})
    else:
        print(text, end="")  # noqa: T201 -- for a file, so without the console's line breaks
