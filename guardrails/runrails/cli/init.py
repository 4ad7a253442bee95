"""`runrails init`: a `runrails.toml` with every setting it may have, each with its meaning and its default."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runrails.cli.output import AsJson, print_json, stderr, stdout
from runrails.cli.shell import NEGATIVE
from runrails.errors import ConfigError
from runrails.projectfile import PROJECT_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["init", "template"]

_LIMITS = (
    ("run", '"1.00"', "dollars that one run may cost, its child runs included"),
    ("month", '"50.00"', "dollars that a user may spend in a calendar month"),
    ("key_month", '"20.00"', "the same for one API key (Guard(key=...))"),
    ("org_month", '"500.00"', "the same for the organisation (Guard(org=...))"),
    ("byok_month", '"100.00"', "the same for calls on keys of the user's own"),
    ("steps", "200", "model calls and tool calls of one run together"),
    ("model_calls", "100", "model calls of one run"),
    ("tool_calls", "100", "tool calls of one run"),
    ("tokens", "1_000_000", "input and output tokens of one run"),
    ("seconds", "3_600", "wall-clock time of one run"),
    ("uncapped", '"hold"', 'a call without max_tokens: "hold" for it, "cap" it, or "refuse" it'),
    ("wrap_up", "false", "keep a little money back, so that a stopped run can still answer"),
    ("hold_wait_ms", "5_000", "how long a call waits for money that other calls hold"),
    ("hold_ttl_ms", "120_000", "how long a hold lives when its owner dies"),
)
_ON = frozenset({"run", "steps"})
"""What is written without a mark of a comment: its value is the default, so that the file as it is changes nothing."""
_RATES = (
    ("requests_per_minute", "60", "model calls a minute"),
    ("tokens_per_minute", "200_000", "input and output tokens a minute"),
    ("requests_burst", "60", "the most that may come at once; by default what a minute brings"),
    ("tokens_burst", "200_000", "the same for tokens"),
)
_LOOPS = (
    ("enabled", "true", "false switches the loop detector off"),
    ("hint_at", "3", "equal outcomes of the same call, after which the model is told"),
    ("block_at", "5", "this attempt is not executed any more, and the one after it stops the run"),
    ("failure_at", "8", "the same for a failure that comes back though other calls bring news between"),
    ("same_failure_at", "10", "the same for one failure of different calls in a row"),
    ("no_progress_at", "12", "the same for results in a row that bring nothing new"),
    ("no_progress_lines_at", "30", "the same for results of several lines"),
    ("poll_at", "24", "the same for a tool that is declared with ToolRule(poll=True)"),
    ("batch_max", "10", "equal calls that one answer of the model may hold"),
)
_PRICES = """\
# Prices in dollars per million tokens, over the built-in table. `runrails prices show MODEL` tells what holds now.
#
# [prices."openai:my-fine-tune"]
# input = "3.00"
# output = "12.00"
# cache_read = "0.30"
# call = "0.01"                     # dollars for each call, besides
#
# [prices]
# "ollama:llama3.1" = "0"           # costs nothing, and somebody says so

# Other names of models: deployments, inference profiles.
#
# [aliases]
# my-deployment = "azure:gpt-4o"

# What was agreed with a provider.
#
# [[contract]]
# provider = "openai"
# percent = "-12"
# valid_from = 2026-07-01
"""


def init(
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    file: Annotated[Path, typer.Option("--file", metavar="FILE", help="Where to write it.")] = Path(PROJECT_FILE),
    as_json: AsJson = False,
) -> None:
    """
    Write a runrails.toml with every setting, its meaning and its default.

    As it is written it changes nothing. `Guard()` and `runrails run` read it in the directory they are started in; code
    and options win over the environment, which wins over the file.
    """
    try:
        with file.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(template())
    except FileExistsError:
        what = f"{file} is there already; nothing was written."
        if as_json:
            print_json({"error": "file_exists", "message": what, "next_step": "--force replaces it."})
        else:
            stderr().print(f"{what} --force replaces it.", soft_wrap=True)
        raise typer.Exit(NEGATIVE) from None
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be written: {error.strerror}.", next_step="Choose another place with --file."
        ) from error
    if as_json:
        print_json({"file": str(file)})
    else:
        stdout().print(f"Wrote {file}. Every setting is in it; as it is, it changes nothing.", soft_wrap=True)


def template() -> str:
    """The file's text."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Settings of runrails for this project. Guard() and `runrails run` read them where they are started."
    yield "# Code and options win over environment variables, which win over this file. A mistake in it is refused,"
    yield '# by line and key: `runrails doctor` tells. Money is text, in dollars; "none" says that there is no limit.'
    yield ""
    yield "[limits]"
    yield from (_line(*each, on=each[0] in _ON) for each in _LIMITS)
    yield ""
    yield "# Calls and tokens a minute of a user; [limits.key_rates] for an API key, [limits.org_rates] for all."
    yield "#"
    yield "# [limits.rates]"
    yield from (_line(*each, on=False) for each in _RATES)
    yield ""
    yield "[loops]"
    yield from (_line(*each, on=each[0] == "enabled") for each in _LOOPS)
    yield ""
    yield "# Where the books are kept: a file, or a DynamoDB table for a fleet. By default a file in your home."
    yield "#"
    yield "# [store]"
    yield '# url = "sqlite:///ledger.db"       # also sqlite:////absolute/path.db, memory:, dynamodb://TABLE?region=eu-west-1'
    yield ""
    yield from _PRICES.splitlines()


def _line(key: str, value: str, meaning: str, *, on: bool) -> str:
    written = f"{key} = {value}" if on else f"# {key} = {value}"
    return f"{written.ljust(33)} # {meaning}"
